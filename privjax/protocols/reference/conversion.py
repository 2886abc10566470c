"""Between clear words and clear bits."""

from typing import Any

import numpy as np

from privjax.protocols import elements
from privjax.protocols.shares import Arith, Bit, Word


def msb(x: Arith) -> Bit:
    k = 8 * x.value.dtype.itemsize
    return Bit(elements.bits_at(x.value, k - 1))


def is_zero(x: Arith) -> Bit:
    return Bit(elements.is_zero(x.value).astype(np.uint8))


def bits_of(x: Arith) -> Word:
    return Word(x.value)


def to_arith(b: Bit, dtype: Any) -> Arith:
    return Arith(elements.cast(b.value & np.uint8(1), dtype))


def bit_times(b: Bit, x: Arith) -> Arith:
    return Arith(x.value * elements.cast(b.value & np.uint8(1), x.value.dtype))
