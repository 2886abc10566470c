"""Checkpoints of a private training run: arrays as npz, the rest as JSON, no pickle.

A directory holds `ledger.json`, written *before* the steps it charges are run, and
`state-<step>.npz` with `state-<step>.json`, written after them. The JSON file is written
last, carries the digest of the other and makes the checkpoint exist; each file is
replaced at once or not at all. A run that died between the two has been charged for
steps whose result is lost: that is the safe side.
"""

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.accounting import Ledger
from privjax.errors import InputError

VERSION = 1
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded: the state, the number of steps behind it, notes of the run."""

    state: Any
    step: int
    notes: dict[str, Any]


def save_ledger(folder: str | os.PathLike[str], ledger: Ledger) -> None:
    """Write the ledger; call it before running what it charges."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    ledger.save(Path(folder) / "ledger.json")


def load_ledger(folder: str | os.PathLike[str]) -> Ledger | None:
    """The ledger of the folder, if there is one."""
    path = Path(folder) / "ledger.json"
    return Ledger.load(path) if path.exists() else None


def save_state(
    folder: str | os.PathLike[str], state: Any, step: int, notes: dict[str, Any]
) -> None:
    """Write a checkpoint and remove all but the newest `KEEP`.

    Raises: InputError for leaves that are keys: whoever has one could repeat the noise.
    """
    leaves = jax.tree.leaves(state)
    arrays = [_plain(x) for x in leaves]
    buffer = io.BytesIO()
    np.savez(buffer, **{f"leaf_{i}": a for i, (a, _) in enumerate(arrays)})  # type: ignore[arg-type]
    data = buffer.getvalue()
    base = Path(folder) / f"state-{step:08d}"
    base.parent.mkdir(parents=True, exist_ok=True)
    _replace(base.with_suffix(".npz"), data)
    text = json.dumps(
        {
            "version": VERSION,
            "step": step,
            "dtypes": [name for _, name in arrays],
            "structure": str(jax.tree.structure(state)),
            "sha256": hashlib.sha256(data).hexdigest(),
            "notes": notes,
        },
        indent=1,
    )
    _replace(base.with_suffix(".json"), text.encode())
    for old in _found(folder)[:-KEEP]:
        old.unlink()
        old.with_suffix(".npz").unlink(missing_ok=True)


def load_state(folder: str | os.PathLike[str], like: Any) -> Checkpoint | None:
    """The newest checkpoint of the folder, None if there is none.

    Args:
      like: a state of the same structure, shapes and types.

    Raises: InputError when the checkpoint is damaged, of another version, or of a state
      with another structure.
    """
    found = _found(folder)
    if not found:
        return None
    meta = json.loads(found[-1].read_text(encoding="utf-8"))
    if meta.get("version") != VERSION:
        raise InputError(
            f"{found[-1]} has version {meta.get('version')}, not {VERSION}."
        )
    data = found[-1].with_suffix(".npz").read_bytes()
    if hashlib.sha256(data).hexdigest() != meta["sha256"]:
        raise InputError(
            f"{found[-1].with_suffix('.npz')} is damaged: its digest differs."
        )
    leaves, tree = jax.tree.flatten(like)
    shapes = [(np.shape(x), jnp.asarray(x).dtype.name) for x in leaves]
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = [
            file[f"leaf_{i}"].view(jnp.dtype(name))
            for i, name in enumerate(meta["dtypes"])
        ]
    if str(tree) != meta["structure"] or shapes != [
        (a.shape, a.dtype.name) for a in arrays
    ]:
        raise InputError(
            f"{found[-1]} holds a state of another structure. Use an empty folder for a "
            "new run, or pass the state that the run was begun with."
        )
    state = jax.tree.unflatten(tree, [jnp.asarray(a) for a in arrays])
    return Checkpoint(state, int(meta["step"]), meta["notes"])


def _plain(x: Any) -> tuple[np.ndarray, str]:
    """An array that npz can hold, and the name of its type."""
    if jnp.issubdtype(getattr(x, "dtype", np.float32), jax.dtypes.prng_key):
        raise InputError("a random key is part of the state: keep keys out of files.")
    a = np.asarray(jnp.asarray(x))
    if a.dtype.kind in "biufc":
        return a, a.dtype.name
    return a.view(np.dtype(f"uint{8 * a.dtype.itemsize}")), a.dtype.name


def _found(folder: str | os.PathLike[str]) -> list[Path]:
    return sorted(Path(folder).glob("state-*.json"))


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
