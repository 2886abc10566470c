"""Correlated noise: sensitivities by explicit matrices, covariances by samples."""

import itertools
import math

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dp_accounting import rdp

from privjax.accounting import Ledger
from privjax.dp.correlated import (
    BandedToeplitz,
    TreeAggregation,
    square_root_coefficients,
)
from privjax.dp.cyclic import BlockCyclicPoisson
from privjax.dp.gradients import clipped_sum, privatize
from privjax.errors import InputError
from privjax.passes.dp.mechanisms import Gaussian
from privjax.prg import insecure_key, key_words

KEY = key_words(insecure_key(61))
SIZE = 4000


def matrix(mechanism: BandedToeplitz) -> np.ndarray:
    c = np.zeros((mechanism.steps, mechanism.steps))
    for j, value in enumerate(mechanism.coefficients):
        c += value * np.eye(mechanism.steps, k=-j)
    return c


def run(mechanism, values=0.0, key=KEY) -> np.ndarray:
    """[steps, count]: what is released for constant sums."""
    x = jnp.full(mechanism.count, values, jnp.float32)

    def body(state, _):
        state, (out,) = mechanism.step(state, [x])
        return state, out

    start = mechanism.start(key)
    return np.asarray(
        jax.jit(lambda s: jax.lax.scan(body, s, None, length=mechanism.steps)[1])(start)
    )


def test_square_root() -> None:
    c = matrix(BandedToeplitz(1.0, 1.0, 12, 1, bands=12))
    np.testing.assert_allclose(c @ c, np.tril(np.ones((12, 12))), atol=1e-12)
    assert square_root_coefficients(3) == (1.0, 0.5, 0.375)


@pytest.mark.parametrize(("steps", "bands"), [(6, 2), (7, 3), (5, 1), (6, 6)])
def test_sensitivity_over_all_participation_patterns(steps: int, bands: int) -> None:
    """Unit vectors of either sign at steps at least `bands` apart, all patterns."""
    most = -(-steps // bands)
    for times in range(1, most + 1):
        mechanism = BandedToeplitz(
            1.0, 1.0, steps, 1, bands=bands, participations=times
        )
        c, worst = matrix(mechanism), 0.0
        for n in range(1, times + 1):
            for at in itertools.combinations(range(steps), n):
                if all(b - a >= bands for a, b in itertools.pairwise(at)):
                    for signs in itertools.product((-1, 1), repeat=n):
                        moved = sum(s * c[:, i] for s, i in zip(signs, at, strict=True))
                        worst = max(worst, np.linalg.norm(moved))
        assert worst <= mechanism.sensitivity
        # Tight, but for columns that the end of the run cuts.
        assert mechanism.sensitivity < 1.42 * worst


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_banded_noise_has_its_covariance(bands: int) -> None:
    mechanism = BandedToeplitz(1.0, 1.0, 6, SIZE, bands=bands)
    released = run(mechanism).astype(float)
    noise = released / mechanism.sigma
    inverse = np.linalg.inv(matrix(mechanism))
    found = noise @ noise.T / SIZE
    np.testing.assert_allclose(found, inverse @ inverse.T, atol=6 * 2 / np.sqrt(SIZE))
    steps = released / mechanism.granularity
    np.testing.assert_array_equal(steps, np.round(steps))


def test_tree_noise_of_every_prefix() -> None:
    mechanism = TreeAggregation(1.0, 1.0, 13, SIZE)
    prefixes = np.cumsum(run(mechanism), axis=0) / mechanism.sigma
    nodes = [
        {(level, t >> level) for level in range(4) if t >> level & 1}
        for t in range(1, 14)
    ]
    # Node (l, i) is the one that ended at step i 2^l; prefixes share it or do not.
    ends = [set() for _ in nodes]
    for t, chosen in enumerate(nodes):
        rest = t + 1
        for level, _ in sorted(chosen):
            ends[t].add((level, rest))
            rest -= 1 << level
    expected = np.array([[len(a & b) for b in ends] for a in ends])
    found = prefixes @ prefixes.T / SIZE
    np.testing.assert_allclose(found, expected, atol=6 * 4 / np.sqrt(SIZE))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8, 13])
def test_tree_sensitivity(steps: int) -> None:
    """A unit is in at most `levels` nodes, all blocks [i 2^l, (i + 1) 2^l) of steps."""
    mechanism = TreeAggregation(1.0, 1.0, steps, 1)
    worst = 0
    for at in range(steps):
        full = [
            (level, at >> level)
            for level in range(20)
            if ((at >> level) + 1) << level <= steps
        ]
        worst = max(worst, len(full))
    assert worst == mechanism.levels
    assert math.sqrt(worst) <= mechanism.sensitivity < 1.01 * math.sqrt(worst)


def test_tree_is_charged_as_dp_accounting_says() -> None:
    mechanism = TreeAggregation(2.0, 1.0, 13, 1)
    ledger = Ledger("zero_out", accountant="rdp")
    ledger.spend(mechanism, 3)
    node = 2.0 * math.sqrt(mechanism.levels)
    oracle = rdp.RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    )
    oracle.compose(dp_accounting.SingleEpochTreeAggregationDpEvent(node, 13), 3)
    assert ledger.epsilon(1e-5) == pytest.approx(oracle.get_epsilon(1e-5), rel=1e-9)


def test_correlated_noise_is_better_for_prefixes() -> None:
    steps = 64
    plain = Gaussian.of(1.0, 1.0, SIZE).sigma * math.sqrt(steps)
    errors = {}
    for mechanism in (
        TreeAggregation(1.0, 1.0, steps, SIZE),
        BandedToeplitz(1.0, 1.0, steps, SIZE, bands=steps),
    ):
        errors[type(mechanism)] = np.cumsum(run(mechanism), axis=0).std(axis=1).max()
    assert errors[BandedToeplitz] < errors[TreeAggregation] < 0.9 * plain


def test_noise_depends_on_key_step_and_sum_and_ends() -> None:
    for mechanism in (
        TreeAggregation(1.0, 1.0, 3, 50),
        BandedToeplitz(1.0, 1.0, 3, 50, bands=2),
    ):
        a, b = run(mechanism), run(mechanism, 1.0) - 1.0
        c = run(mechanism, key=key_words(insecure_key(62)))
        assert len({x.tobytes() for x in (*a, *b, *c)}) == 9
        state = mechanism.start(KEY)
        for _ in range(4):
            state, (out,) = mechanism.step(state, [jnp.zeros(50)])
        assert np.isnan(np.asarray(out)).all()


def test_block_cyclic_sampling_is_amplified() -> None:
    sampler = BlockCyclicPoisson(units=401, rate=0.5, blocks=4)
    for step, (rows, keep) in enumerate(sampler.rows(insecure_key(7), 12)):
        kept = rows[keep > 0]
        assert len(set(kept)) == len(kept) and set(kept % 4) == {step % 4}
        assert kept.max() < 401
    noise = BandedToeplitz(1.0, 1.0, 100, 10, bands=4, rate=0.5)
    ((event, count),) = sampler.charge(noise, 100)
    assert (event["kind"], event["rate"], count) == ("poisson", 0.5, 25)
    assert count == noise.count_of_events
    ledger, every = Ledger(), Ledger("zero_out")
    ledger.spend(event, count)
    every.spend(BandedToeplitz(1.0, 1.0, 100, 10, bands=4, participations=25))
    assert ledger.epsilon(1e-5) > every.epsilon(1e-5) / 10
    assert (
        noise.sigma
        < BandedToeplitz(1.0, 1.0, 100, 10, bands=4, participations=25).sigma / 4
    )
    for wrong in (
        BandedToeplitz(1.0, 1.0, 100, 10, bands=5, rate=0.5),
        BandedToeplitz(1.0, 1.0, 100, 10, bands=4, rate=0.4),
        BandedToeplitz(1.0, 1.0, 99, 10, bands=4, rate=0.5),
    ):
        with pytest.raises(InputError):
            sampler.charge(wrong, 100)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BandedToeplitz(0.0, 1.0, 5, 1),
        lambda: BandedToeplitz(1.0, 1.0, 5, 1, bands=6),
        lambda: BandedToeplitz(1.0, 1.0, 5, 1, bands=2, participations=4),
        lambda: BandedToeplitz(1.0, 1.0, 9, 1, rate=1.5),
        lambda: TreeAggregation(1.0, -1.0, 5, 1),
        lambda: TreeAggregation(1.0, 1.0, 0, 1),
        lambda: BlockCyclicPoisson(10, 0.5, 11),
        lambda: TreeAggregation(1.0, 1.0, 2, 3).step(
            TreeAggregation(1.0, 1.0, 2, 3).start(KEY), [jnp.zeros(2)]
        ),
        lambda: privatize(0.0, 1.0, denominator=1, key=insecure_key(0)),
        lambda: privatize(1.0, -1.0, denominator=1, key=insecure_key(0)),
        lambda: privatize(
            1.0,
            1.0,
            denominator=1,
            key=insecure_key(0),
            correlated=TreeAggregation(2.0, 1.0, 2, 3),
        ),
    ],
)
def test_refuses(make) -> None:
    with pytest.raises(InputError):
        make()


# -- the Optax transformation -----------------------------------------------------------

GRADS = {
    "a": np.random.default_rng(0).normal(size=(10, 4, 2)).astype(np.float32),
    "b": np.random.default_rng(1).normal(size=(10,)).astype(np.float32),
}


def test_clipped_sum() -> None:
    mask = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1, 1])
    grads = {**GRADS, "b": GRADS["b"].copy()}
    grads["b"][5] = np.nan
    sums, norms = clipped_sum(grads, 1.5, jnp.asarray(mask))
    expected = {"a": np.zeros((4, 2)), "b": 0.0}
    for i in range(10):
        norm = np.sqrt((grads["a"][i] ** 2).sum() + grads["b"][i] ** 2)
        np.testing.assert_allclose(norms[i], norm, rtol=1e-6)
        if mask[i] and np.isfinite(norm):
            for name in expected:
                expected[name] += grads[name][i] * min(1, 1.5 / norm)
    for name in expected:
        np.testing.assert_allclose(sums[name], expected[name], rtol=1e-5, atol=1e-6)


def test_privatize_in_a_chain() -> None:
    transform = optax.chain(
        privatize(1.0, 0.0, denominator=10, key=insecure_key(3)), optax.sgd(1.0)
    )
    state = transform.init(None)
    updates, _ = transform.update(GRADS, state, None)
    sums, _ = clipped_sum(GRADS, 1.0)
    for name in sums:
        np.testing.assert_allclose(updates[name], -sums[name] / 10, rtol=1e-6)


@pytest.mark.parametrize(
    "correlated",
    [None, TreeAggregation(3.0, 1.0, 8, 9), BandedToeplitz(3.0, 1.0, 8, 9)],
)
def test_privatize_noise_differs_by_step(correlated) -> None:
    transform = privatize(
        1.0, 3.0, denominator=1, key=insecure_key(3), correlated=correlated
    )
    zeros = jax.tree.map(jnp.zeros_like, GRADS)

    def body(state, _):
        updates, state = transform.update(zeros, state)
        return state, jnp.concatenate([updates["a"].ravel(), updates["b"][None]])

    _, seen = jax.jit(lambda s: jax.lax.scan(body, s, None, length=8))(
        transform.init(None)
    )
    assert np.unique(np.asarray(seen)).size > 65
    assert 1.5 < np.asarray(seen)[0].std() < 12


def test_privatize_spread() -> None:
    transform = privatize(2.0, 3.0, denominator=4, key=insecure_key(3))
    updates, state = transform.update(
        {"a": jnp.zeros((5, 20_000))}, transform.init(None)
    )
    assert np.asarray(updates["a"]).std() == pytest.approx(1.5, rel=0.03)
    assert int(state.steps) == 1
