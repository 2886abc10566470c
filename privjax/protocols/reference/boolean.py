"""Bits and words of bits in clear."""

from typing import Any

import numpy as np

from privjax.protocols import elements
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
    return Bit(elements.bits_at(x.value, positions) & np.uint8(1))


def xor_words(x: Word, y: Word) -> Word:
    return Word(x.value ^ y.value)


def xor_all(x: Word, b: Bit) -> Word:
    return Word(x.value ^ elements.ones_where(b.value, x.value.dtype))


def shift_right(x: Word, by: int) -> Word:
    return Word(x.value >> elements.constant(by, x.value.dtype))


def prefix_or(x: Word) -> Word:
    word, step = x.value, 1
    while step < 8 * word.dtype.itemsize:
        word = word | (word >> elements.constant(step, word.dtype))
        step *= 2
    return Word(word)
