"""Bits and words of bits in clear."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.protocols.shares import Bit, Word


def xor(x: Bit, y: Bit) -> Bit:
    return Bit(x.value ^ y.value)


def xor_public(x: Bit, v: Any) -> Bit:
    return Bit(x.value ^ v)


def and_public(x: Bit, v: Any) -> Bit:
    return Bit(x.value & v)


def and_(x: Bit, y: Bit) -> Bit:
    return Bit(x.value & y.value)


def bits_at(x: Word, positions: Any) -> Bit:
    at, word = np.asarray(positions, x.value.dtype), x.value
    if at.ndim:
        word = lax.expand_dims(word, (word.ndim,))
    return Bit(((word >> at) & np.array(1, word.dtype)).astype(np.uint8))


def xor_words(x: Word, y: Word) -> Word:
    return Word(x.value ^ y.value)


def xor_all(x: Word, b: Bit) -> Word:
    return Word(jnp.where((b.value & np.uint8(1)) == 1, ~x.value, x.value))


def shift_right(x: Word, by: int) -> Word:
    return Word(x.value >> np.array(by, x.value.dtype))


def prefix_or(x: Word) -> Word:
    word, step = x.value, 1
    while step < 8 * word.dtype.itemsize:
        word = word | (word >> np.array(step, word.dtype))
        step *= 2
    return Word(word)
