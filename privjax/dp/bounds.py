"""From counts of a test's errors to a lower bound on epsilon."""

import math

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from privjax import accounting
from privjax.errors import InputError

TRADE_OFFS = ("any", "gaussian")


def clopper_pearson(hits: int, trials: int, confidence: float) -> float:
    """One-sided upper bound on a probability after `hits` in `trials`."""
    if hits >= trials:
        return 1.0
    return float(stats.beta.ppf(confidence, hits + 1, trials - hits))


def epsilon_from_errors(
    false_positive: float, false_negative: float, delta: float, trade_off: str = "any"
) -> float:
    """The least epsilon at `delta` at which a test may have both error rates.

    "any": (epsilon, delta)-DP asks FNR >= 1 - delta - exp(epsilon) FPR and the other way
    round. "gaussian": assumes the trade-off curve of a Gaussian mechanism,
    mu = q(1 - FPR) - q(FNR) with q the normal quantile.
    """
    if trade_off not in TRADE_OFFS:
        raise InputError(f"trade_off={trade_off!r} is none of {TRADE_OFFS}.")
    if trade_off == "gaussian":
        mu = stats.norm.isf(false_positive) - stats.norm.ppf(false_negative)
        if not mu > 1e-3:
            return 0.0
        return accounting.epsilon(
            noise_multiplier=1 / mu, steps=1, sampling_rate=1, delta=delta
        )
    best = 0.0
    for a, b in (
        (false_positive, false_negative),
        (false_negative, false_positive),
    ):
        if a > 0 and 1 - delta - b > a:
            best = max(best, math.log((1 - delta - b) / a))
    return best


def one_run_epsilon(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float
) -> float:
    """Lower bound on epsilon from guesses about independent inclusions.

    Steinke, Nasr and Jagielski 2023, theorem 5.2: under (epsilon, delta)-DP, `correct`
    is at most Binomial(guesses, 1 / (1 + exp(-epsilon))), up to a term in delta.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise InputError(f"{correct} of {guesses} guesses, {canaries} canaries.")
    if guesses == 0:
        return 0.0
    budget = 1 - confidence

    def p_value(epsilon: float) -> float:
        rate = 1 / (1 + math.exp(-epsilon))
        tail = float(stats.binom.sf(correct - 1, guesses, rate))
        masses = stats.binom.pmf(correct - np.arange(1, correct + 1), guesses, rate)
        sums = np.cumsum(masses) / np.arange(1, correct + 1)
        worst = float(sums.max(initial=0.0))
        return min(1.0, tail + 2 * canaries * delta * worst)

    if p_value(0.0) >= budget:
        return 0.0
    low, high = 0.0, 1.0
    while p_value(high) < budget and high < 64:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle) < budget else (low, middle)
    return low
