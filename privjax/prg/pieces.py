"""Values that are computed from a keystream, piece by piece where that saves memory."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array, Shape
from privjax.prg.buffer import in_a_buffer
from privjax.prg.chacha20 import BLOCK_WORDS, Nonce, transposed
from privjax.prg.varying import vary_alike

# Values of a piece on a CPU, whose words stay in a cache until they are used: alone, and
# beside an array that they change, to which the piece adds little.
_PIECE, _BESIDE = 1 << 17, 1 << 15


def drawn(
    key: Array, nonce: Nonce, shape: Shape, words: int, make: Callable[[Array], Array]
) -> Array:
    """`make` of fresh words: an array of `shape` that is computed once.

    Args:
      key, nonce: as in `keystream`.
      shape: static.
      words: how many words of the keystream a value takes.
      make: from uint32[words, n] to n values, each from its column, whatever n is.
    """
    count = math.prod(shape)
    if jax.default_backend() != "cpu" or count <= _PIECE:
        # Fused into what follows, the generator's last step would not be vectorised.
        stream = in_a_buffer(lambda: transposed(key, nonce, words * count), key[0])
        values = in_a_buffer(lambda: make(stream.reshape(words, count)), key[1])
        return values.reshape(shape)
    pieces = -(-count // _PIECE)
    size = -(-count // pieces)
    blocks = -(-size * words // BLOCK_WORDS)

    def piece(i: Array, out: Array) -> Array:
        first = i.astype(np.uint32) * np.uint32(blocks)
        stream = transposed(key, nonce, size * words, counter=first)
        # The last piece overwrites the end of the one before it.
        at = jnp.minimum(i * np.int32(size), np.int32(count - size))
        values = make(stream.reshape(words, size))
        return lax.dynamic_update_slice(out, values, (at,))

    one = jax.ShapeDtypeStruct((words, size), np.uint32)
    # Of the key, so that it varies over the same manual mesh axes.
    empty = jnp.broadcast_to(key[0].astype(jax.eval_shape(make, one).dtype), (count,))
    out = lax.fori_loop(np.int32(0), np.int32(pieces), piece, empty)
    return out.reshape(shape)


def large(x: Array) -> bool:
    """Whether `changed` works on `x` in place."""
    return jax.default_backend() == "cpu" and x.size > _BESIDE


def changed(
    x: Array,
    key: Array,
    nonce: Nonce,
    words: int,
    change: Callable[[Array, Array], Array],
) -> Array:
    """`change(value, words of its own)` for every value of a large array, in place.

    Args:
      x: an array that is `large`.
      key, nonce: as in `keystream`.
      words: how many words of the keystream a value takes.
      change: from n values and uint32[words, n] to n new values, whatever n is.
    """
    size, count = _BESIDE, x.size
    blocks = size * words // BLOCK_WORDS

    def piece(i: Array, out: Array) -> Array:
        first = i.astype(np.uint32) * np.uint32(blocks)
        stream = transposed(key, nonce, size * words, counter=first)
        # The last piece begins in the one before it, and leaves alone what that changed.
        at = jnp.minimum(i * np.int32(size), np.int32(count - size))
        old = lax.dynamic_slice_in_dim(out, at, size)
        new = change(old, stream.reshape(words, size))
        done = at + lax.iota(np.int32, size) < i * np.int32(size)
        return lax.dynamic_update_slice(out, jnp.where(done, old, new), (at,))

    flat, key = vary_alike(x.reshape(-1), key)
    out = lax.fori_loop(np.int32(0), np.int32(-(-count // size)), piece, flat)
    return out.reshape(x.shape)
