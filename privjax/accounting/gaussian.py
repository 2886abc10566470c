"""Epsilon of the repeated, subsampled Gaussian mechanism, and the noise for an epsilon.

All arithmetic is Google's dp-accounting: privacy loss distributions (Doroshenko et al.
2022, "Connect the dots") by default, Renyi divergences on request.
"""

import functools
import math
from typing import Any

import dp_accounting
from dp_accounting import pld, rdp

from privjax.accounting.events import NEIGHBOURS
from privjax.errors import InputError

ACCOUNTANTS = {"pld": pld.PLDAccountant, "rdp": rdp.RdpAccountant}


def epsilon(
    *,
    noise_multiplier: float,
    steps: int,
    sampling_rate: float,
    delta: float,
    neighbours: str = "add_or_remove_one",
    accountant: str = "pld",
) -> float:
    """Epsilon at `delta` of `steps` Gaussian releases on Poisson-sampled batches.

    Args:
      noise_multiplier: the noise's standard deviation divided by the clip norm (also
        for "replace_one", which moves a sum by twice that); 0 means no noise and an
        infinite epsilon.
      steps: how many releases are composed.
      sampling_rate: the probability with which each unit is in a batch, independently of
        the others. 1 means that every step sees all units. For shuffled batches of fixed
        size this figure does not hold.
      delta: the probability that epsilon is allowed to fail with, in (0, 1).
      neighbours: "add_or_remove_one", "replace_one" or "zero_out".
      accountant: "pld" (tight) or "rdp" (an upper bound).

    Raises:
      InputError: a value is out of range, or a name is unknown.
    """
    _check(steps=steps, sampling_rate=sampling_rate, delta=delta)
    if not noise_multiplier >= 0:
        raise InputError(f"noise_multiplier={noise_multiplier} is not at least 0.")
    make = _accountant(accountant, neighbours)
    if steps == 0 or sampling_rate == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    event = _event(
        _relative(noise_multiplier, neighbours, accountant), steps, sampling_rate
    )
    try:
        return float(make().compose(event).get_epsilon(delta))
    except dp_accounting.UnsupportedEventError as e:
        raise InputError(
            f"accountant={accountant!r} cannot account for neighbours={neighbours!r}."
        ) from e


def calibrate(
    *,
    epsilon: float,
    steps: int,
    sampling_rate: float,
    delta: float,
    neighbours: str = "add_or_remove_one",
    accountant: str = "pld",
) -> float:
    """The least noise multiplier (to within 1e-4) that keeps to `epsilon` at `delta`.

    Arguments as for `epsilon`. Raises `InputError` likewise.
    """
    _check(steps=steps, sampling_rate=sampling_rate, delta=delta)
    if not epsilon > 0:
        raise InputError(f"epsilon={epsilon} is not greater than 0.")
    return _least_noise(epsilon, steps, sampling_rate, delta, neighbours, accountant)


@functools.lru_cache(maxsize=256)  # a search takes seconds; its answer never changes
def _least_noise(
    epsilon: float,
    steps: int,
    sampling_rate: float,
    delta: float,
    neighbours: str,
    accountant: str,
) -> float:
    return float(
        dp_accounting.calibrate_dp_mechanism(
            _accountant(accountant, neighbours),
            lambda noise: _event(
                _relative(noise, neighbours, accountant), steps, sampling_rate
            ),
            epsilon,
            delta,
            dp_accounting.LowerEndpointAndGuess(0.0, 1.0),
            tol=1e-4,
        )
    )


def _event(noise_multiplier: float, steps: int, sampling_rate: float) -> Any:
    step = dp_accounting.GaussianDpEvent(noise_multiplier)
    if sampling_rate < 1:
        step = dp_accounting.PoissonSampledDpEvent(sampling_rate, step)
    return dp_accounting.SelfComposedDpEvent(step, steps)


def _relative(noise_multiplier: float, neighbours: str, accountant: str) -> float:
    """dp-accounting's Renyi accountant wants it relative to what a replacement moves; its
    other one doubles the sensitivity itself.
    """
    doubled = accountant == "rdp" and neighbours == "replace_one"
    return noise_multiplier / 2 if doubled else noise_multiplier


def _accountant(accountant: str, neighbours: str) -> Any:
    if accountant not in ACCOUNTANTS:
        raise InputError(f"accountant={accountant!r} is none of {sorted(ACCOUNTANTS)}.")
    if neighbours not in NEIGHBOURS:
        raise InputError(f"neighbours={neighbours!r} is none of {sorted(NEIGHBOURS)}.")
    relation = NEIGHBOURS[neighbours]
    return lambda: ACCOUNTANTS[accountant](neighboring_relation=relation)


def _check(steps: int, sampling_rate: float, delta: float) -> None:
    if steps < 0 or steps != int(steps):
        raise InputError(f"steps={steps} is not a whole number.")
    if not 0 <= sampling_rate <= 1:
        raise InputError(f"sampling_rate={sampling_rate} is not in [0, 1].")
    if not 0 < delta < 1:
        raise InputError(f"delta={delta} is not between 0 and 1.")
