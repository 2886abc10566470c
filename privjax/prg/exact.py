"""Probabilities of noise on the integers, as integers: no floating point anywhere.

Each function returns a `Law`: weights of consecutive integers in fixed point of
`WORK` bits, computed by integer arithmetic from a rational parameter. Rounding errors
of single operations are at most one unit of 2^-WORK; they add up to less than 2^-200 of
the total for every size that is admitted, far below the 2^-96 to which
`tables.table_of` rounds. The tails that are cut off hold less than 2^-97.

Sources: Canonne, Kamath and Steinke 2020 (the discrete Gaussian), Ghosh, Roughgarden
and Sundararajan 2009 (two-sided geometric = discrete Laplace), Agarwal, Kairouz and Liu
2021 (Skellam).
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from privjax.errors import InputError

WORK = 256
_ONE = 1 << WORK
# Natural logarithm of the mass that a tail may hold: below 2^-97.
_TAIL = 70.0
# Entries of a table, at most: more would be a constant of many megabytes.
MOST = 1 << 20


@dataclass(frozen=True)
class Law:
    """Weights of the integers `first`, `first + 1`, ...; of any total."""

    first: int
    weights: tuple[int, ...]


def exp_minus(x: Fraction) -> int:
    """exp(-x) 2^WORK for x >= 0, to within one unit."""
    if x < 0:
        raise InputError(f"exp_minus takes numbers of at least 0, not {x}.")
    guard = 64
    bits = WORK + guard
    halvings = max(0, math.ceil(x).bit_length() + 8)
    small = (x.numerator << bits) // (x.denominator << halvings)
    # Taylor series of exp(-small), small < 2^-7: alternating, so the rest is smaller
    # than the term that is left out. Then squared back.
    total, term, n = 1 << bits, 1 << bits, 0
    while term:
        n += 1
        term = (term * small >> bits) // n
        total += -term if n % 2 else term
    for _ in range(halvings):
        total = total * total >> bits
    return total >> guard


def _room(entries: int) -> int:
    if entries > MOST:
        raise InputError(
            f"this noise needs a table of {entries} entries, more than {MOST}: choose a "
            "coarser granularity."
        )
    return entries


def _bell(scale: Fraction) -> list[int]:
    """exp(-k^2 / 2 scale^2) for k = 0, 1, ... until the tail is negligible."""
    count = _room(2 * math.ceil(float(scale) * math.sqrt(2 * _TAIL)) + 3) // 2 + 1
    ratio = exp_minus(1 / (2 * scale * scale))
    step = exp_minus(1 / (scale * scale))
    weights = [_ONE]
    for _ in range(count):
        weights.append(weights[-1] * ratio >> WORK)
        ratio = ratio * step >> WORK
    return weights


def _both_sides(weights: list[int]) -> Law:
    return Law(1 - len(weights), (*weights[:0:-1], *weights))


def discrete_gaussian(scale: Fraction) -> Law:
    """P(k) proportional to exp(-k^2 / (2 scale^2))."""
    _positive(scale)
    return _both_sides(_bell(scale))


def rounded_gaussian(scale: Fraction) -> Law:
    """P(k) = the probability of [k - 1/2, k + 1/2] under a Gaussian of deviation scale.

    With h = 1/scale and x = k h, the cell holds phi(x) times the sum over even n of
    2 He_n(x) (h/2)^(n+1) / (n+1)!: a Taylor series around its centre. Terms are taken
    until |He_n(x)| <= (|x| + 2 sqrt n)^n makes the next ones less than 2^-200.
    """
    _positive(scale)
    if scale < Fraction(1, 2):
        raise InputError("a rounded Gaussian needs a scale of at least half a step.")
    bell = _bell(scale)
    half = 1 / (2 * scale)
    unit = (half.numerator << WORK) // half.denominator
    square = unit * unit >> WORK
    widest = (len(bell) - 1) * 2 * float(half)
    orders = 2
    while orders * math.log(
        float(half) * (widest + 2 * math.sqrt(orders))
    ) - math.lgamma(orders + 2) > -200 * math.log(2):
        orders += 2
    cells = []
    for k, weight in enumerate(bell):
        x = 2 * k * unit
        before, now = _ONE, x  # He_0, He_1
        factor, total = _ONE, _ONE
        for n in range(2, orders + 1):
            before, now = now, (x * now >> WORK) - (n - 1) * before
            if n % 2 == 0:
                factor = (factor * square >> WORK) // (n * (n + 1))
                total += now * factor >> WORK
        cells.append(weight * total >> WORK)
    return _both_sides(cells)


def geometric(scale: Fraction) -> Law:
    """P(k) proportional to exp(-k / scale) for k >= 0."""
    _positive(scale)
    count = _room(math.ceil(float(scale) * _TAIL) + 2)
    ratio = exp_minus(1 / scale)
    weights = [_ONE]
    for _ in range(count):
        weights.append(weights[-1] * ratio >> WORK)
    return Law(0, tuple(weights))


def discrete_laplace(scale: Fraction) -> Law:
    """P(k) proportional to exp(-|k| / scale)."""
    _positive(scale)
    _room(2 * math.ceil(float(scale) * _TAIL))
    return _both_sides(list(geometric(scale).weights))


def skellam(variance: Fraction) -> Law:
    """The difference of two Poisson numbers of mean variance / 2 each.

    P(k) = exp(-v) I_k(v). Ratios I_k / I_{k-1} by their backward recurrence, which
    forgets where it was begun: 1 / (2 k / v + ratio_{k+1}).
    """
    _positive(variance)
    v = float(variance)
    # Chernoff: the tail beyond k is below exp(-k asinh(k/v) + sqrt(k^2 + v^2) - v).
    last = 4
    while last * math.asinh(last / v) - math.hypot(last, v) + v < _TAIL:
        last = _room(math.ceil(last * 1.05) + 1)
    start = 4 * last + 200
    two_over_v = (2 * variance.denominator << WORK) // variance.numerator
    ratios, ratio = [0] * (last + 1), 0
    for k in range(start, 0, -1):
        ratio = (_ONE << WORK) // (k * two_over_v + ratio)
        if k <= last:
            ratios[k] = ratio
    weights = [_ONE]
    for k in range(1, last + 1):
        weights.append(weights[-1] * ratios[k] >> WORK)
    return _both_sides(weights)


def gumbel(scale: Fraction) -> Law:
    """A standard Gumbel times scale, rounded up to an integer.

    P(X <= k) = exp(-exp(-k / scale)).
    """
    _positive(scale)
    first = -math.ceil(float(scale) * math.log(_TAIL)) - 1
    count = _room(math.ceil(float(scale) * _TAIL) - first + 2)
    cdf = [0]
    # exp(-k/scale) = exp(-first/scale) * exp(-1/scale)^(k - first); the first is > 1.
    grown = (_ONE << WORK) // exp_minus(Fraction(-first) / scale)
    ratio = exp_minus(1 / scale)
    for _ in range(count):
        cdf.append(exp_minus(Fraction(grown, _ONE)))
        grown = grown * ratio >> WORK
    cdf[-1] = _ONE
    weights = [max(b - a, 0) for a, b in zip(cdf[:-1], cdf[1:], strict=True)]
    return Law(first, tuple(weights))


def finite(probabilities: tuple[Fraction, ...]) -> Law:
    """The integers 0, 1, ... with these probabilities."""
    if sum(probabilities) != 1 or min(probabilities) < 0:
        raise InputError("probabilities must be at least 0 and add up to 1.")
    return Law(0, tuple((p.numerator << WORK) // p.denominator for p in probabilities))


def _positive(scale: Fraction) -> None:
    if not scale > 0:
        raise InputError(f"the scale of noise must be greater than 0, not {scale}.")
