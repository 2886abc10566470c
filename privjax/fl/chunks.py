"""A function of one client, run for many: in chunks, message by message, over devices.

`one(values of a client) -> (parts, rows, kept)`: parts are to be summed, rows and kept are
stacked.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from privjax._typing import Array, PyTree
from privjax.fl.runtime import Sharded
from privjax.passes.federated.sequence import Messages

Results = tuple[list[Array], PyTree, PyTree]
One = Callable[[Any], Results]
Add = Callable[[list[Array]], list[Array]]


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
        total, _ = messages.step(total, number, parts, there)
        return total, (rows, kept)

    with messages.scope():
        numbers = jnp.arange(clients, dtype=jnp.uint32)
        start = messages.start(types)
        total, (rows, kept) = lax.scan(body, start, (numbers, values, alive))
        return messages.finish(total, [], alive), rows, kept


def over_devices(
    one: Callable[[list[Any], Any], Results],
    public: list[Any],
    values: Any,
    chunk: int,
    add: Add | None,
    runtime: Sharded,
) -> Results:
    """Each device runs its part of the clients; sums leave by one psum.

    Args:
      one: (public, values of a client) -> results.
      values: (inputs, alive, before), pytrees of [clients, ...] or None.
    """
    inside, alive, before = values
    clients = inside[0].shape[0]
    missing = -clients % runtime.devices
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
            parts = [lax.psum(p, runtime.axis) for p in parts]
        return parts, rows, kept

    everywhere, mine = PartitionSpec(), PartitionSpec(runtime.axis)
    run = jax.shard_map(
        part,
        mesh=runtime.mesh,
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
