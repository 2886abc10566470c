"""Sums over the clients that answered; who did is an array, not a part of the program.

A method that has something to do about clients that drop out (it recovers their masks,
say) offers `combine_survivors(key_words, xs, survivors)`. For every other one a client
that dropped out adds zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from privjax._typing import Array
from privjax.core import markers


@dataclass(frozen=True)
class Surviving:
    """The parameter of an `aggregate` marker whose last operand says who answered."""

    method: Any

    @property
    def linear(self) -> bool:
        return bool(self.method.linear)

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]:
        *parts, answered = xs
        sums = self.method.combine_survivors(key_words, parts, answered > 0)
        return [*sums, jnp.sum(answered, dtype=answered.dtype)]


def present(survivors: Array, x: Array) -> Array:
    """x with zeros for the clients, along its leading axis, that dropped out."""
    there = survivors.reshape(survivors.shape + (1,) * (x.ndim - survivors.ndim))
    return jnp.where(there, x, jnp.zeros((), x.dtype))


def aggregate(
    parts: Sequence[Array],
    method: Any,
    key_words: Any = None,
    survivors: Array | None = None,
) -> list[Array]:
    """Sum each of `parts` over its leading axis of clients, all in one step.

    Args:
      method: an aggregation method (see `privjax.aggregation.methods`).
      key_words: uint32[8] where the method needs randomness.
      survivors: bool[clients], whose parts count; None for all.
    """
    if survivors is None:
        return markers.aggregate(parts, method, key_words)
    survivors = survivors.astype(bool)
    # Zeros in any case: an outer pass may give the marker the meaning of a plain sum.
    parts = [present(survivors, p) for p in parts]
    if not hasattr(method, "combine_survivors"):
        return markers.aggregate(parts, method, key_words)
    answered = survivors.astype(jnp.float32)
    return markers.aggregate([*parts, answered], Surviving(method), key_words)[:-1]
