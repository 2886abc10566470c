"""Bounded functions: cubics on 64 equal segments, constants outside.

The segment comes from six bits of the (scaled and shifted) argument as a one-hot
vector of ring elements; each coefficient is a public linear combination of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
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
)
from privjax.protocols.functions.polynomial import chebyshev
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

    1. y = 32 + x factor / 2^shift, its bits, <y < 64>, <y < 0>
    2. one-hot [o_i] of the integer part, all zero outside of [0, 64)
    3. [v] = y - middle of the segment, [c_0..c_3] = sum_i [o_i] C_i
    4. c_0 + c_1 v + v^2 (c_2 + c_3 v), each product truncated at once. Outside v is
       anything; its factors are 0, and the constants are added to c_0.
    """
    f, s = fp.fractional_bits, fp.fractional_bits + spline.shift
    rest = 2 * f - s  # the scale of a coefficient that v^2 is multiplied by
    fine = f  # that of those that v is multiplied by: s + f < 3f + 4
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
        p, bits, element(fp, np.concatenate([c[:, 0], np.ravel(outside)]), 2 * f)
    )
    constant = add_real(p, fp, constant, spline.right, 2 * f)
    inside = entries(bits, 0, SEGMENTS)
    middle = weighted(p, inside, element(fp, np.arange(SEGMENTS) + 0.5, s))
    v = subtract(p, fp, y, middle)
    slopes = weighted(p, inside, element(fp, c[:, [1, 3]], fine))
    bends = weighted(p, inside, element(fp, c[:, 2], s + fine))

    products = p.product(MUL, spread(v, 2), slopes)
    linear_term = p.truncate(entry(products, 0), s + fine - 2 * f)
    bracket = p.truncate(p.add(bends, entry(products, 1)), s + fine - rest)
    curved = p.product(MUL, p.truncate(p.square(v), s), bracket)
    return p.add(constant, p.add(linear_term, curved)), 2 * f
