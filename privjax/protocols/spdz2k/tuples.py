"""What the dealer computes for spdz2k: tuples of `protocols.tuples`, with their MACs.

Clear values are elements of the extended ring where shares are additive; functions of
them mod 2^k see their low parts.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from privjax.protocols import tuples
from privjax.protocols.spdz2k.extended import Extended


def planes(word: Any, width: int) -> Any:
    """uint64[width, ...]: all ones in plane j where bit j of the word is set."""
    at = np.arange(width, dtype=word.dtype).reshape(width, *(1,) * word.ndim)
    bit = ((word[None] >> at) & np.array(1, word.dtype)).astype(np.uint64)
    return jnp.zeros_like(bit) - bit


@dataclass(frozen=True)
class OfElements:
    """A function of `arity` elements with one element as its result."""

    ring: Extended
    arity: ClassVar[int]

    @property
    def operands(self) -> tuple[str, ...]:
        return (self.ring.domain,) * self.arity

    @property
    def results(self) -> tuple[str, ...]:
        return (self.ring.domain,)


@dataclass(frozen=True)
class SumMacs(OfElements):
    """alpha x (Cramer et al. 2018, section 3)."""

    arity = 2
    elementwise = True
    common = (0,)

    def clear(self, alpha: Any, x: Any) -> list[Any]:
        r = self.ring
        return [r.to_marker(r.from_marker(x) * r.from_marker(alpha))]


@dataclass(frozen=True)
class BitMacs:
    """b Delta in GF(2)^64 for every bit b of words of `width` bits, plane by plane."""

    width: int
    elementwise = True
    common = (0,)
    operands = ("xor", "xor")
    results = ("xor",)

    def clear(self, delta: Any, word: Any) -> list[Any]:
        return [planes(word, self.width) & delta]


@dataclass(frozen=True)
class Product(OfElements):
    """a * b in the extended ring."""

    op: tuples.Bilinear
    arity = 2

    @property
    def elementwise(self) -> bool:
        return self.op.name == "mul"

    def clear(self, a: Any, b: Any) -> list[Any]:
        r = self.ring
        return [r.to_marker(r.times(self.op, r.from_marker(a), r.from_marker(b)))]


@dataclass(frozen=True)
class Square(OfElements):
    """a^2 in the extended ring."""

    arity = 1
    elementwise = True

    def clear(self, a: Any) -> list[Any]:
        x = self.ring.from_marker(a)
        return [self.ring.to_marker(x * x)]


@dataclass(frozen=True)
class Lifted:
    """A tuple of values mod 2^k, its additive results as extended elements."""

    ring: Extended
    fun: Any

    @property
    def elementwise(self) -> bool:
        return bool(getattr(self.fun, "elementwise", False))

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(self._domain(d) for d in self.fun.operands)

    @property
    def results(self) -> tuple[str, ...]:
        return tuple(self._domain(d) for d in self.fun.results)

    def _domain(self, domain: str) -> str:
        return self.ring.domain if domain == "sum" else domain

    def clear(self, *xs: Any) -> list[Any]:
        r = self.ring
        lows = [
            r.low(r.from_marker(x)) if d == "sum" else x
            for x, d in zip(xs, self.fun.operands, strict=True)
        ]
        return [
            r.to_marker(r.up(y)) if d == "sum" else y
            for y, d in zip(self.fun.clear(*lows), self.fun.results, strict=True)
        ]


@dataclass(frozen=True)
class BitTimes:
    """t a for a bit t and an element a."""

    ring: Extended
    elementwise = True

    @property
    def operands(self) -> tuple[str, ...]:
        return ("xor", self.ring.domain)

    @property
    def results(self) -> tuple[str, ...]:
        return (self.ring.domain,)

    def clear(self, t: Any, a: Any) -> list[Any]:
        r = self.ring
        bit = (t & np.uint8(1)).astype(np.uint64)
        return [r.to_marker(r.from_marker(a) * bit)]
