"""Preprocessing as a program and as files: what the dealer makes ahead.

The offline program turns one key into each party's seed and the corrections; a party's
file holds its seed and the corrections meant for it, and nothing else. Files are NumPy
archives without pickled objects; each carries a version, the program's hash, a session of
its own and a digest of its content. Material is consumed once: the session is marked as
used in the folder, which also refuses copies of the file, and the file is emptied, before
anything is computed with it.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from privjax import _compat
from privjax.core.interpret import mentions, run, sub_jaxprs
from privjax.errors import PreprocessingError
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols.party import PARTY
from privjax.runtimes.discharge import Offline, Unknown, receiver
from privjax.runtimes.pools import REQUESTS
from privjax.runtimes.simulate import party_keys

# Raised when files change, or where requests lie in the keystreams.
FORMAT = 4
USED = "used-sessions"


@dataclass(frozen=True)
class Material:
    """One session's preprocessing for one party.

    Attributes:
      seed: uint32[8], from which the party expands its share of everything random.
      shared_words: uint32[8] known to all parties (public randomness of the program).
      corrections: the tree that the online program consumes.
      session: the session's random identifier (hex).
    """

    seed: Any
    shared_words: Any
    corrections: Any
    session: str


def offline(party: Any, parties: int) -> Callable[[Any], tuple[Any, Any]]:
    """The offline program: session key words -> (seeds [parties, 8], corrections).

    It never sees an input or an opened value: both are unknown to its interpreter.
    """

    def fun(words: Any) -> tuple[Any, Any]:
        seeds = party_keys(words, parties)

        def dealer(seed: Any) -> Any:
            cx = Offline(seed, parties)
            run(cx, party, [Unknown()] * len(party.in_avals))
            return cx.gathered()

        # What is dealt is the same whichever party's trace it comes from.
        sent = jax.vmap(dealer, axis_name=PARTY, axis_size=parties, out_axes=None)(
            seeds
        )
        return seeds, sent

    return fun


def session_words(root: Any, session: str) -> Any:
    """uint32[8] of one session, from the dealer's key and the session's random identifier.

    A key that is used to deal twice gives unrelated masks each time.
    """
    a, b, c, d = np.frombuffer(bytes.fromhex(session), "<u4").tolist()
    half = chacha20.derive(root, (int(Purpose.SESSION), a, b))
    return chacha20.derive(half, (int(Purpose.SESSION), c, d))


def receivers(closed: Any, parties: int) -> dict[str, Any]:
    """Who gets each correction: the shape of `offline`'s result, with party numbers."""
    out: dict[str, Any] = {}
    for index, eqn in enumerate(_compat.open_jaxpr(closed)[0].eqns):
        if eqn.primitive.name == "dealt":
            domains = eqn.params["fun"].results
            out[str(index)] = [receiver(d, parties) for d in domains]
            continue
        inner = list(sub_jaxprs(eqn))
        if not any(mentions(sub, REQUESTS) for sub in inner):
            continue
        found = [receivers(sub, parties) for sub in inner]
        if any(found):
            out[str(index)] = found if eqn.primitive.name == "cond" else found[0]
    return out


def program_hash(party: Any, parties: int, protocol: str) -> str:
    """A hash that binds material to the party program that it was made for."""
    text = re.sub(r"0x[0-9a-f]+", "", str(party))
    return hashlib.sha256(f"{FORMAT}|{protocol}|{parties}|{text}".encode()).hexdigest()


def write(
    directory: Path,
    number: int,
    digest: str,
    session: str,
    seeds: Any,
    shared_words: Any,
    corrections: Any,
    owners: Any,
) -> None:
    """Write one session's files, `party<i>/<number>.npz`; each is complete or absent."""
    leaves, tree = jax.tree.flatten(corrections)
    receiving = jax.tree.leaves(owners)
    form: Any = jax.tree.structure(owners)
    if form != tree:
        raise PreprocessingError("corrections and their receivers do not match")
    for i, seed in enumerate(np.asarray(seeds)):
        own = {
            f"c{j}": np.asarray(leaf)
            for j, (leaf, to) in enumerate(zip(leaves, receiving, strict=True))
            if to == i
        }
        content = {"seed": seed, "shared": np.asarray(shared_words), **own}
        meta = {
            "format": FORMAT,
            "program": digest,
            "session": session,
            "party": i,
            "content": _digest(content),
        }
        folder = directory / f"party{i}"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{number:06d}.part"
        with open(part, "wb") as f:
            stated = np.frombuffer(json.dumps(meta).encode(), np.uint8)
            np.savez(f, meta=stated, **content)
            f.flush()
            os.fsync(f.fileno())
        part.rename(folder / f"{number:06d}.npz")


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    h = hashlib.sha256()
    for name in sorted(content):
        a = np.ascontiguousarray(content[name])
        h.update(f"{name} {a.dtype.str} {a.shape};".encode())
        h.update(a.tobytes())
    return h.hexdigest()


class Store:
    """A party's folder of material; every file is used once, lowest number first."""

    def __init__(self, directory: str | Path, party: int) -> None:
        self.folder, self.party = Path(directory) / f"party{party}", party

    def take(self, digest: str, specs: Any, owners: Any) -> Material:
        """Consume the next session's file for the program `digest`.

        Raises `PreprocessingError` when none is left, or when the next one is damaged,
        for another party, for another program (it is not consumed then), or of a
        session that was used before.
        """
        files = sorted(self.folder.glob("[0-9]*.npz"))
        if not files:
            raise PreprocessingError(
                f"no material is left in {self.folder}: let the dealer run "
                "`fun.deal(..., directory=...)` for more sessions."
            )
        content, meta = _read(files[0])
        if meta["program"] != digest or meta["party"] != self.party:
            raise PreprocessingError(
                f"{files[0]} was made for party {meta['party']} of program "
                f"{meta['program'][:12]}, this is party {self.party} of {digest[:12]}: "
                "the function, its shapes or the protocol differ."
            )
        leaves = [
            content[f"c{j}"] if to == self.party else np.zeros(s.shape, s.dtype)
            for j, (s, to) in enumerate(
                zip(jax.tree.leaves(specs), jax.tree.leaves(owners), strict=True)
            )
        ]
        self._consume(files[0], meta["session"])
        corrections = jax.tree.unflatten(jax.tree.structure(specs), leaves)
        return Material(
            content["seed"], content["shared"], corrections, meta["session"]
        )

    def _consume(self, path: Path, session: str) -> None:
        """Mark a session as used, for good, before anything is computed with it.

        Creating the mark is one step of the file system: of several processes, or
        several copies of the file, only one gets it.
        """
        used = self.folder / USED
        used.mkdir(exist_ok=True)
        try:
            mark = os.open(used / session, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError as e:
            raise PreprocessingError(
                f"{path} is a copy of material that was used before (session "
                f"{session[:12]}): used again, its masks would reveal the difference of "
                "both inputs. Remove the file and let the dealer make new material."
            ) from e
        os.fsync(mark)
        os.close(mark)
        spent = path.with_suffix(".used")
        path.rename(spent)
        spent.write_bytes(b"")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
        meta = json.loads(content["meta"].tobytes())
        if meta["format"] != FORMAT:
            raise PreprocessingError(
                f"{path} has format {meta['format']}; this version reads {FORMAT}."
            )
        stated = {n: a for n, a in content.items() if n != "meta"}
        if meta["content"] != _digest(stated):
            raise PreprocessingError(f"{path}: its content is not what was dealt.")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise PreprocessingError(f"{path} cannot be read as material: {e}") from e
    return content, meta


def next_number(directory: Path, parties: Sequence[int]) -> int:
    """The first session number that no party's folder has seen."""
    seen = [
        int(f.stem) for i in parties for f in (directory / f"party{i}").glob("[0-9]*.*")
    ]
    return max(seen, default=-1) + 1
