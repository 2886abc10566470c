"""Fewer bits: rotations, updates of a few bits, sparse updates with a memory."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard as by_scipy

import privjax
from privjax.aggregation import rotation, secure_sum
from privjax.aggregation.quantised import quantised
from privjax.aggregation.sparse import RandomK, TopK
from privjax.errors import InputError, ProtocolError, UnsupportedError
from privjax.prg.keys import insecure_key, key_words

N = 6


def words(seed: int) -> Any:
    return key_words(insecure_key(seed))


@partial(jax.jit, static_argnums=0)
def combine(method: Any, key: Any, x: Any) -> Any:
    return method.combine(key, [x])[0]


# -- rotations -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 64, 128, 512])
def test_the_transform_is_the_hadamard_matrix(size: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, size)).astype("f4")
    got = rotation.hadamard(jnp.asarray(x))
    np.testing.assert_allclose(got, x @ by_scipy(size) / math.sqrt(size), atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 64, 100, 127, 1000])
def test_a_rotation_keeps_norms_and_goes_back(size: int) -> None:
    signs = rotation.signs(words(0), size)
    assert signs.shape == (2, rotation.window(size)) and {-1, 1} >= {*np.unique(signs)}
    x = np.random.default_rng(1).normal(size=(2, size)).astype("f4")
    turned = rotation.rotate(jnp.asarray(x), signs)
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(rotation.rotate_back(turned, signs), x, atol=1e-5)
    np.testing.assert_allclose(turned[0] @ turned[1], x[0] @ x[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", [0, 50, 99])
def test_one_large_entry_is_spread_out(place: int) -> None:
    """Wherever it is; by the sub-Gaussian bound and not more than twice what is least."""
    x = jnp.zeros(100).at[place].set(1.0)
    worst = [
        float(jnp.max(jnp.abs(rotation.rotate(x, rotation.signs(words(s), 100)))))
        for s in range(20)
    ]
    assert max(worst) <= rotation.reach(100, 20, 1e-6) and min(worst) >= 0.1
    assert np.median(worst) < 0.4


# -- a few bits ----------------------------------------------------------------------------


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_error_is_within_what_is_said(bits: int, rotate: bool) -> None:
    size, method = 500, quantised(bits, rotate=rotate)
    rng = np.random.default_rng(bits)
    x = rng.normal(size=(N, size)).astype("f4")
    x[:, 7] = 30.0
    got = [np.asarray(combine(method, words(s), jnp.asarray(x))) for s in range(30)]
    error = np.stack(got) - x.sum(0)
    if rotate:
        signs = [
            rotation.signs(method.begin(words(s), words(s), N).public, size)
            for s in range(30)
        ]
        turned = [np.asarray(rotation.rotate(jnp.asarray(x), v)) for v in signs]
        largest = np.mean([np.abs(t).max(1) for t in turned], 0)
    else:
        largest = np.abs(x).max(1)
    steps = largest / (2 ** (bits - 1) - 1)
    bound = math.sqrt(np.sum(steps**2)) / 2
    spread = math.sqrt(np.mean(error**2))
    assert 0.2 * bound < spread <= 1.05 * bound
    # Unbiased: the mean of 30 rounds is nearer by the root of 30.
    assert math.sqrt(np.mean(error.mean(0) ** 2)) < 1.3 * spread / math.sqrt(30)


def test_a_rotation_pays_where_entries_are_unequal() -> None:
    x = np.random.default_rng(0).normal(size=(N, 500)).astype("f4")
    x[:, 7] = 300.0
    errors = [
        np.std(np.asarray(combine(quantised(4, rotate=r), words(1), x)) - x.sum(0))
        for r in (True, False)
    ]
    assert errors[0] < errors[1] / 3


@pytest.mark.parametrize(
    "method",
    [
        quantised(8),
        secure_sum(16, clip=8.0, rotate=True, rounding="stochastic", dropped=2),
    ],
    ids=["clear", "secure"],
)
def test_through_federated_with_drop_outs_and_weights(method: Any) -> None:
    """Quantised values in a small ring go through the secure sum as well."""
    if method.bits == 16:
        method = secure_sum(
            16, clip=8.0, max_weight=3.0, rotate=True, rounding="stochastic", dropped=2
        )
    x = np.random.default_rng(2).normal(size=(N, 30)).astype("f4")
    there, w = np.arange(N) != 3, np.array([1, 2, 3, 1, 1, 2.0])
    f = privjax.federated(lambda data: {"x": data}, aggregate=method)
    got = f(jnp.asarray(x), survivors=there, weights=w)["x"]
    want = np.average(x[there], axis=0, weights=w[there])
    np.testing.assert_allclose(got, want, atol=0.05)
    assert np.any(np.asarray(got) != want)


def test_a_small_ring_rotated_is_as_fine_as_a_large_one_that_is_not() -> None:
    small = secure_sum(16, clip=1.0, rotate=True)
    assert small.fraction(100, 10**5) >= secure_sum(21, clip=1.0).fraction(100, 10**5)
    assert small.bits_per_client(10**5, 100)["masked input"] == 16 * 10**5


def test_quantised_zeros_and_what_is_no_number() -> None:
    x = jnp.zeros((N, 5))
    assert not np.any(combine(quantised(4), words(0), x))
    for bad in (jnp.nan, jnp.inf):
        assert np.all(np.isnan(combine(quantised(4), words(0), x.at[0, 1].set(bad))))


# -- a few entries ------------------------------------------------------------------------

UPDATE = {"a": jnp.asarray([3.0, -0.5, 0.1]), "b": jnp.asarray([[-4.0, 0.2]])}


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 11, 16])
def test_a_few_bits_travel_as_so_many(bits: int, size: int) -> None:
    """As long as `bits_per_client` says, to the byte; and back."""
    method = quantised(bits)
    most = 2 ** (bits - 1) - 1
    whole = np.random.default_rng(bits).integers(-most, most + 1, size, np.int32)
    data = method.packed(whole)
    said = method.bits_per_client(size, N)["update"]
    assert (data.dtype, 8 * data.nbytes - said in range(8)) == (np.uint8, True)
    found = method.unpacked(data, size)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, whole)


NO_INTEGERS: dict[str, tuple[np.ndarray, str]] = {
    "too short": (np.zeros(1, np.uint8), "no 4 integers"),
    "of another type": (np.zeros(2, np.int8), "no 4 integers"),
    "out of range": (np.full(2, 255, np.uint8), "out of its range"),
}


@pytest.mark.parametrize("case", NO_INTEGERS)
def test_bytes_that_are_no_integers(case: str) -> None:
    data, message = NO_INTEGERS[case]
    with pytest.raises(ProtocolError, match=message):
        quantised(4).unpacked(data, 4)


def test_the_largest_entries_and_a_memory_of_the_rest() -> None:
    compress = TopK(0.4)
    memory = compress.init(UPDATE)
    message, memory = compress.encode(UPDATE, memory)
    assert {*np.asarray(message.places).tolist()} == {0, 3}
    sent = compress.decode(message, UPDATE)
    np.testing.assert_array_equal(sent["a"], [3.0, 0, 0])
    np.testing.assert_array_equal(sent["b"], [[-4.0, 0]])
    total = jax.tree.map(jnp.add, sent, memory)
    jax.tree.map(np.testing.assert_array_equal, total, UPDATE)
    assert compress.bits_per_client(UPDATE) == {"values": 64, "places": 6}


@pytest.mark.parametrize("compress", [TopK(0.2), RandomK(0.2)])
def test_what_is_sent_late_is_sent(compress: Any) -> None:
    """Error feedback: over rounds all of a constant update arrives."""

    def body(carry: Any, key: Any) -> Any:
        memory, arrived = carry
        message, memory = compress.encode(UPDATE, memory, key)
        sent = compress.decode(message, UPDATE, key)
        return (memory, jax.tree.map(jnp.add, arrived, sent)), None

    zero = compress.init(UPDATE)
    rounds = 60
    keys = jax.random.split(insecure_key(0), rounds)
    (memory, arrived), _ = jax.jit(lambda k: jax.lax.scan(body, (zero, zero), k))(keys)
    for name, x in UPDATE.items():
        np.testing.assert_allclose(arrived[name] + memory[name], rounds * x, rtol=1e-5)
        assert np.all(np.abs(memory[name]) < 25)


def test_random_entries_are_common_and_add_up_in_a_secure_sum() -> None:
    compress, key = RandomK(0.4), insecure_key(3)
    like = jnp.zeros(10)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(N, 10)), "f4")

    def update(data: Any) -> Any:
        return compress.encode(data, compress.init(data), key)[0]

    mean = privjax.federated(update, aggregate="secure")(x)
    got = np.asarray(compress.decode(mean, like, key))
    places = np.asarray(compress.places(like, key))
    assert len({*places.tolist()}) == 4 and mean.shape == (4,)
    np.testing.assert_allclose(got[places], x.mean(0)[places], atol=1e-6)
    assert np.sum(got != 0) == 4
    others = {
        tuple(np.asarray(compress.places(like, insecure_key(i)))) for i in range(9)
    }
    assert len(others) > 5


ERRORS: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "bits": (lambda: quantised(1), InputError, "2 to 16"),
    "fraction": (lambda: TopK(0.0), InputError, "fraction=0.0"),
    "fraction too": (lambda: RandomK(1.5), InputError, "fraction=1.5"),
    "integers": (
        lambda: quantised().combine(words(0), [jnp.ones((2, 3), int)]),
        UnsupportedError,
        "int32",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        run()
