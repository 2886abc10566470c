"""The rows of the demo: same training, honest accounting, sampling as accounted."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

import privjax
from privjax import accounting
from privjax.demo import batches, methods, training, workloads
from privjax.demo.workloads import Workload


@pytest.fixture(autouse=True)
def one_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_TIMING_SECONDS", 0.0)
    monkeypatch.setattr(training, "_LEAST_REPEATS", 1)


def small_pima() -> Workload:
    return workloads.pima().shrunk(rows=192, width=6)


# The whole Boston workload, as the claim is about it; a small one for Pima.
TASKS: dict[str, Callable[[], Workload]] = {
    "boston": workloads.boston,
    "small pima": small_pima,
}


@pytest.mark.parametrize("task", TASKS)
def test_exact_methods_agree_with_plain(task: str) -> None:
    """Within 1 % relative after every epoch: the same start and the same batches."""
    load = TASKS[task]()
    makers = (methods.plain, methods.federated, methods.secret_shared)
    plain, *others = (
        training.train(load, make(load, seed=0), epochs=2, seed=0) for make in makers
    )
    assert len(plain.curve) == 3
    assert plain.curve[0] != plain.curve[2]
    for other in others:
        for ours, theirs in zip(other.curve, plain.curve, strict=True):
            assert ours == pytest.approx(theirs, rel=0.01)


def test_traffic_of_secret_sharing_is_counted() -> None:
    task = small_pima()
    result = training.train(task, methods.secret_shared(task, 0), epochs=1, seed=0)
    assert result.traffic is not None
    assert result.traffic.rounds > 5
    assert result.traffic.megabytes > 0
    assert result.traffic.dealt_megabytes > 0


PRIVATE: list[tuple[Any, float, float]] = [
    (lambda task: methods.private(task, 3, 0.5), 0.5, 32 / 192),
    (lambda task: methods.all_together(task, 3, 3.0), 3.0, 16 / 96),
]


@pytest.mark.parametrize(("make", "epsilon", "rate"), PRIVATE)
def test_private_rows_spend_what_they_say(
    make: Any, epsilon: float, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accountant is told the sampler's rate and the steps of all epochs."""
    asked: list[dict[str, Any]] = []
    account = accounting.epsilon
    monkeypatch.setattr(
        accounting, "epsilon", lambda **kw: asked.append(kw) or account(**kw)
    )
    task = small_pima()
    method = make(task)
    assert method.epsilon == pytest.approx(epsilon, rel=1e-3)
    assert method.epsilon <= epsilon
    (call,) = asked
    assert (call["steps"], call["sampling_rate"], call["delta"]) == (18, rate, 1e-5)
    fed = method.feed()
    assert fed["y"].shape[0] * 3 == call["steps"]
    result = training.train(task, method, epochs=1, seed=0)
    assert all(math.isfinite(v) for v in result.curve[-1].values())
    assert result.curve[-1] != result.curve[0]


def test_private_rows_draw_fresh_noise() -> None:
    task = small_pima()
    method = methods.private(task, 1, 3.0)
    start, fed = task.init(0), method.feed()
    keys = [privjax.random.key() for _ in range(2)]
    first, second = (method.epoch(start, fed, key) for key in keys)
    assert not np.array_equal(first[0]["w"], second[0]["w"])


def test_owners_see_their_own_rows_only() -> None:
    x = np.arange(101, dtype=np.float32)[:, None]
    fed = batches.shuffled(np.random.default_rng(0), x, x[:, 0], batch=8, clients=2)
    assert fed["x"].shape == (12, 2, 4, 1)
    ours, theirs = np.asarray(fed["y"][:, 0]), np.asarray(fed["y"][:, 1])
    assert ours.max() < 50 <= theirs.min()
    assert len(np.unique(fed["y"])) == 96
    merged = batches.merged(fed)
    assert merged["x"].shape == (12, 8, 1)
    assert np.array_equal(np.sort(merged["y"][3]), np.sort(np.ravel(fed["y"][3])))


def test_poisson_samples_each_row_independently() -> None:
    rows, rate, steps = 40, 0.3, 2000
    x = np.arange(1, rows + 1, dtype=np.float32)[:, None]
    key = privjax.random.insecure_key(0)
    fed = batches.poisson(key, x, x[:, 0], rate, steps, capacity=rows)
    mask, y = np.asarray(fed["mask"]), np.asarray(fed["y"])
    assert np.array_equal(mask, y > 0)
    assert np.array_equal(fed["x"][..., 0], y)
    counts = np.bincount(y.astype(int).ravel(), minlength=rows + 1)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3
    sizes = mask.sum(1)
    # The size of a binomial sample, in mean and variance: the draws are independent.
    assert sizes.mean() == pytest.approx(rows * rate, abs=4 * (8.4 / steps) ** 0.5)
    assert sizes.var() == pytest.approx(rows * rate * (1 - rate), rel=0.15)


def test_poisson_takes_everything_at_rate_one_and_never_cuts() -> None:
    x = np.ones((10, 2), np.float32)
    key = privjax.random.insecure_key(1)
    fed = batches.poisson(key, x, x[:, 0], 1.0, steps=2, capacity=10)
    assert np.asarray(fed["mask"]).all()
    with pytest.raises(
        batches.SampleError, match="has 10 rows and the batch has room for 9"
    ):
        batches.poisson(key, x, x[:, 0], 1.0, steps=2, capacity=9)


@pytest.mark.parametrize(
    ("rows", "rate", "samples", "chance"),
    [(404, 32 / 404, 120, 1e-8), (202, 16 / 202, 240, 1e-8), (10, 0.5, 3, 0.1)],
)
def test_capacity_is_the_least_that_is_safe(
    rows: int, rate: float, samples: int, chance: float
) -> None:
    room = batches.capacity(rows, rate, samples, chance)
    tail = stats.binom(rows, rate).sf
    assert samples * tail(room) <= chance * (1 + 1e-6)
    assert samples * tail(room - 1) > chance


def test_private_loss_weighs_rows_by_the_mask_and_divides_by_a_constant() -> None:
    task = small_pima()
    params, loss = task.init(0), methods.masked_loss(task, expected=8)
    x, y = task.x_train[:4], task.y_train[:4]
    padded = {"x": x, "y": y, "mask": np.array([1, 1, 0, 0], np.float32)}
    rows = task.loss(workloads.mlp(params, x), y)
    assert loss(params, padded) == pytest.approx(float(rows[0] + rows[1]) / 8, rel=1e-5)


def test_auc_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, 50).astype(np.float32)  # with ties
    labels = (rng.random(50) < 0.4).astype(np.float32)
    positive, negative = scores[labels == 1], scores[labels == 0]
    u = stats.mannwhitneyu(positive, negative).statistic
    expected = u / (len(positive) * len(negative))
    assert workloads.auc(scores, labels) == pytest.approx(expected)
    assert workloads.accuracy(scores - 4, labels) == np.mean((scores > 4) == labels)


@pytest.mark.parametrize("logit", [-90.0, -3.0, 0.0, 2.5, 90.0])
def test_log_loss_and_its_derivative(logit: float) -> None:
    loss, slope = jax.value_and_grad(workloads.log_loss)(logit, 1.0)
    assert loss == pytest.approx(np.logaddexp(0, -logit), rel=1e-5, abs=1e-30)
    assert slope == pytest.approx(-1 / (1 + np.exp(logit)), rel=1e-5, abs=1e-30)


def test_boston_loses_column_b_and_keeps_its_units() -> None:
    full, without = workloads.boston(), workloads.boston(drop_b=True)
    assert (full.sizes[0], without.sizes[0]) == (13, 12)
    assert without.x_train.shape == (404, 12)
    zeros = np.zeros_like(full.y_test)
    in_dollars = full.y_test * 10 + 25
    assert full.metrics["test MSE"](zeros, full.y_test) == pytest.approx(
        float(np.mean((25 - in_dollars) ** 2)), rel=1e-5
    )
