"""Exponentials: 2^t = 2^i 2^u with the integer part i taken from the bits of t.

2^i is a product of one factor 1 + b_j (2^(2^j) - 1) for each bit b_j of i, exact in the
ring; 2^u is a polynomial on [0, 1). Two comparisons of x itself, which run beside all
this, say where the result is 0 or saturates; the rest is multiplied by 0 there.
"""

import math

import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import joined
from privjax.protocols.functions.linear import (
    add_real,
    concatenate,
    element,
    integer_bits,
    rescale,
    stack,
    subtract,
    weighted,
    working_bits,
)
from privjax.protocols.functions.polynomial import chebyshev, evaluate
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import MUL

# log2(e) = 3/2 - _LESS: 3 x is exact, and _LESS is so small that four more of its bits
# fit into a product than of log2(e).
_LESS = 1.5 - math.log2(math.e)


def exp(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """e^x in 13 rounds (14 if scale > f), relative error 2^-15 or absolute an ulp.

    Results below an ulp are 0; results above `fp.max_value` are that, less 2^-12 of it.
    """
    f = fp.fractional_bits
    x = rescale(p, fp, x, scale, f)
    # |x| < max_value, _LESS < 2^-4: the product has f + 4 bits of _LESS at most.
    less = p.truncate(p.mul_public(x, element(fp, _LESS, f + 4)), f + 3)
    exponent = subtract(p, fp, p.mul_public(x, element(fp, 3)), less)
    return _power_of_two(p, fp, x, exponent, math.log(2))


def exp2(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """2^x in 12 rounds (13 if scale > f); otherwise as `exp`."""
    x = rescale(p, fp, x, scale, fp.fractional_bits)
    return _power_of_two(p, fp, x, p.mul_public(x, element(fp, 2)), 1.0)


def _power_of_two(
    p: Protocol, fp: FixedPoint, x: Arith, t: Arith, unit: float
) -> tuple[Arith, int]:
    """2^t for t = x / unit, x at scale f and t at scale f + 1.

    1. <below>: x < high (nothing overflows), x < low (nothing is left)
    2. bits of t + f, whose integer part i is in [0, f + log2 max_value) inside
    3. [2^i] = [inside] prod_j (1 + [b_j] (2^(2^j) - 1))
    4. 2^(i-f) 2^u + [x >= high] max
    """
    f, scale = fp.fractional_bits, fp.fractional_bits + 1
    # Four units keep what truncation adds to t on the right side.
    low = -f * unit + 4 * fp.resolution
    high = integer_bits(fp) * unit - 2.0**-12 - 4 * fp.resolution
    limits = element(fp, [-low, -high], f)
    below = p.msb(p.add_public(stack([x, x]), limits))

    t = add_real(p, fp, t, f, scale)
    count = (f + integer_bits(fp) - 1).bit_length()
    digits = p.bits_at(p.bits_of(t), scale + np.arange(count))
    bits = p.to_arith(joined([digits, below]), fp.dtype)
    digit = _entries(bits, 0, count)

    # [1 + b_j (2^(2^j) - 1)] for all j, and [inside].
    factors = np.zeros((count + 2, count + 1), fp.dtype)
    with np.errstate(over="ignore"):
        for j in range(count):
            factors[j, j] = element(fp, 1, 1 << j) - np.array(1, fp.dtype)
    factors[count, count], factors[count + 1, count] = element(fp, [-1, 1])
    constants = np.append(np.ones(count, fp.dtype), np.zeros(1, fp.dtype))
    shift = _product(p, p.add_public(weighted(p, bits, factors), constants))

    whole = weighted(p, digit, element(fp, np.ldexp(1.0, np.arange(count)), scale))
    fraction = add_real(p, fp, subtract(p, fp, t, whole), -0.5, scale)
    width = min(scale, working_bits(fp))
    fraction = rescale(p, fp, fraction, scale, width)
    power = evaluate(p, fp, fraction, width, chebyshev(np.exp2, 0.0, 1.0, 4), f)

    top = np.zeros(count + 2)
    top[count + 1] = -fp.max_value * (1 - 2.0**-12)
    over = add_real(
        p, fp, weighted(p, bits, element(fp, top, 2 * f)), -top.min(), 2 * f
    )
    return p.add(p.product(MUL, power, shift), over), 2 * f


def _product(p: Protocol, x: Arith) -> Arith:
    """The product over the last axis, exact in the ring; log2 rounds."""
    while (n := x.shape[-1]) > 1:
        half = n // 2
        pairs = p.product(MUL, _entries(x, 0, half), _entries(x, half, 2 * half))
        x = concatenate([pairs, _entries(x, 2 * half, n)])
    return x.moved(lambda v: v[..., 0])


def _entries(x: Arith, start: int, stop: int) -> Arith:
    return x.moved(lambda v: v[..., start:stop])
