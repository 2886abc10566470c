"""One client after the other, in one `scan`: what is kept of each.

=============  ==========================================  ==========================
sums           what a step does                            memory
=============  ==========================================  ==========================
`Running`      adds the client's part to the sums           that of one client
`Messages`     adds the client's message (masked, shared)   that of one message
`Stacked`      puts the client's part beside the others'    that of all clients
=============  ==========================================  ==========================

The last is for methods that need all parts at once, and for messages while all parts
together are small: then `combine` can save work that single messages repeat.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.core import markers
from privjax.passes.federated.survivors import aggregate, present
from privjax.prg.session import session

# Up to so many bytes of all clients' parts are put beside each other.
STACKED = 2**26


@dataclass(frozen=True)
class Running:
    """Sums of parts may be added up."""

    method: Any
    numbered: ClassVar[bool] = False

    def scope(self) -> Any:
        return contextlib.nullcontext()

    def start(self, parts: Sequence[Any]) -> Any:
        return [jnp.zeros(p.shape, p.dtype) for p in parts]

    def step(self, sums: Any, number: Any, parts: Any, there: Any) -> tuple[Any, Any]:
        if there is not None:
            parts = [present(there, p) for p in parts]
        if not parts:
            return sums, []
        new = markers.aggregate([p[None] for p in parts], self.method)
        return [a + b for a, b in zip(sums, new, strict=True)], []

    def finish(self, sums: Any, stacked: Any, survivors: Any) -> list[Array]:
        return list(sums)


@dataclass(frozen=True)
class Stacked:
    """All parts go to the method at once."""

    method: Any
    key_words: Any
    numbered: ClassVar[bool] = False

    def scope(self) -> Any:
        return contextlib.nullcontext()

    def start(self, parts: Sequence[Any]) -> Any:
        return []

    def step(self, sums: Any, number: Any, parts: Any, there: Any) -> tuple[Any, Any]:
        return sums, parts

    def finish(self, sums: Any, stacked: Any, survivors: Any) -> list[Array]:
        if not stacked:
            return []
        return aggregate(stacked, self.method, self.key_words, survivors)


class Messages:
    """Each client's message is made by itself and added to those before.

    Args:
      bound: all values that the clients' parts are functions of: masks are those of a
        session with them.
    """

    numbered = True

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

    def step(self, carry: Any, number: Any, parts: Any, there: Any) -> tuple[Any, Any]:
        total, fits = carry

        def client_message(played: Any, number: Any, parts: Any) -> Any:
            return self.method.message(played, number, parts, self.clients)

        message, fit = jax.jit(client_message)(self.played, number, parts)
        added = self.method.add(total, message)
        if there is not None:
            added = jax.tree.map(lambda a, b: jnp.where(there, a, b), added, total)
            fit = fit | ~there
        return (added, fits & fit), []

    def finish(self, carry: Any, stacked: Any, survivors: Any) -> list[Array]:
        total, fits = carry
        sums = self.method.finish(
            self.played, total, fits, self.likes, self.clients, survivors
        )
        return list(sums)


def collector(
    method: Any,
    key_words: Any,
    clients: int,
    parts: Sequence[Any],
    bound: Sequence[Any],
) -> Any:
    """What suits a method and the types of one client's parts."""
    if method.streams:
        return Running(method)
    size = sum(int(np.prod(p.shape, dtype=np.int64)) * p.dtype.itemsize for p in parts)
    if hasattr(method, "message") and clients * size > STACKED:
        return Messages(method, key_words, clients, bound)
    return Stacked(method, key_words)


def in_sequence(
    one: Callable[..., tuple[list[Any], list[Any]]],
    values: Any,
    clients: int,
    survivors: Any,
    sums: Callable[[Sequence[Any]], Any],
) -> tuple[list[Array], list[Any]]:
    """Run `one(*values of one client) -> (parts, common values)` for every client.

    Args:
      values: pytrees of [clients, ...].
      sums: from the types of one client's parts to a collector.

    Returns: the sums of the parts, and the common values, which are alike for all.
    """
    slices = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), values)
    parts, common = jax.eval_shape(one, *slices)
    collect = sums(parts)
    keys = [jnp.issubdtype(c.dtype, jax.dtypes.extended) for c in common]
    zeros = [
        None if key else jnp.zeros(c.shape, c.dtype)
        for c, key in zip(common, keys, strict=True)
    ]

    def body(carry: Any, xs: Any) -> Any:
        number, client, there = xs
        parts, common = one(*client)
        numbers = [None if key else c for c, key in zip(common, keys, strict=True)]
        # The state of a loop cannot be made of keys, its outputs can.
        typed = [c if key else None for c, key in zip(common, keys, strict=True)]
        kept, parts = collect.step(carry[0], number, parts, there)
        return (kept, numbers), (parts, typed)

    with collect.scope():
        numbers = jnp.arange(clients, dtype=np.uint32) if collect.numbered else None
        start = collect.start(parts), zeros
        (kept, last), (stacked, typed) = lax.scan(
            body, start, (numbers, values, survivors)
        )
        total = collect.finish(kept, stacked, survivors)
    common = [t[0] if n is None else n for n, t in zip(last, typed, strict=True)]
    return total, common
