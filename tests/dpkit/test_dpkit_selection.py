"""Private selection: laws, privacy ratios by counting, and bad values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from privjax.dp.selection import (
    AboveThreshold,
    Exponential,
    RandomizedResponse,
    ReportNoisyMax,
)
from privjax.errors import InputError
from privjax.prg import insecure_key, key_words

N = 20_000
KEYS = jax.vmap(key_words)(jax.random.split(insecure_key(41), N))


def winners(mechanism, scores) -> np.ndarray:
    chosen = jax.jit(jax.vmap(lambda k: mechanism.select(k, jnp.asarray(scores))))(KEYS)
    return np.bincount(np.asarray(chosen), minlength=len(scores))


def test_exponential_mechanism_follows_its_law() -> None:
    scores = np.array([0.0, 1.0, 3.0, 2.5])
    found = winners(Exponential(epsilon=1.0), scores)
    weights = np.exp(scores / 2 / (1 + 2.0**-8))
    expected = N * weights / weights.sum()
    assert stats.chisquare(found, expected).pvalue > 1e-3


def permute_and_flip(scores: np.ndarray, epsilon: float) -> np.ndarray:
    """Ding et al. 2021: P(i wins) with exponential noise, by numerical integration."""
    t = 2 / epsilon
    x = np.linspace(0, scores.max() + 60 * t, 400_001)
    out = []
    for i, s in enumerate(scores):
        density = np.where(x >= s, np.exp(-np.maximum(x - s, 0) / t) / t, 0)
        for j, other in enumerate(scores):
            if j != i:
                density *= np.where(x > other, 1 - np.exp(-(x - other) / t), 0)
        out.append(np.trapezoid(density, x))
    return np.array(out)


def test_noisy_max_follows_permute_and_flip() -> None:
    scores = np.array([0.0, 1.0, 3.0, 2.5])
    found = winners(ReportNoisyMax(epsilon=1.0), scores)
    expected = permute_and_flip(scores, 1.0)
    assert stats.chisquare(found, N * expected / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("noise", ["exponential", "gumbel", "laplace"])
@pytest.mark.parametrize("monotonic", [False, True])
def test_noisy_max_is_private(noise: str, monotonic: bool) -> None:
    """Worst neighbours: the winner's frequency changes by at most exp(epsilon)."""
    epsilon = 0.8
    mechanism = ReportNoisyMax(epsilon, 1.0, noise, monotonic)
    a = np.array([1.0, 0.0, 0.0])
    b = np.array([2.0, 0.0, 0.0]) if monotonic else np.array([2.0, -1.0, -1.0])
    ratio = np.log(winners(mechanism, b) / winners(mechanism, a))
    assert np.abs(ratio).max() <= epsilon + 0.1


def test_apply_is_one_hot_and_accurate() -> None:
    mechanism = ReportNoisyMax(epsilon=1.0, sensitivity=0.5)
    scores = jnp.array([[0.0, 100.0, 3.0], [1e30, 0.0, -1e30]])
    (out,) = mechanism.apply(KEYS[0], [scores])
    np.testing.assert_array_equal(out, [[0, 1, 0], [1, 0, 0]])
    assert out.dtype == scores.dtype
    assert mechanism.event() == {"kind": "pure", "epsilon": 1.0}
    assert mechanism.distance(100) < 1e-20
    with pytest.raises(InputError, match="one array"):
        mechanism.apply(KEYS[0], [scores, scores])


def test_sparse_vector_finds_and_stops() -> None:
    mechanism = AboveThreshold(epsilon=2.0, threshold=500.0, hits=2)
    values = jnp.array([0.0, 10.0, 1000.0, 0.0, 900.0, 2000.0])
    (out,) = mechanism.apply(KEYS[0], [values])
    np.testing.assert_array_equal(out, [0, 0, 1, 0, 1, 0])


def test_sparse_vector_law() -> None:
    """P(first query above) = P(nu - rho >= T - x), by sums over both laws."""
    mechanism = AboveThreshold(epsilon=1.0, threshold=3.0)
    values = jnp.array([1.0])
    flags = jax.jit(jax.vmap(lambda k: mechanism.apply(k, [values])[0][0]))(KEYS)
    seen = float(np.mean(np.asarray(flags)))
    g = 1e-2
    x = np.arange(-200, 200, g)
    rho = np.exp(-np.abs(x) / 2) / 4 * g
    above = stats.laplace.sf(2.0 + x, scale=4)
    assert abs(seen - np.sum(rho * above)) < 4 * 0.5 / math.sqrt(N) + 2e-3


def test_sparse_vector_is_private() -> None:
    """Neighbours that move every query by 1 against the threshold: P of each outcome."""
    mechanism = AboveThreshold(epsilon=1.0, threshold=0.0)

    def first(values) -> np.ndarray:
        run = jax.vmap(lambda k: mechanism.apply(k, [jnp.asarray(values)])[0])
        flags = np.asarray(jax.jit(run)(KEYS))
        where = np.where(flags.any(1), flags.argmax(1), flags.shape[1])
        return np.bincount(where, minlength=flags.shape[1] + 1)

    a = first(np.array([-1.0, -1.0, 0.0, -1.0]))
    b = first(np.array([0.0, 0.0, -1.0, 0.0]))
    assert np.abs(np.log(a / b)).max() <= 1.0 + 0.1


@pytest.mark.parametrize("buckets", [2, 5])
def test_randomized_response(buckets: int) -> None:
    mechanism = RandomizedResponse(epsilon=1.0, buckets=buckets)
    x = jnp.full((N,), 1, jnp.int32)
    (out,) = mechanism.apply(KEYS[0], [x])
    counts = np.bincount(np.asarray(out), minlength=buckets)
    expected = np.full(buckets, 1 / (math.e + buckets - 1))
    expected[1] *= math.e
    assert stats.chisquare(counts, N * expected).pvalue > 1e-3
    p = mechanism.noise_parameter
    ratio = (1 - p + p / buckets) / (p / buckets)
    assert math.e * (1 - 1e-12) < ratio <= math.e * (1 + 1e-15)
    estimate = np.asarray(mechanism.unbiased(jnp.asarray(counts, jnp.float32)))
    assert abs(estimate[1] / N - 1) < 0.05


def test_randomized_response_of_several_arrays_is_independent() -> None:
    mechanism = RandomizedResponse(epsilon=0.5, buckets=2)
    x = jnp.zeros(N, jnp.int32)
    a, b = (np.asarray(v) for v in mechanism.apply(KEYS[1], [x, x]))
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(N)


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 1.0, 1.99, 7.0])
def test_tables_have_room_for_every_epsilon(epsilon: float) -> None:
    for mechanism in (
        ReportNoisyMax(epsilon, 0.7, "laplace"),
        AboveThreshold(epsilon, 0.0, 3.0, hits=3),
        AboveThreshold(epsilon, 0.0),
    ):
        assert 0 < mechanism.distance(10) < 1e-15
        assert mechanism.granularity <= mechanism.sensitivity


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReportNoisyMax(0.0),
        lambda: ReportNoisyMax(1.0, -1.0),
        lambda: ReportNoisyMax(1.0, noise="uniform"),
        lambda: AboveThreshold(1.0, 0.0, hits=0),
        lambda: RandomizedResponse(math.inf),
        lambda: RandomizedResponse(1.0, 1),
        lambda: ReportNoisyMax(1e-9).table,
    ],
)
def test_bad_values(make) -> None:
    with pytest.raises(InputError):
        make()
