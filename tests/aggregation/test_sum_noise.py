"""Noise on sums: its law and its amount, the bounds it stands on, and what it costs."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import rdp
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import privjax
from privjax.accounting import Ledger
from privjax.aggregation import (
    AdaptiveClip,
    CentralGaussian,
    DistributedGaussian,
    DistributedSkellam,
    plain,
    secure_sum,
    spdz,
)
from privjax.aggregation.noise import concentrated
from privjax.errors import InputError
from privjax.prg.keys import insecure_key, key_words

N, SIZE = 8, 3000
Z = 0.5
METHODS = {
    "plain": plain(clip=1.0, noise=CentralGaussian(Z)),
    "central": secure_sum(32, clip=1.0, noise=CentralGaussian(Z)),
    "gaussian": secure_sum(32, clip=1.0, dropped=2, noise=DistributedGaussian(Z)),
    "skellam": secure_sum(
        20,
        clip=1.0,
        dropped=2,
        colluding=1,
        rotate=True,
        rounding="stochastic",
        noise=DistributedSkellam(Z),
    ),
    "spdz": spdz(2, protocol="semi2k", clip=1.0, noise=DistributedGaussian(Z)),
}
# Clients whose noise is there, over those whose noise is certain.
MORE = {"gaussian": 8 / 6, "skellam": 8 / 5}


def words(seed: int) -> Any:
    return key_words(insecure_key(seed))


def unit(seed: int, size: int = SIZE) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(N, size))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f4")


@partial(jax.jit, static_argnums=0)
def combine(method: Any, key: Any, x: Any) -> Any:
    return method.combine(key, [x])[0]


@pytest.mark.parametrize("name", METHODS)
def test_the_noise_is_as_large_as_is_said_and_looks_gaussian(name: str) -> None:
    """Deviation within 5 % of what the clients that are there add up to."""
    method, x = METHODS[name], unit(0)
    one, two = (
        np.asarray(combine(method, words(seed), jnp.asarray(x))) - x.sum(0)
        for seed in (1, 2)
    )
    want = Z * math.sqrt(MORE.get(name, 1.0))
    for error in (one, two):
        assert abs(np.std(error) / want - 1) < 0.05
        assert abs(np.mean(error)) < 4 * want / math.sqrt(SIZE)
        assert stats.kstest(error / want, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.08


@pytest.mark.parametrize("name", METHODS)
def test_one_client_moves_the_sum_by_its_norm_at_most(name: str) -> None:
    """Whatever it sends: with the same noise, and another client for one of them.

    The key of a round is bound to all values, so sums are compared without noise: as the
    encoding hands them over, and as the mechanism of the server sees them.
    """
    method = METHODS[name]
    rng = np.random.default_rng(3)
    wild = [
        np.zeros(64),
        1e30 * rng.normal(size=64),
        np.eye(64)[0] * 7,
        np.full(64, np.nan),
        np.where(np.arange(64) == 5, np.inf, 1),
        1e-3 * rng.normal(size=64),
    ]
    if name == "plain":
        for x in wild:
            rows = np.stack([x, *unit(1, 64)[1:]]).astype("f4")
            rest = unit(1, 64)[1:].sum(0)
            got = combine(plain(clip=1.0, noise=CentralGaussian(1e-6)), words(4), rows)
            assert np.linalg.norm(np.asarray(got) - rest) < 1.0001
        return
    grid = method.grid(N, 64)
    for x in wild:
        with jax.enable_x64(True):
            flat = jnp.asarray(x, "f4")
            whole = encoded(method, words(4), flat)
        assert np.linalg.norm(np.asarray(whole).astype("f8")) <= grid.sensitivity
        if not np.all(np.isfinite(x)):
            assert not np.any(whole)


@partial(jax.jit, static_argnums=0)
def encoded(method: Any, key: Any, x: Any) -> Any:
    """The integers that a client would send if it added no noise."""
    with jax.enable_x64(True):
        grid = method.grid(N, x.size)
        return method._round(key, method._steps(x, grid, key), grid)


@given(st.integers(0, 2**32), st.sampled_from([16, 300]), st.sampled_from([6, 20]))
def test_conditional_rounding_keeps_its_bound(seed: int, size: int, bits: int) -> None:
    """Kairouz et al. 2021, proposition 22: also where rounding is coarse."""
    method = secure_sum(
        32,
        clip=1.0,
        fractional_bits=bits,
        rounding="stochastic",
        noise=DistributedGaussian(100.0),
    )
    x = unit(seed % 2**31, size)[0]
    with jax.enable_x64(True):
        whole = np.asarray(encoded(method, words(seed), jnp.asarray(x))).astype("f8")
    c = 2.0**bits
    bound = min(c + math.sqrt(size), math.sqrt(c * c + size / 4 + c + size**0.5 / 2))
    grid = method.grid(N, size)
    assert np.linalg.norm(whole) <= grid.sensitivity <= 1.0001 * bound
    assert np.all(np.abs(whole - x * c) <= 1 + 1e-5 * c) and np.any(whole)


# -- what it costs -----------------------------------------------------------------------


def test_events_are_those_of_the_papers() -> None:
    e = METHODS["plain"].event(N, SIZE)
    assert e["kind"] == "gaussian" and e["noise_multiplier"] == Z
    e = METHODS["gaussian"].event(N, SIZE)
    # Kairouz et al. 2021, theorem 1, where tau is nothing: 1 / 2 z^2.
    assert e["kind"] == "zcdp" and abs(e["rho"] * 2 * Z**2 - 1) < 1e-6
    assert e["distance"] < 1e-15
    e, grid = METHODS["skellam"].event(N, SIZE), METHODS["skellam"].grid(N, SIZE)
    np.testing.assert_allclose(e["variance"], (Z * grid.sensitivity) ** 2, rtol=1e-3)
    assert e["l2"] == grid.sensitivity and e["l1"] == math.sqrt(SIZE) * e["l2"]


@pytest.mark.parametrize("name", METHODS)
def test_epsilon_is_near_that_of_the_gaussian_mechanism(name: str) -> None:
    ledger = Ledger()
    ledger.spend(METHODS[name].event(N, SIZE))
    accountant = rdp.RdpAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(Z))
    want = accountant.get_epsilon(1e-5)
    assert 0.9 * want < ledger.epsilon(1e-5) < 1.02 * want


def test_sums_of_few_coarse_discrete_gaussians_cost_more() -> None:
    """tau counts where one client's noise is about a step of the grid."""
    fine = concentrated(50.0, 10.0, 100, 1000)
    np.testing.assert_allclose(fine, 10.0 / 500, rtol=1e-12)
    coarse = concentrated(0.5, 10.0, 100, 1000)
    assert coarse > 1.5 * 10.0 / 5
    tau = 10 * sum(
        math.exp(-2 * math.pi**2 * 0.25 * k / (k + 1)) for k in range(1, 100)
    )
    terms = (
        math.sqrt(4 + 2 * tau * 1000),
        math.sqrt(4 + 2 * 100 / 5 * tau + tau**2 * 1000),
        2 + tau * math.sqrt(1000),
    )
    np.testing.assert_allclose(coarse, min(terms), rtol=1e-9)


def test_the_smallest_share_of_noise_is_half_a_step() -> None:
    method = secure_sum(32, clip=1.0, fractional_bits=0, noise=DistributedGaussian(0.1))
    with pytest.raises(InputError, match="half a step"):
        method.grid(100, 4)
    assert secure_sum(32, clip=1.0, noise=DistributedGaussian(1)).grid(
        100, 4
    ).scale > Fraction(500)


def test_too_few_survivors_for_the_noise_are_too_few() -> None:
    """The threshold may be lower than what the noise is calibrated for."""
    noise = DistributedGaussian(Z)
    method = secure_sum(32, clip=1.0, dropped=2, threshold=2, noise=noise)
    there = np.arange(N) < N - 3
    assert not bool(method.recoverable(words(0), jnp.asarray(there)))
    quiet = secure_sum(32, clip=1.0, dropped=2, threshold=2)
    assert bool(quiet.recoverable(words(0), jnp.asarray(there)))


# -- through `federated` -----------------------------------------------------------------


def test_an_event_knows_what_a_round_releases() -> None:
    def update(data: Any) -> Any:
        return {"a": data, "b": jnp.float32(1) * data[0], "count": 3}

    x = jax.ShapeDtypeStruct((N, 5), "float32")
    method = secure_sum(32, clip=1.0, max_weight=2.0, noise=DistributedSkellam(Z))
    f = privjax.federated(update, aggregate=method)
    assert f.event(x) == method.event(N, 6)
    weights = np.ones(N)
    assert f.event(x, weights=weights) == method.event(N, 7)
    text = str(privjax.explain(f, x, weights=weights))
    assert "client-level differential privacy" in text and "skellam" in text
    with pytest.raises(InputError, match="adds no noise"):
        privjax.federated(update, aggregate="secure").event(x)


@pytest.mark.parametrize("method", ["plain", "secure"])
def test_a_weighted_mean_with_noise_is_that_of_the_bounded_weights(method: str) -> None:
    options: Any = {"clip": 1.0, "max_weight": 4.0}
    if method == "plain":
        aggregate: Any = plain(noise=CentralGaussian(1e-5), **options)
    else:
        aggregate = secure_sum(64, noise=DistributedGaussian(1e-5), **options)
    f = privjax.federated(lambda data: 3 * data, aggregate=aggregate)
    x, w = unit(5, 6), np.array([1, 2, 3, 4, 5, 6, 7, 0.5])
    got = f(jnp.asarray(x), weights=w, survivors=np.ones(N, bool))
    want = np.average(x, axis=0, weights=np.minimum(w, 4))  # 3 x is clipped to norm 1
    np.testing.assert_allclose(got, want, atol=2e-4)


# -- a norm that adapts --------------------------------------------------------------------


@pytest.mark.parametrize("noisy", [False, True])
def test_the_norm_follows_a_quantile(noisy: bool) -> None:
    """Andrew et al. 2021, algorithm 1; the error of the fraction is as stated."""
    noise = DistributedGaussian(0.2) if noisy else None
    clip = AdaptiveClip(quantile=0.6, initial=0.1, rate=0.5, deviation=0.05)
    f = privjax.federated(
        lambda data: data, aggregate=secure_sum(32, clip=clip, noise=noise)
    )
    norms = np.linspace(0.5, 1.5, N)
    x = jnp.asarray(unit(6, 4) * norms[:, None])
    run = jax.jit(lambda x, c, k: f(x, clip=c, key=k))
    norm, path = jnp.float32(clip.initial), []
    for round_ in range(16):
        out, after = run(x, norm, insecure_key(round_))
        step = math.log(float(after) / float(norm)) / -clip.rate
        share = np.mean(norms <= float(norm))
        slack = 5 * clip.deviation if noisy else 1e-4
        assert abs(step - (share - clip.quantile)) < slack
        scale = np.minimum(1, float(norm) / norms)[:, None]
        if not noisy:
            np.testing.assert_allclose(out, np.mean(x * scale, 0), atol=1e-5)
        norm = after
        path.append(float(norm))
    assert abs(np.mean(path[-4:]) - np.quantile(norms, clip.quantile)) < 0.2


def test_the_answer_costs_as_much_as_the_paper_says() -> None:
    """Andrew et al. 2021, theorem 1: z_update = (z^-2 - (2 s)^-2)^-1/2."""
    clip, noise = AdaptiveClip(deviation=0.05), DistributedGaussian(1.0)
    method = secure_sum(32, clip=clip, noise=noise)
    clients = 100
    update = noise.noise_multiplier * method.norm(clients)
    of_count = 0.05 * clients
    np.testing.assert_allclose(update, (1 - (2 * of_count) ** -2) ** -0.5, rtol=1e-9)
    size = clip.size(clients, noise)
    np.testing.assert_allclose(update / size, of_count, rtol=1e-9)


def test_the_first_round_begins_at_the_initial_norm() -> None:
    clip = AdaptiveClip(initial=0.25, quantile=0.0)
    f = privjax.federated(lambda clip, x: clip * x, "x", aggregate=plain(clip=clip))
    out, after = f(1.0, jnp.ones(4))
    assert float(out) == 0.25 and float(after) == 0.25
    out, _ = f(1.0, jnp.ones(4), client_clip=0.5)
    assert float(out) == 0.5


NOISE = CentralGaussian(1.0)
ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "no clip": (lambda: secure_sum(noise=NOISE), "needs clip="),
    "no clip, plain": (lambda: plain(noise=NOISE), "needs clip="),
    "parts in the clear": (
        lambda: plain(clip=1.0, noise=DistributedGaussian(1.0)),
        "nobody sees",
    ),
    "no noise": (lambda: secure_sum(clip=1.0, noise=1.0), "CentralGaussian"),
    "no size": (lambda: CentralGaussian(0.0), "noise_multiplier=0.0"),
    "weights": (
        lambda: secure_sum(32, clip=1.0, noise=NOISE).check(9, True),
        "max_weight=",
    ),
    "weights, plain": (
        lambda: plain(clip=1.0, noise=NOISE).check(9, True),
        "max_weight=",
    ),
    "weight bound": (lambda: secure_sum(max_weight=0), "max_weight=0"),
    "rotate": (lambda: secure_sum(rotate=True), "needs clip="),
    "quantile": (lambda: AdaptiveClip(quantile=2), "quantile=2"),
    "rate": (lambda: AdaptiveClip(rate=0), "rate=0"),
    "precise": (
        lambda: AdaptiveClip(deviation=0.01).size(10, CentralGaussian(1.0)),
        "larger deviation=",
    ),
    "no room": (
        lambda: secure_sum(8, clip=1.0, noise=DistributedGaussian(9.0)).grid(9, 4),
        "no room|half a step",
    ),
    "a whole round": (
        lambda: privjax.federated(
            lambda data: data.sum(0), level="round", aggregate=plain(clip=1.0)
        ),
        "level='client'",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        run()
