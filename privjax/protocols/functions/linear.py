"""What costs nothing: public constants, sums with public weights, changes of scale."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.protocols.elements import constants
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, moved
from privjax.protocols.tuples import Bilinear


def element(fp: FixedPoint, values: Any, scale: int = 0) -> Any:
    """Public reals (float64 or exact integers) -> ring elements, rounded to nearest.

    Exact beyond 53 bits for powers of two; negative values wrap around.
    """
    rounded = np.rint(np.ldexp(np.asarray(values, np.float64), scale))
    return constants([int(v) for v in rounded.ravel()], fp.dtype).reshape(rounded.shape)


def stack(xs: Sequence[Any]) -> Any:
    """Shares of one shape along a new last axis."""
    return moved(lambda *v: jnp.stack(v, -1), *xs)


def concatenate(xs: Sequence[Arith]) -> Arith:
    """Shares behind each other along the last axis."""
    return moved(lambda *v: jnp.concatenate(v, -1), *xs)


def entries(x: Arith, start: int, stop: int) -> Arith:
    """A part of the last axis."""
    return x.moved(lambda v: v[..., start:stop])


def entry(x: Any, i: int) -> Any:
    """One entry of the last axis."""
    return x.moved(lambda v: v[..., i])


def spread(x: Any, n: int) -> Any:
    """Copies along a new last axis; they share one mask."""
    return x.rearranged(lambda v: jnp.broadcast_to(v[..., None], (*v.shape, n)))


def weighted(p: Protocol, x: Arith, weights: Any) -> Arith:
    """Sums over the last axis with public weights (several of them: a matrix)."""
    contract = (((len(x.shape) - 1,), (0,)), ((), ()))
    op = Bilinear("dot_general", (("dimension_numbers", contract),))
    return p.product_public(op, x, weights)


def subtract(p: Protocol, fp: FixedPoint, x: Arith, y: Arith) -> Arith:
    return p.add(x, p.mul_public(y, element(fp, -1)))


def add_real(p: Protocol, fp: FixedPoint, x: Arith, value: float, scale: int) -> Arith:
    return p.add_public(x, element(fp, value, scale))


def rescale(p: Protocol, fp: FixedPoint, x: Arith, scale: int, to: int) -> Arith:
    """Bring x from one scale to another: local when it grows, else one round."""
    if to < scale:
        return p.truncate(x, scale - to)
    return p.mul_public(x, element(fp, 1, to - scale)) if to > scale else x


def integer_bits(fp: FixedPoint) -> int:
    """log2 of `fp.max_value`."""
    return fp.ring_bits - 2 - 2 * fp.fractional_bits


def working_bits(fp: FixedPoint) -> int:
    """The scale of mantissas: three times that, and two bits more, must fit."""
    return (fp.ring_bits - 4) // 3


def largest(fp: FixedPoint) -> float:
    """What results saturate at: a little below `fp.max_value`.

    The distance leaves room for the error of another factor of at most 1.
    """
    room = 2.0 ** (2 - min(fp.fractional_bits, working_bits(fp)))
    return fp.max_value * (1 - room)


def threshold(fp: FixedPoint) -> float:
    """What counts as too large where that must be decided before a value is rounded."""
    return fp.max_value - max(
        2 * (fp.max_value - largest(fp)), fp.max_value * 2.0 ** (5 - fp.precision)
    )
