"""The groups in which transfers are correlated: XOR of bits, sums mod 2^32 to 2^192.

An element is an array of one dtype, in the wide rings with a last axis of 64-bit limbs,
the low limb first. Pads come from uniform 32-bit words; what travels may be packed.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.preprocessing import bitmatrix

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def _halves(a: Array) -> list[Array]:
    """The 32-bit digits of [..., limbs], each in a uint64."""
    digits = ((a[..., i] & _LOW, a[..., i] >> _HALF) for i in range(a.shape[-1]))
    return [digit for pair in digits for digit in pair]


def _carried(columns: list[Array]) -> Array:
    """Limbs from sums of digits, each below 2^63; what exceeds the last is dropped."""
    carry = jnp.zeros((), np.uint64)
    digits = []
    for column in columns:
        total = column + carry
        digits.append(total & _LOW)
        carry = total >> _HALF
    pairs = zip(digits[::2], digits[1::2], strict=True)
    return jnp.stack([low | (high << _HALF) for low, high in pairs], axis=-1)


@dataclass(frozen=True)
class Bits:
    """Z_2: uint8 of 0 and 1 under XOR; 32 to a word when they travel."""

    words = 1
    limbs = 0
    dtype = np.dtype(np.uint8)

    def add(self, a: Array, b: Array) -> Array:
        return a ^ b

    sub = add

    def from_words(self, words: Array) -> Array:
        """uint32[..., 1] -> [...]."""
        return (words[..., 0] & np.uint32(1)).astype(np.uint8)

    def select(self, bit: Array, value: Array) -> Array:
        """bit * value, for bits of the value's shape or one that broadcasts to it."""
        return bit & value

    def pack(self, x: Array) -> Array:
        return bitmatrix.pack(x.reshape(-1))

    def unpack(self, words: Array, shape: tuple[int, ...]) -> Array:
        size = int(np.prod(shape, dtype=np.int64))
        return bitmatrix.unpack(words, size).reshape(shape)


@dataclass(frozen=True)
class Ring:
    """Z_2^32 or Z_2^64 in words of their own."""

    dtype: np.dtype[Any]
    limbs = 0

    @property
    def words(self) -> int:
        return self.dtype.itemsize // 4

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def sub(self, a: Array, b: Array) -> Array:
        return a - b

    def from_words(self, words: Array) -> Array:
        if self.words == 1:
            return words[..., 0]
        return lax.bitcast_convert_type(words, np.uint64)

    def select(self, bit: Array, value: Array) -> Array:
        return bit.astype(self.dtype) * value

    def pack(self, x: Array) -> Array:
        return x

    def unpack(self, x: Array, shape: tuple[int, ...]) -> Array:
        return x.reshape(shape)


@dataclass(frozen=True)
class Wide:
    """Z_2^(64 limbs): uint64[..., limbs], for SPDZ2k with k = s = 64 two or three."""

    limbs: int
    dtype = np.dtype(np.uint64)

    @property
    def words(self) -> int:
        return 2 * self.limbs

    def add(self, a: Array, b: Array) -> Array:
        out, carry = [], jnp.zeros((), np.uint64)
        for i in range(self.limbs):
            part = a[..., i] + b[..., i]
            total = part + carry
            # At most one of the two sums wraps.
            carry = ((part < a[..., i]) | (total < part)).astype(np.uint64)
            out.append(total)
        return jnp.stack(out, axis=-1)

    def negate(self, a: Array) -> Array:
        one = jnp.zeros((self.limbs,), np.uint64).at[0].set(np.uint64(1))
        return self.add(~a, jnp.broadcast_to(one, a.shape))

    def sub(self, a: Array, b: Array) -> Array:
        return self.add(a, self.negate(b))

    def mul(self, a: Array, b: Array) -> Array:
        """The product of [..., n] and [..., m] limbs, n, m <= limbs, schoolbook."""
        shape = jnp.broadcast_shapes(a.shape[:-1], b.shape[:-1])
        columns = [jnp.zeros(shape, np.uint64)] * (2 * self.limbs + 1)
        for i, x in enumerate(_halves(a)):
            for j, y in enumerate(_halves(b)[: 2 * self.limbs - i]):
                columns[i + j] = columns[i + j] + ((x * y) & _LOW)
                columns[i + j + 1] = columns[i + j + 1] + ((x * y) >> _HALF)
        return _carried(columns[:-1])

    def sum(self, a: Array, axis: int) -> Array:
        """The sum over one axis (not that of the limbs) of fewer than 2^31 elements."""
        a = jnp.moveaxis(a, axis, 0)
        return _carried([jnp.sum(half, 0, np.uint64) for half in _halves(a)])

    def resize(self, a: Array) -> Array:
        """Cut to, or pad with zeros to, this ring's limbs."""
        have = a.shape[-1]
        if have >= self.limbs:
            return a[..., : self.limbs]
        return jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, self.limbs - have)])

    def from_words(self, words: Array) -> Array:
        pairs = words.reshape(*words.shape[:-1], self.limbs, 2)
        return lax.bitcast_convert_type(pairs, np.uint64)

    def select(self, bit: Array, value: Array) -> Array:
        return bit[..., None].astype(np.uint64) * value

    def pack(self, x: Array) -> Array:
        return x

    def unpack(self, x: Array, shape: tuple[int, ...]) -> Array:
        return x.reshape(shape)


Group = Bits | Ring | Wide
BITS = Bits()
RING64 = Ring(np.dtype(np.uint64))
RING32 = Ring(np.dtype(np.uint32))
