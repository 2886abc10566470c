"""Questions to all clients: evaluation, fine-tuning, histograms, quantiles, hitters."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import fl_by_hand as hand
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privjax import explain, fl
from privjax.errors import InputError
from privjax.prg import insecure_key

DATA = hand.clients()
COHORT = hand.cohort(DATA)
HERE = [i for i, there in enumerate(hand.THERE) if there]
START = np.array([0.5, -0.25, 0.125])
PARAMS = jnp.asarray(START, "f4")
KEY = insecure_key(0)


def metric(params: Any, batch: Any) -> dict[str, Any]:
    x, y = batch
    error = x @ params - y
    return {"square": jnp.square(error), "positive": error > 0}


ERRORS_BY_HAND = [DATA[i][0] @ START - DATA[i][1] for i in HERE]


def test_evaluation_weighs_examples_or_clients() -> None:
    cohort = hand.cohort([DATA[i] for i in HERE], None)
    got = fl.evaluation(metric)(PARAMS, cohort)
    every = np.concatenate(ERRORS_BY_HAND)
    assert float(got["examples"]) == len(every)
    np.testing.assert_allclose(got["square"], np.mean(every**2), rtol=1e-5)
    np.testing.assert_allclose(got["positive"], np.mean(every > 0), rtol=1e-5)
    ask = fl.evaluation(metric, weigh="clients", deviation=True)
    got = ask(PARAMS, cohort)
    each = [np.mean(e**2) for e in ERRORS_BY_HAND]
    np.testing.assert_allclose(got["square"], np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(got["square_deviation"], np.std(each), rtol=1e-4)


def test_evaluation_leaves_out_who_does_not_answer_and_is_explained() -> None:
    ask = fl.evaluation(metric)
    every = np.concatenate(ERRORS_BY_HAND)
    got = ask(PARAMS, COHORT)
    np.testing.assert_allclose(got["square"], np.mean(every**2), rtol=1e-5)
    state = fl.State(PARAMS, (), (), jnp.int32(0))
    report = explain(ask.algorithm.round, state, COHORT)
    assert all("a sum over 4 clients" in r for r in report.releases)


def test_evaluation_of_personal_models() -> None:
    def personal(params: Any, batch: Any) -> dict[str, Any]:
        return {"bias": jnp.full(6, params["bias"])}

    start = {"w": PARAMS, "bias": jnp.float32(0)}
    clients = {"w": None, "bias": jnp.arange(5.0)}
    state = fl.State(start, (), clients, jnp.int32(0))
    ask = fl.evaluation(personal, weigh="clients", local=fl.named("bias"))
    got = ask(state, COHORT._replace(ids=np.array([4, 0, 3, 2])))
    assert float(got["bias"]) == 2.0  # (4 + 0 + 2) / 3


def test_fine_tuning_keeps_the_model_and_gives_everybody_their_own() -> None:
    local = {"epochs": hand.EPOCHS, "batch_size": hand.BATCH}
    tune = fl.fine_tuning(
        hand.losses, client=optax.sgd(hand.RATE), metric=metric, holdout=0.3, **local
    )
    state, metrics = tune.round(tune.init(PARAMS, 4), COHORT)
    np.testing.assert_array_equal(state.params, PARAMS)
    before, after = [], []
    for i in HERE:
        x, y = DATA[i]
        cut = int(len(y) * 0.7)
        w, _ = hand.sgd(START, x[:cut], y[:cut])
        np.testing.assert_allclose(state.clients[i], w, rtol=2e-5)
        before += [*(x[cut:] @ START - y[cut:]) ** 2]
        after += [*(x[cut:] @ w - y[cut:]) ** 2]
    np.testing.assert_allclose(metrics["before/square"], np.mean(before), rtol=1e-5)
    np.testing.assert_allclose(metrics["after/square"], np.mean(after), rtol=1e-4)
    np.testing.assert_array_equal(state.clients[2], PARAMS)  # did not answer


# -- analytics -------------------------------------------------------------------------

RNG = np.random.default_rng(5)
VALUES = RNG.normal(size=(6, 7)).astype("f4")
MASK = RNG.random((6, 7)) < 0.7
THERE = np.array([1, 1, 0, 1, 1, 1], bool)
ASKED = fl.Cohort(VALUES, mask=MASK, survivors=THERE)
LEFT = VALUES[THERE][MASK[THERE]]
EDGES = np.array([-1.0, -0.2, 0.5, float(LEFT.max())])


@pytest.mark.parametrize("aggregate", ["plain", "secure"])
def test_histogram_is_numpys(aggregate: str) -> None:
    cohort = ASKED if aggregate == "plain" else fl.Cohort(VALUES, mask=MASK)
    values = LEFT if aggregate == "plain" else VALUES[MASK]
    edges = np.append(EDGES[:-1], values.max())
    got = fl.histogram(edges, aggregate=aggregate)(cohort)
    np.testing.assert_allclose(got, np.histogram(values, edges)[0], atol=1e-5)


def test_quantiles_are_found_by_counts() -> None:
    q = [0.0, 0.1, 0.5, 0.9, 1.0]
    got = fl.quantile(q, low=-8, high=8)(ASKED)
    want = np.quantile(LEFT, q, method="inverted_cdf")
    np.testing.assert_allclose(got, want, atol=16 * 2.0**-24)
    secure = fl.quantile(0.5, low=-8, high=8, steps=12, aggregate="secure")
    cohort = fl.Cohort(VALUES, mask=MASK)
    want = np.quantile(VALUES[MASK], 0.5, method="inverted_cdf")
    np.testing.assert_allclose(secure(cohort, key=KEY), want, atol=16 * 2.0**-12)


WORDS = ["the", "then", "the", "no", "than", "the", "no", "now", "rare", "no", "thé"]


def test_heavy_hitters_are_those_that_many_clients_have() -> None:
    """Two words per client; a client that says a word twice counts once."""
    said = [[WORDS[(3 * i + k * k) % len(WORDS)] for k in range(2)] for i in range(12)]
    data = np.stack([fl.spelled(words, 5) for words in said])
    exact = Counter(word for words in said for word in {*words})
    for threshold in (2, 4):
        found = fl.heavy_hitters(length=5, threshold=threshold)(fl.Cohort(data))
        got = {fl.word(symbols): count for symbols, count in found}
        assert got == {w: n for w, n in exact.items() if n >= threshold}
        assert [n for _, n in found] == sorted((n for _, n in found), reverse=True)
    assert fl.heavy_hitters(length=5, threshold=13)(fl.Cohort(data)) == []


def test_few_prefixes_are_followed_where_there_is_little_room() -> None:
    data = np.repeat(np.array([[0, 1], [2, 3], [4, 5]]), [5, 4, 3], axis=0)[:, None]
    hitters = fl.heavy_hitters(length=2, symbols=6, threshold=1, room=2)
    found = hitters(fl.Cohort(data))
    assert [(s, round(n)) for s, n in found] == [((0, 1), 5), ((2, 3), 4)]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "weigh": (lambda: fl.evaluation(metric, weigh="x"), "weigh='x'"),
    "no dictionary": (
        lambda: fl.evaluation(lambda p, b: b[1])(PARAMS, COHORT),
        "a dictionary by name",
    ),
    "one value per batch": (
        lambda: fl.evaluation(lambda p, b: {"m": jnp.mean(b[1])})(PARAMS, COHORT),
        "one value per example",
    ),
    "holdout": (
        lambda: fl.fine_tuning(
            hand.losses, client=optax.sgd(0.1), metric=metric, holdout=1.0
        ),
        "holdout=1.0",
    ),
    "edges": (lambda: fl.histogram([1.0, 1.0]), "rising order"),
    "q": (lambda: fl.quantile(1.5, low=0, high=1), r"not in \[0, 1\]"),
    "interval": (lambda: fl.quantile(0.5, low=1, high=1), "no search"),
    "tree": (lambda: fl.heavy_hitters(length=0, threshold=1), "no prefix tree"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    run, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        run()


def test_a_question_is_compiled_once() -> None:
    traces = []

    def counted(params: Any, batch: Any) -> dict[str, Any]:
        traces.append(1)
        return metric(params, batch)

    ask = fl.evaluation(counted)
    for k in range(3):
        ask(PARAMS + k, COHORT._replace(survivors=np.arange(4) > k))
    assert len(traces) == 1
    assert jax.tree.leaves(ask.algorithm.init(PARAMS).clients) == []
