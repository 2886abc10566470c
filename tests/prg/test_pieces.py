"""Values in pieces: every value from words of its own, drawn or changed in place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privjax.prg import pieces
from privjax.prg.chacha20 import BLOCK_WORDS, Purpose, keystream

KEY = np.arange(8, dtype=np.uint32)
NONCE = (Purpose.RAW, 1, 2)
SIZE = 64


@pytest.mark.parametrize("count", [0, 1, SIZE, SIZE + 1, 3 * SIZE, 5 * SIZE - 3])
@pytest.mark.parametrize("words", [1, 2, 3])
def test_words_are_used_once(monkeypatch, count, words):
    monkeypatch.setattr(pieces, "_PIECE", SIZE)

    def draw(key):
        columns = [
            pieces.drawn(key, NONCE, (count,), words, lambda w, k=k: w[k])
            for k in range(words)
        ]
        return jnp.stack(columns)

    found = np.asarray(jax.jit(draw)(KEY)).ravel()
    parts = max(1, -(-count // SIZE))
    most = parts * (-(-SIZE * words // BLOCK_WORDS)) * BLOCK_WORDS
    stream = np.asarray(keystream(KEY, NONCE, most))
    assert np.isin(found, stream).all()
    assert len(np.unique(found)) == found.size


@pytest.mark.parametrize("axis", [0, None])
def test_vmap_and_shape(monkeypatch, axis):
    monkeypatch.setattr(pieces, "_PIECE", SIZE)
    keys = np.arange(16, dtype=np.uint32).reshape(2, 8)
    draw = lambda key: pieces.drawn(key, NONCE, (3, SIZE), 2, lambda w: w[0] ^ w[1])  # noqa: E731
    one = np.stack([draw(k) for k in keys])
    assert one.shape == (2, 3, SIZE)
    many = jax.jit(jax.vmap(draw, axis, axis_size=2))(keys if axis == 0 else keys[0])
    np.testing.assert_array_equal(many, one if axis == 0 else one[[0, 0]])


def _changed(x: np.ndarray, words: int) -> np.ndarray:
    """x plus the first of its own words, times 3, xor the last, by NumPy."""
    flat, done = x.reshape(-1).copy(), 0
    blocks = SIZE * words // BLOCK_WORDS
    for i in range(-(-flat.size // SIZE)):
        stream = keystream(KEY, NONCE, SIZE * words, counter=i * blocks)
        rows = np.asarray(stream).reshape(-1, BLOCK_WORDS).T.reshape(words, SIZE)
        own = rows[:, max(0, (i + 1) * SIZE - flat.size) :]
        part = slice(done, done + own.shape[1])
        flat[part] = (flat[part] + own[0]) * 3 ^ own[-1]
        done = part.stop
    return flat.reshape(x.shape)


@pytest.mark.parametrize("words", [1, 2, 3])
@pytest.mark.parametrize("shape", [(SIZE + 1,), (2, SIZE), (3, 51)])
def test_every_value_is_changed_once(monkeypatch, shape, words):
    monkeypatch.setattr(pieces, "_BESIDE", SIZE)
    x = np.random.default_rng(0).integers(0, 2**32, shape, dtype=np.uint32)
    change = lambda old, w: (old + w[0]) * np.uint32(3) ^ w[-1]  # noqa: E731
    run = lambda v: pieces.changed(v, KEY, NONCE, words, change)  # noqa: E731
    assert pieces.large(x)
    np.testing.assert_array_equal(jax.jit(run)(x), _changed(x, words))


def test_changed_in_lanes_and_loops(monkeypatch):
    monkeypatch.setattr(pieces, "_BESIDE", SIZE)
    keys = np.arange(16, dtype=np.uint32).reshape(2, 8)
    xs = np.arange(2 * 150, dtype=np.uint32).reshape(2, 150)
    one = lambda x, k: pieces.changed(x, k, NONCE, 2, lambda v, w: v + w[1])  # noqa: E731
    single = np.stack([one(x, k) for x, k in zip(xs, keys, strict=True)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(xs, keys), single)
    _, scanned = jax.lax.scan(lambda c, v: (c, one(*v)), 0, (xs, keys))
    np.testing.assert_array_equal(scanned, single)
