"""Rounds between separate parties, without a network: messages, drop-outs, the result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from fl_loopback import EXAMPLES, PARAMS, Loopback, N, X, Y, served

from privjax import federated, fl
from privjax.aggregation import (
    AdaptiveClip,
    CentralGaussian,
    RandomK,
    plain,
    quantised,
    secure_sum,
    spdz,
)
from privjax.aggregation.remote import Step
from privjax.errors import InputError, ProtocolError
from privjax.prg import insecure_key
from privjax.runtimes.flower import wire

RNG = np.random.default_rng(0)
SGD = optax.sgd(0.1)
traced: list[int] = []


def losses(params: Any, batch: Any) -> Any:
    traced.append(1)
    return jnp.square(batch[0] @ params - batch[1])


def one_client(params: Any, data: Any) -> Any:
    loss = lambda p: jnp.mean(losses(p, data))  # noqa: E731
    return params - 0.1 * jax.grad(loss)(params)


SECURE = secure_sum(dropped=0.5, threshold=1)
CLIPPED = secure_sum(32, clip=AdaptiveClip(initial=0.5), dropped=1)
ALGORITHMS: dict[str, Callable[[], fl.Algorithm]] = {
    "plain": lambda: fl.fedavg(losses, client=SGD),
    "secure": lambda: fl.fedavg(losses, client=SGD, aggregate=SECURE),
    "clipped": lambda: fl.fedavg(losses, client=SGD, aggregate=CLIPPED),
    # In 16 bits a client is off by 2^-15 of its largest entry at most.
    "16 bits": lambda: fl.fedavg(losses, client=SGD, aggregate=quantised(16)),
    "16 bits, clipped": lambda: fl.fedavg(
        losses, client=SGD, aggregate=quantised(16, clip=0.5, rotate=False)
    ),
    "few entries": lambda: fl.fedavg(
        losses, client=SGD, aggregate=SECURE, compress=RandomK(0.5)
    ),
    "scaffold": lambda: fl.scaffold(losses, rate=0.1, clients=N, aggregate=SECURE),
    "federated": lambda: fl.repeated(federated(one_client, aggregate=SECURE)),
    "median": lambda: fl.fedavg(losses, client=SGD, robust=fl.coordinate_median()),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_as_in_one_program(name: str) -> None:
    """Three rounds; in the second one a client is gone before it has trained."""
    algorithm = ALGORITHMS[name]()
    network = Loopback(algorithm, {(2, Step.TRAIN): [11]})
    found = served(algorithm, network, 3)
    state = algorithm.init(PARAMS, N)
    for k in range(3):
        survivors = np.arange(N) != 1 if k == 1 else np.ones(N, bool)
        cohort = fl.Cohort((X, Y), survivors=survivors)
        key = {"key": insecure_key(k)} if algorithm.round.needs_key else {}
        state, _ = algorithm.round(state, cohort, **key)
    np.testing.assert_allclose(found.state.params, state.params, rtol=0, atol=2e-5)
    assert [row["clients"] for row in found.history] == [4, 3, 4]
    for i, client in enumerate(network.clients):
        if jax.tree.leaves(state.clients):
            # The third round's change is kept when the fourth says that it counted.
            assert client.rounds == (1 if i == 1 else 2)


GONE: dict[str, tuple[dict[Any, list[int]], list[int], int]] = {
    "before sharing": ({(1, Step.SHARE): [10]}, [1, 2, 3], 1),
    "before masking": ({(1, Step.MASK): [10, 13]}, [1, 2], 1),
    "before unmasking": ({(1, Step.UNMASK): [12]}, [0, 1, 2, 3], 1),
    "all but one": ({(1, Step.TRAIN): [10, 11, 12]}, [0, 1, 2, 3], 2),
}


@pytest.mark.parametrize("when", GONE)
def test_drop_outs(when: str) -> None:
    """The mean is over those whose masked input arrived; or the round is run again."""
    gone, there, tries = GONE[when]
    algorithm = ALGORITHMS["secure"]()
    network = Loopback(algorithm, gone)
    found = served(algorithm, network, 1)
    each = [2 * 0.1 * X[i].T @ Y[i] / EXAMPLES for i in there]
    np.testing.assert_allclose(found.state.params, np.mean(each, 0), atol=1e-5)
    assert found.history[0]["tries"] == tries
    assert found.history[0]["lost"] == N - len(there)


def test_a_round_goes_on_with_its_goal() -> None:
    algorithm = ALGORITHMS["plain"]()
    found = served(algorithm, Loopback(algorithm), 1, goal=3)
    each = [2 * 0.1 * X[i].T @ Y[i] / EXAMPLES for i in range(3)]
    np.testing.assert_allclose(found.state.params, np.mean(each, 0), atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_left_out_of_a_plain_sum(value: float) -> None:
    algorithm = ALGORITHMS["plain"]()
    network = Loopback(algorithm)
    bad = (np.full_like(X[0], value), Y[0])
    network.clients[0] = fl.participant(algorithm, PARAMS, bad, clients=N)
    found = served(algorithm, network, 1)
    assert np.all(np.isfinite(found.state.params))
    assert (found.history[0]["clients"], found.history[0]["lost"]) == (3, 1)


def test_the_server_sees_masked_words_only() -> None:
    """Two runs with the same updates have no word in common, and equal sums."""
    runs = []
    for _ in range(2):
        algorithm = ALGORITHMS["secure"]()
        network = Loopback(algorithm)
        found = served(algorithm, network, 1)
        masked = [m["masked"] for m in network.seen if "masked" in m]
        assert {name for m in network.seen for name in m} == {
            "keys",
            "sealed",
            "masked",
            "response",
        }
        runs.append((np.concatenate(masked), found.state.params))
    assert not np.intersect1d(runs[0][0], runs[1][0]).size
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_updates_of_a_few_bits_are_sent_as_so_many() -> None:
    """No client sends its update as it is, and one that is no number is left out."""
    algorithm = fl.fedavg(losses, client=SGD, aggregate=quantised(4, clip=1.0))
    network = Loopback(algorithm)
    bad = (np.full_like(X[0], np.nan), Y[0])
    network.clients[0] = fl.participant(algorithm, PARAMS, bad, clients=N)
    found = served(algorithm, network, 1)
    assert [(row["clients"], row["lost"]) for row in found.history] == [(3, 1)]
    sizes = [{k: x.nbytes for k, x in m.items()} for m in network.seen]
    assert sizes == [{"bits": 2, "scale": 4, "alone": 0}] * N
    each = [
        algorithm.round(algorithm.init(PARAMS), (X[[i]], Y[[i]]), key=insecure_key(i))
        for i in range(1, N)
    ]
    want = np.mean([state.params for state, _ in each], 0)
    # Half a step of 1/7 of the largest entry, of each client and each way.
    np.testing.assert_allclose(found.state.params, want, atol=2 / 7)


def first_step(network: Loopback, plan: bytes | None = None) -> dict[str, Any]:
    """A message of a server that begins round 7 of a run of its own."""
    plan = network.clients[0].work.plan if plan is None else plan
    message = {
        **{"step": 0, "number": 7, "counted": -1},
        "run": np.zeros(16, np.uint8),
        "plan": np.frombuffer(plan, np.uint8),
        "public/0": PARAMS + 1,
    }
    return {k: np.asarray(v) for k, v in message.items()}


def test_a_round_of_federated_is_an_algorithm() -> None:
    """Clipped updates that are means, and what it is not made for."""
    round_ = federated(one_client, aggregate=plain(clip=0.01))
    algorithm = fl.repeated(round_)
    state, _ = algorithm.round(algorithm.init(PARAMS), (X, Y))
    np.testing.assert_allclose(state.params, round_(PARAMS, (X, Y)), rtol=1e-6)
    wrong = {
        "made by": one_client,
        "of a function": federated(one_client, clients="params"),
        "count equally": federated(one_client, weights=np.ones(N)),
        "keeps the clip norm": federated(one_client, aggregate=CLIPPED),
    }
    for words, made in wrong.items():
        with pytest.raises(InputError, match=words):
            fl.repeated(made)
    padded = fl.Cohort((X, Y), mask=np.ones((N, EXAMPLES), bool))
    with pytest.raises(InputError, match="padded"):
        algorithm.round(algorithm.init(PARAMS), padded)


def test_a_client_traces_once() -> None:
    network = Loopback(ALGORITHMS["plain"]())
    served(ALGORITHMS["plain"](), network, 1)
    before = len(traced)
    assert network.clients[0].handle(first_step(network))
    assert len(traced) == before


def another_plan(network: Loopback) -> Any:
    return network.clients[0].handle(first_step(network, bytes(32)))


def twice(network: Loopback) -> Any:
    network.clients[0].handle(first_step(network))
    return network.clients[0].handle(first_step(network))


def left_behind(network: Loopback) -> Any:
    network.clients[0].handle(first_step(network))
    message = {**first_step(network), "step": np.asarray(2), "number": np.asarray(3)}
    return network.clients[0].handle(message)


def another_model(network: Loopback) -> Any:
    message = {**first_step(network), "public/0": np.zeros(4, "f4")}
    return network.clients[0].handle(message)


def no_round(network: Loopback) -> Any:
    return network.clients[0].handle({"step": np.asarray(1)})


def no_step(network: Loopback) -> Any:
    message = {**first_step(network), "step": np.asarray(9)}
    return network.clients[0].handle(message)


def of_two(network: Loopback, clients: int = 2) -> Any:
    client = network.clients[0]
    client.fewest = 3
    client.handle(first_step(network))
    share = {"step": np.asarray(1), "clients": np.asarray(clients)}
    return client.handle({**first_step(network), **share})


def of_many(network: Loopback) -> Any:
    return of_two(network, N + 1)


def too_few(network: Loopback) -> Any:
    network.gone = {(k, Step.TRAIN): [10, 11, 12] for k in range(9)}
    return served(ALGORITHMS["secure"](), network, 1, retries=1)


def too_many_lost(network: Loopback) -> Any:
    network.gone = {(1, Step.MASK): [10, 11, 12]}
    return served(ALGORITHMS["secure"](), network, 1, retries=0)


def nobody_there(network: Any) -> Any:
    network.nodes = lambda: [10]
    return served(ALGORITHMS["secure"](), network, 1, wait=0.0)


def aggregators(network: Loopback) -> Any:
    algorithm = fl.fedavg(losses, client=SGD, aggregate=spdz(parties=3))
    return fl.participant(algorithm, PARAMS, (X[0], Y[0]), clients=N)


def aggregators_of_a_server(network: Loopback) -> Any:
    return served(fl.fedavg(losses, client=SGD, aggregate=spdz()), network, 1)


def without_delta(network: Loopback) -> Any:
    noisy = plain(clip=1.0, noise=CentralGaussian(1.0))
    algorithm = fl.fedavg(losses, client=SGD, aggregate=noisy, expected=4)
    return served(algorithm, network, 1)


def no_goal(network: Loopback) -> Any:
    return served(ALGORITHMS["secure"](), network, 1, goal=N + 1)


REFUSED: dict[str, tuple[Callable[[Loopback], Any], Any, str]] = {
    "another plan": (another_plan, ProtocolError, "another program"),
    "twice": (twice, ProtocolError, "already taken"),
    "left behind": (left_behind, ProtocolError, "left behind"),
    "another model": (another_model, ProtocolError, "Nothing was computed"),
    "no round": (no_round, ProtocolError, "without `number`"),
    "nobody there": (nobody_there, InputError, "1 clients are connected"),
    "no step": (no_step, ProtocolError, "a step 9"),
    "a sum of two": (of_two, ProtocolError, "a sum of 2 clients, not of 3 to 4"),
    "a sum of many": (of_many, ProtocolError, "a sum of 5 clients"),
    "too few": (too_few, ProtocolError, "only 1 clients"),
    "too many lost": (too_many_lost, ProtocolError, "nothing was unmasked"),
    "aggregators": (
        aggregators,
        InputError,
        r"spdz\(\): its 3 aggregators.*fl.aggregators.*aggregators= to serve.*secure_sum",
    ),
    "aggregators of a server": (aggregators_of_a_server, InputError, "aggregators= to"),
    "no goal": (no_goal, InputError, "goal=5"),
    "without delta": (without_delta, InputError, "delta="),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    run, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        run(Loopback(ALGORITHMS["secure"]()))


def test_private_rounds_and_checkpoints(tmp_path: Path) -> None:
    """A run that ends after a round goes on from its checkpoint, with its ledger."""
    noisy = plain(clip=1.0, noise=CentralGaussian(1.0))
    algorithm = fl.fedavg(losses, client=SGD, aggregate=noisy, expected=4)
    options: dict[str, Any] = {"delta": 1e-5, "checkpoints": tmp_path}
    first = served(algorithm, Loopback(algorithm), 1, **options)
    second = served(algorithm, Loopback(algorithm), 2, **options)
    assert second.state.rounds == 2 and 0 < first.epsilon < second.epsilon


def test_a_server_that_is_started_again_goes_on_with_its_clients(
    tmp_path: Path,
) -> None:
    """Its clients' states are those of the rounds that it counted."""
    algorithm = fl.scaffold(losses, rate=0.1, clients=N)
    one, two = Loopback(algorithm), Loopback(algorithm)
    whole = served(algorithm, one, 3)
    served(algorithm, two, 2, checkpoints=tmp_path)
    found = served(algorithm, two, 3, checkpoints=tmp_path)
    np.testing.assert_array_equal(found.state.params, whole.state.params)
    for a, b in zip(one.clients, two.clients, strict=True):
        np.testing.assert_array_equal(a.kept, b.kept)


# -- bytes -----------------------------------------------------------------------------


def test_messages_come_back_as_they_were() -> None:
    message = {
        name: RNG.integers(0, 2, (2, 0, 3) if k % 3 == 0 else (2,) * (k % 3)).astype(t)
        for k, (name, t) in enumerate(wire.TYPES.items())
    }
    found = wire.unpack(wire.pack(message))
    assert list(found) == list(message)
    for name, x in message.items():
        assert (found[name].dtype, found[name].shape) == (x.dtype, x.shape)
        assert found[name].tobytes() == x.tobytes()
    assert found["bfloat16"].dtype == ml_dtypes.bfloat16


GOOD = wire.pack({"x": np.arange(3, dtype="f4")})
BAD: dict[str, bytes] = {
    "nothing": b"",
    "cut off": GOOD[:-1],
    "too long": GOOD + b"\0",
    "no head": b"\xff\xff\xff\xff",
    "objects": GOOD.replace(b"float32", b"object_"),
    "negative": GOOD.replace(b"[3]", b"[-3]"),
    "no numbers": GOOD.replace(b"[3]", b"{3}"),
    "no shape": GOOD.replace(b"[3]", b' "3'),
}


@pytest.mark.parametrize("case", BAD)
def test_bytes_that_are_no_message(case: str) -> None:
    with pytest.raises(ProtocolError):
        wire.unpack(BAD[case])


def test_objects_do_not_travel() -> None:
    with pytest.raises(ProtocolError, match="does not travel"):
        wire.pack({"x": np.array([{}])})
