"""The secure sum: what the server sees is uniform, and its sum is exact in the ring."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privjax.aggregation import SecureSum, secure_sum
from privjax.aggregation.methods import resolve
from privjax.errors import InputError, UnsupportedError
from privjax.prg.keys import insecure_key, key_words

METHODS = {
    "64": secure_sum(),
    "32": secure_sum(32, fractional_bits=16),
    "stochastic": secure_sum(rounding="stochastic"),
    "sparse": secure_sum(neighbours=2),
    "sparse 32": secure_sum(32, fractional_bits=16, neighbours=4),
}


def words(seed: int) -> Any:
    return key_words(insecure_key(seed))


@partial(jax.jit, static_argnums=0)
def send(method: SecureSum, key_words: Any, xs: Any) -> Any:
    return method.masked_updates(key_words, xs)


def masked(method: SecureSum, seed: int, xs: Any) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(send(method, words(seed), xs))


def updates(clients: int, seed: int = 0, scale: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(seed)
    shapes = ((), (3,), (2, 5))
    return [
        jnp.asarray(scale * rng.normal(size=(clients, *shape)), "f4")
        for shape in shapes
    ]


def integers(method: SecureSum, xs: Any) -> np.ndarray:
    """[clients, params]: what each client adds up, by NumPy."""
    flat = np.concatenate([np.asarray(x, "f8").reshape(len(x), -1) for x in xs], 1)
    scaled = np.rint(flat * 2.0 ** method.fraction(len(flat)))
    return scaled.astype("i8").astype("u8").astype(method.word)


@pytest.mark.parametrize("clients", [5, 6, 7])
@pytest.mark.parametrize("name", [n for n in METHODS if n != "stochastic"])
def test_masks_cancel_exactly(name: str, clients: int) -> None:
    method, xs = METHODS[name], updates(clients)
    sent, clear = masked(method, 1, xs), integers(method, xs)
    np.testing.assert_array_equal(
        sent.sum(0, dtype=method.word), clear.sum(0, dtype=method.word)
    )
    assert np.all(sent != clear)  # probability of an equal word: below 2^-25


@pytest.mark.parametrize("name", METHODS)
def test_what_the_server_sees_is_uniform(name: str) -> None:
    """Chi-square over the 256 values of every byte of every masked word of zeros."""
    method = METHODS[name]
    sent = masked(method, 2, [jnp.zeros((6, 4000))])
    as_bytes = sent.view("u1").reshape(-1, method.bits // 8)
    for column in as_bytes.T:
        assert stats.chisquare(np.bincount(column, minlength=256)).pvalue > 1e-4


def test_what_the_server_sees_does_not_move_with_an_input() -> None:
    """A client's words correlate with its own input no more than with another's."""
    method = secure_sum()
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 20000)).astype("f4") * 2.0**30
    sent = masked(method, 3, [jnp.asarray(x)]).view("i8").astype("f8")
    for client in range(4):
        for other in range(4):
            assert abs(np.corrcoef(sent[client], x[other])[0, 1]) < 0.04


@pytest.mark.parametrize("name", METHODS)
def test_no_mask_is_used_twice(name: str) -> None:
    """Equal (zero) values everywhere: words differ over clients, leaves and rounds."""
    method = METHODS[name]
    xs = [jnp.zeros((6, 50)), jnp.zeros((6, 50))]
    sent = np.concatenate([masked(method, seed, xs) for seed in range(3)])
    assert sent.shape == (18, 100)
    pairs = sent.size * (sent.size - 1) // 2
    repeated = sent.size - len(np.unique(sent))
    assert repeated <= (0 if method.bits == 64 else 4 + 4 * pairs // 2**32)
    for row in range(
        18
    ):  # no row is another one shifted by a constant, or its negative
        for other in range(row):
            assert len(np.unique(sent[row] - sent[other])) > 90
            assert len(np.unique(sent[row] + sent[other])) > 90


def test_lanes_have_masks_of_their_own() -> None:
    keys = jax.vmap(key_words)(jax.random.split(insecure_key(0), 3))
    with jax.enable_x64(True):
        run = jax.vmap(lambda k: secure_sum().masked_updates(k, [jnp.zeros((4, 10))]))
        assert len(np.unique(np.asarray(run(keys)))) == 120


@pytest.mark.parametrize(("clients", "degree"), [(5, 2), (6, 2), (7, 4), (9, 8)])
def test_the_sparse_graph_is_regular_and_drawn_anew(clients: int, degree: int) -> None:
    method = secure_sum(neighbours=degree)
    seen = set()
    for seed in range(4):
        with jax.enable_x64(True):
            order = method.order(words(seed), clients)
            ends = method.round(clients).circle.edges(order)
        edges = list(zip(*(e.tolist() for e in ends), strict=True))
        assert len({*edges}) == len(edges) and all(i < j for i, j in edges)
        degrees = np.bincount(np.ravel(edges), minlength=clients)
        assert np.all(degrees == degree)
        seen.add(frozenset(edges))
    assert len(seen) > 1 or degree == clients - 1


@pytest.mark.parametrize("clients", [2, 3, 4, 9])
def test_the_full_graph_has_every_pair_once(clients: int) -> None:
    with jax.enable_x64(True):
        order = secure_sum().order(words(0), clients)
        ends = secure_sum().round(clients).circle.edges(order)
    edges = list(zip(*(e.tolist() for e in ends), strict=True))
    assert sorted(edges) == [
        (i, j) for i in range(clients) for j in range(i + 1, clients)
    ]


@partial(jax.jit, static_argnums=0)
def combine(method: Any, key_words: Any, *xs: Any) -> Any:
    return method.combine(key_words, list(xs))


@given(
    st.lists(st.floats(-(2.0**30), 2.0**30, width=32), min_size=4, max_size=4),
    st.integers(0, 2**32),
)
def test_the_error_is_within_its_bound(values: Any, seed: int) -> None:
    x = np.asarray(values, "f4")
    for name, bound in (("64", 2.0**-25), ("stochastic", 2.0**-24)):
        (got,) = combine(METHODS[name], words(seed), jnp.asarray(x)[:, None])
        exact = np.sum(x.astype("f8"))
        assert abs(float(got[0]) - exact) <= 4 * bound + abs(exact) * 2.0**-24


def test_stochastic_rounding_is_unbiased_and_nearest_is_nearest() -> None:
    x = jnp.full((2, 4000), 0.3)
    coarse = {"bits": 32, "fractional_bits": 0}
    (up,) = combine(secure_sum(**coarse, rounding="stochastic"), words(5), x)
    assert abs(float(jnp.mean(up)) - 0.6) < 5 * np.sqrt(2 * 0.21 / 4000)
    assert {*np.unique(up)} == {0.0, 1.0, 2.0}
    (near,) = combine(secure_sum(**coarse), words(5), x)
    assert {*np.unique(near)} == {0.0}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32"])
def test_integers_are_summed_exactly(bits: int, dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([[info.max, info.min, 1], [1, 3, info.max]], dtype)
    (got,) = combine(secure_sum(bits, fractional_bits=8), words(6), jnp.asarray(x))
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got, x.sum(0, dtype=dtype))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("clients", [2, 3, 10])
def test_the_limit_is_the_limit(bits: int, clients: int) -> None:
    """All clients at the edge of the range still sum; one beyond it fails the round."""
    method = secure_sum(bits, fractional_bits=10)
    with jax.enable_x64(True):
        edge = np.float64(method.limit(clients) * (1 - 2.0**-40) // 1) / 2**10
        for sign in (1, -1):
            x = np.full((clients, 1), sign * edge)
            got, _ = combine(method, words(7), jnp.asarray(x), np.ones((clients, 2)))
            np.testing.assert_allclose(got, x.sum(0), rtol=1e-12)
        x[0] *= 1 + 2.0**-20
        for bad in (x, np.where(np.arange(clients)[:, None] == 1, np.nan, 0.0)):
            got = combine(method, words(7), jnp.asarray(bad), np.ones((clients, 2)))
            assert all(np.all(np.isnan(g)) for g in got)


def test_the_limit_of_a_small_ring_is_exact() -> None:
    """8 bits, 60 clients: each may send -2 to 2."""
    method = secure_sum(8, fractional_bits=0)
    x = np.full((60, 1), 2.0, "f4")
    (got,) = combine(method, words(7), jnp.asarray(x))
    assert method.limit(60) == 2 and float(got[0]) == 120.0
    (got,) = combine(method, words(7), jnp.asarray(x).at[0].set(3.0))
    assert np.isnan(got[0])


def test_clip_bounds_the_joint_norm_and_sets_the_scale() -> None:
    method = secure_sum(32, clip=2.0)
    big = [jnp.full((3,), 10.0), jnp.full((2, 2), -10.0)]
    clipped = method.prepare(big)
    norm = np.sqrt(sum(float(jnp.sum(jnp.square(x))) for x in clipped))
    assert abs(norm - 2.0) < 1e-5
    small = [jnp.full((3,), 0.1), jnp.full((2, 2), 0.1)]
    for a, b in zip(method.prepare(small), small, strict=True):
        np.testing.assert_array_equal(a, b)
    for clients in (2, 3, 100):
        f = method.fraction(clients)
        assert clients * 2.0 * 2**f < 2**31 <= clients * 2.0 * 2 ** (f + 1)
    edge = [jnp.full((100, 1), 2.0)]
    np.testing.assert_allclose(combine(method, words(8), *edge)[0], 200.0, rtol=1e-6)


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "bits": (lambda: secure_sum(4), InputError, "8 to 64"),
    "rounding": (lambda: secure_sum(rounding="up"), InputError, "'up'"),
    "clip": (lambda: secure_sum(clip=0.0), InputError, "positive"),
    "fraction": (lambda: secure_sum(fractional_bits=63), InputError, r"\[0, 63\)"),
    "no scale": (lambda: secure_sum(32), InputError, "clip="),
    "odd degree": (lambda: secure_sum(neighbours=3), InputError, "even number"),
    "degree": (
        lambda: secure_sum(neighbours=4).check(4, False),
        InputError,
        "at most 3 others",
    ),
    "one client": (lambda: secure_sum().check(1, False), InputError, "at least 2"),
    "headroom": (
        lambda: secure_sum(32, fractional_bits=30).check(4, False),
        InputError,
        "no room",
    ),
    "weights and clip": (
        lambda: secure_sum(clip=1.0).check(4, True),
        InputError,
        "fractional_bits=",
    ),
    "complex": (
        lambda: secure_sum().combine(words(0), [jnp.ones((2, 1)) * 1j]),
        UnsupportedError,
        "complex64",
    ),
    "not a method": (lambda: resolve(object()), InputError, "no aggregation method"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        run()
