"""Between clear words and clear bits."""

from typing import Any

import numpy as np

from privjax.protocols.shares import Arith, Bit, Word


def msb(x: Arith) -> Bit:
    k = 8 * x.value.dtype.itemsize
    return Bit((x.value >> np.array(k - 1, x.value.dtype)).astype(np.uint8))


def is_zero(x: Arith) -> Bit:
    return Bit((x.value == 0).astype(np.uint8))


def bits_of(x: Arith) -> Word:
    return Word(x.value)


def to_arith(b: Bit, dtype: Any) -> Arith:
    return Arith((b.value & np.uint8(1)).astype(dtype))


def bit_times(b: Bit, x: Arith) -> Arith:
    return Arith((b.value & np.uint8(1)).astype(x.value.dtype) * x.value)
