"""Audits: right mechanisms are never refuted, broken ones are."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from privjax import accounting
from privjax.dp import auditing as a
from privjax.dp import bounds
from privjax.errors import InputError
from privjax.passes.dp.mechanisms import DiscreteLaplace, Gaussian, RoundedGaussian
from privjax.prg import insecure_key, key_words
from privjax.transforms.differentially_private import differentially_private

DELTA = 1e-5
DIMENSION = 16


def claim_of(noise: float) -> float:
    return accounting.epsilon(
        noise_multiplier=noise, steps=1, sampling_rate=1, delta=DELTA
    )


def release(mechanism, clip: float = 1.0, size: float = 1.0):
    """A sum of 40 rows and a canary, each clipped; the canary is a unit vector."""
    rows = np.random.default_rng(0).normal(size=(40, DIMENSION)).astype(np.float32)
    rows = np.concatenate([rows, size * np.eye(DIMENSION, dtype=np.float32)[:1]])

    def run(key, present):
        norms = jnp.linalg.norm(rows, axis=1, keepdims=True)
        clipped = rows * jnp.minimum(1.0, clip / norms)
        total = clipped[:-1].sum(0) + present * clipped[-1]
        return mechanism.apply(key_words(key), [total])

    return run


OPTIONS = {"delta": DELTA, "trials": 1000, "batch": 1000, "trade_off": "gaussian"}


@pytest.mark.parametrize("kind", [Gaussian, RoundedGaussian])
def test_right_mechanisms_are_never_refuted_over_50_seeds(kind) -> None:
    run, claim = release(kind.of(1.0, 1.0, DIMENSION)), claim_of(1.0)
    # One program for all seeds: 50 x 500 releases of each kind, then cut.
    many = jax.jit(jax.vmap(run, in_axes=(0, None)))
    keys = jax.random.split(insecure_key(5), (2, 50 * 500))
    found = {p: np.asarray(many(keys[i], np.bool_(p))[0]) for i, p in enumerate((0, 1))}
    found_bounds = []
    for seed in range(50):
        out, inside = (found[p][500 * seed :][:500, 0].astype(float) for p in (0, 1))
        middle = (out[:200].mean() + inside[:200].mean()) / 2
        errors = [
            bounds.clopper_pearson(int(np.count_nonzero(wrong)), 300, 0.9995)
            for wrong in (out[200:] > middle, inside[200:] <= middle)
        ]
        for trade_off in bounds.TRADE_OFFS:
            found_bounds.append(bounds.epsilon_from_errors(*errors, DELTA, trade_off))
    assert max(found_bounds) <= claim
    assert np.mean(found_bounds[1::2]) > claim / 3


@pytest.mark.parametrize("seed", range(3))
def test_distinguish_comes_close_and_stays_below(seed: int) -> None:
    result = a.distinguish(
        release(Gaussian.of(1.0, 1.0, DIMENSION)),
        claim=claim_of(1.0),
        key=insecure_key(seed),
        **OPTIONS,
    )
    assert 0.3 * claim_of(1.0) < result.lower_bound <= claim_of(1.0)
    assert not result.exceeded and "not refuted" in str(result)


BROKEN = {
    "half the noise": release(Gaussian.of(0.5, 1.0, DIMENSION)),
    "noise for the mean on the sum": release(Gaussian.of(1.0, 1.0 / 41, DIMENSION)),
    "no clipping": release(Gaussian.of(1.0, 1.0, DIMENSION), clip=1e9, size=50.0),
    "noise of one coordinate": release(Gaussian.of(1.0, 1.0 / math.sqrt(DIMENSION), 1)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_mechanisms_are_caught(name: str) -> None:
    result = a.distinguish(
        BROKEN[name], claim=claim_of(1.0), key=insecure_key(1), **OPTIONS
    )
    assert result.exceeded and "REFUTED" in str(result)


@pytest.mark.parametrize("name", ["noise for the mean on the sum", "no clipping"])
def test_gross_errors_are_caught_without_assumptions(name: str) -> None:
    result = a.distinguish(
        BROKEN[name],
        claim=claim_of(1.0),
        key=insecure_key(2),
        **{**OPTIONS, "trade_off": "any", "trials": 4000},
    )
    assert result.exceeded


def test_half_of_laplace_noise_is_caught_without_assumptions() -> None:
    def run_with(scale: float):
        mechanism = DiscreteLaplace.of(scale, 1.0, 1)
        return lambda key, present: mechanism.apply(
            key_words(key), [present.astype(np.float32)[None]]
        )

    options = {"delta": 0.0, "trials": 8000, "key": insecure_key(3), "claim": 0.5}
    assert not a.distinguish(run_with(2.0), **options).exceeded
    assert a.distinguish(run_with(1.0), **options).exceeded


# -- in one run ------------------------------------------------------------------------


def canary_run(mechanism, canaries: int, dimension: int = 2000):
    """Orthogonal unit vectors; the score is the projection on each."""
    draws = np.random.default_rng(1).normal(size=(dimension, canaries))
    rows = jnp.asarray(np.linalg.qr(draws)[0].T, jnp.float32)

    @jax.jit
    def run(key, included):
        total = included.astype(np.float32) @ rows
        (noised,) = mechanism.apply(key_words(key), [total])
        return rows @ noised

    return run


def test_one_run_never_exceeds_over_50_seeds() -> None:
    run = canary_run(Gaussian.of(1.0, 1.0, 2000), 300)
    found = [
        a.one_run(
            run, 300, delta=DELTA, confidence=0.999, key=insecure_key(seed)
        ).lower_bound
        for seed in range(50)
    ]
    assert max(found) <= claim_of(1.0) and np.mean(found) > 0.3


def test_one_run_catches_too_little_noise() -> None:
    # Noise for the mean of 300 canaries on their sum.
    run = canary_run(Gaussian.of(1.0, 1 / 300, 2000), 300)
    result = a.one_run(
        run, 300, delta=DELTA, guesses=200, claim=claim_of(2.0), key=insecure_key(1)
    )
    assert result.exceeded


def test_one_run_bound() -> None:
    """By hand at delta 0: all of r guesses right refutes epsilon when q^r is rare."""
    found = bounds.one_run_epsilon(100, 50, 50, 0.0, 0.95)
    q = 0.05 ** (1 / 50)
    assert found == pytest.approx(math.log(q / (1 - q)), rel=1e-6)
    assert bounds.one_run_epsilon(100, 50, 25, 0.0, 0.95) == 0
    assert bounds.one_run_epsilon(100, 50, 48, 1e-3, 0.95) < bounds.one_run_epsilon(
        100, 50, 48, 0.0, 0.95
    )
    assert bounds.one_run_epsilon(100, 0, 0, 0.0, 0.95) == 0


def test_clopper_pearson() -> None:
    assert bounds.clopper_pearson(0, 100, 0.95) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert bounds.clopper_pearson(5, 5, 0.95) == 1
    bound = bounds.clopper_pearson(7, 50, 0.99)
    assert stats.binom.cdf(7, 50, bound) == pytest.approx(0.01)


# -- a user's step ---------------------------------------------------------------------

rng = np.random.default_rng(2)
BATCH = {
    "x": rng.normal(size=(12, 5)).astype(np.float32),
    "y": rng.normal(size=12).astype(np.float32),
    "mask": np.ones(12, np.float32),
}
BATCH["x"][3] *= 40
START = {"w": jnp.zeros(5), "b": jnp.zeros(())}


def grads_of(params, batch):
    def loss(p):
        rows = (batch["x"] @ p["w"] + p["b"] - batch["y"]) ** 2
        return jnp.sum(batch["mask"] * rows) / 12

    return jax.grad(loss)(params)


def train_step(params, batch):
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads_of(params, batch))


def by_hand(params, batch, key):
    """Noise on the mean without clipping: what a first attempt looks like."""
    grads = grads_of(params, batch)
    keys = iter(jax.random.split(key))
    return jax.tree.map(
        lambda p, g: p - 0.1 * (g + jax.random.normal(next(keys), g.shape) / 12),
        params,
        grads,
    )


def test_audit_of_a_private_step() -> None:
    step = differentially_private(
        train_step, noise_multiplier=1.0, clip_norm=1.0, denominator=12
    )
    result = a.audit(step, START, BATCH, delta=DELTA, trials=1000, key=insecure_key(4))
    assert result.claim == pytest.approx(claim_of(1.0))
    assert not result.exceeded and result.lower_bound > 0.3 * result.claim


def test_audit_with_canaries() -> None:
    """A linear model of 400 weights and 150 rows; a tenth of the noise is caught."""
    draws = np.random.default_rng(3)
    batch = {
        "x": draws.normal(size=(150, 400)).astype(np.float32),
        "y": draws.normal(size=150).astype(np.float32),
    }

    def step_of(noise: float):
        def step(params, batch):
            grads = jax.grad(lambda p: jnp.mean((batch["x"] @ p - batch["y"]) ** 2))
            return params - grads(params)

        return differentially_private(step, noise_multiplier=noise, clip_norm=1.0)

    options = {"delta": DELTA, "canaries": True, "confidence": 0.99}
    options |= {"epsilon": claim_of(4.0), "key": insecure_key(6)}
    assert not a.audit(step_of(4.0), jnp.zeros(400), batch, **options).exceeded
    assert a.audit(step_of(0.1), jnp.zeros(400), batch, **options).exceeded


def test_audit_refutes_a_step_by_hand() -> None:
    result = a.audit(
        by_hand,
        START,
        BATCH,
        mask="mask",
        delta=DELTA,
        epsilon=claim_of(1.0),
        trials=1000,
        key=insecure_key(4),
    )
    assert result.exceeded


@pytest.mark.parametrize(
    "make",
    [
        lambda: a.audit(by_hand, START, {"x": BATCH["x"]}, delta=DELTA),
        lambda: a.audit(by_hand, START, BATCH, delta=DELTA, mask="mask", unit=12),
        lambda: a.distinguish(lambda k, p: p, delta=DELTA, trials=3),
        lambda: a.distinguish(lambda k, p: p, delta=DELTA, confidence=1.0),
        lambda: a.one_run(lambda k, i: i[:2], 10, delta=DELTA),
        lambda: a.one_run(lambda k, i: i, 10, delta=DELTA, guesses=11),
        lambda: a.one_run(lambda k, i: i, 1, delta=DELTA),
        lambda: bounds.one_run_epsilon(5, 6, 2, 0.0, 0.9),
        lambda: bounds.epsilon_from_errors(0.1, 0.1, 0.0, "laplace"),
    ],
)
def test_refuses(make) -> None:
    with pytest.raises(InputError):
        make()
