"""Bounded functions: cubics on 32 equal segments, constants outside.

The segment comes from five bits of the (scaled and shifted) argument as a one-hot
vector of ring elements; each coefficient is a public linear combination of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.errors import RangeError
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import joined, one_hot
from privjax.protocols.functions.linear import (
    add_real,
    element,
    rescale,
    subtract,
    weighted,
)
from privjax.protocols.functions.polynomial import chebyshev
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import MUL

_DIGITS = 5
SEGMENTS = 1 << _DIGITS


@dataclass(frozen=True)
class Spline:
    """A function on segments of width 2^shift / factor around 0, constant outside.

    Attributes:
      fun: the function, on float64 arrays.
      left, right: its values outside of 16 segments on either side.
      factor, shift: y = x factor / 2^shift has segments of width 1; exact in the ring.
    """

    fun: Callable[[Any], Any]
    left: float
    right: float
    factor: int
    shift: int

    @property
    def limit(self) -> float:
        """The constants hold for |x| above this."""
        return math.ldexp(SEGMENTS // 2 / self.factor, self.shift)


@cache
def _coefficients(spline: Spline) -> Any:
    """float64[SEGMENTS, 4]: cubics in y about the middles of the segments."""
    width = math.ldexp(1 / spline.factor, spline.shift)
    rows = []
    for i in range(SEGMENTS):
        low = i * width - spline.limit
        c = chebyshev(spline.fun, low, low + width, 3)
        rows.append([c[j] * width**j for j in range(4)])
    return np.array(rows)


def evaluate(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, spline: Spline
) -> tuple[Arith, int]:
    """`spline` of x in 13 rounds (14 if scale > f).

    1. y = 16 + x factor / 2^shift, its bits, <y < 32>, <y < 0>
    2. one-hot [o_i] of the integer part, all zero outside of [0, 32)
    3. [v] = y - middle of the segment, [c_0..c_3] = sum_i [o_i] C_i
    4. c_0 + c_1 v + v^2 (c_2 + c_3 v), with v^2 and the bracket truncated at once.
       Outside v is anything; its factors are 0, and the constants are added to c_0.
    """
    f, s = fp.fractional_bits, fp.fractional_bits + spline.shift
    rest = 2 * f - s  # the scale of coefficients that meet a power of v
    if rest < 1:
        raise RangeError(
            f"fractional_bits={f}: this function needs at least {spline.shift + 1}."
        )
    x = rescale(p, fp, x, scale, f)
    y = p.mul_public(x, element(fp, spline.factor))
    y = add_real(p, fp, y, SEGMENTS // 2, s)
    word = p.bits_of(y)
    low = p.bits_at(word, fp.ring_bits - 1)
    below = p.msb(add_real(p, fp, y, -SEGMENTS, s))
    digits = p.bits_at(word, s + np.arange(_DIGITS))
    segment = one_hot(p, digits, p.xor(low, below))
    bits = p.to_arith(joined([segment, low, below]), fp.dtype)

    c = _coefficients(spline)
    outside = [[spline.left], [-spline.right]]
    constant = weighted(
        p, bits, element(fp, np.concatenate([c[:, :1], outside]), 2 * f)
    )
    constant = constant.moved(lambda v: v[..., 0])
    constant = add_real(p, fp, constant, spline.right, 2 * f)
    inside = bits.moved(lambda v: v[..., :SEGMENTS])
    middle = weighted(p, inside, element(fp, np.arange(SEGMENTS) + 0.5, s))
    v = subtract(p, fp, y, middle)
    slopes = weighted(p, inside, element(fp, c[:, [1, 3]], rest))
    bends = weighted(p, inside, element(fp, c[:, 2], 2 * f))

    wide = v.rearranged(lambda a: jnp.broadcast_to(a[..., None], (*a.shape, 2)))
    products = p.product(MUL, wide, slopes)
    linear_term = products.moved(lambda a: a[..., 0])
    bracket = p.add(bends, products.moved(lambda a: a[..., 1]))
    square = p.truncate(p.square(v), s)
    curved = p.product(MUL, square, p.truncate(bracket, s))
    return p.add(constant, p.add(linear_term, curved)), 2 * f
