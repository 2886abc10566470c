"""Balls-in-bins amplification: its divergences by other means, and that it is a bound."""

import math

import numpy as np
import pytest
from dp_accounting import rdp
from scipy import integrate

from privjax import accounting
from privjax.accounting import Budget, Ledger, allocation
from privjax.dp import BallsInBins
from privjax.errors import InputError

ORDERS = np.array(allocation.ORDERS, float)


def gaussian(z: float) -> dict[str, object]:
    return {"kind": "gaussian", "noise_multiplier": z}


def spent(
    z: float,
    bins: int,
    epochs: int,
    neighbours: str = "add_or_remove_one",
    accountant: str = "auto",
) -> Ledger:
    """What a run on many units costs, by its sampler."""
    ledger = Ledger(neighbours, accountant=accountant)
    for event, count in BallsInBins(10**5, bins).charge(gaussian(z), epochs * bins):
        ledger.spend(event, count)
    return ledger


def test_one_bin_is_the_gaussian_mechanism() -> None:
    for z in (0.5, 1.0, 4.0):
        found = allocation.divergences(z, 1)
        np.testing.assert_allclose(found, ORDERS / (2 * z * z), rtol=1e-6)


@pytest.mark.parametrize("z", [0.8, 1.5])
def test_two_bins_by_a_double_integral(z: float) -> None:
    """Both directions, the densities integrated as they stand."""

    def ratio(x: float, y: float) -> float:
        logs = (x - 0.5) / z**2, (y - 0.5) / z**2
        return float(np.logaddexp(*logs)) - math.log(2)

    def moment(power: float) -> float:
        def f(y: float, x: float) -> float:
            return math.exp(power * ratio(x, y) - (x * x + y * y) / (2 * z * z))

        found, _ = integrate.dblquad(f, -12 * z, 16 * z, -12 * z, 16 * z, epsabs=1e-12)
        return float(found) / (2 * math.pi * z * z)

    for a in (2, 3, 5):
        at = allocation.ORDERS.index(a)
        there, back = (math.log(moment(p)) / (a - 1) for p in (a, 1 - a))
        assert allocation._with_the_unit(z, 2)[at] == pytest.approx(there, rel=1e-5)
        assert allocation._without_the_unit(z, 2)[at] == pytest.approx(back, rel=1e-4)


@pytest.mark.parametrize(("z", "bins"), [(0.7, 3), (1.0, 16), (2.0, 100)])
def test_no_more_than_samples_show(z: float, bins: int) -> None:
    """The pair's own delta at the stated epsilon, by sampling both ways."""
    delta = 0.02
    limit = spent(z, bins, 1).epsilon(delta)
    rng = np.random.default_rng(0)
    w = z * rng.normal(size=(200_000, bins))
    logs = lambda w: np.logaddexp.reduce((w - 0.5) / z**2, axis=1) - math.log(bins)  # noqa: E731
    without = logs(w)
    w[:, 0] += 1
    with_it = logs(w)
    gains = np.maximum(0, 1 - np.exp(limit - with_it)).mean()
    losses = np.maximum(0, 1 - np.exp(limit + without)).mean()
    assert max(gains, losses) <= delta
    # A tenth of this epsilon is not enough.
    assert np.maximum(0, 1 - np.exp(limit / 10 - with_it)).mean() > delta


def test_between_poisson_and_no_amplification() -> None:
    """Poisson sampling is close to it for many bins; it is no bound, though."""
    delta = 1e-5
    found = spent(1.0, 64, 10).epsilon(delta)
    plain = accounting.epsilon(
        noise_multiplier=1.0, steps=10, sampling_rate=1, delta=delta
    )
    poisson = accounting.epsilon(
        noise_multiplier=1.0, steps=640, sampling_rate=1 / 64, delta=delta
    )
    assert poisson < found < plain / 5
    others = spent(1.0, 64, 11), spent(1.0, 32, 10), spent(0.9, 64, 10)
    assert found < min(ledger.epsilon(delta) for ledger in others)
    assert found == spent(1.0, 64, 10, "zero_out").epsilon(delta)
    assert spent(1.0, 64, 0).epsilon(delta) == 0


@pytest.mark.parametrize("bins", [1, 2, 300])
def test_never_more_than_one_release_an_epoch(bins: int) -> None:
    plain = accounting.epsilon(
        noise_multiplier=2.0, steps=3, sampling_rate=1, delta=1e-5
    )
    assert spent(2.0, bins, 3).epsilon(1e-5) <= plain * (1 + 1e-6)
    twice = spent(2.0, bins, 3, "replace_one").epsilon(1e-5)
    assert twice == pytest.approx(
        accounting.epsilon(noise_multiplier=1.0, steps=3, sampling_rate=1, delta=1e-5)
    )


def test_composes_with_other_events_and_searches() -> None:
    ledger = spent(1.5, 20, 5)
    alone = ledger.epsilon(1e-5)
    ledger.spend({"kind": "zcdp", "rho": 0.01})
    more = ledger.epsilon(1e-5)
    assert alone < more < alone + 1
    event, count = BallsInBins(10**5, 20).charge(gaussian(1.5), 100)[0]
    budget = Budget(alone, 1e-5)
    assert Ledger(accountant="rdp").steps(event, budget) == count == 5
    found = Ledger().calibrate(
        lambda z: BallsInBins(10**5, 20).charge(gaussian(z), 100)[0][0], 5, budget
    )
    assert found == pytest.approx(1.5, rel=5e-3)
    with pytest.raises(InputError, match="balls_in_bins"):
        spent(1.5, 20, 5, accountant="pld").epsilon(1e-5)


@pytest.mark.parametrize("z", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("bins", [1, 2, 10, 3000])
def test_never_more_than_without_amplification(z: float, bins: int) -> None:
    found = allocation.divergences(z, bins)
    assert (found <= ORDERS / (2 * z * z) * (1 + 1e-6)).all() and (found >= 0).all()


def test_adds_up_as_in_dp_accounting() -> None:
    curve = 7 * allocation.divergences(1.3, 50)
    wanted, _ = rdp.compute_epsilon(ORDERS, curve, 1e-6)
    found = spent(1.3, 50, 7, accountant="rdp").epsilon(1e-6)
    # The ledger also charges for batches that overflow.
    assert wanted <= found <= wanted + 1e-6


def test_refuses() -> None:
    fine = {"kind": "balls_in_bins", "bins": 4, "event": gaussian(1.0)}
    for wrong in (
        {"bins": 0},
        {"bins": 1.5},
        {"event": {"kind": "pure", "epsilon": 1}},
    ):
        with pytest.raises(InputError):
            Ledger().spend(fine | wrong)
    for z, bins in ((0.0, 4), (1.0, 0)):
        with pytest.raises(InputError):
            allocation.divergences(z, bins)
