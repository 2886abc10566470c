"""The ring Z_2^128 as pairs of uint64 words: values, operators, elementwise products.

Programs whose fixed-point numbers need more than 64 bits compute in it; and SPDZ2k
(Cramer, Damgard, Escudero, Scholl, Xing 2018) authenticates words of k bits in a ring of
k + s bits, k = s = 64 here. A `Wide` holds two planes, `lo` and
`hi`, and stands for lo + 2^64 hi. It is a pytree: `jax.tree.map` applies any structural
function to both planes, and it passes through jit, vmap, scan and shard_map.

Operators take a `Wide`, a uint64 array (the value of its low plane, high plane zero) or
a Python integer (mod 2^128). Matrix products and convolutions: `wide_products`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array, Shape
from privjax.errors import InputError

# What names the ring where a type is asked for (no JAX array has it): 16 bytes.
DTYPE = np.dtype([("lo", np.uint64), ("hi", np.uint64)])

_WORD = 64
_HALF = np.uint64(32)
_HALF_MASK = np.uint64(2**32 - 1)
_WORD_MASK = 2**64 - 1


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False, slots=True)
class Wide:
    """Elements of Z_2^128: lo + 2^64 hi.

    Attributes: lo, hi are uint64 arrays of one shape. (Not checked: pytrees of other
    leaves, such as axes for vmap, have this type as well.)
    """

    lo: Array
    hi: Array

    bits: ClassVar[int] = 128
    # NumPy arrays on the left of an operator leave the operation to this class.
    __array_ufunc__: ClassVar[None] = None

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        return (self.lo, self.hi), None

    @classmethod
    def tree_unflatten(cls, _: None, children: Sequence[Any]) -> "Wide":
        return cls(*children)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.lo.shape

    @property
    def ndim(self) -> int:
        return self.lo.ndim

    @property
    def size(self) -> int:
        return self.lo.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The ring's name (no array has this type)."""
        return DTYPE

    @property
    def low(self) -> Array:
        """The value mod 2^64."""
        return self.lo

    def reshape(self, *shape: Any) -> "Wide":
        return Wide(self.lo.reshape(*shape), self.hi.reshape(*shape))

    def __add__(self, other: Any) -> "Wide":
        lo, hi = _planes(other)
        total = self.lo + lo
        carry = (total < lo).astype(np.uint64)
        top = self.hi + carry
        return Wide(total, top if hi is None else top + hi)

    def __sub__(self, other: Any) -> "Wide":
        lo, hi = _planes(other)
        borrow = (self.lo < lo).astype(np.uint64)
        top = self.hi - borrow
        return Wide(self.lo - lo, top if hi is None else top - hi)

    def __neg__(self) -> "Wide":
        borrow = (self.lo != 0).astype(np.uint64)
        return Wide(-self.lo, -self.hi - borrow)

    def __invert__(self) -> "Wide":
        return Wide(~self.lo, ~self.hi)

    def __mul__(self, other: Any) -> "Wide":
        if isinstance(other, int) and not isinstance(other, bool):
            return _times_integer(self, other)
        return multiply(self, other)

    def __and__(self, other: Any) -> "Wide":
        return self._bitwise(jnp.bitwise_and, other)

    def __or__(self, other: Any) -> "Wide":
        return self._bitwise(jnp.bitwise_or, other)

    def __xor__(self, other: Any) -> "Wide":
        return self._bitwise(jnp.bitwise_xor, other)

    def _bitwise(self, operation: Callable[..., Array], other: Any) -> "Wide":
        lo, hi = _planes(other)
        # A full plane of zeros, so that both results have the broadcast shape.
        hi = jnp.zeros_like(lo) if hi is None else hi
        return Wide(operation(self.lo, lo), operation(self.hi, hi))

    def __rsub__(self, other: Any) -> "Wide":
        return -self + other

    __radd__, __rmul__ = __add__, __mul__
    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __lshift__(self, places: int) -> "Wide":
        """Shift by a static number of places, 0 to 127."""
        n = _places(places)
        if n == 0:
            return self
        if n >= _WORD:
            return Wide(jnp.zeros_like(self.lo), self.lo << np.uint64(n - _WORD))
        up, down = np.uint64(n), np.uint64(_WORD - n)
        return Wide(self.lo << up, (self.hi << up) | (self.lo >> down))

    def __rshift__(self, places: int) -> "Wide":
        """Logical shift by a static number of places, 0 to 127."""
        n = _places(places)
        if n == 0:
            return self
        if n >= _WORD:
            return Wide(self.hi >> np.uint64(n - _WORD), jnp.zeros_like(self.hi))
        down, up = np.uint64(n), np.uint64(_WORD - n)
        return Wide((self.lo >> down) | (self.hi << up), self.hi >> down)


Operand: TypeAlias = Wide | Array | np.ndarray | int


def _places(places: int) -> int:
    if not isinstance(places, int | np.integer) or not 0 <= places < Wide.bits:
        raise InputError(f"a Wide is shifted by a static 0 to 127, not by {places!r}.")
    return int(places)


def _planes(x: Any) -> tuple[Any, Any | None]:
    """The planes of an operand; None for a high plane of zeros."""
    if isinstance(x, Wide):
        return x.lo, x.hi
    if isinstance(x, int) and not isinstance(x, bool):
        lo, hi = (np.uint64(x >> at & _WORD_MASK) for at in (0, _WORD))
        return lo, (hi if hi else None)
    dtype = getattr(x, "dtype", None)
    if dtype != np.uint64:
        raise InputError(
            "operands of Z_2^128 are Wide, uint64 arrays or Python integers, not "
            f"{type(x).__name__ if dtype is None else dtype}."
        )
    return x, None


def element(value: int) -> Wide:
    """The Python integer `value` mod 2^128, of shape ()."""
    return full((), value)


def full(shape: Shape, value: int) -> Wide:
    """`value` mod 2^128 in every place."""
    lo, hi = (np.uint64(value >> at & _WORD_MASK) for at in (0, _WORD))
    return Wide(jnp.full(shape, lo), jnp.full(shape, hi))


def from_low(x: Array) -> Wide:
    """uint64[...] read as integers below 2^64."""
    lo, _ = _planes(x)
    return Wide(jnp.asarray(lo), jnp.zeros_like(lo))


def stack(x: Wide) -> Array:
    """uint64[2, ...]: the low plane, then the high plane."""
    return jnp.stack([x.lo, x.hi])


def unstack(planes: Array) -> Wide:
    """The inverse of `stack`."""
    if planes.dtype != np.uint64 or planes.shape[:1] != (2,):
        raise InputError(
            f"stacked planes are uint64[2, ...], not {planes.dtype}{planes.shape}."
        )
    return Wide(planes[0], planes[1])


def total(x: Wide) -> Wide:
    """Sum over the first axis, mod 2^128, as one reduction: for an axis of few terms."""

    def add(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        found = Wide(*a) + Wide(*b)
        return found.lo, found.hi

    zero = np.uint64(0)
    return Wide(*lax.reduce((x.lo, x.hi), (zero, zero), add, (0,)))


def sum(x: Wide, axis: int | Sequence[int] | None = None) -> Wide:
    """Sum over one axis, several, or all, mod 2^128.

    The low plane is summed as two planes of 32 bits, whose sums cannot overflow
    before 2^32 terms; so there are three plain reductions and no carries within them.
    """
    axes = axis if axis is None or isinstance(axis, int) else tuple(axis)
    low, high = (jnp.sum(part, axes) for part in (x.lo & _HALF_MASK, x.lo >> _HALF))
    high = high + (low >> _HALF)
    lo = (high << _HALF) | (low & _HALF_MASK)
    return Wide(lo, jnp.sum(x.hi, axes) + (high >> _HALF))


def _full_product(a: Any, b: Any) -> Wide:
    """uint64 x uint64 -> 128 bits.

    Where XLA is not known to have high products, by four products of half words. Their
    middle column is added in two steps, neither of which can overflow:
    (2^32 - 1)^2 + 2^32 - 1 < 2^64.
    """
    if jax.default_backend() == "cpu":
        a, b = jnp.broadcast_arrays(a, b)
        return Wide(a * b, lax.mulhi(a, b))
    return _by_halves(a, b)


def _by_halves(a: Any, b: Any) -> Wide:
    a0, a1 = a & _HALF_MASK, a >> _HALF
    b0, b1 = b & _HALF_MASK, b >> _HALF
    low = a0 * b0
    middle = a1 * b0 + (low >> _HALF)
    other = a0 * b1 + (middle & _HALF_MASK)
    lo = (other << _HALF) | (low & _HALF_MASK)
    return Wide(lo, a1 * b1 + (middle >> _HALF) + (other >> _HALF))


def _times_integer(x: Wide, value: int) -> Wide:
    """x * value; a power of two and its negative are shifts."""
    value %= 1 << Wide.bits
    minus = -value % (1 << Wide.bits)
    if value and value & (value - 1) == 0:
        return x << (value.bit_length() - 1)
    if minus and minus & (minus - 1) == 0:
        return -(x << (minus.bit_length() - 1))
    return multiply(x, value)


def multiply(x: Operand, y: Operand) -> Wide:
    """x * y mod 2^128, elementwise with broadcasting.

    Args:
      x, y: Wide, uint64 arrays or Python integers. An operand without a high plane
        saves one of the two cross products.

    Returns:
      A Wide of the broadcast shape.
    """
    (x_lo, x_hi), (y_lo, y_hi) = _planes(x), _planes(y)
    x_lo, y_lo = jnp.asarray(x_lo), jnp.asarray(y_lo)
    product = _full_product(x_lo, y_lo)
    hi = product.hi
    if x_hi is not None:
        hi = hi + x_hi * y_lo
    if y_hi is not None:
        hi = hi + x_lo * y_hi
    return Wide(product.lo, hi)


__all__ = [
    "DTYPE",
    "Operand",
    "Wide",
    "element",
    "from_low",
    "full",
    "multiply",
    "stack",
    "sum",
    "total",
    "unstack",
]
