"""Mechanisms on a grid: law, grid, sensitivity, independence, pure and Renyi bounds."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from privjax.core import markers
from privjax.errors import InputError
from privjax.passes.dp import mechanisms as m
from privjax.prg import exact, insecure_key, key_words

KEY = key_words(insecure_key(31))
ALL = [m.Gaussian, m.RoundedGaussian, m.DiscreteGaussian, m.DiscreteLaplace, m.Skellam]
IDS = [c.__name__ for c in ALL]
CDF = {"l2": stats.norm.cdf, "l1": stats.laplace.cdf}


@pytest.mark.parametrize("kind", ALL, ids=IDS)
@pytest.mark.parametrize(("noise", "clip"), [(1.0, 1.0), (2.5, 0.01), (0.3, 30.0)])
def test_law_and_grid(kind, noise: float, clip: float) -> None:
    mechanism = kind.of(noise, clip, 20)
    x = [jnp.zeros((100, 50)), jnp.full((7,), clip / 3)]
    out = mechanism.apply(KEY, x)
    assert [(o.shape, o.dtype) for o in out] == [(a.shape, a.dtype) for a in x]
    steps = np.concatenate([np.ravel(o) for o in out]).astype(float)
    steps = steps / mechanism.granularity
    np.testing.assert_array_equal(steps, np.round(steps))
    scale = mechanism.noise_multiplier * mechanism.sensitivity
    sample = np.ravel(out[0]).astype(float) / scale
    assert stats.kstest(sample, CDF[kind.norm]).pvalue > 1e-3


@pytest.mark.parametrize("kind", ALL, ids=IDS)
def test_hashable_deterministic_and_independent(kind) -> None:
    mechanism = kind.of(1.0, 1.0, 10)
    assert hash(mechanism) == hash(kind.of(1.0, 1.0, 10)) and mechanism == kind.of(
        1.0, 1.0, 10
    )
    x = [jnp.zeros(2000), jnp.zeros(2000)]
    keys = jax.vmap(key_words)(jax.random.split(insecure_key(5), 3))
    lanes = jax.jit(jax.vmap(lambda k: markers.noise(k, x, mechanism)))(keys)
    rows = np.concatenate([np.asarray(v) for v in lanes])
    assert np.abs(np.corrcoef(rows) - np.eye(6)).max() < 5 / np.sqrt(2000)
    np.testing.assert_array_equal(mechanism.apply(keys[1], x)[1], lanes[1][1])


@pytest.mark.parametrize("kind", ALL, ids=IDS)
def test_the_output_tells_the_rounded_sum_alone(kind) -> None:
    mechanism = kind.of(1.0, 1.0, 4)
    g = mechanism.granularity
    x = jnp.array([0.1, -0.2, 0.31, 0.4])
    near = x + jnp.array([0.1, -0.1, 0.05, 0.0]) * g
    rounded = jnp.round(x / g) * g
    for other in (near, rounded):
        if np.array_equal(np.round(other / g), np.round(x / g)):
            np.testing.assert_array_equal(
                mechanism.apply(KEY, [x])[0], mechanism.apply(KEY, [other])[0]
            )


@pytest.mark.parametrize("kind", ALL, ids=IDS)
def test_rounding_is_in_the_sensitivity(kind) -> None:
    """Sums that differ by exactly the clip norm, at every place relative to the grid."""
    count, clip = 50, 1.0
    mechanism = kind.of(1.0, clip, count)
    rng = np.random.default_rng(0)
    order = {"l1": 1, "l2": 2}[kind.norm]
    for _ in range(50):
        base, moved = rng.normal(size=count), rng.normal(size=count)
        moved *= clip / np.linalg.norm(moved, order)
        g = mechanism.granularity
        gap = np.round((base + moved) / g) * g - np.round(base / g) * g
        assert np.linalg.norm(gap, order) <= mechanism.sensitivity
    assert mechanism.sensitivity <= 1.05 * clip


@pytest.mark.parametrize("kind", ALL, ids=IDS)
@pytest.mark.parametrize(
    "bad", [(0.0, 1.0, 1), (-1.0, 1.0, 1), (math.inf, 1.0, 1), (1.0, 0.0, 1)], ids=str
)
def test_bad_values(kind, bad) -> None:
    with pytest.raises(InputError, match="positive"):
        kind.of(*bad)


@pytest.mark.parametrize("kind", ALL, ids=IDS)
@pytest.mark.parametrize("noise", [0.26, 0.99, 1.0, 1.99, 3.99])
def test_tables_have_room_for_every_scale(kind, noise: float) -> None:
    mechanism = kind.of(noise, 1.0, 10)
    assert 0 <= mechanism.distance(10) < 1e-15


@pytest.mark.parametrize("kind", ALL, ids=IDS)
def test_the_support_refutes_no_hypothesis(kind) -> None:
    """The attack on floating-point noise: which of two sums cannot give this output?

    With float32 normals, output minus sum is a possible noise under the true sum and
    usually under no other. Here every output is possible under both.
    """
    mechanism = kind.of(1.0, 1.0, 1)
    g = mechanism.granularity
    sums = [0.1234567, 0.7654321]
    out = np.asarray(mechanism.apply(KEY, [jnp.full(5000, sums[0])])[0], np.float64)
    for total in sums:
        needed = out - float(np.round(np.float32(total) / g) * g)
        np.testing.assert_array_equal(needed / g, np.round(needed / g))


def test_too_many_values() -> None:
    with pytest.raises(InputError, match="too coarse"):
        m.RoundedGaussian.of(10.0, 1.0, 10**9)
    with pytest.raises(InputError, match="too coarse"):
        m.DiscreteLaplace.of(10.0, 1.0, 10**4)


def test_distance_is_negligible() -> None:
    mechanism = m.RoundedGaussian.of(1.0, 1.0, 10**6)
    assert 0 < mechanism.distance(10**6) < 2.0**-55


def test_events_are_plain_data() -> None:
    assert (
        m.Gaussian.of(1.5, 1.0, 3).event() == m.RoundedGaussian.of(1.5, 1.0, 3).event()
    )
    assert m.DiscreteGaussian.of(2.0, 1.0, 3).event() == {"kind": "zcdp", "rho": 0.125}
    assert m.DiscreteLaplace.of(2.0, 1.0, 3).event() == {"kind": "pure", "epsilon": 0.5}
    assert set(m.Skellam.of(2.0, 1.0, 3).event()) == {"kind", "variance", "l2", "l1"}


def test_discrete_laplace_ratio_is_pure() -> None:
    """Neighbouring integer sums: no probability ratio exceeds exp(epsilon)."""
    mechanism = m.DiscreteLaplace.of(4.0, 1.0, 1)
    law = exact.discrete_laplace(mechanism.steps)
    shift = int(mechanism.sensitivity / mechanism.granularity)
    w = law.weights
    middle = range(shift, len(w) // 4 * 3, 997)
    ratio = max(Fraction(w[i], w[i - shift]) for i in middle)
    ratio = max(ratio, max(Fraction(w[i - shift], w[i]) for i in middle))
    assert math.log(ratio) <= mechanism.event()["epsilon"] * (1 + 1e-9)


@pytest.mark.parametrize("variance", [4.0, 25.0, 400.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
@pytest.mark.parametrize("order", [2, 5, 16])
def test_skellam_renyi_bound(variance: float, shift: int, order: int) -> None:
    """The stated bound exceeds the divergence computed from the probabilities."""
    k = np.arange(-3000, 3001)
    log_mass = np.log(special.ive(np.abs(k), variance) + 1e-300)
    inside = special.ive(np.abs(k), variance) > 1e-280
    shifted = special.ive(np.abs(k - shift), variance)
    inside &= shifted > 1e-280
    terms = order * log_mass - (order - 1) * np.log(shifted + 1e-300)
    found = special.logsumexp(terms[inside]) / (order - 1)
    l2, l1 = shift, shift
    first = order * l2**2 / (2 * variance)
    second = ((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2)
    assert found <= first + min(second, 3 * l1 / (2 * variance)) + 1e-9
