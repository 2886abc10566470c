"""Noise on a grid: its law computed cell by cell, and seen in samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from privjax.errors import InputError
from privjax.prg import (
    Purpose,
    default_granularity,
    gaussian_on_grid,
    insecure_key,
    key_words,
    round_to_grid,
    sensitivity_on_grid,
)
from privjax.prg.gaussian import _normal

KEY = np.asarray(key_words(insecure_key(11)))
NONCE = (Purpose.NOISE, 1, 2)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    draw = jax.jit(lambda k: gaussian_on_grid(k, NONCE, (1_000_000,), 3.0))
    return np.asarray(draw(KEY), np.float64) / 3.0


def test_kolmogorov_smirnov(sample: np.ndarray) -> None:
    assert stats.kstest(sample, "norm").pvalue > 1e-3


def test_moments(sample: np.ndarray) -> None:
    n = sample.size
    assert abs(sample.mean()) < 4 / np.sqrt(n)
    assert abs(sample.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((sample**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((sample**4).mean() - 3) < 4 * np.sqrt(96 / n)


@pytest.mark.parametrize("limit", [0.5, 1, 2, 3, 4, 4.5])
@pytest.mark.parametrize("side", [-1, 1])
def test_tail_frequencies(sample: np.ndarray, limit: float, side: int) -> None:
    expected = sample.size * stats.norm.sf(limit)
    seen = np.count_nonzero(side * sample > limit)
    assert abs(seen - expected) < 5 * np.sqrt(expected) + 1


def test_neighbours_and_signs_are_uncorrelated(sample: np.ndarray) -> None:
    n = sample.size
    for lag in (1, 2, 16, 256, n // 2):
        assert abs((sample[lag:] * sample[:-lag]).mean()) < 5 / np.sqrt(n - lag)
        squares = (sample[lag:] ** 2 - 1) * (sample[:-lag] ** 2 - 1)
        assert abs(squares.mean()) < 5 * 2 / np.sqrt(n - lag)


def test_nonces_and_keys_are_independent(sample: np.ndarray) -> None:
    n = 100_000
    other_key = np.asarray(key_words(insecure_key(12)))
    for key, nonce in ((KEY, (Purpose.NOISE, 1, 3)), (other_key, NONCE)):
        other = np.asarray(gaussian_on_grid(key, nonce, (n,), 3.0), np.float64) / 3
        assert abs((other * sample[:n]).mean()) < 5 / np.sqrt(n)
        assert np.mean(other == sample[:n]) < 1e-3


# sigma / w at both ends of its range and in the middle.
@pytest.mark.parametrize("ratio", [64.0, 90.5, 127.99])
def test_law_of_the_coarse_part_cell_by_cell(ratio: float) -> None:
    """Find the border of every cell among all 2^41 inputs, by bisection."""

    @jax.jit
    def size(number: tuple[Any, Any]) -> jax.Array:
        upper, lower = (x.astype(jnp.int32).astype(jnp.float32) for x in number)
        q = upper * np.float32(2.0**-31) + (lower + np.float32(0.5)) * np.float32(
            2.0**-41
        )
        z = _normal(q, jnp.zeros(q.shape, bool))
        return jnp.round(z * np.float32(ratio))

    cells = np.arange(1, int(7 * ratio))
    below = np.full(cells.size, -1, np.int64)
    above = np.full(cells.size, 2**41, np.int64)
    for _ in range(42):
        middle = (below + above) // 2
        number = np.clip(middle, 0, None)
        pair = (number >> 10).astype(np.uint32), (number & 1023).astype(np.uint32)
        inside = (np.asarray(size(pair)) >= cells) & (middle >= 0)
        below, above = np.where(inside, middle, below), np.where(inside, above, middle)
    tail = np.concatenate([[1.0], above * 2.0**-41])
    exact = special.erfc((cells - 0.5) / np.float64(np.float32(ratio)) / np.sqrt(2))
    exact = np.concatenate([[1.0], exact])
    probability, expected = -np.diff(tail), -np.diff(exact)
    error = probability / expected - 1
    z = np.arange(error.size) / ratio
    assert np.abs(error[z < 5]).max() < 2.0**-12
    assert np.sum(expected * error**2) < 2.0**-31.5
    # Beyond: multiples of 2^-41 for both signs together, never far from the truth.
    assert np.abs(tail - exact)[1:][z > 5].max() < 2.0**-32
    assert np.abs(probability - expected)[z > 6].max() < 2.0**-40


def test_linear_interpolation_is_close_to_a_gaussian() -> None:
    """The second part of the error: cells of width w = sigma / 64, smoothed by two
    uniforms, against the Gaussian of the same variance.
    """
    fine = 64
    w = 1 / 64
    centres = np.arange(-7 * 64, 7 * 64 + 1) * w
    mass = stats.norm.cdf(centres + w / 2) - stats.norm.cdf(centres - w / 2)
    triangle = np.convolve(np.ones(fine), np.ones(fine)) / fine**2
    spread = np.zeros(mass.size * fine)
    spread[::fine] = mass
    law = np.convolve(spread, triangle)
    place = (np.arange(law.size) - (fine - 1)) * (w / fine) + centres[0]
    variance = np.sum(law * place**2)
    assert 1 < variance < 1.0001
    g = w / fine
    edges = np.concatenate([place - g / 2, place[-1:] + g / 2])
    ideal = np.diff(stats.norm.cdf(edges / np.sqrt(variance)))
    middle = np.abs(place) < 5
    error = law[middle] / ideal[middle] - 1
    assert np.sum(ideal[middle] * error**2) < 2.0**-32
    assert np.abs(error).max() < 2.0**-10


def test_extreme_inputs() -> None:
    q = np.array([2.0**-42, 1.0], np.float32)
    z = np.asarray(_normal(jnp.asarray(q), jnp.array([False, False])))
    assert abs(z[0] - stats.norm.isf(2.0**-43)) < 1e-4 and z[1] == 0
    flipped = np.asarray(_normal(jnp.asarray(q), jnp.array([True, True])))
    np.testing.assert_array_equal(flipped, -z)


CASES = [
    (1.0, None),
    (2.0**-20 * 1.7, None),
    (1e6, None),
    (3.0, 2.0**-16),
    (3.0, 2.0**-6),
    (3.0, 2.0),
    (1.5, 2.0**-17),
]


@pytest.mark.parametrize(("sigma", "granularity"), CASES)
def test_on_the_grid_with_the_right_spread(sigma: float, granularity: Any) -> None:
    n = 40_000
    noise = np.asarray(gaussian_on_grid(KEY, NONCE, (n,), sigma, granularity))
    assert noise.dtype == np.float32
    g = float(default_granularity(sigma)) if granularity is None else granularity
    steps = noise.astype(np.float64) / g
    np.testing.assert_array_equal(steps, np.round(steps))
    assert np.unique(steps % 2).size == 2
    # A coarse grid adds its rounding, g^2 / 12, to the variance.
    variance = sigma**2 + (g**2 / 12 if sigma < 64 * g else 0)
    seen = noise.astype(np.float64).var()
    assert abs(seen / variance - 1) < 4 * np.sqrt(2 / n) + 1e-4


def test_default_granularity() -> None:
    for sigma in (1.0, 1.99, 2.0, 3e-8, 5e7):
        g = float(default_granularity(sigma))
        assert np.frexp(g)[0] == 0.5 and 2**17 <= sigma / g < 2**18


@pytest.mark.parametrize("x64", [False, True])
def test_transformations_agree(x64: bool) -> None:
    def draw(i: Any, sigma: Any) -> jax.Array:
        return gaussian_on_grid(KEY, (Purpose.NOISE, i, 0), (2, 5), sigma)

    numbers, sigmas = jnp.arange(3), jnp.array([1.0, 2.5, 0.3], jnp.float32)
    with jax.enable_x64(x64):
        eager = np.stack([draw(i, s) for i, s in zip(numbers, sigmas, strict=True)])
        mapped = jax.jit(jax.vmap(draw))(numbers, sigmas)
        _, scanned = jax.lax.scan(lambda c, x: (c, draw(*x)), 0, (numbers, sigmas))
    np.testing.assert_array_equal(mapped, eager)
    np.testing.assert_array_equal(scanned, eager)
    assert mapped.dtype == np.float32
    assert gaussian_on_grid(KEY, NONCE, (), 1.0).shape == ()
    assert gaussian_on_grid(KEY, NONCE, (0, 3), 1.0).shape == (0, 3)


@given(st.integers(-(2**23), 2**23), st.integers(-30, 30), st.integers(0, 2**16))
def test_sums_on_the_grid_are_exact(total: int, exponent: int, noise: int) -> None:
    g = 2.0**exponent
    x = jnp.float32(total * g)
    assert float(round_to_grid(x, g) + jnp.float32(noise * g)) == (total + noise) * g


@given(st.floats(-1e6, 1e6, width=32))
def test_rounding_moves_by_half_a_step(x: float) -> None:
    g = 2.0**-4
    rounded = float(round_to_grid(jnp.float32(x), g))
    assert rounded / g == np.round(rounded / g)
    assert abs(rounded - x) <= g / 2


def test_rounding_keeps_large_values_and_types() -> None:
    x = jnp.array([3e30, -1e20, 16777217.0], jnp.float32)
    np.testing.assert_array_equal(round_to_grid(x, 2.0**-8), x)
    with jax.enable_x64(True):
        assert round_to_grid(jnp.ones(2, jnp.float64), 0.5).dtype == np.float64


def test_sensitivity_on_grid() -> None:
    assert sensitivity_on_grid(1.0, 100, 0.25) == 1 + 10 * 0.25


BAD = [
    (0.0, None, "sigma must be in"),
    (-1.0, None, "sigma must be in"),
    (float("nan"), None, "sigma must be in"),
    (float("inf"), None, "sigma must be in"),
    (1.0, 0.3, "power of two"),
    (1.0, -0.5, "power of two"),
    (1.0, 2.0, "must be in"),
    (1.0, 2.0**-18, "must be in"),
]


@pytest.mark.parametrize(("sigma", "granularity", "why"), BAD)
def test_refuses(sigma: float, granularity: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        gaussian_on_grid(KEY, NONCE, (2,), sigma, granularity)
