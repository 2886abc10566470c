"""Bounded functions: cubics on 64 equal segments, constants outside.

The segment comes from six bits of the (scaled and shifted) argument as a one-hot
vector of ring elements; each coefficient is a public linear combination of it. Formats
that promise more than 18 bits take twice as many segments, and degree 7.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from privjax.errors import RangeError
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import joined, one_hot
from privjax.protocols.functions.linear import (
    add_real,
    element,
    entries,
    entry,
    rescale,
    spread,
    subtract,
    weighted,
    working_bits,
)
from privjax.protocols.functions.polynomial import chebyshev, with_secret
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import MUL

_DIGITS = 6
SEGMENTS = 1 << _DIGITS


@dataclass(frozen=True)
class Spline:
    """A function on segments of width 2^shift / factor around 0, constant outside.

    Attributes:
      fun: the function, on float64 arrays.
      left, right: its values outside of 32 segments on either side.
      factor, shift: y = x factor / 2^shift has segments of width 1; exact in the ring.
      finer: both, for more than 18 bits.
      digits, degree: 2^digits segments, with a polynomial of this degree on each.
    """

    fun: Callable[[Any], Any]
    left: float
    right: float
    factor: int
    shift: int
    finer: tuple[int, int]
    digits: int = _DIGITS
    degree: int = 3

    @property
    def segments(self) -> int:
        return 1 << self.digits

    @property
    def limit(self) -> float:
        """The constants hold for |x| above this."""
        return math.ldexp(self.segments // 2 / self.factor, self.shift)

    def at(self, fp: FixedPoint) -> "Spline":
        """The function with the segments that a format asks for."""
        if fp.precision <= 18:
            return self
        factor, shift = self.finer
        return replace(self, factor=factor, shift=shift, digits=7, degree=7)


@cache
def _coefficients(spline: Spline) -> Any:
    """float64[segments, degree + 1] in y about the middles of the segments."""
    width = math.ldexp(1 / spline.factor, spline.shift)
    rows = []
    for i in range(spline.segments):
        low = i * width - spline.limit
        c = chebyshev(spline.fun, low, low + width, spline.degree)
        rows.append([c[j] * width**j for j in range(spline.degree + 1)])
    return np.array(rows)


def evaluate(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, spline: Spline
) -> tuple[Arith, int]:
    """`spline` of x in 13 rounds (14 if scale > f).

    1. y = 32 + x factor / 2^shift, its bits, <y < 64>, <y < 0>
    2. one-hot [o_i] of the integer part, all zero outside of [0, 64)
    3. [v] = y - middle of the segment, [c_0..c_3] = sum_i [o_i] C_i
    4. c_0 + c_1 v + v^2 (c_2 + c_3 v), each product truncated at once (of degree 7:
       `with_secret`). Outside v is
       anything; its factors are 0, and the constants are added to c_0.
    """
    spline = spline.at(fp)
    f, s = fp.fractional_bits, fp.fractional_bits + spline.shift
    rest = 2 * f - s  # the scale of a coefficient that v^2 is multiplied by
    fine = f  # that of those that v is multiplied by: s + f < 3f + 4
    if rest < 1:
        raise RangeError(
            f"fractional_bits={f}: this function needs at least {spline.shift + 1}."
        )
    x = rescale(p, fp, x, scale, f)
    y = p.mul_public(x, element(fp, spline.factor))
    y = add_real(p, fp, y, spline.segments // 2, s)
    word = p.bits_of(y)
    low = p.bits_at(word, fp.ring_bits - 1)
    below = p.msb(add_real(p, fp, y, -spline.segments, s))
    digits = p.bits_at(word, s + np.arange(spline.digits))
    segment = one_hot(p, digits, p.xor(low, below))
    bits = p.to_arith(joined([segment, low, below]), fp.dtype)

    c = _coefficients(spline).copy()
    outside = [[spline.left], [-spline.right]]
    constant = weighted(
        p, bits, element(fp, np.concatenate([c[:, 0], np.ravel(outside)]), 2 * f)
    )
    constant = add_real(p, fp, constant, spline.right, 2 * f)
    inside = entries(bits, 0, spline.segments)
    middle = weighted(p, inside, element(fp, np.arange(spline.segments) + 0.5, s))
    v = subtract(p, fp, y, middle)
    if spline.degree > 3:
        u, w = rescale(p, fp, v, s, min(s, working_bits(fp))), min(s, working_bits(fp))
        c[:, 0] = 0.0  # among the constants
        value = with_secret(p, fp, u, w, weighted(p, inside, element(fp, c, w)), 2 * f)
        return p.add(constant, value), 2 * f
    slopes = weighted(p, inside, element(fp, c[:, [1, 3]], fine))
    bends = weighted(p, inside, element(fp, c[:, 2], s + fine))

    products = p.product(MUL, spread(v, 2), slopes)
    linear_term = p.truncate(entry(products, 0), s + fine - 2 * f)
    bracket = p.truncate(p.add(bends, entry(products, 1)), s + fine - rest)
    curved = p.product(MUL, p.truncate(p.square(v), s), bracket)
    return p.add(constant, p.add(linear_term, curved)), 2 * f
