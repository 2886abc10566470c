"""The ring Z_2^(k+s), k = s: uint64 words for k = 32, `Wide` pairs for k = 64.

Values live mod 2^k (public arrays of k-bit words); shares and MACs live mod 2^(k+s).
Elements of both sizes have operators; this module has what differs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols import elements, ring, wide, wide_products
from privjax.protocols.tuples import Bilinear
from privjax.protocols.wide import Wide


@dataclass(frozen=True)
class Extended:
    """Z_2^(2k) for k = 32 or 64."""

    k: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of values mod 2^k."""
        return np.dtype(f"uint{self.k}")

    @property
    def domain(self) -> str:
        """The sharing domain of `to_marker`'s arrays."""
        return "sum" if self.k == 32 else "sum128"

    @property
    def planes(self) -> tuple[int, ...]:
        """Axes that `to_marker` puts in front."""
        return () if self.k == 32 else (2,)

    @property
    def words(self) -> int:
        """uint32 words of an element at rest."""
        return 2 * self.k // 32

    # -- between sizes and representations ---------------------------------------------

    def factor(self, low: Any) -> Any:
        """A k-bit value as an operand: its high bits are zero."""
        return low.astype(np.uint64) if self.k == 32 else low

    def up(self, low: Any) -> Any:
        """A k-bit value as an element."""
        return low.astype(np.uint64) if self.k == 32 else wide.from_low(low)

    def of_integer(self, x: Any) -> Any:
        """A sum over the integers of k-bit shares as an element.

        The domain "integer" gives it as one; of shares alone shapes are asked.
        """
        return x if isinstance(x, Wide) or x.dtype.itemsize * 8 > self.k else self.up(x)

    def pair(self, low: Any, x: Any) -> Any:
        """[low, x] on a first axis, of a factor and an element."""
        if self.k == 32:
            return jnp.stack([low, x])
        return Wide(jnp.stack([low, x.lo]), jnp.stack([jnp.zeros_like(x.hi), x.hi]))

    def times_key(self, v: Any, key: Any) -> Any:
        """The element v key, of a factor and a uint64 key."""
        return v * key if self.k == 32 else wide.multiply(v, key)

    def low(self, x: Any) -> Any:
        """An element mod 2^k."""
        return x.astype(np.uint32) if self.k == 32 else x.lo

    def to_marker(self, x: Any) -> Any:
        """An element as one array."""
        return x if self.k == 32 else wide.stack(x)

    def from_marker(self, array: Any) -> Any:
        return array if self.k == 32 else wide.unstack(array)

    def to_words(self, x: Any) -> Any:
        """uint32[..., words], low first."""
        if self.k == 32:
            return ring.to_words(x)
        return jnp.concatenate([ring.to_words(x.lo), ring.to_words(x.hi)], -1)

    def from_words(self, words: Any) -> Any:
        if self.k == 32:
            return ring.from_words(words)
        return Wide(ring.from_words(words[..., :2]), ring.from_words(words[..., 2:]))

    def uniform(self, shape: tuple[int, ...]) -> Any:
        """This party's share of a fresh uniform element, as one array."""
        return markers.uniform((*self.planes, *shape), np.uint64, self.domain)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        zero = jnp.zeros(shape, np.uint64)
        return zero if self.k == 32 else Wide(zero, zero)

    # -- arithmetic --------------------------------------------------------------------

    def times(self, op: Bilinear, x: Any, y: Any) -> Any:
        """x * y for a bilinear product; operands are elements or `factor`s."""
        if self.k == 32:
            return op(x, y)
        if op.name == "mul":
            return wide.multiply(x, y)
        if op.name == "dot_general":
            return wide_products.dot_general(x, y, **dict(op.options))
        return wide_products.conv_general_dilated(x, y, **dict(op.options))

    def additive(self, fun: Callable[..., Any], *xs: Any) -> Any:
        """`fun`, which only adds and moves entries, on elements."""
        return elements.additive(fun, *xs)

    def total(self, x: Any, axes: Any = None) -> Any:
        """The sum over some axes, or all."""
        axes = tuple(range(len(x.shape))) if axes is None else axes
        return self.additive(lambda v: jnp.sum(v, axes, dtype=v.dtype), x)

    def high(self, x: Any) -> Any:
        """2^k x."""
        return x << np.uint64(32) if self.k == 32 else x << 64

    def equal(self, x: Any, y: Any) -> Any:
        if self.k == 32:
            return x == y
        return (x.lo == y.lo) & (x.hi == y.hi)

    def select(self, where: Any, x: Any, y: Any) -> Any:
        if self.k == 32:
            return lax.select(where, x, y)
        return Wide(lax.select(where, x.lo, y.lo), lax.select(where, x.hi, y.hi))
