"""A contraction over units of which some are left out, without a copy of its operands.

A unit is left out by a weight of zero on one operand. That is enough unless its rows of
the other operand are not finite, for zero times infinity is not zero; then, and only then,
the contraction is done again with these rows masked, a piece of the columns at a time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from privjax._typing import Array
from privjax.passes.dp.maps import masked, square_sum

# Operands below this many numbers are masked always: their copies are small.
_LARGE = 1 << 16
_PIECES = 4


def contracted(
    dot: Callable[[Array, Array], Array],
    weighted: Array,
    other: Array,
    keep: Array,
    axis: int,
) -> Array:
    """`dot(weighted, other)` over the units where `keep` is true.

    weighted, other: [units, ...], of which `weighted` is zero where a unit is left out;
    keep: bool[units]; `dot` contracts axis 0 of both and keeps the last axis of `other` as
    `axis` of its result.
    """
    if other.size < _LARGE:
        return dot(weighted, masked(other, keep))

    def again(weighted: Array, other: Array, keep: Array) -> Array:
        kind = jax.eval_shape(dot, weighted, other)
        total = jnp.zeros(kind.shape, kind.dtype)
        size = -(-other.shape[-1] // _PIECES)
        kept = keep
        for start in range(0, other.shape[-1], size):
            piece = dot(weighted, masked(other[..., start : start + size], kept))
            total = lax.dynamic_update_slice_in_dim(total, piece, start, axis)
            kept = after(keep, piece)
        return total

    sound = _everywhere(jnp.all(jnp.isfinite(square_sum(other))))
    once = lambda weighted, other, keep: dot(weighted, other)  # noqa: E731
    return lax.cond(sound, once, again, weighted, other, keep)


def after(keep: Array, done: Array) -> Array:
    """`keep`, known when `done` is, so that what `keep` masks is not held before.

    The compiler orders by what depends on what, and does not see that a number is finite
    or twice it is not. (On shares every number is finite: this costs nothing there.)
    """
    if not done.size:
        return keep
    one = done.reshape(-1)[0]
    return keep & (jnp.isfinite(one) | ~jnp.isfinite(2 * one))


@jax.custom_batching.custom_vmap
def _everywhere(sound: Array) -> Array:
    """Of all lanes: a `cond` on the answer of each lane would run both branches."""
    return sound


@_everywhere.def_vmap
def _over_lanes(size: int, batched: list[bool], sound: Array) -> tuple[Array, bool]:
    return _everywhere(jnp.all(sound)), False
