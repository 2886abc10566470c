"""Clients share among aggregators: exact sums, uniform shares, and a check that holds."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import privjax
from privjax.aggregation import DistributedGaussian, spdz
from privjax.errors import InputError, ProtocolError
from privjax.prg.chacha20 import derive
from privjax.prg.keys import insecure_key, key_words

N, SIZE = 5, 40
METHODS = {
    "two": spdz(2),
    "three": spdz(3),
    "32 bits": spdz(3, bits=32, fractional_bits=14),
    "additive": spdz(3, protocol="semi2k"),
    "additive 16": spdz(2, protocol="semi2k", bits=16, clip=30.0),
}


def words(seed: int) -> Any:
    return key_words(insecure_key(seed))


def updates() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, SIZE)).astype("f4")


@partial(jax.jit, static_argnums=0)
def combine(method: Any, key: Any, x: Any, survivors: Any) -> Any:
    return method.combine_survivors(key, [x], survivors)[0]


@pytest.mark.parametrize("name", METHODS)
def test_the_sum_is_that_of_the_survivors_exactly(name: str) -> None:
    method, x = METHODS[name], updates()
    f = method.fraction(N, SIZE)
    whole = np.rint(x.astype("f8") * 2.0**f)
    for there in (np.ones(N, bool), np.arange(N) > 1):
        got = combine(method, words(1), jnp.asarray(x), jnp.asarray(there))
        want = (whole[there].sum(0) * 2.0**-f).astype("f4")
        np.testing.assert_array_equal(got, want)


@partial(jax.jit, static_argnums=0)
def shares(method: Any, key: Any, x: Any) -> Any:
    """The shares of one client's words, and the parties' totals opened with an error."""
    with jax.enable_x64(True):
        played = method.begin(key, derive(key, (0, 0, 0)), N)
        return method.message(played, jnp.uint32(0), [x], N)[0]


@pytest.mark.parametrize("name", ["three", "additive"])
def test_any_but_one_of_the_shares_are_uniform(name: str) -> None:
    """And all of them together are not: a planted leak is caught."""
    method = METHODS[name]
    with jax.enable_x64(True):
        found = shares(method, words(2), jnp.zeros(4000))
        low = np.asarray(found if name == "additive" else found.lo[:, 0])
    sums = [low[0], low[1], low[2], low[0] + low[1], low[1] + low[2], low[0] + low[2]]
    for held in sums:
        counts = np.bincount(held.view("u1"), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
    assert np.all(low.sum(0, dtype="u8") == 0)


@partial(jax.jit, static_argnums=(0, 2))
def opened(method: Any, key: Any, party: int, error: Any) -> Any:
    with jax.enable_x64(True):
        played = method.begin(key, derive(key, (0, 0, 0)), N)
        totals, _ = method.message(played, jnp.uint32(0), [jnp.zeros(SIZE)], N)
        cheat = jax.tree.map(lambda v, e: v.at[party].add(e), totals, error)
        return method.opened(played, cheat)


@pytest.mark.parametrize("part", ["share", "MAC share"])
def test_a_party_that_cheats_is_found_out(part: str) -> None:
    method = METHODS["three"]
    with jax.enable_x64(True):
        zero = method.ring.zeros((2, SIZE))
        row = ("share", "MAC share").index(part)
        for error, sound in ((0, True), (1, False), (2**40, False)):
            wrong = zero + zero
            wrong = type(wrong)(wrong.lo.at[row, 3].set(np.uint64(error)), wrong.hi)
            value, found = opened(method, words(3), 1, wrong)
            assert bool(found) == sound
            if row == 0:
                assert int(value[3]) == error


@partial(jax.jit, static_argnums=0)
def misled(method: Any, key: Any, by: Any) -> Any:
    """Whether the check holds where party 2 heard an x - r that is larger by `by`."""
    with jax.enable_x64(True):
        played = method.begin(key, derive(key, (0, 0, 0)), N)
        totals, _ = method.message(played, jnp.uint32(0), [jnp.zeros(SIZE)], N)
        more = jnp.full(SIZE, by, np.uint64)
        step = method.ring.times_key(more, played.alphas[2])
        wrong = jax.tree.map(lambda v, s: v.at[2, 1].add(s), totals, step)
        return method.opened(played, wrong)[1]


def test_a_client_that_tells_parties_different_things_is_found_out() -> None:
    for by, sound in ((0, True), (1, False)):
        assert bool(misled(METHODS["three"], words(4), np.uint32(by))) == sound


def test_through_federated_with_weights_noise_and_drop_outs() -> None:
    x, there = updates(), np.arange(N) != 2
    f = privjax.federated(lambda data: data, aggregate=METHODS["three"])
    w = np.arange(1.0, N + 1)
    got = f(jnp.asarray(x), weights=w, survivors=there)
    want = np.average(x[there], axis=0, weights=w[there])
    np.testing.assert_allclose(got, want, atol=1e-6)

    noisy = spdz(2, clip=1.0, dropped=1, noise=DistributedGaussian(1e-3))
    g = privjax.federated(lambda data: data / 100, aggregate=noisy)
    got = g(jnp.asarray(x), survivors=there)
    error = np.asarray(got) - x[there].mean(0) / 100
    assert 0 < np.abs(error).max() < 1e-3
    with pytest.raises(ProtocolError, match="2 of 5 clients"):
        g(jnp.asarray(x), survivors=np.arange(N) > 1)


ERRORS = {
    "parties": (lambda: spdz(1), "2 to 64"),
    "protocol": (lambda: spdz(3, protocol="bgw"), "'bgw'"),
    "bits": (lambda: spdz(3, bits=48, clip=1.0), "32 and 64"),
    "one client": (lambda: spdz().check(1, False), "at least 2"),
    "nobody honest": (lambda: spdz(dropped=4).check(5, False), "two honest"),
    "weights": (lambda: spdz(clip=1.0).check(4, True), "max_weight="),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, message = ERRORS[case]
    with pytest.raises(InputError, match=message):
        run()
