"""Exact laws and the tables made of them: against fractions, scipy, and in samples."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from privjax.errors import InputError
from privjax.prg import Purpose, exact, insecure_key, key_words
from privjax.prg.tables import BITS, cached_table, draw, from_words, table_of

KEY = np.asarray(key_words(insecure_key(21)))
NONCE = (Purpose.NOISE, 0, 0)

GRID = np.arange(-4000, 4001)


def tail_safe_normal(k: np.ndarray, scale: float) -> np.ndarray:
    k = np.abs(k)
    return stats.norm.sf((k - 0.5) / scale) - stats.norm.sf((k + 0.5) / scale)


def bell(k: np.ndarray, scale: float) -> np.ndarray:
    weights = np.exp(-(k**2) / (2 * scale**2))
    return weights / np.exp(-(GRID**2) / (2 * scale**2)).sum()


def gumbel(k: np.ndarray, scale: float) -> np.ndarray:
    upper, lower = -np.exp(-k / scale), -np.exp(-(k - 1) / scale)
    return np.exp(upper) * -np.expm1(lower - upper)


CASES = {
    "discrete gaussian": (exact.discrete_gaussian, Fraction(37, 3), bell),
    "narrow discrete gaussian": (exact.discrete_gaussian, Fraction(2, 5), bell),
    "rounded gaussian": (exact.rounded_gaussian, Fraction(300), tail_safe_normal),
    "narrow rounded gaussian": (
        exact.rounded_gaussian,
        Fraction(3, 4),
        tail_safe_normal,
    ),
    "laplace": (
        exact.discrete_laplace,
        Fraction(25, 2),
        lambda k, s: stats.dlaplace.pmf(k, 1 / s),
    ),
    "geometric": (
        exact.geometric,
        Fraction(9),
        lambda k, s: np.exp(-k / s) * -np.expm1(-1 / s),
    ),
    "skellam": (
        exact.skellam,
        Fraction(200),
        lambda k, v: stats.skellam.pmf(k, v / 2, v / 2),
    ),
    "narrow skellam": (
        exact.skellam,
        Fraction(1, 3),
        lambda k, v: stats.skellam.pmf(k, v / 2, v / 2),
    ),
    "gumbel": (exact.gumbel, Fraction(20), gumbel),
}


@pytest.mark.parametrize("name", CASES)
def test_law_against_floating_point(name: str) -> None:
    law, parameter, expected = CASES[name]
    found = law(parameter)
    total = sum(found.weights)
    k = found.first + np.arange(len(found.weights))
    mass = np.array([float(Fraction(w, total)) for w in found.weights])
    reference = expected(k.astype(float), float(parameter))
    seen = reference > 1e-10
    np.testing.assert_allclose(mass[seen], reference[seen], rtol=2e-10)
    assert mass[~seen].sum() < 1e-7


@pytest.mark.parametrize("name", CASES)
def test_table_is_the_law_to_its_stated_distance(name: str) -> None:
    """All in fractions: the law's probabilities against differences of cuts."""
    law, parameter, _ = CASES[name]
    found = law(parameter)
    table = table_of(found)
    total = sum(found.weights)
    ends = [0, *table.cuts, 1 << BITS]
    mass = {
        table.first + i: Fraction(b - a, 1 << BITS)
        for i, (a, b) in enumerate(zip(ends[:-1], ends[1:], strict=True))
    }
    assert min(mass.values()) >= 0 and sum(mass.values()) == 1
    assert table.first in mass and mass[table.first] > 0
    distance = sum(
        abs(Fraction(w, total) - mass.get(found.first + i, 0))
        for i, w in enumerate(found.weights)
    )
    assert float(distance / 2) <= table.distance


@pytest.mark.parametrize("name", CASES)
def test_samples_follow_the_law(name: str) -> None:
    law, parameter, expected = CASES[name]
    n = 40_000
    x = np.asarray(draw(KEY, NONCE, (n,), cached_table(law, parameter)))
    assert x.dtype == np.int32
    values = np.arange(x.min(), x.max() + 1)
    mass = expected(values.astype(float), float(parameter)) * n
    # Cells of at least five expected counts, from the left.
    counts, wanted, a, b = [], [], 0.0, 0.0
    for v, m in zip(values, mass, strict=True):
        a, b = a + np.count_nonzero(x == v), b + m
        if b >= 5:
            counts, wanted, a, b = [*counts, a], [*wanted, b], 0.0, 0.0
    counts[-1] += a
    wanted = np.array(wanted) * (sum(counts) / sum(wanted))
    assert stats.chisquare(counts, wanted).pvalue > 1e-3


def test_exp_minus() -> None:
    for x in (Fraction(0), Fraction(1, 3), Fraction(1), Fraction(47, 2), Fraction(100)):
        found = Fraction(exact.exp_minus(x), 1 << exact.WORK)
        assert float(found) == pytest.approx(math.exp(-x), rel=1e-14)
    # exp(-1) to 70 digits, from the series 1/n! in fractions.
    series = sum(Fraction((-1) ** n, math.factorial(n)) for n in range(80))
    assert abs(Fraction(exact.exp_minus(Fraction(1)), 1 << exact.WORK) - series) < (
        Fraction(2, 1 << exact.WORK)
    )
    with pytest.raises(InputError):
        exact.exp_minus(Fraction(-1))


def test_skellam_against_its_series() -> None:
    """P(0) = exp(-v) sum (v/2)^2n / n!^2, in fractions."""
    v = Fraction(7, 4)
    series = sum((v / 2) ** (2 * n) / math.factorial(n) ** 2 for n in range(60))
    found = exact.skellam(v)
    mass = Fraction(found.weights[-found.first], sum(found.weights))
    wanted = series * Fraction(exact.exp_minus(v), 1 << exact.WORK)
    assert abs(mass - wanted) < Fraction(1, 1 << 98)


def test_finite_law_is_exact() -> None:
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    table = table_of(exact.finite((quarter, half, quarter)))
    assert table.first == 0 and table.cuts == (1 << BITS - 2, 3 << BITS - 2)
    certain = cached_table(exact.finite, (Fraction(1),))
    assert np.all(np.asarray(draw(KEY, NONCE, (5,), certain)) == 0)
    with pytest.raises(InputError):
        exact.finite((half, half, half))


@pytest.mark.parametrize("name", CASES)
def test_aliases_hold_the_table_exactly(name: str) -> None:
    law, parameter, _ = CASES[name]
    table = cached_table(law, parameter)
    limits, other = table.aliases
    full = (1 << BITS) // other.size
    ends = [0, *table.cuts, 1 << BITS]
    mass = [0] * other.size
    for column, (words, alias) in enumerate(zip(limits.T, other, strict=True)):
        own = sum(int(w) << 32 * (2 - i) for i, w in enumerate(words))
        assert 0 <= own <= full
        mass[column] += own
        mass[alias] += full - own
    wanted = [b - a for a, b in zip(ends[:-1], ends[1:], strict=True)]
    assert mass == wanted + [0] * (other.size - len(wanted))


def test_look_up_at_the_borders() -> None:
    """In every column: the limit, one less and one more, and both ends."""
    table = table_of(exact.discrete_gaussian(Fraction(20)))
    limits, other = table.aliases
    full = (1 << BITS) // other.size
    numbers, expected = [], []
    for column in range(other.size):
        own = sum(int(w) << 32 * (2 - i) for i, w in enumerate(limits[:, column]))
        for rest in {0, own - 1, own, own + 1, full - 1}:
            if 0 <= rest < full:
                numbers.append(column * full + rest)
                value = column if rest < own else other[column]
                expected.append(table.first + value)
    raw = b"".join(n.to_bytes(12, "big") for n in numbers)
    words = np.frombuffer(raw, ">u4").reshape(-1, 3).T.astype(np.uint32)
    np.testing.assert_array_equal(from_words(jnp.asarray(words), table), expected)


def test_transformations_agree_and_lanes_differ() -> None:
    table = cached_table(exact.rounded_gaussian, Fraction(300))
    keys = jax.vmap(key_words)(jax.random.split(insecure_key(3), 4))
    one = lambda k: draw(k, NONCE, (500,), table)  # noqa: E731
    eager = np.stack([one(k) for k in keys])
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(keys), eager)
    _, scanned = jax.lax.scan(lambda c, k: (c, one(k)), 0, keys)
    np.testing.assert_array_equal(scanned, eager)
    correlation = np.corrcoef(eager)
    assert np.abs(correlation - np.eye(4)).max() < 5 / np.sqrt(500)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(one(keys[0]), eager[0])


@pytest.mark.parametrize(
    ("law", "parameter"),
    [
        (exact.discrete_gaussian, Fraction(0)),
        (exact.rounded_gaussian, Fraction(1, 10)),
        (exact.discrete_laplace, Fraction(10**6)),
        (exact.skellam, Fraction(-1)),
    ],
)
def test_refuses(law, parameter) -> None:
    with pytest.raises(InputError):
        law(parameter)
