"""Runs: what is logged, that a resumed one gives the same bits, budgets, callbacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privjax import fl, secure_sum
from privjax.aggregation import AdaptiveClip, CentralGaussian, plain
from privjax.dp import Budget, BudgetError, Ledger
from privjax.errors import InputError
from privjax.prg import insecure_key

CLIENTS, KEY = 12, insecure_key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("f4")
Y = (X @ np.array([1.0, -2.0, 0.5], "f4")).astype("f4")
DATA = fl.ClientData((X, Y), fl.partition.quantity_skew(60, CLIENTS, 1.0))
START = jnp.zeros(3)


def losses(params: Any, batch: Any) -> Any:
    return jnp.square(batch[0] @ params - batch[1])


def error(state: Any) -> dict[str, Any]:
    return {"error": jnp.mean(losses(state.params, (X, Y))), "w": state.params}


ALGORITHM = fl.scaffold(losses, rate=0.05, clients=CLIENTS, epochs=2)


def run(rounds: int = 12, algorithm: Any = ALGORITHM, **options: Any) -> Any:
    defaults: dict[str, Any] = {
        "sampler": fl.FixedSize(CLIENTS, 6),
        "evaluate": error,
        "every": 4,
        "faults": fl.Faults(0.2, 0.3, (0, 2)),
        "progress": False,
        "key": KEY,
    }
    state = algorithm.init(START, CLIENTS)
    return fl.fit(algorithm, state, DATA, rounds=rounds, **{**defaults, **options})


def same_bits(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


WHOLE = run()


def test_a_run_learns_and_says_how() -> None:
    history = WHOLE.history
    assert WHOLE.stopped == "rounds" and WHOLE.epsilon is None
    assert [r["round"] for r in history] == list(range(1, 13))
    assert history[11]["error"] < 0.1 * history[3]["error"]
    assert {"loss", "clients", "examples"} <= {*history[0]}
    assert "error" not in history[0] and "w_2" in history[3]
    assert min(r["clients"] for r in history) < 6


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_run_that_was_interrupted_gives_the_same_bits_and_the_same_log(
    tmp_path: Path, suffix: str
) -> None:
    whole, parts = tmp_path / f"whole.{suffix}", tmp_path / f"parts.{suffix}"
    want = run(log=whole)
    files = {"log": parts, "checkpoints": tmp_path / "saved"}
    begun = run(callbacks=[lambda report: report.round == 8], **files)
    assert begun.stopped == "callback" and len(begun.history) == 8
    # The process died after it had logged more than it had saved.
    with open(parts, "a", encoding="utf-8") as file:
        line = {"round": 9, "clients": 1.0}
        file.write(json.dumps(line) if suffix == "jsonl" else "9,1.0,1.0,1.0,,,,\n")
    got = run(**files)
    assert same_bits(got.state, want.state) and got.history == want.history
    assert parts.read_bytes() == whole.read_bytes()
    assert fl.read_log(whole) == want.history
    again = run(**files)
    assert same_bits(again.state, want.state) and again.history == want.history


def test_another_key_cannot_go_on_with_a_run(tmp_path: Path) -> None:
    run(4, checkpoints=tmp_path)
    with pytest.raises(InputError, match="another key="):
        run(8, checkpoints=tmp_path, key=insecure_key(1))
    stored = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert np.asarray(jax.random.key_data(KEY)).tobytes() not in stored
    assert len(run(8, checkpoints=tmp_path, key=None).history) == 4


def test_the_given_state_is_not_used_up() -> None:
    state = ALGORITHM.init(START, CLIENTS)
    options = {"sampler": fl.FullBatch(CLIENTS), "rounds": 1, "progress": False}
    fl.fit(ALGORITHM, state, DATA, **options)
    assert float(jnp.sum(state.clients)) == 0.0


def test_callbacks_may_keep_what_they_get() -> None:
    seen: list[Any] = []
    got = run(callbacks=[seen.append])
    assert [r.round for r in seen] == [4, 8, 12]
    assert same_bits(seen[-1].state, got.state) and same_bits(got.state, WHOLE.state)
    assert seen[0].metrics == WHOLE.history[3]
    assert not same_bits(seen[0].state, seen[1].state)


@pytest.mark.parametrize("sampler", [fl.Poisson(CLIENTS, 0.3), fl.Cyclic(CLIENTS, 5)])
def test_padded_cohorts_and_buckets(sampler: Any) -> None:
    plain = run(4, sampler=sampler, faults=None)
    split = run(4, sampler=sampler, faults=None, bucketed=True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        split.state,
        plain.state,
    )


# -- privacy ---------------------------------------------------------------------------


def private(noise: float = 2.0) -> fl.Algorithm:
    return fl.fedavg(
        losses,
        client=optax.sgd(0.05),
        aggregate=plain(clip=0.5, noise=CentralGaussian(noise)),
        expected=6,
    )


def test_a_budget_ends_the_run_before_the_round_that_would_exceed_it() -> None:
    sampler = fl.FixedSize(CLIENTS, 6)
    each = private().event(sampler.room, START)
    one = Ledger("replace_one")
    ((event, _),) = sampler.charge(each, 1, 3)
    one.spend(event, 7)
    budget = Budget(one.epsilon(1e-3) * 1.0001, 1e-3)
    options = {"sampler": sampler, "faults": None, "evaluate": None, "delta": 1e-3}
    got = run(100, private(), ledger=Ledger("replace_one", budget=budget), **options)
    assert got.stopped == "budget" and len(got.history) == 7
    assert got.epsilon == pytest.approx(one.epsilon(1e-3))
    assert {*got.history[0]} == {"round", "clients"}  # nothing else leaves
    with pytest.raises(BudgetError, match="no further round"):
        run(100, private(), ledger=got.ledger, **options)


def test_a_resumed_private_run_has_paid_for_what_it_did(tmp_path: Path) -> None:
    sampler = fl.FixedSize(CLIENTS, 6)
    options = {"sampler": sampler, "faults": None, "evaluate": None, "delta": 1e-3}
    whole = run(8, private(), **options)
    options["checkpoints"] = tmp_path
    run(8, private(), callbacks=[lambda report: True], **options)
    got = run(8, private(), **options)
    assert same_bits(got.state, whole.state) and got.epsilon == whole.epsilon


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "clients": (
        lambda: run(sampler=fl.FixedSize(5, 2)),
        InputError,
        "for 5 clients, not 12",
    ),
    "a ledger without noise": (
        lambda: run(ledger=Ledger(), delta=1e-3),
        InputError,
        "adds no noise",
    ),
    "noise without delta": (lambda: run(1, private()), InputError, "give delta="),
    "another relation": (
        lambda: run(1, private(), delta=1e-3, ledger=Ledger("add_or_remove_one")),
        InputError,
        "accounted for",
    ),
    "a log of another kind": (lambda: run(1, log="x.txt"), InputError, "must end in"),
    "every": (lambda: run(every=0), InputError, "every=0"),
    "noise without a denominator": (
        lambda: fl.fedavg(
            losses,
            client=optax.sgd(0.1),
            aggregate=secure_sum(clip=1.0, noise=CentralGaussian(1.0)),
        ),
        InputError,
        "give expected=",
    ),
    "clipping and weights": (
        lambda: fl.fedavg(
            losses,
            client=optax.sgd(0.1),
            weigh="examples",
            aggregate=secure_sum(clip=1.0),
        ),
        InputError,
        "give max_weight=",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        call()


def test_clipping_and_noise_by_hand() -> None:
    """One full-batch step per client, clipped, summed, noised, divided by `expected`."""

    def deltas() -> np.ndarray:
        sizes = [len(r) for r in (DATA.rows(i) for i in range(CLIENTS))]
        assert min(sizes) > 0
        out = []
        for i in range(CLIENTS):
            x, y = X[DATA.rows(i)].astype("f8"), Y[DATA.rows(i)].astype("f8")
            d = 0.05 * 2 * x.T @ y / len(y)
            out.append(d * min(1, 0.1 / np.linalg.norm(d)))
        return np.array(out)

    cohort = DATA.cohort()
    want = deltas().sum(axis=0) / 10
    options = {"client": optax.sgd(0.05), "expected": 10}
    for method in (plain(clip=0.1), secure_sum(clip=0.1)):
        exact = fl.fedavg(losses, aggregate=method, **options)
        extra = {"key": KEY} if exact.round.needs_key else {}
        got = exact.round(exact.init(START), cohort, **extra)[0].params
        np.testing.assert_allclose(got, want, atol=2e-6)
    method = plain(clip=0.1, noise=CentralGaussian(3.0))
    noisy = fl.fedavg(losses, aggregate=method, **options)
    state, keys = noisy.init(START), jax.random.split(KEY, 200)
    draws = [noisy.round(state, cohort, key=k)[0].params - want for k in keys]
    assert 0.9 < np.std(draws) / (3.0 * 0.1 / 10) < 1.1
    assert abs(np.mean(draws)) < 4 * 0.03 / np.sqrt(600)


def test_a_clip_norm_that_adapts_is_the_servers_state() -> None:
    clip = AdaptiveClip(quantile=0.5, initial=5.0, rate=0.5)
    algorithm = fl.fedavg(losses, client=optax.sgd(0.05), aggregate=plain(clip=clip))
    state, seen = algorithm.init(START), []
    for _ in range(60):
        state = state._replace(params=START)
        state, metrics = algorithm.round(state, DATA.cohort())
        seen.append(float(metrics["clip_norm"]))
    assert seen[0] == 5.0
    norms = []
    for i in range(CLIENTS):
        x, y = X[DATA.rows(i)], Y[DATA.rows(i)]
        norms.append(np.linalg.norm(0.1 * x.T @ y / len(y)))
    low, high = np.quantile(norms, [0.4, 0.6])
    assert low <= seen[-1] <= high


# -- curves ----------------------------------------------------------------------------


def test_a_plot_of_two_runs(tmp_path: Path) -> None:
    log = tmp_path / "run.csv"
    run(4, log=log)
    for name in ("curves.png", "curves.svg"):
        fl.plot({"a": WHOLE.history, "b": log}, tmp_path / name, ["loss", "error"])
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(InputError, match="accuracy"):
        fl.plot({"a": WHOLE.history}, tmp_path / "x.png", ["accuracy"])
    with pytest.raises(InputError, match="at least one"):
        fl.plot({}, tmp_path / "x.png")
