"""Exponentials: 2^t = 2^i 2^u with the integer part i taken from the bits of t.

2^i is a product of one factor 1 + b_j (2^(2^j) - 1) for each bit b_j of i, exact in the
ring; 2^u is a polynomial on [0, 1). Two comparisons of x itself, which run beside all
this, say where the result is 0 or saturates; the rest is multiplied by 0 there, so that
t may be anything for such x.
"""

import math
from typing import Any

import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import joined, negated_if
from privjax.protocols.functions.linear import (
    add_real,
    concatenate,
    element,
    entries,
    entry,
    integer_bits,
    largest,
    rescale,
    spread,
    stack,
    subtract,
    weighted,
    working_bits,
)
from privjax.protocols.functions.polynomial import evaluate, fitted
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.tuples import MUL

_LOG2_E = math.log2(math.e)


def exp(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """e^x in 13 rounds, relative error 2^-15 or absolute an ulp.

    Results below an ulp are 0; results above `fp.max_value` are a little less than it.
    """
    t = _exponent(p, fp, x, scale, _LOG2_E)
    return power_of_two(p, fp, x, scale, t, math.log(2), 4)


def expm1(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """e^x - 1 in 15 rounds, relative error 2^-15 or absolute two ulps; saturates."""
    t = _exponent(p, fp, x, scale, _LOG2_E)
    y, out = power_of_two(p, fp, x, scale, t, math.log(2), 5)
    return add_real(p, fp, y, -1.0, out), out


def exp2(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """2^x in 12 rounds (13 if scale > f); otherwise as `exp`."""
    t = rescale(p, fp, x, scale, fp.fractional_bits + 1)
    return power_of_two(p, fp, x, scale, t, 1.0, 4)


def exp_to_base(
    p: Protocol, fp: FixedPoint, base: Any, x: Arith, scale: int
) -> tuple[Arith, int]:
    """base^x for public positive bases in 13 rounds (14 if scale > f); as `exp`.

    Bases so close to 1 that no x takes their power out of range are fine.
    """
    short = min(scale, fp.fractional_bits)
    x, scale = rescale(p, fp, x, scale, short), short
    factor = np.log2(np.asarray(base, np.float64))
    x = p.mul_public(x, element(fp, np.where(factor < 0, -1.0, 1.0)))
    factor = np.abs(factor)
    t = _exponent(p, fp, x, scale, factor)
    unit = 1 / np.maximum(factor, 2.0**-60)
    return power_of_two(p, fp, x, scale, t, unit, 4)


def _exponent(p: Protocol, fp: FixedPoint, x: Arith, scale: int, factor: Any) -> Arith:
    """x factor at scale f + 1 for all x whose exponential is neither 0 nor saturated."""
    f = fp.fractional_bits
    room = fp.ring_bits - 2 - (max(f, integer_bits(fp)) + 1).bit_length()
    if room - scale < f + 2:  # the factor must have more bits than the result
        x, scale = rescale(p, fp, x, scale, f), f
    bits = room - scale
    return p.truncate(p.mul_public(x, element(fp, factor, bits)), scale + bits - f - 1)


def power_of_two(
    p: Protocol,
    fp: FixedPoint,
    x: Arith,
    x_scale: int,
    t: Arith,
    unit: Any,
    degree: int,
    sign: Bit | None = None,
) -> tuple[Arith, int]:
    """2^t for t = x / unit at scale f + 1; negative where the sign bit is set.

    1. <below>: x < high (nothing overflows), x < low (nothing is left)
    2. bits of t + f, whose integer part i is in [0, f + log2 max_value) inside
    3. [2^i] = [inside] prod_j (1 + [b_j] (2^(2^j) - 1))
    4. 2^(i-f) 2^u + [x >= high] max
    """
    f, scale = fp.fractional_bits, fp.fractional_bits + 1
    # Four units keep what truncation adds to t on the right side.
    unit, margin = np.asarray(unit), 4 * fp.resolution
    low = -f * unit + margin
    high = integer_bits(fp) * unit - 2.0 ** (6 - fp.precision) - margin
    if x_scale < f:
        x, x_scale = rescale(p, fp, x, x_scale, f), f
    both = np.clip(np.stack([-low, -high], -1), -fp.max_value, fp.max_value)
    limits = element(fp, both, x_scale)
    below = p.msb(p.add_public(stack([x, x]), limits))

    t = add_real(p, fp, t, f, scale)
    count = (f + integer_bits(fp) - 1).bit_length()
    digits = p.bits_at(p.bits_of(t), scale + np.arange(count))
    bits = p.to_arith(joined([digits, below]), fp.dtype)
    digit = entries(bits, 0, count)

    # [1 + b_j (2^(2^j) - 1)] for all j, and [inside].
    factors = element(fp, np.zeros((count + 2, count + 1)))
    with np.errstate(over="ignore"):
        for j in range(count):
            factors[j, j] = element(fp, 1, 1 << j) - 1
    factors[count, count], factors[count + 1, count] = element(fp, [-1, 1])
    constants = element(fp, np.append(np.ones(count), 0.0))
    shift = _product(p, p.add_public(weighted(p, bits, factors), constants))

    whole = weighted(p, digit, element(fp, np.ldexp(1.0, np.arange(count)), scale))
    fraction = add_real(p, fp, subtract(p, fp, t, whole), -0.5, scale)
    width = min(scale, working_bits(fp))
    fraction = rescale(p, fp, fraction, scale, width)
    c = fitted(fp, np.exp2, 0.0, 1.0, degree)
    power = evaluate(p, fp, fraction, width, c, f)

    top = np.zeros(count + 2)
    top[count + 1] = -largest(fp)
    over = add_real(
        p, fp, weighted(p, bits, element(fp, top, 2 * f)), -top.min(), 2 * f
    )
    if sign is not None:
        both = negated_if(p, fp, spread(sign, 2), stack([shift, over]))
        shift, over = entry(both, 0), entry(both, 1)
    return p.add(p.product(MUL, power, shift), over), 2 * f


def _product(p: Protocol, x: Arith) -> Arith:
    """The product over the last axis, exact in the ring; log2 rounds."""
    while (n := x.shape[-1]) > 1:
        half = n // 2
        pairs = p.product(MUL, entries(x, 0, half), entries(x, half, 2 * half))
        x = concatenate([pairs, entries(x, 2 * half, n)])
    return entry(x, 0)
