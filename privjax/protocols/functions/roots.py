"""Roots by normalisation: a polynomial for the mantissa, a table for the exponent.

Give x at its full scale (2f for a product that nobody truncated): roots stretch small
numbers, sqrt(2^-36) is 2^-18.
"""

from typing import Any

import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.linear import working_bits
from privjax.protocols.functions.normalise import normalise
from privjax.protocols.functions.polynomial import evaluate, fitted
from privjax.protocols.functions.reciprocal import powers_of_two
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import MUL


def sqrt(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """Square root in 20 rounds, relative error 2^-15 or an ulp; 0 for x <= 0."""
    return _power(p, fp, x, scale, np.sqrt, 0.5, 4, signed=False)


def rsqrt(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """1/sqrt(x) in 22 rounds, relative error 2^-15 or an ulp; 0 for x <= 0."""
    return _power(p, fp, x, scale, _inverse_root, -0.5, 6, signed=False)


def cbrt(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """Cube root in 20 rounds, relative error 2^-15 or an ulp."""
    return _power(p, fp, x, scale, np.cbrt, 1 / 3, 4, signed=True)


def _inverse_root(m: Any) -> Any:
    return 1.0 / np.sqrt(m)


def _power(
    p: Protocol,
    fp: FixedPoint,
    x: Arith,
    scale: int,
    fun: Any,
    exponent: float,
    degree: int,
    *,
    signed: bool,
) -> tuple[Arith, int]:
    f = fp.fractional_bits
    parts = normalise(p, fp, x, scale, signed=signed)
    weight, beyond = powers_of_two(p, fp, parts, exponent)
    c = fitted(fp, fun, 1.0, 2.0, degree)
    root = evaluate(p, fp, parts.mantissa, working_bits(fp), c, f)
    out = p.product(MUL, root, weight)
    return (out if beyond is None else p.add(out, beyond)), 2 * f
