"""Sine, cosine and tangent of any angle.

An angle is needed modulo a turn only, and products of ring elements wrap around by
themselves: x * round(2^k / (2 pi)) is the fraction of the turn, as a k-bit number.
"""

from functools import cache
from typing import Any

import numpy as np

from privjax.protocols.elements import constants
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import one_hot
from privjax.protocols.functions.linear import (
    add_real,
    element,
    integer_bits,
    subtract,
    weighted,
    working_bits,
)
from privjax.protocols.functions.normalise import normalise
from privjax.protocols.functions.octaves import Octaves, Term, total
from privjax.protocols.functions.polynomial import interpolation, with_secret
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith

_DIGITS = 4
SEGMENTS = 1 << _DIGITS

# 2^256 / pi, rounded down.
_INVERSE_PI = 0x517CC1B727220A94FE13ABE8FA9A6EE06DB14ACC9E21C820FF28B1D5EF5DE2B0


def cos(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """Cosine in 12 rounds (13 if scale > f), within 2^-15 everywhere.

    1. [t] = fraction of a turn, times 2^k; its bits; segment i from the top 4 of them
    2. one-hot [o_i]; [u] = t - middle of the segment, in segments, truncated
    3. cubics: [c_j] = sum_i [o_i] C_ij
    """
    f, k, s = fp.fractional_bits, fp.ring_bits, working_bits(fp)
    turn, _ = _multiple(p, fp, x, scale, k - 1)
    digits = p.bits_at(p.bits_of(turn), k - _DIGITS + np.arange(_DIGITS))
    low = k - _DIGITS  # the bits below the digits
    whole = weighted(
        p,
        p.to_arith(digits, fp.dtype),
        element(fp, np.ldexp(1.0, low + np.arange(_DIGITS))),
    )
    within = add_real(p, fp, subtract(p, fp, turn, whole), -0.5, low)
    u = p.truncate(within, low - s)
    segment = p.to_arith(one_hot(p, digits), fp.dtype)
    c = weighted(p, segment, element(fp, _parts(7 if fp.precision > 18 else 3), s))
    return with_secret(p, fp, u, s, c, 2 * f), 2 * f


@cache
def _parts(degree: int) -> Any:
    """float64[SEGMENTS, degree + 1]: cos on each part of a turn, about its middle."""
    node, inverse = interpolation(degree)
    at = (np.arange(SEGMENTS)[:, None] + 0.5 + node / 2) / SEGMENTS
    return (np.cos(2 * np.pi * at) @ inverse.T) * 2.0 ** np.arange(degree + 1)


def tan(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """Tangent in 23 rounds (24 if scale > f): relative error 2^-14 or an ulp; saturates.

    It is -cot(pi q) for q = x/pi + 1/2 in [-1/2, 1/2), octave by octave of |q|, so that
    the distance to a pole is known to as many bits as anything else. Reduction errs by
    2^-62 |x|: beyond |x| = 2^24 that shows where |tan x| is above 2^24.

    1. q 2^(k-1) = X C + (X C') / 2^w, where C' are w more bits of C
    2. q 2^k is made odd, which is what `normalise` wants of numbers of k bits
    """
    k = fp.ring_bits
    turn, short = _multiple(p, fp, x, scale, k - 1)
    more = 2 * fp.fractional_bits - short[1]
    digits = _scaled_inverse(k - 1 - short[1] + more) - (
        _scaled_inverse(k - 1 - short[1]) << more
    )
    less = p.truncate(p.mul_public(short[0], digits), more)
    turn = p.mul_public(p.add(turn, less), 2)
    turn = p.add_public(turn, constants((1 << (k - 1)) + 1, fp.dtype))
    parts = normalise(p, fp, turn, k, signed=True, odd=True)
    return total(p, fp, [Term(_tangent(integer_bits(fp)), parts, k, parts.sign)])


@cache
def _tangent(bits: int) -> Octaves:
    return Octaves(
        lambda q: -_cotangent(q),
        _cotangent,
        degree=7,
        large=4.0,
        limit=2.0**-bits / np.pi,
        falling=True,
    )


def _cotangent(q: Any) -> Any:
    return 1 / np.tan(np.pi * q)


def _multiple(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, bits: int
) -> tuple[Arith, tuple[Arith, int]]:
    """[x 2^bits / pi] mod 2^k, and x at the scale (at most f) at which it was used.

    What lies below that scale is multiplied on its own.
    """
    f = fp.fractional_bits
    if scale <= f:
        return p.mul_public(x, _scaled_inverse(bits - scale)), (x, scale)
    short = p.truncate(x, scale - f)
    rest = p.add(x, p.mul_public(short, -(1 << (scale - f))))
    high = p.mul_public(short, _scaled_inverse(bits - f))
    low = p.mul_public(rest, _scaled_inverse(bits - scale))
    return p.add(high, low), (short, f)


def _scaled_inverse(bits: int) -> int:
    """2^bits / pi, rounded down."""
    return _INVERSE_PI >> (256 - bits)
