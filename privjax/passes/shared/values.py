"""The kinds of secret values inside a party program.

A `Fixed` is a real number: a ring element that stands for value * 2^scale. Factors of
products have scale f (the fixed point's fractional bits) or less; a product of two has up
to 2f and stays so until something needs a factor again. Truncation is therefore lazy:
sums are truncated once, and outputs and parameters keep 2f bits behind the point.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.protocols.shares import Arith, Bit

Thunk = Callable[[], Arith]


@jax.tree_util.register_pytree_node_class
class Fixed:
    """A secret real array.

    `at` gives shares of the same value by scale, made on demand and then kept: an input
    is shared by its owner at the scales at which it is used, a truncation is done once.
    Where a value crosses into a loop or a branch all of them go along; dead code
    elimination drops those that nobody uses.

    `bit` and `integer`: the boolean, or the integer of more bits than a real has before
    its point, that the value came from, where it did. `tiny`: a public number that was
    added and is below the resolution of factors; see `with_tiny`.
    """

    def __init__(
        self, shape: Sequence[int], scale: int, at: dict[int, Thunk | Arith]
    ) -> None:
        self.shape, self.scale, self.at = tuple(shape), scale, at
        self.bit: Boolean | None = None
        self.integer: Integer | None = None
        self.tiny = 0.0

    @classmethod
    def of(cls, share: Arith, scale: int) -> "Fixed":
        return cls(share.shape, scale, {scale: share})

    @property
    def entire(self) -> "Fixed":
        """Not saturated, to be multiplied or shown, where it came from an integer."""
        return self if self.integer is None else Fixed.of(self.get(0), 0)

    @property
    def share(self) -> Arith:
        return self.get(self.scale)

    def get(self, scale: int) -> Arith:
        """The share at one of the scales in `at`."""
        share = self.at[scale]
        if callable(share):
            share = self.at[scale] = share()
        return share

    def rearranged(self, fun: Callable[[Any], Any]) -> "Fixed":
        """A transpose, reshape or broadcast."""
        shape = jax.eval_shape(fun, jax.ShapeDtypeStruct(self.shape, jnp.int32)).shape
        at: dict[int, Any] = {
            s: (lambda s=s: self.get(s).rearranged(fun)) for s in self.at
        }
        out = Fixed(shape, self.scale, at)
        out.integer = self.integer and self.integer.rearranged(fun)
        out.tiny = self.tiny
        return out

    def tree_flatten(self) -> Any:
        scales = (self.scale, *sorted(set(self.at) - {self.scale}))
        return tuple(self.get(s) for s in scales), scales

    @classmethod
    def tree_unflatten(cls, scales: Any, children: Any) -> "Fixed":
        out = cls((), scales[0], dict(zip(scales, children, strict=True)))
        # JAX also builds trees of placeholders, which have no shape.
        parts = jax.tree.leaves(getattr(children[0], "value", None))
        out.shape = tuple(getattr(parts[0], "shape", ())) if parts else ()
        return out


Bounds = tuple[int, int] | None


@jax.tree_util.register_pytree_node_class
class Integer:
    """A secret integer array of `dtype`, modulo 2^width as JAX computes.

    `bounds` are static limits of its entries; then the ring element is the value in two's
    complement. None: only congruent modulo 2^width, so that sums and products cost no
    reduction; comparisons and conversions reduce when they must. An integer is held as a
    ring element, as its `width` bits (on a last axis), or both: each is made from the
    other on demand and then kept.
    """

    def __init__(
        self,
        dtype: Any,
        share: Thunk | Arith | None = None,
        bounds: Bounds = None,
        *,
        bits: Callable[[], Bit] | Bit | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        self.dtype, self.bounds = np.dtype(dtype), bounds
        self._share, self._bits = share, bits
        self._shape = None if shape is None else tuple(shape)
        self.bit: Boolean | None = None  # set where the value came from a boolean

    @property
    def shape(self) -> tuple[int, ...]:
        return self.share.shape if self._shape is None else self._shape

    @property
    def width(self) -> int:
        return 8 * self.dtype.itemsize

    @property
    def signed(self) -> bool:
        return self.dtype.kind == "i"

    @property
    def share(self) -> Arith:
        if callable(self._share):
            self._share = self._share()
        assert self._share is not None
        return self._share

    def has_bits(self) -> bool:
        return self._bits is not None

    @property
    def bits(self) -> Bit:
        """The bits of the value, lowest first, on a last axis."""
        if callable(self._bits):
            self._bits = self._bits()
        assert self._bits is not None
        return self._bits

    def give_bits(self, bits: Bit) -> Bit:
        """Keep bits that were made from the share."""
        self._bits = bits
        return bits

    def rearranged(self, fun: Callable[[Any], Any]) -> "Integer":
        """A transpose, reshape or broadcast."""
        return self._mapped(fun, "rearranged")

    def picked(self, fun: Callable[[Any], Any]) -> "Integer":
        """Some of the entries."""
        return self._mapped(fun, "moved")

    def _mapped(self, fun: Callable[[Any], Any], how: str) -> "Integer":
        shape = jax.eval_shape(fun, jax.ShapeDtypeStruct(self.shape, jnp.int32)).shape
        lanes = jax.vmap(fun, -1, -1)
        bits = self._bits
        return Integer(
            self.dtype,
            lambda: getattr(self.share, how)(fun),
            self.bounds,
            bits=None if bits is None else lambda: self.bits.moved(lanes),
            shape=shape,
        )

    def tree_flatten(self) -> Any:
        return (self.share,), (self.dtype, self.bounds)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> "Integer":
        return cls(aux[0], children[0], aux[1])


@jax.tree_util.register_pytree_node_class
class Boolean:
    """A secret boolean array."""

    def __init__(self, bit: Bit) -> None:
        self.bit = bit

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bit.shape

    def rearranged(self, fun: Callable[[Any], Any]) -> "Boolean":
        return Boolean(self.bit.rearranged(fun))

    def tree_flatten(self) -> Any:
        return (self.bit,), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> "Boolean":
        return cls(children[0])


SECRET = (Fixed, Integer, Boolean)
