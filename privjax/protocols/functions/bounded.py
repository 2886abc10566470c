"""Bounded functions: rows of `spline.Spline`, and of `octaves.Octaves` for slow tails."""

from typing import Any

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions import octaves, spline
from privjax.protocols.functions.spline import Spline
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith


def _logistic(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


# The segments are as wide as lets the cubics and the constants outside err alike.
LOGISTIC = Spline(_logistic, 0.0, 1.0, factor=5, shift=1, finer=(9, 2))
TANH = Spline(np.tanh, -1.0, 1.0, factor=9, shift=1, finer=(9, 1))
ERF = Spline(special.erf, -1.0, 1.0, factor=8, shift=0, finer=(12, 0))
I0E = octaves.even(special.i0e, at_zero=1.0)
I1E = octaves.odd(special.i1e)


def logistic(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """1/(1 + e^-x) within 2^-18, in 13 rounds (14 if scale > f)."""
    return spline.evaluate(p, fp, x, scale, LOGISTIC)


def tanh(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """tanh x within 2^-17, in 13 rounds (14 if scale > f)."""
    return spline.evaluate(p, fp, x, scale, TANH)


def erf(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """The error function within 2^-17, in 13 rounds (14 if scale > f)."""
    return spline.evaluate(p, fp, x, scale, ERF)


def i0e(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """e^-|x| I_0(x), a modified Bessel function, within 2^-17 in 20 rounds."""
    return octaves.evaluate(p, fp, x, scale, I0E)


def i1e(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """e^-|x| I_1(x), a modified Bessel function, within 2^-17 in 20 rounds."""
    return octaves.evaluate(p, fp, x, scale, I1E)
