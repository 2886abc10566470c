"""The ledger: dp-accounting is the oracle; budgets, neighbours, files."""

import json
import math

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting import pld, rdp

from privjax import accounting
from privjax.accounting import Budget, BudgetError, Ledger
from privjax.accounting.events import NEIGHBOURS, Unsupported
from privjax.errors import InputError, PrivacyError
from privjax.passes.dp import mechanisms

DELTA = 1e-5


def gaussian(z: float) -> dict:
    return {"kind": "gaussian", "noise_multiplier": z}


def poisson(rate: float, z: float) -> dict:
    return {"kind": "poisson", "rate": rate, "event": gaussian(z)}


def ledger_of(*pairs, neighbours="add_or_remove_one", accountant="auto") -> Ledger:
    out = Ledger(neighbours, accountant=accountant)
    for event, count in pairs:
        out.spend(event, count)
    return out


def test_the_usual_figure() -> None:
    ledger = ledger_of((poisson(0.01, 1.0), 10_000))
    assert round(ledger.epsilon(DELTA), 2) == 6.19
    assert ledger.epsilon(DELTA, accountant="rdp") > ledger.epsilon(DELTA)
    approximation = ledger.epsilon(DELTA, accountant="gdp_approximation")
    assert approximation == pytest.approx(6.0, abs=0.1)
    assert "no bounds" in str(Ledger(accountant="gdp_approximation"))


ADD, REPLACE, ZERO = NEIGHBOURS
G, P = dpa.GaussianDpEvent, dpa.PoissonSampledDpEvent
ORACLE = {
    "gaussian": (gaussian(2.0), 7, ADD, pld.PLDAccountant, G(2.0)),
    "gaussian, replace": (gaussian(2.0), 7, REPLACE, pld.PLDAccountant, G(2.0)),
    "gaussian, rdp": (gaussian(2.0), 7, ZERO, rdp.RdpAccountant, G(2.0)),
    "gaussian, replace, rdp": (gaussian(2.0), 7, REPLACE, rdp.RdpAccountant, G(1.0)),
    "poisson": (poisson(0.1, 2.0), 50, ADD, pld.PLDAccountant, P(0.1, G(2.0))),
    "poisson, replace": (
        poisson(0.1, 2.0),
        50,
        REPLACE,
        pld.PLDAccountant,
        P(0.1, G(2.0)),
    ),
    "poisson, rdp": (poisson(0.1, 2.0), 50, ZERO, rdp.RdpAccountant, P(0.1, G(2.0))),
    "fixed size": (
        {"kind": "fixed_size", "size": 20, "units": 1000, "event": gaussian(4.0)},
        30,
        REPLACE,
        rdp.RdpAccountant,
        dpa.SampledWithoutReplacementDpEvent(1000, 20, G(2.0)),
    ),
    "zcdp": (
        {"kind": "zcdp", "rho": 0.1},
        3,
        ADD,
        rdp.RdpAccountant,
        dpa.ZCDpEvent(0.1),
    ),
    "truncated": (
        {
            "kind": "truncated_poisson",
            "rate": 0.05,
            "capacity": 60,
            "units": 1000,
            "event": gaussian(4.0),
        },
        20,
        ADD,
        pld.PLDAccountant,
        dpa.TruncatedSubsampledGaussianDpEvent(1000, 0.05, 60, 4.0),
    ),
    "once": (
        {"kind": "once", "event": gaussian(3.0)},
        4,
        ZERO,
        pld.PLDAccountant,
        G(3.0),
    ),
}


@pytest.mark.parametrize("name", ORACLE)
def test_against_dp_accounting(name: str) -> None:
    event, count, neighbours, accountant, oracle = ORACLE[name]
    kind = "pld" if accountant is pld.PLDAccountant else "rdp"
    found = ledger_of((event, count), neighbours=neighbours, accountant=kind)
    expected = accountant(neighboring_relation=NEIGHBOURS[neighbours])
    expected.compose(dpa.SelfComposedDpEvent(oracle, count))
    assert found.epsilon(DELTA) == pytest.approx(expected.get_epsilon(DELTA), rel=1e-6)


def test_mixed_composition_against_dp_accounting() -> None:
    ledger = ledger_of(
        (poisson(0.1, 2.0), 30), (gaussian(5.0), 1), (poisson(0.1, 3.0), 9)
    )
    oracle = pld.PLDAccountant()
    for event, count in ((P(0.1, G(2.0)), 30), (G(5.0), 1), (P(0.1, G(3.0)), 9)):
        oracle.compose(event, count)
    assert ledger.epsilon(DELTA) == pytest.approx(oracle.get_epsilon(DELTA), rel=1e-6)


def test_randomized_response_is_counted_every_time() -> None:
    event = {
        "kind": "randomized_response",
        "noise_parameter": 0.5,
        "buckets": 2,
    }
    once = ledger_of((event, 1), neighbours=REPLACE).epsilon(DELTA)
    oracle = pld.PLDAccountant(NEIGHBOURS[REPLACE])
    oracle.compose(dpa.ComposedDpEvent([dpa.RandomizedResponseDpEvent(0.5, 2)] * 10))
    ten = ledger_of((event, 10), neighbours=REPLACE).epsilon(DELTA)
    assert once == pytest.approx(math.log(3), rel=1e-3)
    assert ten == pytest.approx(oracle.get_epsilon(DELTA), rel=1e-4)


def test_pure_epsilons() -> None:
    pure = {"kind": "pure", "epsilon": 0.5}
    assert ledger_of((pure, 1)).epsilon(1e-9) == pytest.approx(0.5, abs=1e-3)
    assert ledger_of((pure, 1), neighbours=REPLACE).epsilon(1e-9) == pytest.approx(
        1.0, abs=1e-3
    )
    many = ledger_of((pure, 40))
    assert 0.5 < many.epsilon(DELTA) < 20
    assert many.epsilon(DELTA) <= many.epsilon(DELTA, accountant="rdp") + 1e-3
    sampled = {"kind": "poisson", "rate": 0.1, "event": pure}
    assert ledger_of((sampled, 1)).epsilon(1e-9) == pytest.approx(
        math.log(1 + 0.1 * (math.exp(0.5) - 1)), abs=1e-3
    )


@pytest.mark.parametrize(
    "kind",
    [
        mechanisms.Gaussian,
        mechanisms.RoundedGaussian,
        mechanisms.DiscreteGaussian,
        mechanisms.DiscreteLaplace,
        mechanisms.Skellam,
    ],
)
def test_every_mechanism_can_be_charged(kind) -> None:
    ledger = Ledger()
    ledger.spend(kind.of(4.0, 1.0, 100), 3)
    found = ledger.epsilon(DELTA)
    assert 0 < found < 3
    if kind is mechanisms.Skellam:
        # Within a percent of the Gaussian of the same variance, for so fine a grid.
        same = ledger_of((gaussian(4.0), 3)).epsilon(DELTA, accountant="rdp")
        assert same * 0.999 < found < 1.05 * same


def test_data_sets_compose_in_parallel() -> None:
    ledger = Ledger()
    ledger.spend(gaussian(2.0), 3, data="a")
    ledger.spend(gaussian(3.0), 1, data="b")
    ledger.spend(gaussian(2.0), 2, data="a")
    a, b = ledger.epsilon(DELTA, data="a"), ledger.epsilon(DELTA, data="b")
    assert a == ledger_of((gaussian(2.0), 5)).epsilon(DELTA)
    assert b < a == ledger.epsilon(DELTA)
    assert Ledger().epsilon(DELTA) == 0


def test_equal_entries_are_merged() -> None:
    ledger = ledger_of((gaussian(1.0), 1), (gaussian(1.0), 2), (gaussian(2.0), 1))
    assert [e.count for e in ledger.entries] == [3, 1]


def test_no_noise_is_infinite() -> None:
    for event in (gaussian(0.0), {"kind": "non_private"}, poisson(0.5, 0.0)):
        assert ledger_of((event, 1)).epsilon(DELTA) == math.inf
    assert ledger_of((poisson(0.0, 1.0), 1)).epsilon(DELTA) == 0


def test_distance_costs_delta() -> None:
    near = {**gaussian(4.0), "distance": 1e-9}
    plain = ledger_of((gaussian(4.0), 10))
    found = ledger_of((near, 10)).epsilon(DELTA)
    # delta(epsilon) of the plain mechanism at the figure that is found, and the rest.
    lost = (1 + math.exp(found)) * 1e-8
    assert found == pytest.approx(plain.epsilon(DELTA - lost), rel=1e-6)
    assert found > plain.epsilon(DELTA)
    far = {**gaussian(1.0), "distance": 1e-5}
    assert ledger_of((far, 10)).epsilon(DELTA) == math.inf


def test_budget_is_kept() -> None:
    budget = Budget(2.0, DELTA)
    ledger = Ledger(budget=budget)
    event = poisson(0.05, 1.0)
    room = ledger.steps(event)
    ledger.spend(event, room)
    assert ledger.epsilon(DELTA) <= 2.0 and ledger.steps(event) == 0
    with pytest.raises(BudgetError, match="room for 0 of them"):
        ledger.spend(event)
    assert ledger.entries[0].count == room
    assert issubclass(BudgetError, PrivacyError)
    # Another data set has a budget of its own.
    ledger.spend(event, 1, data="other")


def test_calibrate() -> None:
    budget = Budget(1.5, DELTA)
    ledger = Ledger(budget=budget)
    ledger.spend(gaussian(8.0), 1)
    noise = ledger.calibrate(lambda z: poisson(0.05, z), 100)
    ledger.spend(poisson(0.05, noise), 100)
    assert 1.45 < ledger.epsilon(DELTA) <= 1.5
    with pytest.raises(BudgetError, match="no noise"):
        ledger.calibrate(lambda z: gaussian(3.0), 30)
    alone = Ledger().calibrate(lambda z: poisson(0.1, z), 100, Budget(2.0, DELTA))
    assert 1.99 < ledger_of((poisson(0.1, alone), 100)).epsilon(DELTA) <= 2.0


def test_round_trip(tmp_path) -> None:
    ledger = Ledger(ZERO, Budget(3.0, DELTA), "rdp")
    ledger.spend(poisson(0.1, 1.0), 5, data="x")
    ledger.spend({**gaussian(2.0), "distance": 1e-12})
    path = tmp_path / "ledger.json"
    ledger.save(path)
    again = Ledger.load(path)
    assert again.entries == ledger.entries
    assert (again.neighbours, again.budget, again.accountant) == (
        ledger.neighbours,
        ledger.budget,
        ledger.accountant,
    )
    assert str(again) == str(ledger) and "poisson(rate 0.1)" in str(again)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw.update(version=99),
        lambda raw: raw.pop("entries"),
        lambda raw: raw["entries"][0].update(count=-1),
        lambda raw: raw["entries"][0]["event"].update(kind="magic"),
        lambda raw: raw.update(neighbours="swap"),
        lambda raw: raw.update(budget={"epsilon": -1, "delta": 0.1}),
    ],
)
def test_damaged_files(damage) -> None:
    raw = json.loads(ledger_of((gaussian(1.0), 1)).to_json())
    damage(raw)
    with pytest.raises(InputError):
        Ledger.from_json(json.dumps(raw))
    with pytest.raises(InputError):
        Ledger.from_json("{")


@pytest.mark.parametrize(
    ("neighbours", "event"),
    [
        (ADD, {"kind": "fixed_size", "size": 2, "units": 4, "event": gaussian(1.0)}),
        (ADD, {"kind": "once", "event": gaussian(1.0)}),
        (
            REPLACE,
            {"kind": "fixed_size", "size": 9, "units": 4, "event": gaussian(1.0)},
        ),
        (ADD, {"kind": "randomized_response", "noise_parameter": 0.5, "buckets": 2}),
        (ADD, {"kind": "poisson", "rate": 0.1, "event": {"kind": "zcdp", "rho": 1}}),
        (ADD, gaussian(-1.0)),
        (ADD, gaussian(math.nan)),
        (ADD, {"kind": "magic"}),
        (ADD, {"noise_multiplier": 1.0}),
    ],
    ids=str,
)
def test_refuses_events(neighbours: str, event: dict) -> None:
    with pytest.raises(InputError):
        Ledger(neighbours).spend(event)


def test_neighbours_are_never_mixed() -> None:
    with pytest.raises(InputError, match="do not compose"):
        Ledger().spend(gaussian(1.0), neighbours="replace_one")
    Ledger().spend(gaussian(1.0), neighbours="add_or_remove_one")


def test_numbers_of_numpy(tmp_path) -> None:
    ledger = ledger_of((poisson(np.float32(0.5), np.int64(2)), np.int32(3)))
    ledger.save(tmp_path / "ledger.json")
    assert Ledger.load(tmp_path / "ledger.json").entries == ledger.entries
    with pytest.raises(InputError, match="no event"):
        Ledger().spend(1.5)


def test_accountants_say_what_they_lack() -> None:
    discrete = ledger_of(({"kind": "zcdp", "rho": 0.1}, 1))
    assert discrete.epsilon(DELTA) == discrete.epsilon(DELTA, accountant="rdp")
    for accountant in ("pld", "gdp_approximation"):
        with pytest.raises(Unsupported):
            discrete.epsilon(DELTA, accountant=accountant)
    with pytest.raises(InputError):
        discrete.epsilon(DELTA, accountant="mine")
    with pytest.raises(InputError):
        discrete.epsilon(0.0)


def test_replacing_under_renyi_counts_twice() -> None:
    """dp-accounting's Renyi accountant takes noise relative to what a replacement moves."""
    usual = {"steps": 5, "sampling_rate": 1.0, "delta": DELTA, "neighbours": REPLACE}
    renyi = accounting.epsilon(noise_multiplier=4.0, accountant="rdp", **usual)
    assert renyi >= accounting.epsilon(noise_multiplier=4.0, **usual)
