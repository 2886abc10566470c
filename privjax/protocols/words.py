"""Exact integer operations on ring elements, for any protocol.

The ring is Z_2^k; k is 8 * itemsize of `dtype`. Truncation rounds at random, but a
multiple of 2^m has nothing to round: it is exact there, and the low bits of a value are
exact where they are made multiples by a shift to the left.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.protocols.elements import constants
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, Bit, moved
from privjax.protocols.tuples import Bilinear


def low_bits(p: Protocol, x: Arith, width: int, signed: bool, dtype: Any) -> Arith:
    """x mod 2^width in [0, 2^width), or the signed number congruent to it.

    1. X = 2^(k-width) x: what lies above the low bits is gone
    2. the top bits <b1>, <b2> of X and of 2X; [b1], [b2]
    3. X - 2^(k-1) b1 - 2^(k-2) b2 is below 2^(k-2): shifted to the right exactly
    4. + 2^(width-2) b2 +- 2^(width-1) b1

    log2(k) + 2 rounds; none where width is k.
    """
    k = 8 * np.dtype(dtype).itemsize
    if width == k:
        return x
    shifted = p.mul_public(x, 1 << (k - width))
    sign = -1 if signed else 1
    if width == 1:
        return p.mul_public(p.to_arith(p.msb(shifted), dtype), sign)
    both = moved(lambda a, b: jnp.stack([a, b]), shifted, p.mul_public(shifted, 2))
    tops = p.to_arith(p.msb(both), dtype)
    b1, b2 = tops.moved(lambda v: v[0]), tops.moved(lambda v: v[1])
    high = p.add(p.mul_public(b1, -(1 << (k - 1))), p.mul_public(b2, -(1 << (k - 2))))
    low = p.truncate(p.add(shifted, high), k - width)
    low = p.add(low, p.mul_public(b2, 1 << (width - 2)))
    return p.add(low, p.mul_public(b1, sign << (width - 1)))


def shift_right(p: Protocol, x: Arith, by: int, dtype: Any) -> Arith:
    """floor(x / 2^by) for signed |x| < 2^(k-2), exactly: x less its low bits, shifted."""
    if by == 0:
        return x
    low = low_bits(p, x, by, False, dtype)
    return p.truncate(p.add(x, p.mul_public(low, -1)), by)


def bits(p: Protocol, x: Arith, width: int) -> Bit:
    """The lowest `width` bits on a new last axis; log2(k) rounds."""
    return p.bits_at(p.bits_of(x), np.arange(width))


def from_bits(p: Protocol, b: Bit, signed: bool, dtype: Any) -> Arith:
    """The number with these bits (last axis, lowest first); 1 round."""
    width = b.shape[-1]
    weights = [1 << j for j in range(width)]
    if signed:
        weights[-1] = -weights[-1]
    contract = (((len(b.shape) - 1,), (0,)), ((), ()))
    op = Bilinear("dot_general", (("dimension_numbers", contract),))
    table = constants(weights, dtype)
    return p.product_public(op, p.to_arith(b, dtype), table)
