"""Epsilons are dp-accounting's; noise for an epsilon; bad values."""

import math

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import pld

from privjax import accounting
from privjax.errors import InputError
from privjax.transforms.differentially_private import differentially_private

USUAL = {"steps": 10_000, "sampling_rate": 0.01, "delta": 1e-5}


def test_the_usual_figure() -> None:
    assert round(accounting.epsilon(noise_multiplier=1.0, **USUAL), 2) == 6.19


@pytest.mark.parametrize(
    ("neighbours", "relation"),
    [
        ("add_or_remove_one", dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE),
        ("replace_one", dp_accounting.NeighboringRelation.REPLACE_ONE),
        ("zero_out", dp_accounting.NeighboringRelation.REPLACE_SPECIAL),
    ],
)
def test_against_dp_accounting(neighbours: str, relation: object) -> None:
    event = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(2.0))
    accountant = pld.PLDAccountant(relation)
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, 50))
    found = accounting.epsilon(
        noise_multiplier=2.0,
        steps=50,
        sampling_rate=0.1,
        delta=1e-6,
        neighbours=neighbours,
    )
    assert found == accountant.get_epsilon(1e-6)


def test_known_cases() -> None:
    every = {"steps": 1, "sampling_rate": 1.0, "delta": 1e-5}
    # Balle and Wang 2018, the analytic Gaussian mechanism at sigma 1.
    assert np.isclose(
        accounting.epsilon(noise_multiplier=1.0, **every), 4.3772, atol=2e-3
    )
    assert accounting.epsilon(noise_multiplier=0.0, **every) == math.inf
    assert accounting.epsilon(noise_multiplier=1.0, **{**every, "steps": 0}) == 0
    rdp = accounting.epsilon(noise_multiplier=1.0, accountant="rdp", **USUAL)
    assert rdp > accounting.epsilon(noise_multiplier=1.0, **USUAL)


def test_calibrate() -> None:
    options = {"steps": 100, "sampling_rate": 0.1, "delta": 1e-5}
    noise = accounting.calibrate(epsilon=2.0, **options)
    assert accounting.epsilon(noise_multiplier=noise, **options) <= 2.0 + 1e-3
    assert accounting.epsilon(noise_multiplier=noise - 0.01, **options) > 2.0


def test_from_the_step() -> None:
    def step(params, batch):
        return params - jax.grad(lambda p: jnp.mean((batch @ p) ** 2))(params)

    private = differentially_private(step, noise_multiplier=1.0)
    assert round(private.epsilon(**USUAL), 2) == 6.19
    quieter = private.noise_for(epsilon=0.5, **USUAL)
    assert quieter.noise_multiplier > 1
    assert quieter.epsilon(**USUAL) <= 0.5 + 1e-3
    assert quieter.clip_norm == private.clip_norm
    assert differentially_private(step, noise_multiplier=0).epsilon(**USUAL) == math.inf


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": -1},
        {"steps": 1.5},
        {"sampling_rate": 1.5},
        {"delta": 0.0},
        {"delta": 1.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": float("nan")},
        {"neighbours": "some"},
        {"accountant": "mine"},
        {"accountant": "rdp", "neighbours": "replace_one"},
    ],
    ids=str,
)
def test_bad_values(bad: dict) -> None:
    with pytest.raises(InputError):
        accounting.epsilon(**{"noise_multiplier": 1.0, **USUAL, **bad})


def test_bad_epsilon() -> None:
    with pytest.raises(InputError):
        accounting.calibrate(epsilon=0.0, **USUAL)
