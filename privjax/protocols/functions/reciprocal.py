"""1/x and n/d by normalisation: a polynomial for 1/m, a shift for the exponent."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import negated_if
from privjax.protocols.functions.linear import (
    element,
    integer_bits,
    rescale,
    saturated,
    stack,
    working_bits,
)
from privjax.protocols.functions.normalise import Normalised, normalise
from privjax.protocols.functions.polynomial import chebyshev, evaluate
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import MUL


def _inverse_mantissa(p: Protocol, fp: FixedPoint, x: Normalised) -> Arith:
    """1/m at scale f: the polynomial is within 2^-19."""
    assert x.sign is not None
    c = chebyshev(_invert, 1.0, 2.0, 7)
    return evaluate(p, fp, x.mantissa, working_bits(fp), c, fp.fractional_bits)


def _invert(m: Any) -> Any:
    return 1.0 / m


def reciprocal(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """1/x in 22 rounds, with a relative error of 2^-15 or an absolute one of an ulp.

    1/0 is 0. Where |1/x| is above `fp.max_value` the result has the right sign and a
    magnitude between a half and all of that.
    """
    f = fp.fractional_bits
    parts = normalise(p, fp, x, scale, signed=True)
    assert parts.sign is not None
    weight = parts.table(p, saturated(fp, np.ldexp(1.0, -parts.exponents), f))
    weight = negated_if(p, fp, parts.sign, weight)
    return p.product(MUL, weight, _inverse_mantissa(p, fp, parts)), 2 * f


def divide(
    p: Protocol, fp: FixedPoint, n: Arith, n_scale: int, d: Arith, d_scale: int
) -> tuple[Arith, int]:
    """n/d in 22 rounds (shapes equal), relative error 2^-15 or absolute two ulps.

    Only the quotient must stay below `fp.max_value`: 1/d may be far above or below, as
    in m / (sqrt(v) + eps). n/0 is 0; quotients out of range wrap around.

    1. d = +-m 2^e; q = sum_i n_i w_i(e) with n_i = n at scale f - c_i, w_i = 2^-e for
       c_i < e <= c_(i+1) and 0 elsewhere: the larger the divisor, the fewer low bits of
       n matter, and every product fits into the ring
    2. n/d = +-q / m
    """
    f, integer = fp.fractional_bits, integer_bits(fp)
    parts = normalise(p, fp, d, d_scale, signed=True)
    assert parts.sign is not None
    # |n 2^-e| <= 2 |n/d| needs 1 + `integer` bits before the point; f + step remain.
    step = max(f - 1, 1)
    # A numerator that has more than f fractional bits keeps them for divisors up to 1.
    first = -step if n_scale > f else 0
    cuts = range(first, integer, step)
    limbs = [rescale(p, fp, n, n_scale, f - c) for c in cuts]
    limbs = [negated_if(p, fp, parts.sign, limb) for limb in limbs]
    e = parts.exponents
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
    quotient = p.product(MUL, stack(limbs), parts.table(p, np.stack(weights, -1)))
    quotient = p.additive(lambda v: jnp.sum(v, -1, dtype=v.dtype), quotient)
    quotient = p.truncate(quotient, step)
    return p.product(MUL, quotient, _inverse_mantissa(p, fp, parts)), 2 * f
