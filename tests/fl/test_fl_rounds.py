"""Rounds: every runtime, aggregation, drop-outs, transformations, reports."""

from collections.abc import Iterator
from typing import Any

import fl_by_hand as hand
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

from privjax import aggregation, explain, federated, fl, secure_sum, stages
from privjax.core.interpret import sub_jaxprs
from privjax.errors import (
    ProtocolError,
)
from privjax.fl import runtime
from privjax.passes.federated import sequence
from privjax.prg import insecure_key

DATA = hand.clients()
COHORT = hand.cohort(DATA)
START = jnp.array([0.5, -0.25, 0.125])
KEY = insecure_key(0)
SGD = optax.sgd(hand.RATE)


def close(got: Any, want: Any, atol: float = 1e-6) -> None:
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=2e-5, atol=atol), got, want
    )


def eqns(jaxpr: Any) -> Iterator[Any]:
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        for sub in sub_jaxprs(eqn):
            yield from eqns(sub)


# -- the same round everywhere ---------------------------------------------------------

PLAIN = hand.averaging()
WANT = PLAIN.round(PLAIN.init(START), COHORT)
RUNTIMES: dict[str, Any] = {
    "scan": "scan",
    "vmap": "vmap",
    "chunks": fl.Chunks(2),
    "a short last chunk": fl.Chunks(3),
    "one device of a mesh": fl.Sharded(jax.make_mesh((1,), ("clients",))),
}


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_gives_the_same_round(name: str) -> None:
    algorithm = hand.averaging(runtime=RUNTIMES[name])
    close(algorithm.round(algorithm.init(START), COHORT), WANT)


@pytest.mark.parametrize("name", ["scan", "a short last chunk"])
def test_states_of_clients_come_back_to_their_owners(name: str) -> None:
    options = {"rate": hand.RATE, "clients": 6, "batch_size": 2}
    one = fl.scaffold(hand.losses, runtime="vmap", **options)
    other = fl.scaffold(hand.losses, runtime=RUNTIMES[name], **options)
    cohort = COHORT._replace(ids=np.array([5, 0, 3, 1]))
    a, b = one.init(START, 6), other.init(START, 6)
    for _ in range(2):
        a, b = one.round(a, cohort)[0], other.round(b, cohort)[0]
    close(b, a)


AGGREGATES = {
    "secure": secure_sum(dropped=1),
    "between aggregators": aggregation.spdz(),
}


@pytest.mark.parametrize("name", AGGREGATES)
def test_secure_sums_give_the_same_round(name: str) -> None:
    algorithm = hand.averaging(aggregate=AGGREGATES[name])
    got = algorithm.round(algorithm.init(START), COHORT, key=KEY)
    close(got, WANT)


def test_secure_sums_take_one_message_after_the_other(monkeypatch: Any) -> None:
    """As with many clients, whose parts are not all held at once."""
    everybody = COHORT._replace(survivors=None)
    algorithm = hand.averaging(aggregate="secure", runtime="scan")
    state = algorithm.init(START)
    run = lambda s, c, k: algorithm.round(s, c, key=k)  # noqa: E731
    monkeypatch.setattr(sequence, "STACKED", 0)
    closed = jax.make_jaxpr(run)(state, everybody, KEY)
    found = list(eqns(closed))
    assert "client_message" in [e.params.get("name") for e in found]
    held = jax.core.ShapedArray((4, 3), jnp.float32)  # all clients' changes
    assert held not in [v.aval for e in found for v in e.outvars]
    got = jax.jit(run)(state, everybody, KEY)
    close(got, PLAIN.round(PLAIN.init(START), everybody))


def test_it_is_the_round_that_federated_makes_of_the_update() -> None:
    """Both ways to write it: one client's update, and over the clients axis."""
    x, y = (a[:, :2] for a in COHORT.data)

    def update(params: Any, data: Any) -> Any:
        grads = jax.grad(lambda p: jnp.mean(hand.losses(p, data)))(params)
        return params - hand.RATE * grads

    def over_clients(params: Any, data: Any) -> Any:
        return jnp.mean(jax.vmap(update, (None, 0))(params, data), axis=0)

    got, _ = PLAIN.round(PLAIN.init(START), (x, y))
    close(got.params, federated(update)(START, (x, y)))
    close(got.params, federated(over_clients, level="round")(START, (x, y)))


class Together(aggregation.Plain):
    """A sum that needs all clients' parts at once, as secure sums do."""

    streams = False


def test_buckets_give_the_round_of_one_padded_cohort() -> None:
    x = np.concatenate([x for x, _ in DATA]).astype("f4")
    y = np.concatenate([y for _, y in DATA]).astype("f4")
    ends = np.cumsum(hand.SIZES)
    rows = [np.arange(b - n, b) for b, n in zip(ends, hand.SIZES, strict=True)]
    data = fl.ClientData((x, y), rows)
    there = np.array(hand.THERE)
    padded = data.cohort(survivors=there)
    buckets = data.buckets(survivors=there, smallest=2)
    assert [b.data[1].shape for b in buckets] == [(1, 2), (1, 4), (2, 8)]
    close(PLAIN.round(PLAIN.init(START), padded), WANT)
    close(PLAIN.round(PLAIN.init(START), buckets), WANT)
    together = hand.averaging(aggregate=Together())
    close(together.round(together.init(START), buckets), WANT)
    stateful = fl.scaffold(hand.losses, rate=hand.RATE, clients=4, batch_size=2)
    state = stateful.init(START, 4)
    close(stateful.round(state, buckets)[0], stateful.round(state, padded)[0])


def test_with_everybody_absent_the_model_stays() -> None:
    nobody = COHORT._replace(survivors=np.zeros(4, bool))
    state, metrics = PLAIN.round(PLAIN.init(START), nobody)
    close(state.params, START)
    assert float(metrics["clients"]) == 0 and float(metrics["loss"]) == 0


def test_what_an_absent_client_computes_is_thrown_away_even_when_it_is_nan() -> None:
    broken = jax.tree.map(np.copy, COHORT.data)
    broken[0][2] = np.nan
    for algorithm in (
        PLAIN,
        hand.averaging(runtime="scan"),
        hand.averaging(aggregate=Together()),
    ):
        state = algorithm.init(START)
        close(algorithm.round(state, COHORT._replace(data=broken)), WANT)


def test_who_answers_and_who_is_late_are_arrays_and_nothing_is_compiled_anew() -> None:
    traces = []

    def losses(params: Any, batch: Any) -> Any:
        traces.append(1)
        return hand.losses(params, batch)

    algorithm = fl.scaffold(losses, rate=0.1, clients=8, batch_size=2)
    state = algorithm.init(START, 8)
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(4):
        cohort = COHORT._replace(
            ids=rng.permutation(8)[:4],
            survivors=rng.random(4) < 0.7,
            steps=rng.integers(0, 4, 4, np.int32),
            mask=rng.random((4, 6)) < 0.8,
        )
        state, _ = algorithm.round(state, cohort)
        counts.append(len(traces))
    assert counts == [counts[0]] * 4


# -- JAX's transformations -------------------------------------------------------------


def test_a_run_is_a_scan_over_rounds_and_a_grid_of_rates_is_a_vmap() -> None:
    everybody = COHORT._replace(survivors=None)

    def run(rate: Any, keys: Any) -> Any:
        algorithm = hand.averaging(server=optax.sgd(rate), aggregate="secure")

        def body(state: Any, key: Any) -> Any:
            state, metrics = algorithm.round(state, everybody, key=key)
            return state, metrics["loss"]

        state, losses = jax.lax.scan(body, algorithm.init(START), keys)
        return state.params, losses

    keys = jax.random.split(KEY, 2)
    params, losses = jax.jit(jax.vmap(run, (0, None)))(jnp.array([1.0, 0.5]), keys)
    state = PLAIN.init(START)
    for k in range(2):
        state, metrics = PLAIN.round(state, everybody)
        np.testing.assert_allclose(losses[0, k], metrics["loss"], rtol=1e-5)
    close(params[0], state.params)
    assert not np.allclose(params[0], params[1])


@pytest.mark.parametrize("name", ["scan", "vmap", "chunks", "one device of a mesh"])
def test_a_round_is_differentiated_by_its_hyperparameters(name: str) -> None:
    def after(rates: Any) -> Any:
        server, client = rates
        algorithm = fl.fedavg(
            hand.losses,
            client=optax.sgd(client),
            server=optax.sgd(server),
            batch_size=2,
            runtime=RUNTIMES[name],
        )
        state, _ = algorithm.round(algorithm.init(START), COHORT)
        return jnp.sum(jnp.square(state.params))

    at = jnp.array([0.7, 0.05])
    got = jax.jit(jax.grad(after))(at)
    run = jax.jit(after)
    h = 2e-3
    near = [(run(at + h * e) - run(at - h * e)) / (2 * h) for e in jnp.eye(2)]
    np.testing.assert_allclose(got, near, rtol=5e-3, atol=1e-4)


def test_the_server_may_inject_its_hyperparameters() -> None:
    server = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    algorithm = hand.averaging(server=server)
    state = algorithm.init(START)

    def after(rate: Any) -> Any:
        held = {**state.server.hyperparams, "learning_rate": rate}
        begun = state._replace(server=state.server._replace(hyperparams=held))
        return algorithm.round(begun, COHORT)[0].params

    slope = jax.jacobian(after)(jnp.float32(0.5))
    close(slope, WANT[0].params - START, 1e-5)  # x + rate * d


def test_memory_does_not_grow_with_the_clients_of_a_scan() -> None:
    def needed(clients: int, runtime: str) -> int:
        algorithm = hand.averaging(runtime=runtime)
        data = [jnp.zeros((clients, 4, 64)), jnp.zeros((clients, 4))]
        state = algorithm.init(jnp.zeros(64))
        lowered = jax.jit(lambda s, d: algorithm.round(s, tuple(d))).lower(state, data)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert needed(512, "scan") <= needed(8, "scan") + 256
    assert needed(512, "vmap") >= 16 * needed(8, "vmap")


@pytest.mark.parametrize(
    ("clients", "each", "platform", "at_once"),
    [
        (10, 1000, "cpu", 10),
        (1000, 10**6, "cpu", 1),
        (1000, 10**6, "gpu", 250),
        (7, 10**6, "gpu", 7),
    ],
)
def test_auto_chooses_by_backend_and_size(
    monkeypatch: Any, clients: int, each: int, platform: str, at_once: int
) -> None:
    monkeypatch.setattr(runtime.jax, "default_backend", lambda: platform)
    monkeypatch.setattr(runtime, "_memory", lambda: 4 * 10**9)
    assert runtime.choose(clients, each) == at_once


# -- what the program is, and what is said about it ------------------------------------


@pytest.mark.parametrize("aggregate", ["plain", "secure"])
def test_the_clients_program_and_the_sums_stay_visible(aggregate: str) -> None:
    algorithm = hand.averaging(aggregate=aggregate)
    state = algorithm.init(START)
    closed = jax.make_jaxpr(lambda s, c, k: _round(algorithm, s, c, k))(
        state, COHORT, KEY
    )
    found = list(eqns(closed))
    assert "client_update" in [e.params.get("name") for e in found]
    assert [e.primitive.name for e in found].count("aggregate") == 1
    shown = stages(algorithm.round)(state, COHORT)
    assert shown.names == ("client", "round")
    assert "aggregate" not in str(shown["client"])


def _round(algorithm: Any, state: Any, cohort: Any, key: Any) -> Any:
    extra = {"key": key} if algorithm.round.needs_key else {}
    return algorithm.round(state, cohort, **extra)


def test_padding_is_nobodys_drop_out() -> None:
    """A secure sum for which all must answer, over a cohort that is not full.

    Where each client adds a part of the noise, padding would be missed, and is refused.
    """
    rows = [np.arange(3 * i, 3 * i + 3) for i in range(4)]
    flat = [np.concatenate([np.asarray(c[k], "f4") for c in DATA]) for k in (0, 1)]
    data = fl.ClientData((flat[0][:12], flat[1][:12]), rows)
    cohort = data.cohort([2, 0, 1, 0], present=np.array([1, 1, 1, 0]))
    assert cohort.present.tolist() == [True, True, True, False]
    key = {"key": insecure_key(0)}
    found = hand.averaging(aggregate="secure")
    found = found.round(found.init(START), cohort, **key)
    close(found[0].params, PLAIN.round(PLAIN.init(START), cohort)[0].params, 1e-5)
    assert found[1]["clients"] == 3
    report = explain(hand.averaging().round, hand.averaging().init(START), cohort)
    labels = {e.name: e.label for e in report.inputs}
    assert labels["cohort.present"] == "the server's choice"
    noise = aggregation.DistributedGaussian(0.5)
    noisy = hand.averaging(
        aggregate=secure_sum(32, clip=1.0, noise=noise), expected=3.0
    )
    with pytest.raises(ProtocolError, match="dropped"):
        noisy.round(noisy.init(START), cohort, **key)


def test_the_client_is_a_function_of_its_own() -> None:
    """It can be exported and run on a real client; the server needs the sums only."""
    state = PLAIN.init(START)
    public = PLAIN.offer(state.params, state.server)
    x, y = DATA[0]
    mine = fl.Client((), (jnp.asarray(x, "f4"), jnp.asarray(y, "f4")))
    run = jax.jit(lambda p, data: PLAIN.client(p, fl.Client((), data)).sums)
    sums = export.export(run)(public, mine.data).call(public, mine.data)
    params, _, _ = PLAIN.finish(state.params, state.server, sums)
    alone = COHORT._replace(survivors=np.arange(4) == 0)
    assert float(sums["weight"]) == 5
    close(params, PLAIN.round(state, alone)[0].params)


def test_explain_says_who_sees_what() -> None:
    algorithm = fl.scaffold(hand.losses, rate=0.1, clients=6, aggregate="secure")
    state = algorithm.init(START, 6)
    cohort = COHORT._replace(ids=np.arange(4))
    report = explain(algorithm.round, state, cohort)
    labels = {e.name: e.label for e in (*report.inputs, *report.outputs)}
    assert labels["cohort.data[0]"] == "each client keeps its own slice"
    assert labels["cohort.survivors"] == "the server sees who answers"
    assert labels["state.clients"] == "stays with each client"
    assert "sent to every client" in str(report)
    assert [r.partition(":")[0] for r in report.releases] == [
        "control",
        "delta",
        "examples",
        "loss",
        "weight",
    ]
    assert all("a sum over 4 clients" in r for r in report.releases)
    assert "simulated" in report.notes[0]
