"""Transformations inside of transformations, inner first, and one after the other."""

from functools import partial

import fast
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import privjax
from privjax.random import insecure_key

rng = np.random.default_rng(0)
W = np.zeros((3, 1), np.float32)
X = rng.normal(size=(8, 3)).astype(np.float32)
BATCH = (X, (2 * X[:, :1] + 1).astype(np.float32))
CLIENTS = jax.tree.map(lambda a: a.reshape(2, 4, *a.shape[1:]), BATCH)


def update(w, batch):
    x, y = batch
    return w - 0.1 * jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(w)


def private(noise):
    return privjax.differentially_private(update, clip_norm=0.5, noise_multiplier=noise)


def federated(fun, aggregate):
    return privjax.federated(fun, clients="batch", aggregate=aggregate)


EXACT = {
    "secure sum of clients": lambda: federated(update, "secure"),
    "clipping in clients": lambda: federated(private(0.0), "plain"),
    "clipping in clients, secure sum": lambda: federated(private(0.0), "secure"),
    "federated on shares": lambda: fast.secret_shared(federated(update, "plain")),
    "secure sum on shares": lambda: fast.secret_shared(federated(update, "secure")),
}


@pytest.mark.parametrize("name", EXACT)
def test_without_noise_equals_the_plain_composition(name):
    clipped = "clipping" in name
    one = private(0.0) if clipped else update
    want = np.mean([one(W, (CLIENTS[0][i], CLIENTS[1][i])) for i in (0, 1)], 0)
    fun = EXACT[name]()
    np.testing.assert_allclose(fun(W, CLIENTS), want, atol=2e-5)
    under_jit = jax.jit(
        lambda w, c, k: fun(w, c, **({"key": k} if fun.needs_key else {}))
    )
    np.testing.assert_allclose(under_jit(W, CLIENTS, insecure_key(1)), want, atol=2e-5)


def test_clipping_on_shares():
    fun = fast.secret_shared(private(0.0))
    np.testing.assert_allclose(fun(W, BATCH), private(0.0)(W, BATCH), atol=1e-4)


NOISED = {
    "noise inside of secret sharing": (lambda: fast.secret_shared(private(2.0)), 8),
    "noise in clients, secure sum": (lambda: federated(private(2.0), "secure"), 4),
}


@pytest.mark.parametrize("name", NOISED)
def test_noise_has_its_scale_and_differs_between_calls(name):
    make, units = NOISED[name]
    fun = make()
    federated_round = units == 4
    data = CLIENTS if federated_round else BATCH
    keys = jax.random.split(insecure_key(5), 64)
    draws = np.asarray(jax.jit(jax.vmap(lambda k: fun(W, data, key=k)))(keys))[..., 0]
    clean = (
        federated(private(0.0), "plain")(W, CLIENTS)
        if federated_round
        else private(0.0)(W, BATCH)
    )
    noise = draws - np.asarray(clean)[:, 0]
    sigma = 0.1 * 2.0 * 0.5 / units / (np.sqrt(2) if federated_round else 1)
    # Single values of a secure sum lie on a grid, where a few may well coincide.
    assert len(np.unique(noise, axis=0)) == len(noise)
    assert len(np.unique(noise)) > 0.95 * noise.size
    assert abs(noise.std() / sigma - 1) < 4 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 * sigma / np.sqrt(noise.size)


def test_one_key_in_every_lane_gives_distinct_noise():
    fun = fast.secret_shared(private(2.0))
    w = np.zeros((4, 3, 1), np.float32)
    lanes = jax.jit(jax.vmap(lambda w, k: fun(w, BATCH, key=k), in_axes=(0, None)))
    out = np.asarray(lanes(w, insecure_key(2)))[..., 0]
    assert len(np.unique(out[:, 0])) == 4


@pytest.mark.parametrize(
    "protocol, parties", [("reference", 2), ("semi2k", 3), ("replicated3", 3)]
)
def test_shares_pass_from_call_to_call(protocol: str, parties: int) -> None:
    """Kept outputs, numbers and bits, beside fresh shares."""
    shared = partial(privjax.secret_shared, protocol=protocol, parties=parties)
    x = np.array([1.5, -2.0, 0.25], np.float32)
    doubled, positive = shared(lambda x: (x * 2, x > 0), reveal=False)(x)
    other = privjax.share(x, parties, protocol)
    joined = shared(lambda a, b, p: jnp.where(p, a + b, -b))
    got = joined(doubled, other, positive)
    np.testing.assert_allclose(got, np.where(x > 0, 3 * x, -x), atol=1e-4)
    np.testing.assert_allclose(privjax.reveal(doubled), 2 * x, atol=1e-4)
