"""Bits in words: packing, and the transposition between transfers and base keys.

Bit i of a row of bits is bit i mod 32 of word i // 32. Extension expands 128 base keys
into long columns of bits, and needs the 128 bits of every row: a transposition in
32 x 32 tiles by exchanging halves five times (Warren, Hacker's Delight, section 7-3).
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array


def words_for(bits: int) -> int:
    return -(-bits // 32)


def bucket(words: int) -> int:
    """The width that kernels are compiled for: 64, 128, ..., 2048, then eighths.

    Columns are filled up to it inside, never on the wire: a program asks for many
    different sizes, and compiling takes longer than a thousand transfers.
    """
    top = max(64, 1 << (words - 1).bit_length())
    step = top if top <= 2048 else top // 16
    return max(1, -(-words // step)) * step


def pack(bits: Array) -> Array:
    """0/1 of any integer or Boolean type, [..., n] -> uint32[..., ceil(n / 32)]."""
    *lead, n = bits.shape
    words = words_for(n)
    padded = jnp.pad(
        bits.astype(np.uint32), [*((0, 0) for _ in lead), (0, 32 * words - n)]
    )
    shifted = padded.reshape(*lead, words, 32) << lax.iota(np.uint32, 32)
    return jnp.sum(shifted, axis=-1, dtype=np.uint32)


def unpack(words: Array, n: int) -> Array:
    """uint32[..., words] -> the first n bits as uint8[..., n] of 0 and 1."""
    bits = (words[..., None] >> lax.iota(np.uint32, 32)) & np.uint32(1)
    return bits.astype(np.uint8).reshape(*words.shape[:-1], -1)[..., :n]


def bits_of(x: Array) -> Array:
    """Unsigned words [...] -> uint8[..., width] of 0 and 1, the lowest bit first."""
    width = x.dtype.itemsize * 8
    return ((x[..., None] >> lax.iota(x.dtype, width)) & x.dtype.type(1)).astype(
        np.uint8
    )


def from_bits(bits: Array, dtype: np.dtype) -> Array:
    """The inverse of `bits_of`."""
    shifted = bits.astype(dtype) << lax.iota(dtype, bits.shape[-1])
    return jnp.sum(shifted, axis=-1, dtype=dtype)


def rows(columns: Array) -> Array:
    """uint32[32 c, w], one row of bits per base key -> uint32[32 w, c], one per transfer.

    Bit j of input row i becomes bit i of output row j.
    """
    c, w = columns.shape[0] // 32, columns.shape[1]
    tile = columns.reshape(c, 32, w)
    for half in (16, 8, 4, 2, 1):
        # Words k and k + half exchange the high bits of one and the low of the other.
        mask = np.uint32(sum(1 << b for b in range(32) if not b & half))
        pairs = tile.reshape(c, 16 // half, 2, half, w)
        low, high = pairs[:, :, 0], pairs[:, :, 1]
        moved = ((low >> np.uint32(half)) ^ high) & mask
        pairs = jnp.stack([low ^ (moved << np.uint32(half)), high ^ moved], axis=2)
        tile = pairs.reshape(c, 32, w)
    return tile.transpose(2, 1, 0).reshape(32 * w, c)
