"""GF(4) = {0, 1, w, w + 1}, and MACs of its elements as words of 64 bits.

A word stands for `low + w high`, both halves in GF(2)^32: for 32 elements of GF(4), of
which bits 0 and 32 are the first. An element x is authenticated by x Delta for a key word
Delta whose first element is 1: then the first element of x Delta is x itself, and a share
of the word holds a share of the value. Bits are the elements 0 and 1; XOR of words adds,
and products with public elements are local.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

_HALF = np.uint64(32)
# The first element of a word; the rest of a key word is secret.
FIRST = np.uint64(1 | 1 << 32)


def omega(word: Any) -> Any:
    """w times all elements of a word: w (low + w high) = high + w (low + high)."""
    high = word >> _HALF
    return ((word ^ high) << _HALF) | high


def ones(bit: Any) -> Any:
    """uint64, all ones where a bit (0 or 1 of any unsigned type) is set."""
    bit = bit.astype(np.uint64)
    return jnp.zeros_like(bit) - bit


def multiple(x: Any, word: Any, bits: int = 2) -> Any:
    """The word times an element, uint8 of which one or two bits count."""
    out = ones(x & np.uint8(1)) & word
    if bits == 2:
        out = out ^ (ones((x >> np.uint8(1)) & np.uint8(1)) & omega(word))
    return out


def first(word: Any, bits: int) -> Any:
    """The first element of a word as uint8: 0 or 1 of one bit, 0 to 3 of two."""
    low = word & np.uint64(1)
    if bits == 2:
        low = low | ((word >> np.uint64(31)) & np.uint64(2))
    return low.astype(np.uint8)


def planes(word: Any, width: int) -> Any:
    """uint64[width, ...]: all ones in plane j where bit j of the word is set."""
    at = np.arange(width, dtype=word.dtype).reshape(width, *(1,) * word.ndim)
    return ones((word[None] >> at) & np.array(1, word.dtype))
