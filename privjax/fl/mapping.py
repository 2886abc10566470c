"""One client's program run for every client of a cohort: sums leave, the rest stays.

A client's program is a function (public, own) -> `Sent`. It is traced once and stays a
`jit` of its own, `client_update`, in every program made from it. Of what it returns,
`sums` leave only through the `aggregate` marker, `rows` leave one by one (robust
statistics need them, and reports say so), and `kept` goes back to its owner. So the
structure itself is the guarantee; a value handed to the host is found by dependence
analysis and refused with its line.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from privjax import _compat
from privjax._typing import PyTree
from privjax.core.labels import infer
from privjax.core.trace import trace_flat
from privjax.errors import InputError
from privjax.fl import runtime as runtimes
from privjax.fl.runtime import Sharded
from privjax.passes.federated.client import Dependence, one_client_alone, wide
from privjax.passes.federated.sequence import Gathered, adder, gathered, over_devices
from privjax.passes.federated.survivors import aggregate


class Sent(NamedTuple):
    """What a client's program returns.

    Attributes:
      sums: leaves the client as a part of sums over clients only.
      rows: leaves the client as it is; empty but for robust aggregation.
      kept: stays with the client.
    """

    sums: PyTree
    rows: PyTree = ()
    kept: PyTree = ()


@dataclass(frozen=True)
class Program:
    """A client's program as a jaxpr: flat inputs (public first, then own) to `Sent`.

    Attributes: `closed`; `public`, how many inputs are public; `out_tree`, of the result.
    """

    closed: Any
    public: int
    out_tree: Any

    @property
    def sent(self) -> Sent:
        """The types of what it returns."""
        avals = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in self.closed.out_avals]
        return jax.tree.unflatten(self.out_tree, avals)

    @property
    def bytes_each(self) -> int:
        """Bytes of one client's own inputs and of its results."""
        own = list(self.closed.in_avals)[self.public :]
        return runtimes.bytes_of([*own, *self.closed.out_avals])


def trace(
    client: Callable[[PyTree, PyTree], Sent], public: PyTree, own: PyTree, name: str
) -> Program:
    """The program of one client, from arrays (or types) of all of them.

    Raises:
      LeakError: it hands a client's data to the host.
      UnsupportedError: a collective over clients in the program of one of them.
      InputError: a sum of something that is no number.
    """
    ins, in_tree = jax.tree.flatten((public, own))
    count = len(jax.tree.leaves(public))
    spec = lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x))  # noqa: E731
    types = [spec(x) for x in ins]
    slices = [
        t if k < count else jax.ShapeDtypeStruct(t.shape[1:], t.dtype)
        for k, t in enumerate(types)
    ]
    out_tree: Any = None

    def flat(*values: Any) -> list[Any]:
        nonlocal out_tree
        out, out_tree = jax.tree.flatten(client(*jax.tree.unflatten(in_tree, values)))
        return out

    with one_client_alone(name):
        closed = trace_flat(flat, *slices, name=name)
    infer(Dependence(), closed, [k >= count for k in range(len(ins))])
    program = Program(closed, count, out_tree)
    named, _ = jax.tree_util.tree_flatten_with_path(program.sent.sums)
    for path, aval in named:
        if not jnp.issubdtype(aval.dtype, jnp.number):
            raise InputError(
                f"{name}: the sum `{jax.tree_util.keystr(path)}` is over {aval.dtype}; "
                "only numbers can be added."
            )
    return program


def collect(
    program: Program,
    public: PyTree,
    own: PyTree,
    *,
    alive: Any,
    answering: Any,
    before: PyTree,
    method: Any,
    runtime: Any,
    key_words: Any = None,
) -> Gathered:
    """Run every client.

    Args:
      own: a pytree with a leading axis of clients.
      alive: bool[clients] or None; the others add zeros and keep `before`.
      answering: bool[clients] or None, whose parts (or zeros) the method gets.
      before: what clients keep if they did not answer, like the program's `kept` with
        the leading axis, or None to keep whatever was computed.
      key_words: uint32[8] where these are all clients of a round and the method needs
        randomness: then sums that take messages one by one need not hold all of them.
    """
    update = client_update(program)
    inside = jax.tree.leaves(own)
    clients = int(inside[0].shape[0])

    def one(public: list[Any], values: Any) -> tuple[list[Any], PyTree, PyTree]:
        own, go, old = values
        sent = update(public, own)
        parts = summed(jax.tree.leaves(sent.sums))
        kept = sent.kept
        if go is not None:
            parts = [jnp.where(go, p, jnp.zeros((), p.dtype)) for p in parts]
            if old is not None:
                kept = jax.tree.map(lambda a, b: jnp.where(go, a, b), kept, old)
        return parts, sent.rows, kept

    values = (inside, alive, before)
    there = jax.tree.leaves(public)
    if isinstance(runtime, Sharded):
        each = -(-clients // runtime.devices)
        chunk = runtimes.chunk_size(runtime.within, each, program.bytes_each)
        add, place = adder(method), (runtime.mesh, runtime.axis)
        out = over_devices(one, there, values, chunk, add, *place)
        return Gathered(out[0], method.streams, *out[1:])
    consts = _compat.open_jaxpr(program.closed)[1]
    return gathered(
        partial(one, there),
        values,
        clients=clients,
        chunk=runtimes.chunk_size(runtime, clients, program.bytes_each),
        method=method,
        key_words=key_words,
        answering=answering,
        bound=[*there, *jax.tree.leaves(values), *consts],
    )


def client_update(program: Program) -> Callable[[list[Any], list[Any]], Sent]:
    """The program, compiled: flat public inputs, flat own ones -> what it returns."""
    run = jaxpr_as_fun(program.closed)

    def client_update(public: list[Any], own: list[Any]) -> Sent:
        return jax.tree.unflatten(program.out_tree, run(*public, *own))

    return jax.jit(client_update)


def combine(
    program: Program,
    collected: Sequence[Gathered],
    method: Any,
    key_words: Any,
    alive: Any,
) -> PyTree:
    """The sums over all clients of all cohorts; `alive` is bool[all of them] or None."""
    columns = zip(*[c.parts for c in collected], strict=True)
    if all(c.summed for c in collected):
        parts = [sum(column[1:], start=column[0]) for column in columns]
    else:
        rows = [jnp.concatenate(column) for column in columns]
        parts = aggregate(rows, method, key_words, alive) if rows else []
    return jax.tree.unflatten(jax.tree.structure(program.sent.sums), parts)


def summed(parts: Sequence[Any]) -> list[Any]:
    """Parts of sums, arrays or types, in the types in which they are added up."""

    def one(x: Any) -> Any:
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, wider(x.dtype))
        return x.astype(wider(x.dtype))

    def wider(dtype: Any) -> Any:
        # Counts stay integers: they are sums, and not means.
        return wide(dtype) if jnp.issubdtype(dtype, jnp.inexact) else dtype

    return [one(x) for x in parts]
