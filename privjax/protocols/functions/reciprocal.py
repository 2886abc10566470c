"""1/x and n/d by normalisation: a polynomial for 1/m, a shift for the exponent."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import negated_if
from privjax.protocols.functions.linear import (
    element,
    entry,
    integer_bits,
    largest,
    rescale,
    spread,
    stack,
    subtract,
    threshold,
    weighted,
    working_bits,
)
from privjax.protocols.functions.normalise import Normalised, normalise
from privjax.protocols.functions.polynomial import evaluate, fitted
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.tuples import MUL


def _inverse_mantissa(p: Protocol, fp: FixedPoint, x: Normalised) -> Arith:
    """1/m at scale f: the polynomial is within 2^-19."""
    c = fitted(fp, _invert, 1.0, 2.0, 7)
    return evaluate(p, fp, x.mantissa, working_bits(fp), c, fp.fractional_bits)


def _invert(m: Any) -> Any:
    return 1.0 / m


def powers_of_two(
    p: Protocol, fp: FixedPoint, x: Normalised, exponent: float
) -> tuple[Arith, Arith | None]:
    """[2^(exponent e)] at scale f with the sign of x, and what saturates, at scale 2f.

    Where no 2^(exponent (e + 1)) fits, the factor is 0 and the second the largest value;
    it is None where everything fits.
    """
    e, top = exponent * x.exponents, largest(fp)
    beyond = np.minimum(e, e + exponent) >= integer_bits(fp)
    tables = [
        element(
            fp, np.where(beyond, 0.0, np.minimum(np.exp2(e), top)), fp.fractional_bits
        )
    ]
    if beyond.any():
        tables.append(element(fp, np.where(beyond, top, 0.0), 2 * fp.fractional_bits))
    both = x.table(p, np.stack(tables, -1))
    if x.sign is not None:
        both = negated_if(p, fp, spread(x.sign, len(tables)), both)
    return entry(both, 0), entry(both, 1) if beyond.any() else None


def reciprocal(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """1/x in 22 rounds, with a relative error of 2^-15 or an absolute one of an ulp.

    1/0 is 0. Where |1/x| is above `fp.max_value` the result saturates.
    """
    parts = normalise(p, fp, x, scale, signed=True)
    weight, beyond = powers_of_two(p, fp, parts, -1.0)
    out = p.product(MUL, weight, _inverse_mantissa(p, fp, parts))
    out = out if beyond is None else p.add(out, beyond)
    return out, 2 * fp.fractional_bits


def divide(
    p: Protocol, fp: FixedPoint, n: Arith, n_scale: int, d: Arith, d_scale: int
) -> tuple[Arith, int]:
    """n/d in 22 rounds (shapes equal), relative error 2^-15 or absolute two ulps.

    1/d may be far above or below the quotient, as in m / (sqrt(v) + eps). n/0 is 0;
    quotients above `fp.max_value` saturate.

    1. d = +-m 2^e; q = sum_i n_i w_i(e) with n_i = n at scale f - c_i, w_i = 2^-e for
       c_i < e <= c_(i+1) and 0 elsewhere: the larger the divisor, the fewer low bits of
       n matter, and every product fits into the ring
    2. n/d = +-q / m, with q = 0 where it does not fit (`_beyond`)
    """
    parts = normalise(p, fp, d, d_scale, signed=True)
    inside, saturated = _beyond(p, fp, n, n_scale, parts, d_scale)
    quotient = p.bit_times(inside, _shifted(p, fp, n, n_scale, parts))
    out = p.product(MUL, quotient, _inverse_mantissa(p, fp, parts))
    return p.add(out, saturated), 2 * fp.fractional_bits


def ratio(
    p: Protocol, fp: FixedPoint, n: Arith, d: Arith, scale: int
) -> tuple[Arith, int]:
    """n/d for 0 <= n <= d in 22 rounds, relative error 2^-15 or two ulps; 0/0 is 0."""
    parts = normalise(p, fp, d, scale, signed=False)
    quotient = _shifted(p, fp, n, scale, parts)
    out = p.product(MUL, quotient, _inverse_mantissa(p, fp, parts))
    return out, 2 * fp.fractional_bits


def _shifted(
    p: Protocol, fp: FixedPoint, n: Arith, n_scale: int, d: Normalised
) -> Arith:
    """[+-n 2^-e] at scale f, with the sign of d."""
    f, integer = fp.fractional_bits, integer_bits(fp)
    # |n 2^-e| <= 2 |n/d| needs 1 + `integer` bits before the point; f + step remain.
    step = max(f - 1, 1)
    # A numerator that has more than f fractional bits keeps them for divisors below 1.
    first = -f if n_scale > f else 0
    cuts = range(first, integer, step)
    limbs = stack([rescale(p, fp, n, n_scale, f - c) for c in cuts])
    if d.sign is not None:
        limbs = negated_if(p, fp, spread(d.sign, len(cuts)), limbs)
    e = d.exponents
    weights = [
        element(
            fp,
            np.where(
                (e <= c + step) & ((e > c) | (c == first)), np.ldexp(1.0, -e), 0.0
            ),
            step + c,
        )
        for c in cuts
    ]
    # One product along a new last axis, summed there.
    quotient = p.product(MUL, limbs, d.table(p, np.stack(weights, -1)))
    quotient = p.additive(lambda v: jnp.sum(v, -1, dtype=v.dtype), quotient)
    return p.truncate(quotient, step)


def _beyond(
    p: Protocol, fp: FixedPoint, n: Arith, n_scale: int, d: Normalised, d_scale: int
) -> tuple[Bit, Arith]:
    """(<|n/d| fits>, the saturated quotient at scale 2f where it does not, else 0).

    Only divisors below 1 make quotients that do not fit: |n| < max |d| is asked of them,
    and |n| < 2^(k-2), which always holds, of the others and of 0.
    """
    k, top = fp.ring_bits, largest(fp)
    below_one = element(fp, np.where(d.exponents < 0, 1.0, 0.0))
    scale = max(n_scale, d_scale)
    small = d.table(p, below_one)
    factor = int(threshold(fp)) << (scale - d_scale)
    limit = p.mul_public(p.product(MUL, d.magnitude, small), factor)
    large = element(fp, 1.0, k - 2)
    limit = p.add(limit, p.add_public(p.mul_public(small, -int(large)), large))
    n = rescale(p, fp, n, n_scale, scale)
    signs = p.msb(stack([subtract(p, fp, n, limit), p.add(n, limit)]))
    high, low = entry(signs, 0), entry(signs, 1)  # <n < limit>, <n < -limit>
    inside = p.xor(high, low)
    assert d.sign is not None
    outside = p.xor_public(inside, np.uint8(1))
    minus = p.and_(outside, p.xor(low, d.sign))
    both = p.to_arith(stack([outside, minus]), fp.dtype)
    weights = element(fp, [top, -2 * top], 2 * fp.fractional_bits)
    return inside, weighted(p, both, weights)
