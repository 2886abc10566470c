"""Integrals of exponentials and waves: a polynomial near 0, one in 1 / x far from it.

JAX's own quotients of polynomials of high degree do not fit fixed point. These are for
`replaced`; their polynomials are interpolated from SciPy's functions when they are first
used, and their errors are those of 18 fractional bits.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import special  # type: ignore[import-untyped]

_FOUR = 4.0  # where sici and expi change from one polynomial to the other
_DAWSON = 2.5
_SQUARED = 5.0  # exp of its square does not fit


def fitted(fun: Callable[[Any], Any], degree: int = 8) -> Any:
    """The polynomial through a function at Chebyshev's nodes in [0, 1]."""
    series = np.polynomial.chebyshev.Chebyshev.interpolate(fun, degree, domain=[0, 1])
    return series.convert(kind=np.polynomial.Polynomial).coef


def polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """sum_i c_i x^i by Horner's rule."""
    out = jnp.full_like(x, float(coefficients[-1]))
    for c in reversed(coefficients[:-1]):
        out = out * x + float(c)
    return out


def _near(x: Any, end: float) -> Any:
    return lax.min(x, jnp.full_like(x, end))


def _far(x: Any, end: float) -> Any:
    return lax.max(x, jnp.full_like(x, end))


def sici(x: Any) -> tuple[Any, Any]:
    """(Si, Ci) of |x|, Si with the sign of x, within 2^-14; Ci(0) is that of 2^-37.

    Beyond 4 by the auxiliary functions f and g (DLMF 6.2.17 to 6.2.20).
    """
    sine, cosine, first, second = _sici()
    size = lax.abs(x)
    low, high = _near(size, _FOUR), _far(size, _FOUR)
    square = lax.square(low * (1 / _FOUR))
    t = lax.div(jnp.full_like(x, _FOUR), high)
    f = t * polynomial(first, t)
    g = t * t * polynomial(second, t)
    c, s = lax.cos(high), lax.sin(high)
    far = size > _FOUR
    si = jnp.where(far, math.pi / 2 - f * c - g * s, low * polynomial(sine, square))
    ci = jnp.where(far, f * s - g * c, lax.log(low) + polynomial(cosine, square))
    return jnp.where(x < 0, -si, si), ci


@cache
def _sici() -> tuple[Any, ...]:
    def auxiliary(t: Any) -> Any:
        x = _FOUR / t
        si, ci = special.sici(x)
        c, s, rest = np.cos(x), np.sin(x), math.pi / 2 - si
        return ci * s + rest * c, rest * s - ci * c

    def at(u: Any) -> Any:
        return _FOUR * np.sqrt(u)

    return (
        fitted(lambda u: special.sici(at(u))[0] / at(u)),
        fitted(lambda u: special.sici(at(u))[1] - np.log(at(u))),
        fitted(lambda t: auxiliary(t)[0] / t),
        fitted(lambda t: auxiliary(t)[1] / t**2),
    )


def expi(x: Any) -> Any:
    """Ei(x), within 2^-12 relative or 2^-14; the largest number where it does not fit."""
    near, far = _expi()
    size = lax.abs(x)
    low, high = _near(size, _FOUR), _far(size, _FOUR)
    below = lax.log(low) + polynomial(near, low * (1 / _FOUR))
    t = lax.div(jnp.full_like(x, _FOUR), high)
    above = lax.exp(high + lax.log(t * polynomial(far, t)))  # saturates where Ei does
    right = jnp.where(size > _FOUR, above, below)
    return jnp.where(x < 0, -expn(size, n=1), right)


@cache
def _expi() -> tuple[Any, Any]:
    def scaled(t: Any) -> Any:
        """x e^-x Ei(x) / 4, by its asymptotic series where e^x is large."""
        x = np.minimum(_FOUR / t, 600)
        y = _FOUR / t
        series = sum(math.factorial(k) / y**k for k in range(12))
        exact = x * np.exp(-x) * special.expi(x)
        return np.where(y > 60, series, exact) / _FOUR

    near = fitted(lambda u: special.expi(_FOUR * u) - np.log(_FOUR * u), 10)
    return near, fitted(scaled, 14)


def erfcx(x: Any) -> Any:
    """e^(x^2) erfc(x), within 2^-15 or 2^-12 relative; the largest number left of -4.2."""
    size = lax.abs(x)
    t = lax.div(jnp.ones_like(x), 1 + 0.5 * size)
    right = t * polynomial(_erfcx(), t)
    square = lax.square(_near(size, _SQUARED))
    return jnp.where(x < 0, lax.exp(square + math.log(2)) - right, right)


@cache
def _erfcx() -> Any:
    return fitted(lambda t: special.erfcx(2 / t - 2) / t)


def dawsn(x: Any) -> Any:
    """e^(-x^2) times the integral of e^(t^2) from 0 to x, within 2^-14."""
    near, far = _dawsn()
    size = lax.abs(x)
    low = _near(size, _DAWSON)
    t = lax.div(jnp.full_like(x, _DAWSON), _far(size, _DAWSON))
    square = lax.square(low * (1 / _DAWSON))
    inside, outside = low * polynomial(near, square), t * polynomial(far, t * t)
    out = jnp.where(size > _DAWSON, outside, inside)
    return jnp.where(x < 0, -out, out)


@cache
def _dawsn() -> tuple[Any, Any]:
    def at(u: Any) -> Any:
        return _DAWSON * np.sqrt(u)

    return (
        fitted(lambda u: special.dawsn(at(u)) / at(u), 10),
        fitted(lambda u: special.dawsn(_DAWSON / np.sqrt(u)) / np.sqrt(u)),
    )


def expn(x: Any, *, n: int) -> Any:
    """The exponential integral E_n(x) for x >= 0, within 2^-15 (relative, if large).

    Above 1 e^-x times a polynomial in (1 + n) / (x + n); below, where its only
    singularity is that of x^(n-1) log x, a polynomial beside that (DLMF 8.19.8).
    """
    one = jnp.ones_like(x)
    if n == 0:
        return lax.div(lax.exp(-x), x)
    near, far = _integral(n)
    low, high = lax.min(x, one), lax.max(x, one)
    power = _leading(n)
    below = polynomial(near, low) - low ** (n - 1) * lax.log(low) * power
    above = lax.exp(-high) * polynomial(far, lax.div((1 + n) * one, high + n))
    return jnp.where(x < 1, below, above)


def _leading(n: int) -> float:
    """(-1)^(n-1) / (n-1)!"""
    return float((-1) ** (n - 1) * math.exp(-math.lgamma(n)))


@cache
def _integral(n: int) -> tuple[Any, Any]:
    """Coefficients of the polynomials of `expn`, within 2e-6."""
    sign = _leading(n)
    near = fitted(lambda x: special.expn(n, x) + sign * special.xlogy(x ** (n - 1), x))
    nodes, weights = np.polynomial.laguerre.laggauss(60)

    def scaled(t: Any) -> Any:
        """e^x E_n(x), the Laplace transform of (1 + s)^-n."""
        x = (1 + n) / t - n
        whole = (weights * (1 + nodes / x[:, None]) ** -n).sum(-1) / x
        near = np.minimum(x, 40)
        return np.where(x < 40, np.exp(near) * special.expn(n, near), whole)

    return near, fitted(scaled)
