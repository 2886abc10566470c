"""`spdz` between separate parties: clients, a server, aggregators and a dealer."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fl_loopback import EXAMPLES, PARAMS, Loopback, N, X, Y, served

from privjax import fl
from privjax.aggregation import DistributedGaussian, Spdz, spdz
from privjax.aggregation.aggregators import Aggregator, Dealer, Setting
from privjax.aggregation.aggregators import Step as Asked
from privjax.aggregation.panel import PartyLost
from privjax.aggregation.remote import Step
from privjax.errors import InputError, MacCheckError, ProtocolError
from privjax.prg import insecure_key
from privjax.runtimes.flower import wire

SGD = optax.sgd(0.1)
METHODS = {
    "with MACs": spdz(3),
    "32 bits": spdz(2, bits=32, clip=4.0, rotate=True),
    "additive": spdz(3, protocol="semi2k"),
    "additive, 16 bits": spdz(2, protocol="semi2k", bits=16, clip=4.0),
}
Change = Callable[[int, Any, Any], Any]


def losses(params: Any, batch: Any) -> Any:
    return jnp.square(batch[0] @ params - batch[1])


def fedavg(method: Spdz) -> fl.Algorithm:
    expected = None if method.noise is None else N
    return fl.fedavg(losses, client=SGD, aggregate=method, expected=expected)


class Parties:
    """Aggregators and dealer in this process, reached by bytes.

    Args:  change: (party, message, reply) -> reply, what goes wrong.
    """

    def __init__(self, method: Spdz, change: Change = lambda p, m, r: r) -> None:
        setting, self.change = Setting.of(method), change
        dealer = Dealer(setting) if setting.dealt else None
        key = None if dealer is None else dealer.key
        self.parties: list[Any] = [
            Aggregator(setting, p, key) for p in range(setting.parties)
        ]
        keys = np.stack([p.key for p in self.parties])
        if dealer is not None:
            dealer.handle({"step": np.asarray(0), "aggregators": keys})
            self.parties.append(dealer)
        self.keys = np.stack([p.key for p in self.parties])
        self.seen: list[tuple[int, Asked, Any, Any]] = []

    def __call__(self, messages: Mapping[int, Any], seconds: float) -> Any:
        replies = {}
        for p, m in messages.items():
            reply = self.parties[p].handle(wire.unpack(wire.pack(m)))
            reply = self.change(p, m, reply)
            self.seen.append((p, Asked(int(m["step"])), m, reply))
            if reply is not None:
                replies[p] = reply
        return replies


def run(
    method: Spdz, rounds: int = 1, gone: Any = None, change: Any = None, **options: Any
) -> tuple[Any, Parties]:
    parties = Parties(method) if change is None else Parties(method, change)
    network = Loopback(fedavg(method), gone, aggregators=parties.keys)
    found = served(
        network_algorithm(network), network, rounds, aggregators=parties, **options
    )
    return found, parties


def network_algorithm(network: Loopback) -> fl.Algorithm:
    return network.clients[0].work.algorithm  # type: ignore[attr-defined,no-any-return]


def mean_of(there: list[int]) -> np.ndarray:
    return np.mean([0.2 * X[i].T @ Y[i] / EXAMPLES for i in there], 0)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_as_in_one_program(name: str) -> None:
    """Two rounds; in the second one a client is gone before it has trained."""
    method = METHODS[name]
    found, _ = run(method, 2, {(2, Step.TRAIN): [11]})
    algorithm = fedavg(method)
    state = algorithm.init(PARAMS)
    for k in range(2):
        there = np.arange(N) != 1 if k else np.ones(N, bool)
        cohort = fl.Cohort((X, Y), survivors=there)
        state, _ = algorithm.round(state, cohort, key=insecure_key(k))
    step = 2.0 ** -method.fraction(N, PARAMS.size)
    np.testing.assert_allclose(
        found.state.params, state.params, rtol=0, atol=2e-5 + 2 * step
    )
    assert [row["clients"] for row in found.history] == [4, 3]


@pytest.mark.parametrize("name", ["with MACs", "additive"])
def test_a_client_that_is_gone_before_it_shares_is_not_counted(name: str) -> None:
    found, _ = run(METHODS[name], 1, {(1, Step.SHARE): [12]})
    np.testing.assert_allclose(found.state.params, mean_of([0, 1, 3]), atol=1e-5)
    assert found.history[0]["lost"] == 1


def test_what_leaves_an_aggregator_is_a_uniform_share() -> None:
    """Two runs with the same updates have no word in common, and equal sums."""
    runs = []
    for _ in range(2):
        found, parties = run(METHODS["with MACs"])
        shares = [r["opened"] for p, s, _, r in parties.seen if s is Asked.OPEN]
        assert {k for p, s, m, r in parties.seen for k in r} == {
            *("key", "mask/0", "mask/1", "mask/2", "mask/3"),
            *("share/0", "share/1", "share/2", "fine", "opened", "check"),
        }
        runs.append((np.concatenate(shares), found.state.params))
    assert not np.intersect1d(runs[0][0], runs[1][0]).size
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


# -- who does otherwise ----------------------------------------------------------------


def altered(step: Asked, name: str) -> Change:
    """The second aggregator answers something else."""

    def change(p: int, message: Any, reply: Any) -> Any:
        if p != 1 or message["step"] != step:
            return reply
        return {**reply, name: reply[name] ^ np.uint32(1)}

    return change


@pytest.mark.parametrize("at", [(Asked.OPEN, "opened"), (Asked.CHECK, "check")])
def test_a_party_that_cheats_is_found_out(at: Any) -> None:
    with pytest.raises(MacCheckError, match="fails their check"):
        run(METHODS["with MACs"], change=altered(*at))


def test_a_client_that_tells_parties_different_things_is_found_out() -> None:
    parties = Parties(METHODS["with MACs"])
    network = Loopback(fedavg(METHODS["with MACs"]), aggregators=parties.keys)
    handle = network.clients[0].handle

    def unequal(message: Any) -> Any:
        client = network.clients[0]._client
        if int(message["step"]) == Step.SHARE:
            plain = client._parts  # type: ignore[union-attr]

            def parts(*args: Any) -> Any:
                first, *rest = plain(*args)
                return [first, rest[0] + np.uint32(1), *rest[1:]]

            client._parts = parts  # type: ignore[union-attr,method-assign]
        return handle(message)

    network.clients[0].handle = unequal  # type: ignore[method-assign]
    with pytest.raises(MacCheckError, match="or a client"):
        served(network_algorithm(network), network, 1, aggregators=parties)


def test_a_message_that_cannot_be_read_is_left_out() -> None:
    """By all aggregators, though one of them alone could not read it."""
    parties = Parties(METHODS["additive"])
    network = Loopback(fedavg(METHODS["additive"]), aggregators=parties.keys)
    handle = network.clients[3].handle

    def garbled(message: Any) -> Any:
        reply = handle(message)
        if "sealed/1" in reply:
            reply["sealed/1"] = reply["sealed/1"] ^ np.uint8(1)
        return reply

    network.clients[3].handle = garbled  # type: ignore[method-assign]
    found = served(network_algorithm(network), network, 1, aggregators=parties)
    np.testing.assert_allclose(found.state.params, mean_of([0, 1, 2]), atol=1e-5)


def silent(p: int, message: Any, reply: Any) -> Any:
    return None if p == 2 and message["step"] == Asked.OPEN else reply


def of_one(parties: Parties) -> Any:
    _, _, last, _ = next(s for s in parties.seen if s[1] is Asked.ADMIT)
    party = parties.parties[0]
    again = {**last, "context": np.frombuffer(b"another", np.uint8)}
    return party.handle({**again, "step": np.asarray(int(Asked.ADMIT))})


def open_twice(parties: Parties) -> Any:
    message = next(m for p, s, m, _ in parties.seen if s is Asked.OPEN)
    return parties.parties[0].handle(message)


def admit_twice(parties: Parties) -> Any:
    message = next(m for p, s, m, _ in parties.seen if s is Asked.ADMIT)
    return parties.parties[0].handle(message)


def deal_twice(parties: Parties) -> Any:
    message = next(m for p, s, m, _ in parties.seen if s is Asked.DEAL)
    return parties.parties[-1].handle(message)


REFUSED: dict[str, tuple[Callable[[Parties], Any], str]] = {
    "opened twice": (open_twice, "out of turn"),
    "admitted twice": (admit_twice, "same round twice"),
    "dealt twice": (deal_twice, "same round twice"),
    "of another round": (of_one, "arrived altered"),
}


def test_aggregators_refuse() -> None:
    _, parties = run(METHODS["with MACs"])
    for ask, words in REFUSED.values():
        with pytest.raises(ProtocolError, match=words):
            ask(parties)


def test_no_sum_of_one_is_opened() -> None:
    """Whatever the server says."""

    class Alone(Parties):
        def __call__(self, messages: Any, seconds: float) -> Any:
            for m in messages.values():
                if "counted" in m:
                    m["counted"] = np.arange(N) == 2
            return super().__call__(messages, seconds)

    for method, fewest in (
        (METHODS["additive"], 2),
        (spdz(2, bits=32, clip=1.0, dropped=1, noise=DistributedGaussian(9.0)), 3),
    ):
        parties = Alone(method)
        network = Loopback(fedavg(method), aggregators=parties.keys)
        options = {"delta": 1e-5} if method.noise is not None else {}
        with pytest.raises(ProtocolError, match=f"and {fewest} are the fewest"):
            served(
                network_algorithm(network),
                network,
                1,
                aggregators=parties,
                retries=0,
                **options,
            )


def test_a_silent_aggregator_is_named() -> None:
    with pytest.raises(PartyLost, match="aggregator 2 of spdz"):
        run(METHODS["additive"], change=silent)


def test_arguments_that_do_not_fit() -> None:
    algorithm = fedavg(METHODS["with MACs"])
    keys = Parties(METHODS["with MACs"]).keys
    wrong = fl.participant(algorithm, PARAMS, (X[0], Y[0]), clients=N, aggregators=keys)
    wrong._aggregators = keys[:2]
    with pytest.raises(InputError, match="the dealer's behind"):
        network = Loopback(algorithm, aggregators=keys)
        network.clients = [wrong] * N
        wrong.handle(first_message(network))
    with pytest.raises(InputError, match="has no aggregators"):
        fl.Aggregators("plain")  # type: ignore[arg-type]


def first_message(network: Loopback) -> Any:
    plan = np.frombuffer(network.clients[0].work.plan, np.uint8)
    about = {"step": 0, "number": 7, "counted": -1, "public/0": PARAMS}
    message = {k: np.asarray(v) for k, v in about.items()}
    return message | {"run": np.zeros(16, np.uint8), "plan": plan}


# -- processes -------------------------------------------------------------------------


def test_real_processes_and_one_that_dies() -> None:
    """Three aggregators and a dealer; one is killed between two rounds."""
    method = METHODS["with MACs"]
    with fl.Aggregators(method) as parties:
        assert len({os.getpid(), *parties.processes}) == 5
        network = Loopback(fedavg(method), aggregators=parties.keys)

        def kill(report: fl.Report) -> None:
            os.kill(parties.processes[1], signal.SIGKILL)
            np.testing.assert_allclose(
                report.state.params, mean_of([0, 1, 2, 3]), atol=1e-5
            )

        begun = time.monotonic()
        with pytest.raises(
            PartyLost, match=r"aggregator 1 of 3 \(process \d+\) has end"
        ):
            served(
                network_algorithm(network),
                network,
                2,
                aggregators=parties,
                callbacks=[kill],
            )
        assert time.monotonic() - begun < 120
        trained = [step for step, _ in network.asked].count(Step.TRAIN)
        assert trained == 1  # nobody trains for a round that cannot be opened
    for process in parties.processes:
        assert gone(process)


def gone(process: int) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
