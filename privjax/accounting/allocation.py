"""What balls-in-bins batches amplify: Renyi divergences of random allocation.

In an epoch of T batches a unit is in one, at random. Whatever its gradients are, and
however they depend on earlier results, the epoch is post-processing of w in R^T, with
w_t = 1[the unit is in batch t] + N(0, z^2): a step's result is what the other units give,
plus the unit's direction times w_t, plus noise. So the pair

    P = (1/T) sum_t N(e_t, z^2 I),    Q = N(0, z^2 I)

dominates the epoch when one unit is added, removed or zeroed out (Chua, Ghazi, Harrison,
Kamath, Kumar, Leeman, Manurangsi, Sinha and Zhang 2024, "Balls-and-bins sampling for
DP-SGD"). With L_t = exp((w_t - 1/2) / z^2), independent under Q, and k-th moments
exp(k (k - 1) / 2 z^2):

    D_a(P || Q) = log E_Q[(mean of L)^a] / (a - 1), by a power series for whole a:
                  E[(sum of L)^a] = a! [x^a] (sum_k E[L^k] x^k / k!)^T,
    D_a(Q || P) = log E_Q[(mean of L)^-(a - 1)] / (a - 1), by E[A^-b] =
                  integral of s^(b - 1) E[exp(-s A)] ds / Gamma(b).

Epochs compose by adding these up; dp-accounting turns the sum into an epsilon.
"""

import functools
import math

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from privjax.errors import InputError

ORDERS = (*range(2, 33), 36, 40, 48, 56, 64, 80, 96, 128, 192, 256)
# Relative error for which the quadrature is made safe; it is below 1e-9.
_MARGIN = 1e-6
# Standard deviations below the mean that the quadrature, which goes to 14, is used for.
_REACH = 6


def divergences(noise_multiplier: float, bins: int) -> np.ndarray:
    """Renyi divergences of one epoch, the larger of both directions: float64[ORDERS].

    Args:
      noise_multiplier: z, the deviation of the noise over what one unit moves.
      bins: T, the number of batches of an epoch.
    """
    if not 0 < noise_multiplier < math.inf or bins < 1 or bins != int(bins):
        raise InputError(f"noise_multiplier={noise_multiplier}, bins={bins}.")
    there = _with_the_unit(noise_multiplier, int(bins))
    back = _without_the_unit(noise_multiplier, int(bins))
    return np.maximum(there, back)


@functools.lru_cache(maxsize=64)
def _with_the_unit(z: float, bins: int) -> np.ndarray:
    """D_a(P || Q). All terms of the series are positive: logarithms lose nothing."""
    k = np.arange(max(ORDERS) + 1)
    series = k * (k - 1) / (2 * z * z) - special.gammaln(k + 1)
    power = _power(series, bins)
    a = np.array(ORDERS)
    moments = power[a] + special.gammaln(a + 1) - a * math.log(bins)
    return np.maximum(moments / (a - 1), 0)


def _power(series: np.ndarray, n: int) -> np.ndarray:
    """The n-th power of a power series, as logarithms of coefficients."""
    out = np.full(len(series), -np.inf)
    out[0] = 0.0
    while n:
        if n & 1:
            out = _product(out, series)
        series = _product(series, series)
        n >>= 1
    return out


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The first coefficients of a product: row k of the terms has a_j b_(k - j)."""
    j = np.arange(len(a))
    behind = j[:, None] - j[None, :]
    terms = np.where(behind < 0, -np.inf, a[None, :] + b[behind])
    return special.logsumexp(terms, axis=1)


@functools.lru_cache(maxsize=64)
def _without_the_unit(z: float, bins: int) -> np.ndarray:
    """D_a(Q || P), by trapezoids on analytic integrands that vanish at both ends.

    The expectation is decided where every w_t is about b / T below its mean. Where that
    is beyond the range, by mean >= geometric mean: E[A^-b] <= E[L^(-b / T)]^T.
    """
    b = np.array(ORDERS, float) - 1
    bound = (b / bins + 1) / (2 * z * z)
    x, step = np.linspace(-14, 14, 561, retstep=True)
    weight = np.exp(-x * x / 2) * step / math.sqrt(2 * math.pi)
    values = x / z - 1 / (2 * z * z)  # log L
    # The integrand is at its highest where s is about b; it ends below and above.
    u, du = np.linspace(-60.0, 60.0 + 14 / z, 2401, retstep=True)  # log s
    inside = np.exp(np.minimum(u[:, None] - math.log(bins) + values[None, :], 700.0))
    with np.errstate(under="ignore"):
        laplace = np.exp(-inside) @ weight
        # Near 1 the transform's own rounding would be raised to the power T.
        missing = -np.expm1(-inside) @ weight
    log_laplace = np.where(
        missing < 0.5, np.log1p(-np.minimum(missing, 0.5)), np.log(laplace + 1e-300)
    )
    terms = b[:, None] * u[None, :] + bins * log_laplace[None, :]
    moments = special.logsumexp(terms, axis=1) + math.log(du) - special.gammaln(b)
    ends = np.maximum(terms[:, 0], terms[:, -1])
    settled = (ends < np.max(terms, axis=1) - 40) & (b / (bins * z) < _REACH)
    exact = (moments + _MARGIN) / b
    return np.where(settled, np.clip(exact, 0, bound), bound)
