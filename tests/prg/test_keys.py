"""Typed keys: they work with jax.random everywhere, and others are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privjax.errors import InputError, RandomKeyError
from privjax.prg import (
    Purpose,
    bits,
    insecure_key,
    is_privjax_key,
    key,
    key_from_bytes,
    key_words,
    keystream,
)
from privjax.prg.keys import IMPL

KEY = insecure_key(7)


def test_keys_come_from_the_system_and_differ() -> None:
    drawn = {np.asarray(key_words(key())).tobytes() for _ in range(20)}
    assert len(drawn) == 20


def test_key_has_the_bytes_it_was_given() -> None:
    data = bytes(range(32))
    assert np.asarray(key_words(key_from_bytes(data))).tobytes() == data
    with pytest.raises(InputError, match="32 bytes, not 31"):
        key_from_bytes(data[1:])


def test_insecure_keys_repeat_and_differ_by_seed() -> None:
    words = [
        np.asarray(key_words(insecure_key(s))).tobytes() for s in (-1, 0, 1, 2**70)
    ]
    assert len(set(words)) == 4
    assert words[1] == np.asarray(key_words(insecure_key(0))).tobytes()


def test_split_and_fold_in_separate() -> None:
    family = [
        KEY,
        *jax.random.split(KEY),
        *jax.random.split(KEY, 3),
        *jax.random.split(KEY, (2, 2)).reshape(-1),
        *(jax.random.fold_in(KEY, i) for i in range(3)),
        jax.random.split(jax.random.fold_in(KEY, 1))[0],
    ]
    words = {np.asarray(key_words(k)).tobytes() for k in family}
    assert len(words) == len(family)


def test_random_bits_are_the_documented_keystream() -> None:
    words = np.asarray(key_words(KEY))
    drawn = jax.random.bits(KEY, (5,), "uint32")
    np.testing.assert_array_equal(drawn, keystream(words, (Purpose.BITS, 32, 0), 5))


SAMPLERS = {
    "bits8": lambda k: jax.random.bits(k, (3,), "uint8"),
    "bits32": lambda k: jax.random.bits(k, (3,), "uint32"),
    "normal": lambda k: jax.random.normal(k, (3,), jnp.float32),
    "uniform": lambda k: jax.random.uniform(k, (2, 2), jnp.float32),
    "randint": lambda k: jax.random.randint(k, (4,), 0, 100, jnp.int32),
    "permutation": lambda k: jax.random.permutation(k, 5),
    "bernoulli": lambda k: jax.random.bernoulli(k, 0.5, (7,)),
    "split": lambda k: jax.random.key_data(jax.random.split(k, 2)),
    "fold_in": lambda k: jax.random.key_data(jax.random.fold_in(k, 9)),
    "chain": lambda k: jax.random.bits(jax.random.fold_in(jax.random.split(k)[1], 2)),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("x64", [False, True])
def test_jax_random_agrees_under_transformations(name: str, x64: bool) -> None:
    sample = SAMPLERS[name]
    with jax.enable_x64(x64):
        keys = jax.random.split(KEY, 3)
        eager = np.stack([sample(k) for k in keys])
        got = {
            "jit": np.stack([jax.jit(sample)(k) for k in keys]),
            "vmap": jax.vmap(sample)(keys),
            "jit vmap": jax.jit(jax.vmap(sample))(keys),
            "scan": jax.lax.scan(lambda c, k: (c, sample(k)), 0, keys)[1],
        }
    for how, value in got.items():
        np.testing.assert_array_equal(value, eager, err_msg=how)
    assert len(np.unique(eager.reshape(3, -1), axis=0)) > 1


def test_uint64_bits_whatever_the_flag_of_the_caller() -> None:
    def high_and_low(k: jax.Array) -> jax.Array:
        with jax.enable_x64(True):
            return jax.lax.bitcast_convert_type(
                jax.random.bits(k, (3,), "uint64"), jnp.uint32
            )

    eager = high_and_low(KEY)
    # Lowered after the inner scope was closed.
    np.testing.assert_array_equal(jax.jit(high_and_low)(KEY), eager)
    keys = jnp.stack([KEY, KEY])
    np.testing.assert_array_equal(jax.jit(jax.vmap(high_and_low))(keys)[1], eager)
    words = np.asarray(key_words(KEY))
    with jax.enable_x64(True):
        expected = bits(words, (Purpose.BITS, 64, 0), (3,), "uint64")
        np.testing.assert_array_equal(jax.random.bits(KEY, (3,), "uint64"), expected)


def test_moments_of_the_normal() -> None:
    drawn = np.asarray(jax.random.normal(KEY, (20000,), jnp.float32), np.float64)
    assert abs(drawn.mean()) < 5 / np.sqrt(20000)
    assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / 20000)


def test_key_words_keeps_leading_axes() -> None:
    assert key_words(jax.random.split(KEY, (2, 3))).shape == (2, 3, 8)
    assert jax.jit(key_words)(KEY).dtype == np.uint32
    assert jax.vmap(key_words)(jax.random.split(KEY, 4)).shape == (4, 8)


def test_seeding_through_jax_reaches_our_generator() -> None:
    seeded = jax.random.key(5, impl=IMPL)
    assert is_privjax_key(seeded)
    assert not np.array_equal(
        key_words(seeded), key_words(jax.random.key(6, impl=IMPL))
    )


REFUSED = {
    "default key": (lambda: jax.random.key(0), "64 bits or less"),
    "rbg key": (lambda: jax.random.key(0, impl="rbg"), "64 bits or less"),
    "old key": (lambda: jax.random.PRNGKey(0), "old-style key"),
    "integer": (lambda: 42, "a key is needed, not int"),
    "nothing": (lambda: None, "a key is needed, not NoneType"),
    "words": (lambda: np.zeros(8, np.uint32), "a key is needed, not ndarray"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_keys_are_refused(case: str) -> None:
    make, why = REFUSED[case]
    value = make()
    assert not is_privjax_key(value)
    with pytest.raises(RandomKeyError, match=why) as caught:
        key_words(value)
    assert "privjax.random.key()" in str(caught.value)


def test_default_key_is_refused_under_jit() -> None:
    with pytest.raises(RandomKeyError, match="threefry|fry"):
        jax.jit(key_words)(jax.random.key(0))
