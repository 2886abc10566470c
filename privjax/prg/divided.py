"""Values for arrays that are divided over devices, each part where it lies.

XLA's partitioner divides an operation like its operands as long as no axis is flattened
or cut up on the way. So the words of a value depend on its place in the array alone, by
the number of the block that it takes its words from: a block serves neighbours on the last
axis. Every device expands the blocks of its own part, and the values are those of one
device. (`pieces` is faster on one.)
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.errors import InputError
from privjax.prg.chacha20 import BLOCK_WORDS, Nonce, blocks_at


def drawn_like(
    x: Array, key: Array, nonce: Nonce, words: int, make: Callable[[Array], Array]
) -> Array:
    """`make` of fresh words: an array of x's shape that is divided as x is.

    Args:
      x: any array; its values are not looked at.
      key, nonce: as in `keystream`.
      words: how many words of the keystream a value takes.
      make: from uint32[words, ...] to values [...], elementwise.

    Raises:
      InputError: the array needs more than 2^32 blocks.
    """
    *lead, size = x.shape or (1,)
    per = BLOCK_WORDS // words
    shape = (*lead, -(-size // per))
    if math.prod(shape) > 2**32:
        raise InputError(f"noise for an array of shape {x.shape} needs several keys.")
    number, stride = jnp.zeros(shape, np.uint32), 1
    for axis in reversed(range(len(shape))):
        place = lax.broadcasted_iota(np.uint32, shape, axis)
        number, stride = number + place * np.uint32(stride), stride * shape[axis]
    block = blocks_at(key, nonce, number)
    rows = [jnp.stack(block[i * per : (i + 1) * per], axis=-1) for i in range(words)]
    values = make(jnp.stack(rows))
    values = values.reshape(*lead, shape[-1] * per)
    return lax.slice_in_dim(values, 0, size, axis=-1).reshape(x.shape)
