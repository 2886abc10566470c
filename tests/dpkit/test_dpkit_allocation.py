"""Balls-in-bins amplification: its divergences by other means, and that it is a bound."""

import math

import numpy as np
import pytest
from dp_accounting import rdp
from scipy import integrate

from privjax import accounting
from privjax.dp import BallsInBins, allocation
from privjax.errors import InputError

ORDERS = np.array(allocation.ORDERS, float)


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
    limit = BallsInBins(10**6, bins).epsilon(noise_multiplier=z, epochs=1, delta=delta)
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
    sampler, delta = BallsInBins(10**5, 64), 1e-5
    found = sampler.epsilon(noise_multiplier=1.0, epochs=10, delta=delta)
    plain = accounting.epsilon(
        noise_multiplier=1.0, steps=10, sampling_rate=1, delta=delta
    )
    poisson = accounting.epsilon(
        noise_multiplier=1.0, steps=640, sampling_rate=1 / 64, delta=delta
    )
    assert poisson < found < plain / 5
    more = sampler.epsilon(noise_multiplier=1.0, epochs=11, delta=delta)
    fewer = BallsInBins(10**5, 32).epsilon(noise_multiplier=1.0, epochs=10, delta=delta)
    less_noise = sampler.epsilon(noise_multiplier=0.9, epochs=10, delta=delta)
    assert found < min(more, fewer, less_noise)
    assert sampler.epsilon(noise_multiplier=1.0, epochs=0, delta=delta) == 0


@pytest.mark.parametrize("z", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("bins", [1, 2, 10, 3000])
def test_never_more_than_without_amplification(z: float, bins: int) -> None:
    found = allocation.divergences(z, bins)
    assert (found <= ORDERS / (2 * z * z) * (1 + 1e-6)).all() and (found >= 0).all()


def test_the_conversion_is_that_of_dp_accounting() -> None:
    curve = 7 * allocation.divergences(1.3, 50)
    wanted, _ = rdp.compute_epsilon(ORDERS, curve, 1e-6)
    found = allocation.epsilon(1.3, 50, 7, 1e-6)
    assert found == pytest.approx(float(wanted), rel=1e-9)


def test_refuses() -> None:
    sampler = BallsInBins(100, 4)
    for wrong in ({"noise_multiplier": 0.0}, {"epochs": -1}, {"delta": 0.0}):
        arguments = {"noise_multiplier": 1.0, "epochs": 1, "delta": 1e-3} | wrong
        with pytest.raises(InputError):
            sampler.epsilon(**arguments)
