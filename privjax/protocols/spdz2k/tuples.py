"""What the dealer computes for spdz2k besides `protocols.tuples`: MACs, and bits with them.

Sums: values are dealt mod 2^k, and so are shares. What a MAC belongs to is the sum of the
shares over the integers, which is that value mod 2^k; the domain "integer" stands for it.
Bits and elements of GF(4) are dealt as their MACs, which hold them: see `gf4`.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from privjax.protocols import tuples
from privjax.protocols.spdz2k import gf4
from privjax.protocols.spdz2k.extended import Extended
from privjax.protocols.tuples import Bilinear


@dataclass(frozen=True)
class SumMacs:
    """alpha x (Cramer et al. 2018, section 3).

    `domain` is "integer" where x has shares of k bits, the ring's for elements.
    """

    ring: Extended
    domain: str = "integer"
    elementwise = True
    common = (0,)

    @property
    def operands(self) -> tuple[str, ...]:
        return ("integer", self.domain)

    @property
    def results(self) -> tuple[str, ...]:
        return (self.ring.domain,)

    def clear(self, alpha: Any, x: Any) -> list[Any]:
        r = self.ring
        x = r.of_integer(x) if self.domain == "integer" else r.from_marker(x)
        return [r.to_marker(x * r.of_integer(alpha))]


@dataclass(frozen=True)
class WholeProduct:
    """c = a * b mod 2^(k+s), which a sacrifice needs."""

    ring: Extended
    op: Bilinear

    @property
    def elementwise(self) -> bool:
        return self.op.name == "mul"

    @property
    def operands(self) -> tuple[str, ...]:
        return (self.ring.domain,) * 2

    @property
    def results(self) -> tuple[str, ...]:
        return (self.ring.domain,)

    def clear(self, a: Any, b: Any) -> list[Any]:
        r = self.ring
        return [r.to_marker(r.times(self.op, r.from_marker(a), r.from_marker(b)))]


@dataclass(frozen=True)
class BitMacs:
    """b Delta for bits b, the lowest of bytes."""

    elementwise = True
    common = (0,)
    operands = ("xor", "xor")
    results = ("xor",)

    def clear(self, delta: Any, b: Any) -> list[Any]:
        return [gf4.planes(b, 1)[0] & delta]


@dataclass(frozen=True)
class EdaBits:
    """The bits of r and products of them, as `tuples.BitsOf` orders them, with MACs:
    one plane for each, first all bits, then all products."""

    order: str
    elementwise = True
    common = (0,)
    operands = ("xor", "sum")
    results = ("xor",)

    def clear(self, delta: Any, r: Any) -> list[Any]:
        word, pairs = tuples.BitsOf(self.order).clear(r)
        planes = [gf4.planes(v, 8 * v.dtype.itemsize) for v in (word, pairs)]
        return [jnp.concatenate(planes) & delta]


@dataclass(frozen=True)
class AndMacs:
    """Words a, b_j and a AND b_j of `width` bits with MACs: planes of a, then of each b_j,
    then of each product."""

    width: int
    others: int
    elementwise = True
    common = (0,)
    results = ("xor",)

    @property
    def operands(self) -> tuple[str, ...]:
        return ("xor",) * (2 + self.others)

    def clear(self, delta: Any, a: Any, *bs: Any) -> list[Any]:
        words = [a, *bs, *(a & b for b in bs)]
        planes = [gf4.planes(word, self.width) for word in words]
        return [jnp.concatenate(planes) & delta]
