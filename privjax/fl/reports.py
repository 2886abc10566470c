"""What `privjax.explain` says about a round: who sees what, and what leaves the clients."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import PyTree
from privjax.fl import runtime as runtimes
from privjax.fl.mapping import Program
from privjax.transforms.report import Report, entry, short_type

OWN = "each client keeps its own slice"
LABELS = {
    "state.params": "public: sent to every client",
    "state.server": "at the server, and public where clients receive it",
    "state.clients": OWN,
    "state.rounds": "public",
    "cohort.data": OWN,
    "cohort.mask": OWN,
    "cohort.steps": OWN,
    "cohort.ids": "the server's choice",
    "cohort.present": "the server's choice",
    "cohort.survivors": "the server sees who answers",
}


def report(
    name: str,
    given: PyTree,
    after: PyTree,
    program: Program,
    *,
    clients: int,
    method: Any,
    runtime: Any,
    robust: Any,
) -> Report:
    """A report of a round of `clients` clients; `given` and `after` are dictionaries."""
    kept, summed = "stays with each client", "from what is released below"
    inputs = [
        entry(path, aval, LABELS[".".join(path.split("[")[0].split(".")[:2])])
        for path, aval in _named(given)
    ]
    outputs = [
        entry(path, aval, kept if path.startswith("state.clients") else summed)
        for path, aval in _named(after)
    ]
    releases = [
        f"{path}: {short_type(aval)}, a sum over {clients} clients; {method.server_sees}"
        for path, aval in _named(program.sent.sums)
    ]
    for path, aval in _named(program.sent.rows, words=0):
        text = f"update{path}: {short_type(aval)}, "
        if robust.sums is None:
            text += "NOT a sum: the server sees every single client's update, "
            text += f"for {robust}"
        else:
            text += f"{robust.sums} sums over {clients} clients, for {robust}; "
            text += method.server_sees
        releases.append(text)
    within = getattr(runtime, "within", runtime)
    chunk = runtimes.chunk_size(within, clients, program.bytes_each)
    runs = runtimes.describe(runtime, chunk, clients)
    return Report(
        f"{name}: a round of {clients} clients, aggregate {method}",
        tuple(inputs),
        tuple(outputs),
        tuple(releases),
        notes=(f"simulated: {runs}; the process sees the data of all clients",),
    )


_FIELDS = ("state", "cohort", "metrics")


def _named(tree: PyTree, words: int = 1) -> Sequence[tuple[str, Any]]:
    """Leaves as types, with names like `state.params['w']`; the first `words` plain."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(_path(path, words), _aval(x)) for path, x in leaves]


def _path(path: Any, words: int) -> str:
    parts: list[str] = []
    for place, part in enumerate(path):
        key = getattr(part, "key", None)
        more = place == 1 and parts[0] in _FIELDS
        plain = isinstance(key, str) and (place < words or more)
        dot = "." if place else ""
        parts.append(f"{dot}{key}" if plain else jax.tree_util.keystr((part,)))
    return "".join(parts)


def _aval(x: Any) -> Any:
    return jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x))
