"""Elements of Z_2^k, k = 32, 64 or 128, under one set of names.

Elements of 32 and 64 bits are arrays of unsigned words, those of 128 bits are `Wide`
pairs of words. Both have `shape`, `dtype` and operators; this module has what differs, so
that a protocol's steps are written once, with the ring as a parameter. A ring is named by
its `dtype` (`ring_dtype`): `8 * dtype.itemsize` is k.

Public constants of 128 bits are NumPy arrays of Python integers (dtype object) where they
are known, and `Wide` where they are traced; `public` takes both.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Shape
from privjax.protocols import ring, wide
from privjax.protocols.wide import Wide

RINGS = (32, 64, 128)

_WORD = 64
_WORD_MASK = 2**64 - 1
_HALF = np.uint64(32)
_HALF_MASK = np.uint64(2**32 - 1)


def ring_dtype(bits: int) -> np.dtype[Any]:
    """The dtype that names Z_2^bits."""
    return wide.DTYPE if bits == Wide.bits else np.dtype(f"uint{bits}")


def is_wide(dtype: Any) -> bool:
    """Whether `dtype` names the ring of two words."""
    return np.dtype(dtype) == wide.DTYPE


# -- constants -------------------------------------------------------------------------


def constant(value: int, dtype: Any) -> Any:
    """A public number as an operand of elements: of a sum, a product, a mask, a shift."""
    k = 8 * np.dtype(dtype).itemsize
    value %= 1 << k
    return value if is_wide(dtype) else np.array(value, dtype)


def constants(values: Any, dtype: Any) -> np.ndarray:
    """Python integers mod 2^k as a NumPy array of public elements."""
    given = np.asarray(values, object)
    k = 8 * np.dtype(dtype).itemsize
    flat = [int(v) % (1 << k) for v in given.ravel()]
    kind = object if is_wide(dtype) else np.dtype(dtype)
    return np.array(flat, kind).reshape(given.shape)


def full(shape: Shape, value: int, dtype: Any) -> Any:
    """`value` in every place."""
    if is_wide(dtype):
        return wide.full(shape, value)
    return jnp.full(shape, value % (1 << (8 * np.dtype(dtype).itemsize)), dtype)


def public(value: Any, dtype: Any) -> Any:
    """A public array or integer in any form as elements."""
    if not is_wide(dtype):
        if isinstance(value, int):  # negative ones too
            value = constant(value, dtype)
        return jnp.asarray(value, dtype)
    if isinstance(value, Wide):
        return value
    if isinstance(value, np.ndarray | np.generic | int) and _is_integer(value):
        exact = np.asarray(value, object)
        planes = (_plane(exact, at) for at in (0, _WORD))
        return Wide(*(jnp.asarray(p) for p in planes))
    return from_integers(value, dtype)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) or value.dtype.kind in "Oui"


def _plane(exact: np.ndarray, at: int) -> np.ndarray:
    words = [(int(v) >> at) & _WORD_MASK for v in exact.ravel()]
    return np.array(words, np.uint64).reshape(exact.shape)


def spread(value: Any, shape: Shape, dtype: Any) -> Any:
    """Public elements broadcast to `shape`."""
    if not is_wide(dtype):
        return jnp.broadcast_to(value, shape)
    return jax.tree.map(lambda v: jnp.broadcast_to(v, shape), public(value, dtype))


# -- from and to other types -----------------------------------------------------------


def cast(x: Any, dtype: Any) -> Any:
    """Unsigned integers of at most a word, such as bits, as elements."""
    return wide.from_low(x.astype(np.uint64)) if is_wide(dtype) else x.astype(dtype)


def from_integers(x: Any, dtype: Any) -> Any:
    """An array of integers as elements; negative ones in two's complement."""
    x = jnp.asarray(x)
    if not is_wide(dtype):
        return x.astype(dtype)
    if x.dtype.kind != "i":
        return cast(x, dtype)
    signed = x.astype(np.int64)
    return Wide(signed.astype(np.uint64), (signed >> (_WORD - 1)).astype(np.uint64))


def from_reals(x: Any, dtype: Any) -> Any:
    """Whole float64 numbers below 2^(k-1) in magnitude as elements."""
    if not is_wide(dtype):
        signed = np.dtype(f"int{8 * np.dtype(dtype).itemsize}")
        return x.astype(signed).astype(dtype)
    # Sign and magnitude: the low word of a small negative number has more than 53 bits.
    size = jnp.abs(x)
    high = jnp.floor(size * 2.0**-_WORD)
    low = size - high * 2.0**_WORD
    whole = Wide(low.astype(np.uint64), high.astype(np.uint64))
    return where(x < 0, -whole, whole)


def to_reals(v: Any) -> Any:
    """Elements in two's complement as float64 (32 bits: float32), rounded."""
    k = 8 * v.dtype.itemsize
    if not isinstance(v, Wide):
        real = np.float64 if k == _WORD else np.float32
        return v.astype(np.dtype(f"int{k}")).astype(real)
    negative = (v.hi >> np.uint64(_WORD - 1)) == 1
    size = where(negative, -v, v)
    real = size.hi.astype(np.float64) * 2.0**_WORD + size.lo.astype(np.float64)
    return jnp.where(negative, -real, real)


def to_integers(v: Any, dtype: Any) -> Any:
    """Elements as integers of `dtype`, modulo its size."""
    if isinstance(v, Wide):
        v = v.lo
    if jnp.issubdtype(dtype, jnp.signedinteger):
        v = v.astype(np.dtype(f"int{8 * v.dtype.itemsize}"))
    return v.astype(dtype)


def to_words(x: Any) -> Any:
    """Storage form: uint32[..., k / 32], the low limb first."""
    if isinstance(x, Wide):
        return jnp.concatenate([ring.to_words(x.lo), ring.to_words(x.hi)], -1)
    return ring.to_words(x)


def from_words(words: Any) -> Any:
    """The inverse of `to_words`."""
    if words.shape[-1] == Wide.bits // 32:
        return Wide(ring.from_words(words[..., :2]), ring.from_words(words[..., 2:]))
    return ring.from_words(words)


# -- arithmetic ------------------------------------------------------------------------


def times_public(x: Any, value: Any) -> Any:
    """x * value for a public array or integer."""
    if isinstance(x, Wide) and isinstance(value, int):
        return x * value
    return x * public(value, x.dtype)


def additive(fun: Callable[..., Any], *xs: Any) -> Any:
    """`fun`, which only adds and moves entries, of elements.

    A plane of 64 bits goes through in halves, whose sums cannot overflow before 2^32
    terms; carries are put back afterwards.
    """
    if not isinstance(xs[0], Wide):
        return fun(*xs)
    low = fun(*(x.lo & _HALF_MASK for x in xs))
    high = fun(*(x.lo >> _HALF for x in xs)) + (low >> _HALF)
    lo = (high << _HALF) | (low & _HALF_MASK)
    return Wide(lo, fun(*(x.hi for x in xs)) + (high >> _HALF))


def total(x: Any) -> Any:
    """The sum over the first axis."""
    return additive(lambda v: jnp.sum(v, axis=0, dtype=v.dtype), x)


def shift_right_signed(x: Any, by: int) -> Any:
    """floor(x / 2^by) of two's complement."""
    k = 8 * x.dtype.itemsize
    if isinstance(x, Wide):
        top = 1 << (k - 1)  # shifted as an unsigned number, raised by this
        return ((x ^ top) >> by) - (top >> by)
    signed = lax.bitcast_convert_type(x, np.dtype(f"int{k}"))
    return lax.bitcast_convert_type(signed >> np.array(by, signed.dtype), x.dtype)


# -- bits ------------------------------------------------------------------------------


def bits_at(word: Any, positions: Any) -> Any:
    """Words whose lowest bits are those at static `positions`, on a new last axis (none
    for one); uint8."""
    at = np.asarray(positions)
    planes = [word.lo, word.hi] if isinstance(word, Wide) else [word]
    if at.ndim:
        planes = [lax.expand_dims(v, (v.ndim,)) for v in planes]
    if len(planes) == 1:
        return (planes[0] >> at.astype(word.dtype)).astype(np.uint8)
    low, high = planes
    chosen: Any = jnp.where(at < _WORD, low, high) if at.ndim else planes[at // _WORD]
    return (chosen >> (at % _WORD).astype(np.uint64)).astype(np.uint8)


def ones_where(bit: Any, dtype: Any) -> Any:
    """The element -1 where the lowest bit of a byte is set, else 0."""
    if is_wide(dtype):
        low = ones_where(bit, np.uint64)
        return Wide(low, low)
    low = (bit & np.uint8(1)).astype(dtype)
    return jnp.zeros_like(low) - low


def where(flag: Any, x: Any, y: Any) -> Any:
    """x where `flag` is set, else y."""
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), x, y)


def is_zero(x: Any) -> Any:
    """Where x = 0."""
    return (x.lo | x.hi) == 0 if isinstance(x, Wide) else x == 0
