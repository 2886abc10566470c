"""The incomplete gamma and beta functions of a secret x, for public parameters.

They are distribution functions: steeper the larger their parameters are, so that the
polynomials of an octave fit them up to some size of these only.
"""

from functools import cache

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from privjax.errors import RangeError
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.inverse import near_one
from privjax.protocols.functions.linear import add_real, rescale
from privjax.protocols.functions.octaves import Octaves, error, evaluate
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith

_MOST = 2.0**-14.1


def igamma(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, a: float, *, upper: bool
) -> tuple[Arith, int]:
    """The regularised lower (or upper) incomplete gamma function within 2^-14.

    20 rounds, for 0 < a <= 20 or so; x < 0 counts as 0.
    """
    return evaluate(p, fp, x, scale, _igamma(a, upper))


def betainc(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, a: float, b: float
) -> tuple[Arith, int]:
    """The regularised incomplete beta function I_x(a, b) within 2^-14.

    27 rounds, for a and b between 0 and 20 or so; x is cut off to [0, 1]. By octaves
    of the distance to the nearer end.
    """
    f = fp.fractional_bits
    x, scale = rescale(p, fp, x, scale, max(scale, f)), max(scale, f)
    twice = add_real(p, fp, x, -0.5, scale)  # 2 x - 1 at a scale less by one
    return near_one(p, fp, twice, scale - 1, _betainc(a, b))


@cache
def _igamma(a: float, upper: bool) -> Octaves:
    if not a > 0:
        raise RangeError(f"a = {a}: the incomplete gamma function is for a > 0.")
    fun = special.gammaincc if upper else special.gammainc
    spec = Octaves(lambda x: fun(a, x), at_zero=1.0 if upper else 0.0, degree=7)
    return _smooth(spec, -36, 26, f"a = {a}")


@cache
def _betainc(a: float, b: float) -> Octaves:
    """Of t = 1 - |2 x - 1|, with the sign of 2 x - 1."""
    if not (a > 0 and b > 0):
        raise RangeError(f"a = {a}, b = {b}: the incomplete beta function is for > 0.")

    def low(t: np.ndarray) -> np.ndarray:
        return np.asarray(special.betainc(a, b, np.minimum(t, 1) / 2))

    def high(t: np.ndarray) -> np.ndarray:
        return np.asarray(1 - special.betainc(b, a, np.minimum(t, 1) / 2))

    spec = Octaves(high, low, at_zero=1.0, at_minus_zero=0.0, degree=7)
    return _smooth(spec, -36, 0, f"a = {a}, b = {b}")


def _smooth(spec: Octaves, low: int, high: int, parameters: str) -> Octaves:
    if error(spec, low, high) > _MOST:
        raise RangeError(
            f"{parameters}: the function is too steep for its polynomials (they fit up "
            "to 20 or so). Standardise x and use a normal distribution there "
            "(jax.scipy.stats.norm.cdf), or reveal x."
        )
    return spec
