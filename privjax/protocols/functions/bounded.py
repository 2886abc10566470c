"""The bounded functions of neural networks, each a row of `spline.Spline`."""

import math
from typing import Any

import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions import spline
from privjax.protocols.functions.spline import Spline
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith


def _logistic(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf)(x)


# The segments are as wide as lets the cubics and the constants outside err alike.
LOGISTIC = Spline(_logistic, 0.0, 1.0, factor=3, shift=1)
TANH = Spline(np.tanh, -1.0, 1.0, factor=11, shift=2)
ERF = Spline(_erf, -1.0, 1.0, factor=5, shift=0)


def logistic(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """1/(1 + e^-x) within 2^-15, in 13 rounds (14 if scale > f)."""
    return spline.evaluate(p, fp, x, scale, LOGISTIC)


def tanh(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """tanh x within 2^-15, in 13 rounds (14 if scale > f)."""
    return spline.evaluate(p, fp, x, scale, TANH)


def erf(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """The error function within 2^-15, in 13 rounds (14 if scale > f)."""
    return spline.evaluate(p, fp, x, scale, ERF)
