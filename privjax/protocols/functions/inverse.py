"""Inverse functions: of sine, cosine, tangent, hyperbolic sine and cosine, and erf.

Where a function has a root at the edge of its domain, octaves are those of the distance
to that edge, 1 - |x| or x - 1: there it is smooth on each of them.
"""

from functools import cache
from typing import Any

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import negated_if
from privjax.protocols.functions.linear import (
    add_real,
    element,
    entry,
    rescale,
    stack,
    subtract,
    weighted,
    working_bits,
)
from privjax.protocols.functions.normalise import normalise
from privjax.protocols.functions.octaves import Octaves, Term, evaluate, odd, total
from privjax.protocols.functions.polynomial import evaluate as evaluate_polynomial
from privjax.protocols.functions.polynomial import fitted
from privjax.protocols.functions.reciprocal import ratio
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith


def _acos(t: Any) -> Any:
    """arccos(1 - t) for t > 0; arccos(0) beyond t = 1."""
    return 2 * np.arcsin(np.sqrt(np.minimum(t, 1.0) / 2))


def _acosh(t: Any) -> Any:
    """arccosh(1 + t) for t > 0."""
    return 2 * np.arcsinh(np.sqrt(t / 2))


def _erf_inv(t: Any) -> Any:
    """The inverse error function at 1 - t for t > 0; 0 beyond t = 1."""
    return special.erfcinv(np.minimum(t, 1.0))


ATAN = odd(np.arctan)
ASINH = odd(np.arcsinh)
ACOSH = Octaves(_acosh)


def atan(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """arctan x within 2^-16, in 20 rounds."""
    return evaluate(p, fp, x, scale, ATAN)


def atan2(
    p: Protocol, fp: FixedPoint, y: Arith, y_scale: int, x: Arith, x_scale: int
) -> tuple[Arith, int]:
    """The angle of (x, y) in (-pi, pi] within 2^-15, in 38 rounds; 0 for (0, 0).

    1. <x < 0>, <y < 0>, and <w> = <|y| > |x|> from the signs of x - y and x + y
    2. [a] = arctan(smaller / larger magnitude), a polynomial on [0, 1]
    3. [+-a + c] with the sign and the constant of the octant
    """
    scale, s = max(x_scale, y_scale), working_bits(fp)
    x, y = rescale(p, fp, x, x_scale, scale), rescale(p, fp, y, y_scale, scale)
    signs = p.msb(stack([x, y, subtract(p, fp, x, y), p.add(x, y)]))
    left, below = entry(signs, 0), entry(signs, 1)
    swap = p.xor(entry(signs, 2), entry(signs, 3))
    both = negated_if(p, fp, stack([left, below]), stack([x, y]))
    first, second = entry(both, 0), entry(both, 1)
    change = p.bit_times(swap, subtract(p, fp, first, second))
    n, d = p.add(second, change), subtract(p, fp, first, change)

    q, out = ratio(p, fp, n, d, scale)
    u = add_real(p, fp, rescale(p, fp, q, out, s), -0.5, s)
    a = evaluate_polynomial(p, fp, u, s, fitted(fp, np.arctan, 0.0, 1.0, 7), out)
    back = p.and_(left, p.xor_public(swap, np.uint8(1)))
    quarters = weighted(  # of a half turn
        p,
        p.to_arith(stack([swap, back]), fp.dtype),
        element(fp, [np.pi / 2, np.pi], out),
    )
    turn = negated_if(p, fp, below, quarters)
    a = negated_if(p, fp, p.xor(p.xor(swap, left), below), a)
    return p.add(a, turn), out


def asinh(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """arcsinh x in 20 rounds, within 2^-15 of it or an ulp."""
    return evaluate(p, fp, x, scale, ASINH)


def acosh(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """arccosh x in 20 rounds, within 2^-15 of it or an ulp; 0 for x <= 1."""
    low = max(scale, fp.fractional_bits)
    x = add_real(p, fp, rescale(p, fp, x, scale, low), -1.0, low)
    return evaluate(p, fp, x, low, ACOSH)


def asin(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """arcsin x within 2^-15, in 27 rounds; arcsin of the sign for |x| > 1."""
    return near_one(p, fp, x, scale, ASIN)


def acos(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """arccos x within 2^-15, in 27 rounds; arccos of the sign for |x| > 1."""
    return near_one(p, fp, x, scale, ACOS)


def erf_inv(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """The inverse error function in 27 rounds, within 2^-12 of it or an ulp.

    For |x| >= 1 it is that of +-(1 - 2^-(2f + 1)).
    """
    return near_one(p, fp, x, scale, _erf_inv_until(fp.fractional_bits))


# Of t = 1 - |x|, with the sign of x.
ASIN = Octaves(
    lambda t: np.pi / 2 - _acos(t),
    lambda t: _acos(t) - np.pi / 2,
    at_zero=np.pi / 2,
    at_minus_zero=-np.pi / 2,
)
ACOS = Octaves(_acos, lambda t: np.pi - _acos(t), at_zero=0.0, at_minus_zero=np.pi)


@cache
def _erf_inv_until(f: int) -> Octaves:
    end = float(_erf_inv(2.0 ** -(2 * f + 1)))
    return odd(_erf_inv, at_zero=end, at_minus_zero=-end)


def near_one(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, spec: Octaves
) -> tuple[Arith, int]:
    """A function by octaves of 1 - |x|, with the sign of x."""
    low = max(scale, fp.fractional_bits)
    x = rescale(p, fp, x, scale, low)
    sign = p.msb(x)
    less = p.mul_public(negated_if(p, fp, sign, x), element(fp, -1))
    t = add_real(p, fp, less, 1.0, low)
    parts = normalise(p, fp, t, low, signed=False)
    return total(p, fp, [Term(spec, parts, low, sign)])
