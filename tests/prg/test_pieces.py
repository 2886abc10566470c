"""Values in pieces: every value from words of its own, whatever their number."""

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
