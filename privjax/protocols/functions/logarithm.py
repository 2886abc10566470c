"""Logarithm: log(m 2^e) = log m + e log 2."""

import math

import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.linear import add_real, element, working_bits
from privjax.protocols.functions.normalise import normalise
from privjax.protocols.functions.polynomial import evaluate, fitted
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith


def log_of_zero(fp: FixedPoint) -> float:
    """What `log` gives for x <= 0: a little less than for the smallest number."""
    return -(2 * fp.fractional_bits + 1) * math.log(2)


def log(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """Natural logarithm in 21 rounds, with an absolute error of 2^-17.

    `log_of_zero` for x <= 0 (a NaN or infinity elsewhere): the one-hot vector is zero
    there and so is the centred mantissa, which leaves a constant.
    """
    out = 2 * fp.fractional_bits
    # log1p(x) adds 1 to x, which may be the largest value already.
    parts = normalise(p, fp, x, scale, signed=False, above=1)
    c = fitted(fp, np.log, 1.0, 2.0, 7)
    mantissa = evaluate(p, fp, parts.mantissa, working_bits(fp), c, out)
    otherwise = log_of_zero(fp) - c[0]
    exponent = parts.table(
        p, element(fp, parts.exponents * math.log(2) - otherwise, out)
    )
    return add_real(p, fp, p.add(mantissa, exponent), otherwise, out), out
