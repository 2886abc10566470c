"""Real clients with noise: whose it is, what is charged for it, and a client's budget."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fl_loopback import PARAMS, Loopback, N, X, Y, served

from privjax import fl
from privjax.accounting import Budget, Ledger
from privjax.aggregation import (
    AdaptiveClip,
    CentralGaussian,
    DistributedGaussian,
    DistributedSkellam,
    plain,
    secure_sum,
)
from privjax.aggregation.remote import Step
from privjax.errors import BudgetError, InputError

DELTA, Z, CLIP, DROPPED = 1e-5, 1.0, 0.5, 1
WIDE = np.zeros(600, "f4")


def losses(params: Any, batch: Any) -> Any:
    return jnp.square(batch[0] @ params - batch[1])


def still(params: Any, batch: Any) -> Any:
    """No gradient: clients send nothing but their noise."""
    return 0.0 * (jnp.sum(params) + batch[1])


def averaging(method: Any, loss: Any = losses, expected: float = N) -> fl.Algorithm:
    return fl.fedavg(loss, client=optax.sgd(0.1), aggregate=method, expected=expected)


def masked(noise: Any, **options: Any) -> Any:
    given = {"dropped": DROPPED, "threshold": 1, **options}
    return secure_sum(32, clip=CLIP, rounding="stochastic", noise=noise, **given)


NOISE: dict[str, Any] = {
    "discrete Gaussian": DistributedGaussian(Z),
    "Skellam": DistributedSkellam(Z),
    "the server's": CentralGaussian(Z),
}


# -- noise of which nobody knows the whole ---------------------------------------------


@pytest.mark.parametrize("gone", [[], [11]], ids=["all", "one is gone"])
@pytest.mark.parametrize("name", NOISE)
def test_the_sum_has_the_noise_that_is_charged(name: str, gone: list[int]) -> None:
    """Where one client's noise is missing, that of the others is what was counted on."""
    algorithm = averaging(masked(NOISE[name]), still)
    network = Loopback(algorithm, {(1, Step.MASK): gone}, WIDE)
    found = served(algorithm, network, 1, WIDE, delta=DELTA)
    there = N - len(gone)
    parts = 1.0 if name == "the server's" else there / (N - DROPPED)
    deviation = Z * CLIP * math.sqrt(parts) / N
    assert np.std(found.state.params) == pytest.approx(deviation, rel=0.12)
    assert abs(np.mean(found.state.params)) < 5 * deviation / math.sqrt(WIDE.size)
    charged = Ledger()
    charged.spend(algorithm.event(N, WIDE))
    assert found.epsilon == charged.epsilon(DELTA)


def test_each_clients_noise_is_a_part_of_it() -> None:
    """What a client sends is masked, and its part has less than the sum's variance."""
    method = masked(DistributedGaussian(Z))
    grid = method.grid(N, WIDE.size)
    one = float(grid.scale) * grid.step
    assert one**2 * (N - DROPPED) == pytest.approx((Z * CLIP) ** 2, rel=0.01)


def test_a_sum_without_its_noise_is_never_unmasked() -> None:
    """Two are gone where one may be: step 4 is not asked for, and the round run again."""
    algorithm = averaging(masked(DistributedSkellam(Z)))
    network = Loopback(algorithm, {(1, Step.MASK): [10, 11]})
    found = served(algorithm, network, 1, delta=DELTA)
    steps = [step for step, _ in network.asked]
    assert steps == [*Step][:3] + [*Step]
    assert found.history[0]["tries"] == 2
    assert sum(e.count for e in found.ledger.entries) == 2


def test_a_budget_ends_the_run_where_tries_have_used_it_up() -> None:
    algorithm = averaging(masked(DistributedSkellam(Z)))
    event = algorithm.event(N, PARAMS)
    once = Ledger()
    once.spend(event)
    budget = Budget(once.epsilon(DELTA) * 1.01, DELTA)
    network = Loopback(algorithm, {(1, Step.MASK): [10, 11]})
    with pytest.raises(BudgetError):
        served(algorithm, network, 1, delta=DELTA, ledger=Ledger(budget=budget))
    assert network.asked[-1][0] is Step.SHARE


def test_fewer_clients_than_planned_are_charged_as_what_they_are() -> None:
    """An adaptive norm's answer weighs more among fewer, and so does its event."""
    clip = AdaptiveClip(initial=0.5, deviation=0.4)
    method = secure_sum(
        12, clip=clip, dropped=0.25, threshold=1, noise=DistributedSkellam(Z)
    )
    algorithm = averaging(method)
    network = Loopback(algorithm, {(1, Step.TRAIN): [10]})
    found = served(algorithm, network, 2, delta=DELTA)
    assert [row["clients"] for row in found.history] == [3, 4]
    events = [algorithm.event(n, PARAMS) for n in (3, 4)]
    assert [e.event for e in found.ledger.entries] == events
    assert events[0] != events[1]


# -- no amplification ------------------------------------------------------------------


def test_no_amplification_by_sampling_is_claimed() -> None:
    """Two of four are drawn in each round; each sum is charged as one of everybody."""
    algorithm = averaging(plain(clip=1.0, noise=CentralGaussian(2.0)), expected=2)
    network = Loopback(algorithm, clients=2)
    found = served(algorithm, network, 6, clients=2, delta=DELTA)
    assert all(len(nodes) == 2 for _, nodes in network.asked)
    assert len({nodes for _, nodes in network.asked}) > 1
    event = algorithm.event(2, PARAMS)
    every = Ledger()
    every.spend(event, 6)
    assert found.epsilon == pytest.approx(every.epsilon(DELTA), rel=1e-9)
    assert {e.event["kind"] for e in found.ledger.entries} == {event["kind"]}
    drawn = Ledger()
    drawn.spend({"kind": "poisson", "rate": 0.5, "event": event}, 6)
    assert found.epsilon > 1.3 * drawn.epsilon(DELTA)
    said = " ".join(str(fl.serve.__doc__).split())
    assert "No amplification by sampling is claimed" in said


# -- a client's own budget -------------------------------------------------------------


def enough_for(algorithm: fl.Algorithm, rounds: int, path: Path) -> fl.OwnBudget:
    ledger = Ledger()
    ledger.spend(algorithm.event(N, PARAMS), rounds)
    return fl.OwnBudget.create(path, ledger.epsilon(DELTA) * 1.001, DELTA)


METHODS: dict[str, Callable[[], Any]] = {
    "central": lambda: plain(clip=CLIP, noise=CentralGaussian(Z)),
    "Skellam": lambda: masked(DistributedSkellam(Z)),
    "masked": lambda: masked(CentralGaussian(Z)),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_client_takes_no_part_past_its_budget(name: str, tmp_path: Path) -> None:
    """Two rounds; then never again, started anew or not. The others go on."""
    algorithm = averaging(METHODS[name]())
    path = tmp_path / "budget"
    budgets = [enough_for(algorithm, 2, path), *[None] * (N - 1)]
    network = Loopback(algorithm, budgets=budgets)
    found = served(algorithm, network, 3, delta=DELTA)
    assert [row["clients"] for row in found.history] == [4, 4, 3]
    assert [type(e) for e in network.errors] == [BudgetError]
    spent = fl.OwnBudget(path)
    assert [e.count for e in spent.ledger().entries] == [2]
    assert 0.9 < spent.epsilon / spent.ledger().budget.epsilon <= 1
    again = Loopback(algorithm, budgets=[fl.OwnBudget(path), *[None] * (N - 1)])
    assert served(algorithm, again, 1, delta=DELTA).history[0]["clients"] == 3
    assert [e.count for e in fl.OwnBudget(path).ledger().entries] == [2]


def test_what_is_not_sent_is_not_charged(tmp_path: Path) -> None:
    """A round that ends before masked values are sent, and one that goes on."""
    algorithm = averaging(masked(DistributedSkellam(Z)))
    budget = enough_for(algorithm, 5, tmp_path / "budget")
    gone = {(1, Step.SHARE): [11, 12], (2, Step.UNMASK): [10]}
    network = Loopback(algorithm, gone, budgets=[budget, *[None] * (N - 1)])
    found = served(algorithm, network, 1, delta=DELTA)
    assert found.history[0]["tries"] == 2
    assert [e.count for e in budget.ledger().entries] == [1]


def lost(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def another_figure(path: Path) -> None:
    text = path.read_text()
    assert '"count\\": 1' in text
    path.write_text(text.replace('"count\\": 1', '"count\\": 0'))


def put_back(path: Path) -> None:
    shutil.copy(path.with_name("backup"), path)


def in_use(path: Path) -> None:
    path.with_name("budget.lock").touch()


def read_only(path: Path) -> None:
    path.with_name("budget.part").mkdir()


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "lost": (lost, "cannot be read"),
    "emptied": (emptied, "cannot be read"),
    "cut off": (cut_off, "cannot be read"),
    "another figure": (another_figure, "digest"),
    "put back": (put_back, "has lost releases"),
    "in use": (in_use, "another process"),
    "read only": (read_only, "cannot be written"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_client_that_cannot_note_what_it_sends_sends_nothing(
    case: str, tmp_path: Path
) -> None:
    harm, words = FILES[case]
    algorithm = averaging(plain(clip=CLIP, noise=CentralGaussian(Z)))
    path = tmp_path / "budget"
    budget = enough_for(algorithm, 9, path)
    shutil.copy(path, path.with_name("backup"))
    network = Loopback(algorithm, budgets=[budget, *[None] * (N - 1)])
    rows = served(algorithm, network, 1, delta=DELTA).history
    harm(path)
    rows += served(algorithm, network, 1, delta=DELTA).history
    assert [row["clients"] for row in rows] == [4, 3]
    (error,) = network.errors
    assert isinstance(error, BudgetError)
    assert words in str(error)


def created_twice(path: Path) -> Any:
    fl.OwnBudget.create(path, 1.0, DELTA)
    return fl.OwnBudget.create(path, 2.0, DELTA)


def never_created(path: Path) -> Any:
    return fl.OwnBudget(path)


def no_budget(path: Path) -> Any:
    return fl.OwnBudget.create(path, -1.0, DELTA)


def without_noise(path: Path) -> Any:
    own = fl.OwnBudget.create(path, 1.0, DELTA)
    algorithm = fl.fedavg(losses, client=optax.sgd(0.1), aggregate=plain(clip=1.0))
    return fl.participant(algorithm, PARAMS, (X[0], Y[0]), clients=N, budget=own)


REFUSED: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "created twice": (created_twice, BudgetError, "exists"),
    "never created": (never_created, BudgetError, "OwnBudget.create"),
    "no budget": (no_budget, InputError, "epsilon=-1"),
    "without noise": (without_noise, InputError, "adds no noise"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str, tmp_path: Path) -> None:
    run, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words):
        run(tmp_path / "budget")
