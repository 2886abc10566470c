"""Correlated noise in train steps: what is released, what it costs, what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privjax.accounting import Ledger
from privjax.dp import (
    BallsInBins,
    BandedToeplitz,
    BlockCyclicPoisson,
    FullBatch,
    Poisson,
    Shuffled,
    Streamed,
    TreeAggregation,
    correlated,
    fit,
)
from privjax.errors import InputError, RandomKeyError
from privjax.prg import insecure_key
from privjax.transforms.differentially_private import differentially_private

UNITS, SIZE, STEPS = 64, 16, 4
X = np.random.default_rng(0).normal(size=(UNITS, 3)).astype(np.float32)
DATA = {"x": X, "y": (X @ np.array([1.0, -2.0, 0.5], np.float32)).astype(np.float32)}
START = {"w": jnp.zeros(3)}
QUIET = {"delta": 1e-3, "progress": False}
KEY = insecure_key(7)
WAVE = np.sin(np.arange(4000.0)).astype(np.float32)


def loss(params: Any, batch: Any) -> Any:
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def step(params: Any, batch: Any) -> Any:
    grads = jax.grad(loss)(params, batch)
    return jax.tree.map(lambda p, g: p - 0.2 * g, params, grads)


def wide(params: Any, batch: Any) -> Any:
    """Many parameters, gradients that do not depend on them."""
    return jax.tree.map(
        lambda p, g: p - g,
        params,
        jax.grad(lambda p: jnp.mean(jnp.outer(batch["y"], WAVE) @ p["w"]))(params),
    )


def private(fun: Any = step, noise: float = 1.0, **options: Any) -> Any:
    return differentially_private(
        fun, "batch", noise_multiplier=noise, clip_norm=2.0, **options
    )


def batch(k: int = 0) -> Any:
    return {name: x[k * SIZE : (k + 1) * SIZE] for name, x in DATA.items()}


MECHANISMS = [
    (BandedToeplitz, {"bands": 2, "participations": 2}),
    (TreeAggregation, {}),
]


@pytest.mark.parametrize(("kind", "settings"), MECHANISMS, ids=["banded", "tree"])
def test_released_is_the_clipped_sum_with_the_mechanisms_noise(
    kind: Any, settings: Any
) -> None:
    """A scan over the step; the noise has the covariance of the mechanism."""
    params = {"w": jnp.zeros(4000)}
    made = correlated(private(wide), kind, steps=STEPS, **settings)
    mechanism = made.mechanism(params, batch())
    assert mechanism.count == 4000 and mechanism.clip_norm == pytest.approx(2 / SIZE)
    plain = private(wide, 0.0)(params, batch())["w"]

    def body(carry: Any, _: Any) -> Any:
        params, noise = carry
        new, noise = made(params, batch(), noise=noise)
        return (new, noise), params["w"] - new["w"]

    start = made.start(params, batch(), key=KEY)
    run = jax.jit(lambda s: jax.lax.scan(body, (params, s), None, length=STEPS)[1])
    noise = (np.asarray(run(start), float) + np.asarray(plain)) / mechanism.sigma
    if kind is TreeAggregation:
        noise = np.cumsum(noise, axis=0)
        shared = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 2, 0], [0, 0, 0, 1]])
        shared[0, 1] = shared[1, 0] = shared[0, 2] = shared[2, 0] = 0
    else:
        matrix = np.eye(STEPS) + 0.5 * np.eye(STEPS, k=-1)
        inverse = np.linalg.inv(matrix)
        shared = inverse @ inverse.T
    np.testing.assert_allclose(noise @ noise.T / 4000, shared, atol=0.2)


@pytest.mark.parametrize(
    ("sampler", "kind", "settings", "kinds"),
    [
        (Shuffled(UNITS, SIZE), TreeAggregation, {"steps": 4}, ("once", 3)),
        (BallsInBins(UNITS, 4), TreeAggregation, {"steps": 4}, ("gaussian", 3)),
        (
            Shuffled(UNITS, SIZE, again=True),
            BandedToeplitz,
            {"steps": 12, "bands": 4, "participations": 3},
            ("once", 1),
        ),
        (
            BlockCyclicPoisson(UNITS, 0.5, 2),
            BandedToeplitz,
            {"steps": 12, "bands": 2, "rate": 0.5},
            ("poisson", 6),
        ),
        (
            FullBatch(UNITS),
            BandedToeplitz,
            {"steps": 12, "bands": 1, "participations": 12},
            ("gaussian", 1),
        ),
    ],
    ids=["tree", "bins", "banded", "cyclic", "full"],
)
def test_fit_charges_runs(sampler: Any, kind: Any, settings: Any, kinds: Any) -> None:
    result = fit(
        correlated(private(), kind, **settings),
        START,
        DATA,
        sampler=sampler,
        steps=12,
        epsilon=8.0,
        key=KEY,
        **QUIET,
    )
    (entry,) = result.ledger.entries
    assert (entry.event["kind"], entry.count) == kinds
    assert 7.5 < result.epsilon <= 8.0
    before, after = (float(loss(p, DATA)) for p in (START, result.state))
    assert after < before
    gaussian = Ledger(sampler.neighbours[0])
    gaussian.spend(
        {"kind": "gaussian", "noise_multiplier": result.noise_multiplier}, kinds[1]
    )
    if kinds[0] != "poisson":
        assert result.epsilon == pytest.approx(gaussian.epsilon(1e-3), rel=1e-6)
    else:
        assert result.epsilon < gaussian.epsilon(1e-3)


def test_a_run_continues_after_a_checkpoint(tmp_path: Any) -> None:
    made = correlated(private(), TreeAggregation, steps=4)
    options = {"sampler": Shuffled(UNITS, SIZE), "checkpoints": tmp_path, **QUIET}
    first = fit(made, START, DATA, steps=4, **options)
    both = fit(made, START, DATA, steps=8, **options)
    assert first.steps == 4 and both.steps == 8
    assert [e.count for e in both.ledger.entries] == [2]


def test_a_stream_is_one_run() -> None:
    rows = [{k: v[i] for k, v in DATA.items()} for i in range(UNITS)]
    made = correlated(private(), TreeAggregation, steps=4)
    result = fit(made, START, iter(rows), sampler=Streamed(SIZE), steps=4, **QUIET)
    assert result.steps == 4 and [e.count for e in result.ledger.entries] == [1]


PARTS = {"bands": 2, "participations": 3}
UNFIT = {
    "left to chance": (Poisson(UNITS, 0.25), TreeAggregation, {"steps": 4}),
    "two epochs in a run": (Shuffled(UNITS, SIZE), TreeAggregation, {"steps": 5}),
    "runs that begin within epochs": (
        Shuffled(UNITS, SIZE),
        TreeAggregation,
        {"steps": 3},
    ),
    "new orders": (Shuffled(UNITS, SIZE), BandedToeplitz, {"steps": 12, **PARTS}),
    "bins anew": (BallsInBins(UNITS, 4), BandedToeplitz, {"steps": 12, **PARTS}),
    "too often": (
        Shuffled(UNITS, SIZE, again=True),
        BandedToeplitz,
        {"steps": 12, "bands": 2, "participations": 2},
    ),
    "too many bands": (
        Shuffled(UNITS, SIZE, again=True),
        BandedToeplitz,
        {"steps": 12, "bands": 5, "participations": 3},
    ),
    "every step": (FullBatch(UNITS), BandedToeplitz, {"steps": 6, **PARTS}),
    "a rate without blocks": (
        Shuffled(UNITS, SIZE),
        BandedToeplitz,
        {"steps": 4, "bands": 2, "rate": 0.5},
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_sampling_that_the_noise_is_not_for(name: str) -> None:
    sampler, kind, settings = UNFIT[name]
    made = correlated(private(), kind, **settings)
    with pytest.raises(InputError):
        fit(made, START, DATA, sampler=sampler, steps=12, **QUIET)


def test_refuses() -> None:
    made = correlated(private(), TreeAggregation, steps=4)
    with pytest.raises(InputError, match="noise="):
        made(START, batch())
    with pytest.raises(InputError, match="sampler"):
        made.epsilon(steps=4, sampling_rate=1, delta=1e-3)
    with pytest.raises(InputError):
        correlated(private(noise=0.0), TreeAggregation, steps=4)
    with pytest.raises(InputError):
        correlated(private(clipping="adaptive"), TreeAggregation, steps=4)
    with pytest.raises(InputError):
        correlated(private(), BandedToeplitz, steps=4, bands=5)
    with pytest.raises(InputError):
        correlated(step, TreeAggregation, steps=4)  # type: ignore[arg-type]
    state = made.start(START, batch(), key=KEY)
    with pytest.raises(RandomKeyError):
        jax.jit(lambda p: made(p, batch(), noise=state))(START)
    with pytest.raises(InputError, match="start"):
        made(START, batch(), noise=state, key=KEY)
    stages = made.stage_jaxprs(START, batch())
    assert "noise" not in str(stages["traced"]) and len(stages) == 2
    assert "noise of standard deviation" in str(made.releases(START, batch()))


def test_the_same_order_in_every_epoch() -> None:
    rows = [r for r, _ in Shuffled(UNITS, SIZE, again=True).rows(KEY, 8)]
    np.testing.assert_array_equal(rows[:4], rows[4:])
    other = [r for r, _ in Shuffled(UNITS, SIZE).rows(KEY, 8)]
    assert (np.stack(other[:4]) != np.stack(other[4:])).any()
