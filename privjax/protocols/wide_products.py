"""Exact matrix products and convolutions in Z_2^128.

Of  (a + 2^64 A)(b + 2^64 B) = ab + 2^64 (aB + Ab)  the cross terms, and ab itself mod
2^64, are products in Z_2^64 (`ring`). What is left is H = (ab - (ab mod 2^64)) / 2^64,
an integer below K 2^64, and it takes three float64 products:

- one of a and b rounded to float64. It gives H up to K (K + 2) 2^11, whatever the order
  of its sums (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1);
- two of the residues of a and b modulo two odd numbers near 2^21. Their sums are
  integers below 2^53, hence exact, and they give H modulo m1 m2, about 2^42: so the
  error of the first product, and by subtracting it, H.

Residues alone would take four products and digits of 22 bits nine. All of this is exact
for K <= 8192; longer contractions are cut into pieces.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.errors import InputError
from privjax.protocols import ring, wide
from privjax.protocols.wide import Wide

Factor: TypeAlias = Wide | Array
Bilinear: TypeAlias = Callable[[Array, Array], Array]

# Coprime, odd and below .993 * 2^21: the balanced residues are below 2^20, their products
# below 2^40, and 2^13 of these add up to less than 2^53 - m. Both are so close to a
# fraction of 2^32 that 2^32 mod m has 6 bits, which leaves room in what is reduced.
MODULI = (2080895, 2027841)
LONGEST = 2**13
# Sums of so few terms, or products of so few multiplications, are taken by elementwise
# products: as fast, and half of the operations to trace and compile.
FEW = 4
SMALL = 32**3

_HALF = np.uint64(32)
_HALF_MASK = np.uint64(2**32 - 1)
# H is cut here into two integers that float64 and int64 both hold.
_CUT = 46


def _balanced(value: int, modulus: int) -> float:
    """The residue nearest to zero."""
    value %= modulus
    return float(value - modulus if 2 * value > modulus else value)


def _column(values: Sequence[float], ndim: int) -> np.ndarray:
    """One value per plane, to broadcast against [planes, ...] of rank ndim + 1."""
    return np.reshape(np.asarray(values, np.float64), (-1,) + (1,) * ndim)


def _reduce(x: Array, moduli: Any, inverses: Any) -> Array:
    """Integers below 2^53 - m in float64 to balanced residues, exactly.

    The quotient may be rounded the wrong way next to a half: up to m / 2 + 2.
    """
    return x - moduli * lax.round(x * inverses, lax.RoundingMethod.TO_NEAREST_EVEN)


def _halves(x: Array) -> tuple[Array, Array]:
    """uint64 -> its upper and lower 32 bits as float64."""
    return (x >> _HALF).astype(np.float64), (x & _HALF_MASK).astype(np.float64)


def _float_planes(x: Array) -> Array:
    """uint64[...] -> float64[3, ...]: x rounded, and its residues mod m1 and m2.

    One formula for the three: nothing is subtracted from the first plane.
    """
    upper, lower = _halves(x)
    folds = _column([2.0**32, *(_balanced(2**32, m) for m in MODULI)], x.ndim)
    moduli = _column([0.0, *MODULI], x.ndim)
    inverses = _column([0.0, *(1 / m for m in MODULI)], x.ndim)
    return _reduce(upper * folds + lower, moduli, inverses)


def _to_word(x: Array) -> Array:
    """Integers of either sign in float64 -> uint64, mod 2^64."""
    return x.astype(np.int64).astype(np.uint64)


def _high_word(low: Array, products: Array) -> Array:
    """H mod 2^64 from ab mod 2^64 and the three float64 products.

    Bounds on the integers in float64: h and the parts of it 2^77, 2^31 and 2^46;
    sums of products 2^53; everything that is reduced 2^52.
    """
    first, second = MODULI
    moduli = _column(MODULI, low.ndim)
    inverses = _column([1 / m for m in MODULI], low.ndim)

    def constant(value: Callable[[int], int]) -> np.ndarray:
        return _column([_balanced(value(m), m) for m in MODULI], low.ndim)

    upper, lower = _halves(low)
    # H from the rounded product alone, as top 2^46 + rest.
    near = (products[0] - (upper * 2.0**32 + lower)) * 2.0**-64
    top = jnp.round(near * 2.0**-_CUT)
    rest = jnp.round(near - top * 2.0**_CUT)
    # What it lacks, mod m1 and m2, then (Garner) as one integer.
    exact = _reduce(products[1:], moduli, inverses)
    exact = exact - upper * constant(lambda m: 2**32) - lower
    exact = _reduce(exact, moduli, inverses) * constant(lambda m: pow(2**64, -1, m))
    exact = exact - top * constant(lambda m: 2**_CUT) - rest
    one, two = _reduce(exact, moduli, inverses)
    step = (two - one) * _balanced(pow(first, -1, second), second)
    lacking = one + first * _reduce(step, np.float64(second), np.float64(1 / second))
    return (_to_word(top) << np.uint64(_CUT)) + _to_word(rest + lacking)


def _planes(x: Any) -> tuple[Array, Array | None]:
    if isinstance(x, Wide):
        return x.lo, x.hi
    if getattr(x, "dtype", None) != np.uint64:
        raise InputError(f"factors in Z_2^128 are Wide or uint64 arrays, not {x!r}.")
    return x, None


def _assemble(x: Factor, y: Factor, modular: Bilinear, real: Bilinear) -> Wide:
    """A bilinear map on Z_2^128, from the same map on uint64 and on float64[3, ...]."""
    (a, upper_a), (b, upper_b) = _planes(x), _planes(y)
    low = modular(a, b)
    high = _high_word(low, real(_float_planes(a), _float_planes(b)))
    if upper_b is not None:
        high = high + modular(a, upper_b)
    if upper_a is not None:
        high = high + modular(upper_a, b)
    return Wide(low, high)


def _each(x: Factor, function: Callable[[Array], Array]) -> Factor:
    return Wide(function(x.lo), function(x.hi)) if isinstance(x, Wide) else function(x)


# -- long sums in pieces ---------------------------------------------------------------


def _division(size: int, longest: int) -> tuple[int, int, int]:
    """Pieces, the length of each, and by how much they exceed `size` together."""
    pieces = -(-size // max(1, longest))
    length = -(-size // pieces)
    return pieces, length, pieces * length - size


def _cutter(
    x: Factor, axis: int, excess: int, length: int, groups: int = 1
) -> Callable[[Array], Factor]:
    """at -> x[at : at + length] along an axis, or along each of its groups.

    Each group is followed by `excess` zeros.
    """
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    split = (*before, groups, x.shape[axis] // groups, *after)
    pads = [(0, excess if d == axis + 1 else 0) for d in range(len(split))]
    padded = _each(x, lambda v: jnp.pad(v.reshape(split), pads))

    def cut(at: Array) -> Factor:
        def plane(v: Array) -> Array:
            v = lax.dynamic_slice_in_dim(v, at, length, axis + 1)
            return v.reshape(*before, groups * length, *after)

        return _each(padded, plane)

    return cut


def _sum_of_pieces(piece: Callable[[Array], Wide], pieces: int) -> Wide:
    return wide.sum(lax.map(piece, np.arange(pieces, dtype=np.int32)), 0)


# -- matrix products -------------------------------------------------------------------


def _matmul(x: Factor, y: Factor) -> Wide:
    """[*b, M, K] x [*b, K, N]."""
    (m, k), n = x.shape[-2:], y.shape[-1]
    if k <= FEW or m * k * n <= SMALL:
        left, right = (
            _each(x, lambda v: v[..., None]),
            _each(y, lambda v: v[..., None, :, :]),
        )
        return wide.sum(wide.multiply(left, right), -2)
    if k <= LONGEST:
        return _assemble(x, y, ring.matmul, jnp.matmul)
    pieces, length, excess = _division(k, LONGEST)
    columns = _cutter(x, x.ndim - 1, excess, length)
    rows = _cutter(y, y.ndim - 2, excess, length)

    def piece(i: Array) -> Wide:
        at = i * np.int32(length)
        return _matmul(columns(at), rows(at))

    return _sum_of_pieces(piece, pieces)


def dot_general(x: Factor, y: Factor, dimension_numbers: ring.Dims) -> Wide:
    """`lax.dot_general` mod 2^128, for any dimension numbers.

    Args:
      x, y: Wide, or uint64 arrays, which are read as integers below 2^64. Every high
        plane costs one product mod 2^64; the rest of the work is one such product and
        three in float64.
      dimension_numbers: ((x contracting, y contracting), (x batch, y batch)).

    Returns:
      Batch axes, then free axes of x, then free axes of y.

    Raises:
      InputError: an operand has another type.
    """
    _planes(x), _planes(y)
    (cx, cy), (bx, by) = dimension_numbers
    fx = [d for d in range(x.ndim) if d not in (*cx, *bx)]
    fy = [d for d in range(y.ndim) if d not in (*cy, *by)]
    batch, free_x = [x.shape[d] for d in bx], [x.shape[d] for d in fx]
    free_y = [y.shape[d] for d in fy]
    k, m, n = (
        math.prod(extents) for extents in ([x.shape[d] for d in cx], free_x, free_y)
    )
    left = _each(x, lambda v: v.transpose(*bx, *fx, *cx).reshape(*batch, m, k))
    right = _each(y, lambda v: v.transpose(*by, *cy, *fy).reshape(*batch, k, n))
    return _matmul(left, right).reshape(*batch, *free_x, *free_y)


def matmul(x: Factor, y: Factor) -> Wide:
    """x @ y mod 2^128 for [..., M, K] and [..., K, N] with equal leading axes."""
    lead = tuple(range(x.ndim - 2))
    dims = (((x.ndim - 1,), (y.ndim - 2,)), (lead, lead))
    return dot_general(x, y, dims)


# -- convolution -----------------------------------------------------------------------


def conv_general_dilated(
    lhs: Factor,
    rhs: Factor,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
) -> Wide:
    """`lax.conv_general_dilated` mod 2^128.

    Args:
      lhs, rhs: Wide, or uint64 arrays, which are read as integers below 2^64.
      padding: explicit pairs per spatial axis (may be negative), as in a jaxpr.
      The rest as in `jax.lax.conv_general_dilated`.

    Returns:
      The output in the layout that `dimension_numbers` names.

    Raises:
      InputError: an operand has another type.
    """
    _planes(lhs), _planes(rhs)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    rank = lhs.ndim - 2
    pads = [(0, 0, 0)] * lhs.ndim
    dilation = lhs_dilation or (1,) * rank
    for axis, (before, after), spread in zip(
        numbers.lhs_spec[2:], padding, dilation, strict=True
    ):
        pads[axis] = (before, after, spread - 1)
    convolution = _Convolution(
        tuple(window_strides),
        tuple(rhs_dilation or (1,) * rank),
        numbers,
        feature_group_count,
        batch_group_count,
    )
    padded = _each(lhs, lambda v: lax.pad(v, np.uint64(0), pads))
    return convolution.wide(padded, rhs)


@dataclass(frozen=True)
class _Convolution:
    """A convolution of something already padded."""

    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    numbers: lax.ConvDimensionNumbers
    feature_groups: int
    batch_groups: int

    def modular(self, lhs: Array, rhs: Array) -> Array:
        return self._by(ring.conv_general_dilated, lhs, rhs)

    def real(self, lhs: Array, rhs: Array) -> Array:
        pairs = zip(lhs, rhs, strict=True)
        return jnp.stack([self._by(lax.conv_general_dilated, *pair) for pair in pairs])

    def _by(self, function: Callable[..., Array], lhs: Array, rhs: Array) -> Array:
        return function(
            lhs,
            rhs,
            self.strides,
            ((0, 0),) * len(self.strides),
            rhs_dilation=self.dilation,
            dimension_numbers=self.numbers,
            feature_group_count=self.feature_groups,
            batch_group_count=self.batch_groups,
        )

    def wide(self, lhs: Factor, rhs: Factor) -> Wide:
        """Cuts the kernel along its longest axis while its sums are too long."""
        _, *summed = self.numbers.rhs_spec
        k = math.prod(rhs.shape[d] for d in summed)
        if k <= LONGEST:
            return _assemble(lhs, rhs, self.modular, self.real)
        place = max(range(len(summed)), key=lambda j: rhs.shape[summed[j]])
        size = rhs.shape[summed[place]]
        pieces, length, excess = _division(size, LONGEST // (k // size))
        # What the taps i length, ..., (i + 1) length - 1 of the kernel meet: channels of
        # every group, or positions from i length dilation on.
        lhs_axis = self.numbers.lhs_spec[1 + place]
        if place == 0:
            groups, step, extent = self.feature_groups, 1, length
        else:
            groups, step = 1, self.dilation[place - 1]
            extent = lhs.shape[lhs_axis] - (size - length) * step
        taps = _cutter(rhs, summed[place], excess, length)
        met = _cutter(lhs, lhs_axis, excess * step, extent, groups)

        def piece(i: Array) -> Wide:
            at = i * np.int32(length)
            return self.wide(met(at * np.int32(step)), taps(at))

        return _sum_of_pieces(piece, pieces)
