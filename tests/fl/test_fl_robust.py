"""Robust statistics against NumPy and SciPy, with absent and with lying clients."""

from collections.abc import Callable
from typing import Any

import fl_by_hand as hand
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast import secret_shared
from scipy import optimize, stats

from privjax import explain, fl, secure_sum
from privjax.errors import InputError, LeakError

RNG = np.random.default_rng(1)
ROWS = {
    "a": RNG.normal(size=(9, 3, 2)).astype("f4"),
    "b": (5 + RNG.normal(size=9)).astype("f4"),
}
FLAT = np.concatenate([ROWS["a"].reshape(9, -1), ROWS["b"][:, None]], 1).astype("f8")


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(tree["a"]), np.ravel(tree["b"])])


def scores(x: np.ndarray, byzantine: int) -> np.ndarray:
    far = np.sum((x[:, None] - x[None]) ** 2, axis=2)
    return np.sort(far, axis=1)[:, 1 : len(x) - byzantine - 1].sum(axis=1)


def nearest(x: np.ndarray, byzantine: int, chosen: int) -> np.ndarray:
    return x[np.argsort(scores(x, byzantine))[:chosen]].mean(axis=0)


def least_distance(x: np.ndarray) -> np.ndarray:
    total = lambda v: np.sum(np.linalg.norm(x - v, axis=1))  # noqa: E731
    return optimize.minimize(total, x.mean(axis=0), tol=1e-10).x


STATISTICS: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray], float]] = {
    "median": (fl.coordinate_median(), lambda x: np.median(x, axis=0), 1e-6),
    "trimmed": (fl.trimmed_mean(0.25), lambda x: stats.trim_mean(x, 0.25), 1e-6),
    "krum": (fl.krum(2), lambda x: nearest(x, 2, 1), 1e-6),
    "multi_krum": (fl.multi_krum(2, 4), lambda x: nearest(x, 2, 4), 1e-6),
    "rfa": (fl.geometric_median(100), least_distance, 1e-4),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_against_numpy_and_scipy(name: str) -> None:
    statistic, by_hand, atol = STATISTICS[name]
    np.testing.assert_allclose(flat(statistic(ROWS)), by_hand(FLAT), atol=atol)


@pytest.mark.parametrize("name", STATISTICS)
def test_absent_and_broken_clients_do_not_count_and_nothing_is_compiled_anew(
    name: str,
) -> None:
    statistic, by_hand, atol = STATISTICS[name]
    traces = []

    @jax.jit
    def run(rows: Any, alive: Any) -> Any:
        traces.append(1)
        return statistic(rows, alive)

    for absent in ([], [0], [3, 8], [1, 2]):
        alive = np.ones(9, bool)
        alive[absent[:1]] = False
        rows = jax.tree.map(np.copy, ROWS)
        if len(absent) > 1:
            rows["b"][absent[1]] = np.nan  # sent, and of no use
        rows["a"][absent[:1]] = np.inf  # never sent
        there = [i for i in range(9) if i not in absent]
        got = flat(run(rows, alive))
        np.testing.assert_allclose(got, by_hand(FLAT[there]), atol=atol)
    assert len(traces) == 1


def test_the_geometric_median_takes_the_papers_steps() -> None:
    v = FLAT.mean(axis=0)
    for _ in range(3):
        w = 1 / np.maximum(0.5, np.linalg.norm(FLAT - v, axis=1))
        v = w @ FLAT / w.sum()
    got = fl.geometric_median(3, smoothing=0.5)(ROWS)
    np.testing.assert_allclose(flat(got), v, rtol=1e-5)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_few_liars_do_not_move_the_model_far(name: str) -> None:
    honest, liars = FLAT[:7], FLAT[7:] + 1e4
    rows = {"a": np.concatenate([honest, liars]).astype("f4"), "b": np.zeros(9, "f4")}
    got = np.asarray(STATISTICS[name][0](rows)["a"])
    assert np.all(got <= honest.max(axis=0) + 1) and np.all(got >= honest.min(0) - 1)


DATA = hand.clients()
COHORT = hand.cohort(DATA, None)
START = jnp.array([0.5, -0.25, 0.125])


def robust_round(robust: Any, **options: Any) -> Any:
    algorithm = fl.fedavg(
        hand.losses, client=optax.sgd(0.1), robust=robust, batch_size=2, **options
    )
    return algorithm, algorithm.init(START)


def test_a_round_with_the_median() -> None:
    algorithm, state = robust_round(fl.coordinate_median())
    new, metrics = algorithm.round(state, COHORT)
    plain = fl.fedavg(hand.losses, client=optax.sgd(0.1), batch_size=2)
    deltas = []
    for i in range(4):
        alone = COHORT._replace(survivors=np.arange(4) == i)
        deltas.append(plain.round(plain.init(START), alone)[0].params - START)
    np.testing.assert_allclose(new.params, START + np.median(deltas, axis=0), atol=1e-6)
    assert np.isfinite(float(metrics["loss"]))


def test_reports_say_that_single_updates_are_seen() -> None:
    algorithm, state = robust_round(fl.trimmed_mean(0.25))
    text = str(explain(algorithm.round, state, COHORT))
    assert "NOT a sum: the server sees every single client's update" in text
    assert "trimmed_mean(fraction=0.25)" in text
    algorithm, state = robust_round(fl.geometric_median(), aggregate="secure")
    report = explain(algorithm.round, state, COHORT)
    assert any("5 sums over 4 clients" in r for r in report.releases)
    assert "NOT a sum" not in str(report)


def test_the_geometric_median_by_secure_sums() -> None:
    algorithm, state = robust_round(fl.geometric_median(2))
    want, _ = algorithm.round(state, COHORT)
    secure, state = robust_round(fl.geometric_median(2), aggregate="secure")
    got, _ = secure.round(state, COHORT)
    np.testing.assert_allclose(got.params, want.params, atol=1e-5)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "secure median": (
        lambda: robust_round(fl.coordinate_median(), aggregate="secure"),
        LeakError,
        r"no function of sums.*geometric_median.*secret_shared",
    ),
    "secure krum": (
        lambda: robust_round(fl.krum(1), aggregate=secure_sum()),
        LeakError,
        "every single",
    ),
    "clipped": (
        lambda: robust_round(fl.geometric_median(), aggregate=secure_sum(clip=1.0)),
        InputError,
        "choose one",
    ),
    "weighted": (
        lambda: robust_round(fl.coordinate_median(), weigh="examples"),
        InputError,
        "count equally",
    ),
    "fraction": (lambda: fl.trimmed_mean(0.5), InputError, r"\[0, 0.5\)"),
    "too few for krum": (lambda: fl.krum(4)(ROWS), InputError, "at least 11"),
    "negative": (lambda: fl.krum(-1), InputError, "negative"),
    "none chosen": (lambda: fl.multi_krum(1, 0), InputError, "at least 1"),
    "no steps": (lambda: fl.geometric_median(0), InputError, "positive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    run, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        run()


def test_the_way_out_a_median_on_secret_shares() -> None:
    rows = ROWS["a"][:3, 0]
    median = secret_shared(lambda rows: fl.coordinate_median()(rows))
    np.testing.assert_allclose(median(rows), np.median(rows, axis=0), atol=1e-4)
