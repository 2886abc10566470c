"""One client's program, run for many: what is kept of each, and how sums are formed.

=============  ==========================================  ==========================
clients        what is kept                                memory
=============  ==========================================  ==========================
in chunks,     the running sums, where a method may add    that of a chunk
or all         up parts; else every client's parts         that of all clients
by messages    the sum of the clients' messages (masked,   that of one message
               shared)
over devices   each device's clients in chunks, one psum   as in chunks
=============  ==========================================  ==========================

Methods that need all parts at once get them beside each other, and so do those that take
messages while all parts together are small: then `combine` can save work that single
messages repeat.

`one(values of a client) -> (parts, rows, kept)`: parts are to be summed, rows and kept are
stacked.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from privjax._typing import Array, PyTree
from privjax.core import markers
from privjax.prg.session import session

# Up to so many bytes of all clients' parts are put beside each other.
STACKED = 2**26

Results = tuple[list[Array], PyTree, PyTree]
One = Callable[[Any], Results]
Add = Callable[[list[Array]], list[Array]]


class Gathered(NamedTuple):
    """What came from clients.

    Attributes:
      parts: flat sums over clients, or (where the method cannot add up parts) every
        client's contribution.
      summed: whether `parts` are the sums already.
      rows, kept: pytrees of [clients, ...].
    """

    parts: list[Array]
    summed: bool
    rows: PyTree
    kept: PyTree


def gathered(
    one: One,
    values: PyTree,
    *,
    clients: int,
    chunk: int,
    method: Any,
    key_words: Any = None,
    answering: Any = None,
    bound: Sequence[Any] = (),
) -> Gathered:
    """`one` for every client of a device.

    Args:
      values: a pytree of [clients, ...].
      chunk: how many at once; 1 is a scan, `clients` a vmap.
      key_words: uint32[8] where these are all clients of a round and the method needs
        randomness: then sums that take messages one by one need not hold all of them.
      answering: bool[clients] or None, whose messages count.
      bound: all that the clients' parts are functions of.
    """
    add = adder(method)
    if add is None and chunk == 1 and clients > 1 and key_words is not None:
        slices = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), values
        )
        types = jax.eval_shape(one, slices)[0]
        if types and takes_messages(method, clients, types):
            messages = Messages(method, key_words, clients, bound)
            out = by_messages(one, values, answering, messages, types)
            return Gathered(out[0], True, *out[1:])
    out = in_chunks(one, values, chunk, add)
    return Gathered(out[0], add is not None, *out[1:])


def adder(method: Any) -> Add | None:
    """The sum over a leading axis of parts by a method; None if it needs all at once."""
    if not method.streams:
        return None
    return lambda parts: markers.aggregate(parts, method)


def takes_messages(method: Any, clients: int, types: Sequence[Any]) -> bool:
    """Whether clients' parts are too large to be held side by side, and need not be."""
    size = sum(int(np.prod(p.shape, dtype=np.int64)) * p.dtype.itemsize for p in types)
    return hasattr(method, "message") and clients * size > STACKED


class Messages:
    """Each client's message is made by itself and added to those before.

    Args:
      bound: all values that the clients' parts are functions of: masks are those of a
        session with them.
    """

    def __init__(
        self, method: Any, key_words: Any, clients: int, bound: Sequence[Any]
    ) -> None:
        self.method, self.clients = method, clients
        with self.scope():
            secret = session(key_words, *bound, context=f"messages by {method}")
            self.played = method.begin(key_words, secret, clients)

    def scope(self) -> Any:
        return jax.enable_x64(True)

    def start(self, parts: Sequence[Any]) -> Any:
        self.likes = [jax.ShapeDtypeStruct(p.shape, p.dtype) for p in parts]
        size = sum(int(np.prod(p.shape, dtype=np.int64)) for p in parts)
        return self.method.zero(size), jnp.bool_(True)

    def step(self, carry: Any, number: Any, parts: Any, there: Any) -> Any:
        total, fits = carry

        def client_message(played: Any, number: Any, parts: Any) -> Any:
            return self.method.message(played, number, parts, self.clients)

        message, fit = jax.jit(client_message)(self.played, number, parts)
        added = self.method.add(total, message)
        if there is not None:
            added = jax.tree.map(lambda a, b: jnp.where(there, a, b), added, total)
            fit = fit | ~there
        return added, fits & fit

    def finish(self, carry: Any, survivors: Any) -> list[Array]:
        total, fits = carry
        sums = self.method.finish(
            self.played, total, fits, self.likes, self.clients, survivors
        )
        return list(sums)


def in_chunks(one: One, values: PyTree, chunk: int, add: Add | None) -> Results:
    """`one` for every client, `chunk` at once.

    `add` sums the parts of a chunk over its leading axis; None stacks them.
    """
    clients = jax.tree.leaves(values)[0].shape[0]
    whole = clients // chunk * chunk

    def wide(values: PyTree) -> Results:
        parts, rows, kept = jax.vmap(one)(values)
        return parts if add is None else _added(add, parts), rows, kept

    if chunk >= clients > 1 or (clients == 1 and chunk == 1):
        return wide(values)

    def narrow(values: PyTree) -> Results:
        parts, rows, kept = one(values)
        lead = [p[None] for p in parts]
        return (parts if add is None else _added(add, lead)), rows, kept

    run = narrow if chunk == 1 else wide
    first = jax.tree.map(lambda x: x[:whole], values) if whole < clients else values
    if chunk > 1:
        first = jax.tree.map(
            lambda x: x.reshape(whole // chunk, chunk, *x.shape[1:]), first
        )
    slices = jax.tree.map(lambda x: x[0], first)
    types, _, _ = jax.eval_shape(run, slices)

    def body(total: Any, values: Any) -> tuple[Any, Any]:
        parts, rows, kept = run(values)
        if add is None:
            return total, (parts, rows, kept)
        return [t + p for t, p in zip(total, parts, strict=True)], ([], rows, kept)

    start = [] if add is None else [jnp.zeros(t.shape, t.dtype) for t in types]
    total, stacked = lax.scan(body, start, first)
    if chunk > 1:
        flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
        stacked = jax.tree.map(flat, stacked)
    parts, rows, kept = stacked
    parts = parts if add is None else total
    if whole < clients:
        left = wide(jax.tree.map(lambda x: x[whole:], values))
        join = lambda a, b: jnp.concatenate([a, b])  # noqa: E731
        rows, kept = jax.tree.map(join, (rows, kept), left[1:])
        if add is None:
            parts = [join(a, b) for a, b in zip(parts, left[0], strict=True)]
        else:
            parts = [a + b for a, b in zip(parts, left[0], strict=True)]
    return parts, rows, kept


def _added(add: Add, parts: list[Array]) -> list[Array]:
    return add(parts) if parts else []


def by_messages(
    one: One, values: PyTree, alive: Any, messages: Messages, types: Sequence[Any]
) -> Results:
    """One client after the other, each one's message added to those before.

    What a secure sum needs of a client is its masked words: memory does not grow with
    the clients' parts.

    Args:  types: of one client's parts.
    """
    clients = jax.tree.leaves(values)[0].shape[0]

    def body(total: Any, xs: Any) -> tuple[Any, Any]:
        number, values, there = xs
        parts, rows, kept = one(values)
        return messages.step(total, number, parts, there), (rows, kept)

    with messages.scope():
        numbers = jnp.arange(clients, dtype=jnp.uint32)
        start = messages.start(types)
        total, (rows, kept) = lax.scan(body, start, (numbers, values, alive))
        return messages.finish(total, alive), rows, kept


def over_devices(
    one: Callable[[list[Any], Any], Results],
    public: list[Any],
    values: Any,
    chunk: int,
    add: Add | None,
    mesh: Mesh,
    axis: str,
) -> Results:
    """Each device runs its part of the clients; sums leave by one psum.

    Args:
      one: (public, values of a client) -> results.
      values: (inputs, alive, before), pytrees of [clients, ...] or None.
    """
    inside, alive, before = values
    clients = inside[0].shape[0]
    missing = -clients % mesh.shape[axis]
    if missing:
        # Absent clients fill up the last device.
        there = jnp.ones(clients, bool) if alive is None else jnp.asarray(alive)
        values = jax.tree.map(
            lambda x: jnp.pad(x, [(0, missing)] + [(0, 0)] * (jnp.ndim(x) - 1)),
            (inside, there, before),
        )

    def part(public: list[Any], values: Any) -> Results:
        parts, rows, kept = in_chunks(partial(one, public), values, chunk, add)
        if add is not None:
            parts = [lax.psum(p, axis) for p in parts]
        return parts, rows, kept

    everywhere, mine = PartitionSpec(), PartitionSpec(axis)
    run = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(everywhere, mine),
        out_specs=(mine if add is None else everywhere, mine, mine),
        # A client's program is any program: it says nothing about meshes, and its
        # gradients by the public parameters are its own, not a sum over devices.
        check_vma=False,
    )
    parts, rows, kept = run(public, values)
    if missing:
        cut = lambda tree: jax.tree.map(lambda x: x[:clients], tree)  # noqa: E731
        rows, kept = cut(rows), cut(kept)
        parts = cut(parts) if add is None else parts
    return parts, rows, kept
