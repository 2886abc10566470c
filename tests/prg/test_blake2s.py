"""BLAKE2s against hashlib's, and the properties of the commitment."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privjax.errors import InputError
from privjax.prg.blake2s import blake2s, commit

LENGTHS = (0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 64, 65)


def oracle(words: np.ndarray, digest_words: int = 8) -> np.ndarray:
    data = np.asarray(words).astype("<u4").tobytes()
    digest = hashlib.blake2s(data, digest_size=4 * digest_words).digest()
    return np.frombuffer(digest, "<u4")


def message(*shape: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng([seed, *shape])
    return draw.integers(0, 2**32, shape, np.uint32)


@pytest.mark.parametrize("n", LENGTHS)
def test_digests_are_those_of_the_rfc(n: int) -> None:
    rows = message(3, n)
    np.testing.assert_array_equal(blake2s(rows), [oracle(row) for row in rows])


@pytest.mark.parametrize("digest_words", range(1, 9))
def test_every_digest_length(digest_words: int) -> None:
    row = message(5)
    out = blake2s(row, digest_words=digest_words)
    np.testing.assert_array_equal(out, oracle(row, digest_words))


@pytest.mark.parametrize("value", [0, 0xFFFFFFFF])
def test_extreme_words(value: int) -> None:
    row = np.full(20, value, np.uint32)
    np.testing.assert_array_equal(blake2s(row), oracle(row))


@pytest.mark.parametrize("x64", [False, True])
def test_under_transformations(x64: bool) -> None:
    rows = message(2, 3, 17)
    expected = np.array([[oracle(row) for row in block] for block in rows])
    with jax.enable_x64(x64):
        calls = [blake2s, jax.jit(blake2s), jax.vmap(blake2s)]
        calls += [jax.vmap(jax.jit(jax.vmap(blake2s)))]
        for call in calls:
            np.testing.assert_array_equal(call(jnp.asarray(rows)), expected)
        last = jax.vmap(blake2s, in_axes=1, out_axes=1)(jnp.asarray(rows))
        np.testing.assert_array_equal(last, expected)
        scanned = jax.lax.map(blake2s, jnp.asarray(rows))
        np.testing.assert_array_equal(scanned, expected)


def test_the_program_does_not_grow_with_the_message() -> None:
    def size(n: int) -> int:
        lowered = jax.jit(blake2s).lower(jax.ShapeDtypeStruct((n,), np.uint32))
        return len(lowered.as_text().splitlines())

    assert size(16 * 50) == size(16 * 2) < 400


def test_commitment() -> None:
    value, nonce = message(2, 4), message(2, 4, seed=1)
    out = commit(value, nonce)
    expected = [oracle(np.r_[r, v]) for r, v in zip(nonce, value, strict=True)]
    np.testing.assert_array_equal(out, expected)
    for changed in (value ^ np.uint32(1), value ^ np.uint32(1 << 31)):
        assert np.all(np.any(out != commit(changed, nonce), axis=-1))
    assert np.all(np.any(out != commit(value, nonce ^ np.uint32(1)), axis=-1))


@pytest.mark.parametrize(
    "call",
    [
        lambda: blake2s(np.zeros(3, np.int32)),
        lambda: blake2s(np.uint32(1)),
        lambda: blake2s(message(3), digest_words=0),
        lambda: blake2s(message(3), digest_words=9),
        lambda: commit(message(3), message(3)),
    ],
)
def test_refusals(call) -> None:
    with pytest.raises(InputError):
        call()
