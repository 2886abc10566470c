"""Arithmetic of the ring Z_2^k, k = 32 or 64: exact matrix products, convolutions.

Sums and elementwise products of unsigned words wrap around by themselves. Contractions
do not come for free: XLA's own integer dot is a scalar loop on a CPU (1 GOP/s).
`matmul` adds 16 outer products at a time, which XLA fuses into one kernel and LLVM
turns into vector multiplications; 16 matters, a step of 4, 8 or 12 compiles to scalar
code. Everything is exact mod 2^k for every shape, because no sum is ever taken outside
of the ring.

`matmul` is a primitive of our own, so that `vmap` over one operand (the party axis, a
public matrix) widens the product instead of repeating it, and so that each platform may
have its own lowering.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import batching, mlir

from privjax import _compat
from privjax._typing import Array, Shape
from privjax.errors import InputError
from privjax.prg.varying import vary_alike

# Outer products per step.
_RANK = 16
# Columns per tile: 16 rows of the right operand, 16 KiB of 64-bit words, stay in the
# first-level cache. With few rows on the left more columns, to give a step some work.
_COLUMNS = 128
_TILE = 2**15
# Below this many multiplications XLA's own dot is as fast and compiles to less.
_SMALL = 32**3
# With fewer input channels XLA's own convolution wins over windows and `matmul`.
_FEW_CHANNELS = 3


@dataclass(frozen=True)
class Ring:
    """Z_2^bits in words of `dtype`; values are kept reduced by the word's wrap-around.

    Attributes: bits is 32 or 64. (Elements of 128 bits are two words: `wide`. Code for
    all three is in terms of `elements`.)
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (32, 64):
            raise InputError(f"rings of 32 and 64 bits exist, not of {self.bits}.")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"uint{self.bits}")

    @property
    def signed(self) -> np.dtype[Any]:
        """The same words read as two's complement."""
        return np.dtype(f"int{self.bits}")

    @property
    def mask(self) -> int:
        """2^bits - 1, the element -1."""
        return (1 << self.bits) - 1

    @property
    def limbs(self) -> int:
        """uint32 words per element in storage."""
        return self.bits // 32

    def element(self, value: int) -> np.generic:
        """The Python integer `value` mod 2^bits, as a constant."""
        return self.dtype.type(value & self.mask)


def to_words(x: Array) -> Array:
    """Storage form: uint64[...] -> uint32[..., 2], the low limb first.

    uint32 gets an axis of one limb. 32-bit words pass through code whose 64-bit flag is
    off without being cut.
    """
    if x.dtype == np.uint32:
        return x[..., None]
    return lax.bitcast_convert_type(x, np.uint32)


def from_words(words: Array) -> Array:
    """The inverse of `to_words`: uint32[..., limbs] -> uint32[...] or uint64[...]."""
    if words.dtype != np.uint32 or words.shape[-1:] not in ((1,), (2,)):
        raise InputError(
            "stored ring elements are uint32[..., 1 or 2], not "
            f"{words.dtype}{words.shape}."
        )
    if words.shape[-1] == 1:
        return words[..., 0]
    return lax.bitcast_convert_type(words, np.uint64)


# -- matrix product: uint[*b, M, K] x uint[*b, K, N] -> uint[*b, M, N] -----------------


def _outer_products(xt: Array, y: Array) -> Array:
    """Sum over s, j of xt[s, j, :, None] * y[s, j, None, :], one s per step."""

    def step(acc: Array, rows: tuple[Array, Array]) -> tuple[Array, None]:
        a, b = rows
        for j in range(_RANK):
            acc = acc + a[j][:, None] * b[j][None, :]
        return acc, None

    # Zeros "like" an operand vary over its manual mesh axes, as a loop's carry must.
    zero = jnp.zeros_like(xt, shape=(xt.shape[2], y.shape[2]))
    return lax.scan(step, zero, (xt, y))[0]


def _ranked(x: Array, y: Array) -> Array:
    """The fast product of two matrices: K in steps of 16, N in tiles of columns.

    The last tile overlaps the one before it instead of being padded.
    """
    (m, k), n = x.shape, y.shape[1]
    steps = -(-k // _RANK)
    pad = steps * _RANK - k
    xt = jnp.pad(x, ((0, 0), (0, pad))).T.reshape(steps, _RANK, m)
    y = jnp.pad(y, ((0, pad), (0, 0))).reshape(steps, _RANK, n)
    width = max(_COLUMNS, _TILE // m)
    if n <= width * 5 // 4:
        return _outer_products(xt, y)

    def tile(i: Array, out: Array) -> Array:
        at = jnp.minimum(i * np.int32(width), np.int32(n - width))
        columns = lax.dynamic_slice_in_dim(y, at, width, axis=2)
        return lax.dynamic_update_slice_in_dim(
            out, _outer_products(xt, columns), at, axis=1
        )

    out = jnp.zeros_like(x, shape=(m, n))
    return lax.fori_loop(np.int32(0), np.int32(-(-n // width)), tile, out)


def _plain(x: Array, y: Array) -> Array:
    """XLA's own dot. As signed words for 32 bits: those alone have a library kernel."""
    dims = (((x.ndim - 1,), (y.ndim - 2,)), (tuple(range(x.ndim - 2)),) * 2)
    if x.dtype == np.uint32:
        x, y = (lax.bitcast_convert_type(v, np.int32) for v in (x, y))
        return lax.bitcast_convert_type(lax.dot_general(x, y, dims), np.uint32)
    return lax.dot_general(x, y, dims)


def _use_plain(m: int, k: int, n: int) -> bool:
    """Matrix-vector and small products: nothing to gain from the fast path."""
    return m == 1 or n <= 2 or m * k * n <= _SMALL


def _product(x: Array, y: Array) -> Array:
    (m, k), n = x.shape[-2:], y.shape[-1]
    if _use_plain(m, k, n):
        return _plain(x, y)
    if x.ndim == 2:
        return _ranked(x, y)
    flat = x.reshape(-1, m, k), y.reshape(-1, k, n)
    return lax.map(lambda xy: _ranked(*xy), flat).reshape(*x.shape[:-1], n)


_product_jit = jax.jit(_product)
matmul_p = _compat.Primitive("ring_matmul")


def _abstract(x: Any, y: Any) -> Any:
    return x.update(shape=(*x.shape[:-1], y.shape[-1]))


def _lowered(x: Array, y: Array) -> Array:
    # Lowering may happen after the caller's 64-bit scope has been closed.
    with jax.enable_x64(True):
        return _product_jit(x, y)


def _batch(args: Sequence[Array], dims: Sequence[Any]) -> tuple[Array, int]:
    """One batched operand: its lanes become rows (or columns) of one larger product."""
    (x, y), (dx, dy) = args, dims
    if dx is not None and dy is not None:
        return matmul_p.bind(jnp.moveaxis(x, dx, 0), jnp.moveaxis(y, dy, 0)), 0
    if dy is None:
        x = jnp.moveaxis(x, dx, -3)
        *lead, lanes, m, k = x.shape
        out = matmul_p.bind(x.reshape(*lead, lanes * m, k), y)
        return out.reshape(*lead, lanes, m, out.shape[-1]), len(lead)
    y = jnp.moveaxis(y, dy, -2)
    *lead, k, lanes, n = y.shape
    out = matmul_p.bind(x, y.reshape(*lead, k, lanes * n))
    return out.reshape(*lead, out.shape[-2], lanes, n), len(lead) + 1


matmul_p.def_abstract_eval(_abstract)
matmul_p.def_impl(_compat.compiled(matmul_p))
mlir.register_lowering(matmul_p, mlir.lower_fun(_lowered, multiple_results=False))
batching.primitive_batchers[matmul_p] = _batch


def _check(x: Array, y: Array) -> None:
    if x.dtype != y.dtype or x.dtype not in (np.uint32, np.uint64):
        raise InputError(
            f"ring operands must both be uint32 or both uint64: {x.dtype}, {y.dtype}."
        )


def matmul(x: Array, y: Array) -> Array:
    """x @ y mod 2^bits.

    Args:
      x: uint32 or uint64 of shape [..., M, K].
      y: the same type, [..., K, N], with equal leading axes.

    Returns:
      [..., M, N] of the same type.

    Raises:
      InputError: types or shapes do not fit.
    """
    _check(x, y)
    fits = x.ndim == y.ndim >= 2 and x.shape[:-2] == y.shape[:-2]
    if not fits or x.shape[-1] != y.shape[-2]:
        raise InputError(f"matmul of shapes {x.shape} and {y.shape}.")
    if 0 in (*x.shape, *y.shape):
        return jnp.zeros((*x.shape[:-1], y.shape[-1]), x.dtype)
    return matmul_p.bind(*vary_alike(x, y))


Dims = tuple[tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]]


def dot_general(x: Array, y: Array, dimension_numbers: Dims) -> Array:
    """`lax.dot_general` mod 2^bits, for any dimension numbers.

    Args:
      x, y: uint32 or uint64 arrays of one type.
      dimension_numbers: ((x contracting, y contracting), (x batch, y batch)).

    Returns:
      Batch axes, then free axes of x, then free axes of y.
    """
    _check(x, y)
    (cx, cy), (bx, by) = dimension_numbers
    fx = [d for d in range(x.ndim) if d not in (*cx, *bx)]
    fy = [d for d in range(y.ndim) if d not in (*cy, *by)]
    batch, free_x = [x.shape[d] for d in bx], [x.shape[d] for d in fx]
    k = math.prod(x.shape[d] for d in cx)
    m, n = math.prod(free_x), math.prod(y.shape[d] for d in fy)
    left = x.transpose(*bx, *fx, *cx).reshape(*batch, m, k)
    right = y.transpose(*by, *cy, *fy).reshape(*batch, k, n)
    out = matmul(left, right)
    return out.reshape(*batch, *free_x, *(y.shape[d] for d in fy))


# -- convolution -----------------------------------------------------------------------


def _windows(x: Array, window: Shape, strides: Shape, dilation: Shape) -> Array:
    """All windows of x[N, *spatial, C], already padded: [N, *out, taps * C].

    One gather, whose indices are a sum over axes of (output position, tap) tables.
    """
    n, *spatial, c = x.shape
    rank = len(spatial)
    index = jnp.zeros((1,) * (2 * rank), np.int32)
    out = []
    for axis, size in enumerate(spatial):
        reach = (window[axis] - 1) * dilation[axis]
        out.append((size - reach - 1) // strides[axis] + 1)
        below = math.prod(spatial[axis + 1 :])
        place = np.add.outer(
            np.arange(out[axis]) * strides[axis],
            np.arange(window[axis]) * dilation[axis],
        )
        others = [d for d in range(2 * rank) if d % rank != axis]
        index = index + np.expand_dims((place * below).astype(np.int32), others)
    flat = x.reshape(n, math.prod(spatial), c)
    cut = jnp.take(flat, index.reshape(-1), axis=1, mode="clip")
    return cut.reshape(n, *out, math.prod(window) * c)


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
) -> Array:
    """`lax.conv_general_dilated` mod 2^bits.

    Args:
      lhs, rhs: uint32 or uint64 arrays of one type.
      padding: explicit pairs per spatial axis (may be negative), as in a jaxpr.
      The rest as in `jax.lax.conv_general_dilated`.

    Returns:
      The output in the layout that `dimension_numbers` names.
    """
    _check(lhs, rhs)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    lhs_spec, rhs_spec, out_spec = numbers
    rank = lhs.ndim - 2
    lhs_dilation = tuple(lhs_dilation or (1,) * rank)
    rhs_dilation = tuple(rhs_dilation or (1,) * rank)
    grouped = feature_group_count > 1 or batch_group_count > 1
    if (
        grouped
        or 0 in (*lhs.shape, *rhs.shape)
        or rhs.shape[rhs_spec[1]] < _FEW_CHANNELS
    ):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            tuple(window_strides),
            tuple(padding),
            lhs_dilation,
            rhs_dilation,
            numbers,
            feature_group_count,
            batch_group_count,
        )
    x = lhs.transpose(lhs_spec[0], *lhs_spec[2:], lhs_spec[1])
    window = [rhs.shape[d] for d in rhs_spec[2:]]
    pads = [
        (low, high, dil - 1)
        for (low, high), dil in zip(padding, lhs_dilation, strict=True)
    ]
    x = lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    patches = _windows(x, window, window_strides, rhs_dilation)
    kernel = rhs.transpose(*rhs_spec[2:], rhs_spec[1], rhs_spec[0])
    *lead, k = patches.shape
    out = matmul(patches.reshape(-1, k), kernel.reshape(k, -1)).reshape(*lead, -1)
    back = [0] * out.ndim
    for axis, place in enumerate((out_spec[0], *out_spec[2:], out_spec[1])):
        back[place] = axis
    return out.transpose(back)
