"""What the dealer computes: functions of values that nobody else knows.

A correlated tuple is some uniform values plus shares of one of these functions of them
(a Beaver triple: uniform a and b, dealt `Product`). `operands` and `results` are sharing
domains: "sum" (additive mod 2^k), "xor", or "to:P" (clear, to party P only). An
`elementwise` function treats every element of its operands alike.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.protocols import ring, wide_products
from privjax.protocols.elements import cast, constant, from_reals
from privjax.protocols.wide import Wide


@dataclass(frozen=True)
class Bilinear:
    """A product of two ring arrays: elementwise, a contraction or a convolution.

    `options` are the parameters of `lax.dot_general` or `lax.conv_general_dilated`.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, x: Any, y: Any) -> Any:
        if isinstance(x, Wide) or isinstance(y, Wide):
            return self._wide(x, y)
        if self.name == "mul":
            return lax.mul(x, y)
        if self.name == "dot_general":
            return ring.dot_general(x, y, **dict(self.options))
        return ring.conv_general_dilated(x, y, **dict(self.options))

    def _wide(self, x: Any, y: Any) -> Any:
        if self.name == "mul":
            return x * y
        if self.name == "dot_general":
            return wide_products.dot_general(x, y, **dict(self.options))
        return wide_products.conv_general_dilated(x, y, **dict(self.options))


MUL = Bilinear("mul")


@dataclass(frozen=True)
class Product:
    """c = a * b for a bilinear product (Beaver 1991)."""

    op: Bilinear
    operands = ("sum", "sum")
    results = ("sum",)

    @property
    def elementwise(self) -> bool:
        return self.op.name == "mul"

    def clear(self, a: Any, b: Any) -> list[Any]:
        return [self.op(a, b)]


@dataclass(frozen=True)
class Square:
    """a^2."""

    elementwise = True
    operands = ("sum",)
    results = ("sum",)

    def clear(self, a: Any) -> list[Any]:
        return [a * a]


@dataclass(frozen=True)
class Truncation:
    """(r mod 2^(k-1)) >> bits, and the top bit of r."""

    elementwise = True
    bits: int
    operands = ("sum",)
    results = ("sum", "sum")

    def clear(self, r: Any) -> list[Any]:
        k = r.dtype.itemsize * 8
        low = r & constant(2 ** (k - 1) - 1, r.dtype)
        return [low >> constant(self.bits, r.dtype), r >> constant(k - 1, r.dtype)]


@dataclass(frozen=True)
class BitsOf:
    """The bits of r as XOR shares, and products of those that a circuit combines first.

    `order` says for which circuit: "tree" (bits in `tree_order`) and "all" combine the
    two halves of the word, "prefix" every bit with the one below.
    """

    elementwise = True
    order: str
    operands = ("sum",)
    results = ("xor", "xor")

    def clear(self, r: Any) -> list[Any]:
        word = self.word(r)
        high, low = self.neighbours(word)
        return [word, high & low]

    def word(self, r: Any) -> Any:
        return tree_order(r) if self.order == "tree" else r

    def neighbours(self, word: Any) -> tuple[Any, Any]:
        """The factors of the products."""
        if self.order == "prefix":
            return word, word << constant(1, word.dtype)
        return halves(word, word.dtype.itemsize * 4)


@dataclass(frozen=True)
class And:
    """a AND b for every other operand b."""

    elementwise = True
    others: int = 1

    @property
    def operands(self) -> tuple[str, ...]:
        return ("xor",) * (1 + self.others)

    @property
    def results(self) -> tuple[str, ...]:
        return ("xor",) * self.others

    def clear(self, a: Any, *bs: Any) -> list[Any]:
        return [a & b for b in bs]


@dataclass(frozen=True)
class BitToSum:
    """An XOR-shared bit (lowest bit of a byte) as an additively shared 0 or 1."""

    elementwise = True
    dtype: Any
    operands = ("xor",)
    results = ("sum",)

    def clear(self, t: Any) -> list[Any]:
        return [cast(t & np.uint8(1), self.dtype)]


@dataclass(frozen=True)
class BitTimes:
    """t * a for an XOR-shared bit t and an additively shared a."""

    elementwise = True
    operands = ("xor", "sum")
    results = ("sum",)

    def clear(self, t: Any, a: Any) -> list[Any]:
        return [cast(t & np.uint8(1), a.dtype) * a]


@dataclass(frozen=True)
class ToOwner:
    """The value itself, told to its owner alone (input sharing)."""

    owner: int
    domain: str = "sum"

    @property
    def operands(self) -> tuple[str, ...]:
        return (self.domain,)

    @property
    def results(self) -> tuple[str, ...]:
        return (f"to:{self.owner}",)

    def clear(self, r: Any) -> list[Any]:
        return [r]


@dataclass(frozen=True)
class Noise:
    """`count` values of a mechanism's noise at `scale`, from a seed that nobody knows."""

    mechanism: Any
    count: int
    scale: int
    dtype: Any
    operands = ("xor",)
    results = ("sum",)

    def clear(self, seed: Any) -> list[Any]:
        zero = jnp.zeros((self.count,), np.float32)
        (noise,) = self.mechanism.apply(seed, [zero])
        steps = jnp.round(noise.astype(np.float64) * 2.0**self.scale)
        return [from_reals(steps, self.dtype)]


def halves(word: Any, width: int) -> tuple[Any, Any]:
    """(high, low) `width` bits, in the narrowest unsigned type that holds them."""
    if isinstance(word, Wide):
        return word.hi, word.lo
    dtype = np.dtype(f"uint{max(8, width)}")
    high = word >> np.array(width, word.dtype)
    low = word & np.array((1 << width) - 1, word.dtype)
    return high.astype(dtype), low.astype(dtype)


def tree_order(word: Any) -> Any:
    """Move bit j of a word to the position whose binary digits are those of j reversed.

    Neighbouring bits 2j and 2j+1 then lie half a word apart, and so again in each half:
    every level of a carry tree combines the two halves of its words.
    """
    bits = word.dtype.itemsize * 8
    digits = bits.bit_length() - 1
    for low in range(digits // 2):
        high = digits - 1 - low
        # Exchange binary digits `low` and `high` of the positions (a delta swap).
        shift = constant((1 << high) - (1 << low), word.dtype)
        mask = sum(
            1 << j for j in range(bits) if (j >> low) & 1 and not (j >> high) & 1
        )
        moved = ((word >> shift) ^ word) & constant(mask, word.dtype)
        word = word ^ moved ^ (moved << shift)
    return word
