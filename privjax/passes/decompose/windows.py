"""Windows along axes: how they are laid out, and reductions over them by any function.

Windows are cut out axis by axis, the last one first, so that overlapping windows share
what they have in common, and the order of the entries is kept. What lies beyond the edge
is left out by static masks, never represented by a number.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.passes.decompose.reductions import (
    closed,
    elementwise,
    halving,
    in_order,
)


@dataclass(frozen=True)
class Windows:
    """Windows along one axis.

    Attributes:
      length: of the axis.
      size, stride: of the windows.
      low, high: padding at both ends.
      base: the array's entries are this far apart.
      dilation: the window's entries are this far apart.
    """

    length: int
    size: int
    stride: int
    low: int
    high: int
    base: int
    dilation: int

    @property
    def spread(self) -> int:
        """The length with its entries apart."""
        return (self.length - 1) * self.base + 1 if self.length else 0

    @property
    def reach(self) -> int:
        return (self.size - 1) * self.dilation + 1

    @property
    def count(self) -> int:
        room = self.low + self.spread + self.high - self.reach
        return room // self.stride + 1 if room >= 0 else 0

    @property
    def trivial(self) -> bool:
        return self == Windows(self.length, 1, 1, 0, 0, 1, self.dilation)

    @property
    def apart(self) -> bool:
        """Whether windows do not overlap: then they are a reshape."""
        return self.dilation == 1 and self.size <= self.stride

    def inside(self) -> Any:
        """bool[size, count]: which entries of which window there are."""
        first = np.arange(self.count) * self.stride - self.low
        at = first + np.arange(self.size)[:, None] * self.dilation
        return (at >= 0) & (at < self.spread) & (at % self.base == 0)

    def valid(self, axis: int, rank: int) -> Any:
        """`inside` as a mask on the entries [size, *result]; None if all are there.

        Made of operations, so that equal masks are found to be equal.
        """
        if self.inside().all():
            return None
        shape = [1] * rank
        shape[axis] = self.length
        return self.entries(jnp.ones(shape, bool), axis)

    def entries(self, x: Any, axis: int) -> Any:
        """[size, ...]: the entries of every window, zero where there are none."""
        end = self.count * self.stride if self.apart else self.low + self.spread
        end = max(end, (self.count - 1) * self.stride + self.reach)
        pads = [(0, 0, 0)] * x.ndim
        pads[axis] = (self.low, end - self.low - self.spread, self.base - 1)
        if any(pads[axis]):
            x = lax.pad(x, np.zeros((), x.dtype), pads)
        if self.apart:
            shape = (*x.shape[:axis], self.count, self.stride, *x.shape[axis + 1 :])
            x = lax.slice_in_dim(x.reshape(shape), 0, self.size, axis=axis + 1)
            return jnp.moveaxis(x, axis + 1, 0)
        last = (self.count - 1) * self.stride
        return jnp.stack(
            [
                lax.slice_in_dim(
                    x,
                    i * self.dilation,
                    i * self.dilation + last + 1,
                    self.stride,
                    axis,
                )
                for i in range(self.size)
            ]
        )

    def added(self, y: Any, axis: int) -> Any:
        """The transpose of `entries`: what lies beyond the edge is dropped."""
        zero = np.zeros((), y.dtype)
        total = (self.count - 1) * self.stride + self.reach
        if self.apart:
            total = self.count * self.stride
            y = jnp.moveaxis(y, 0, axis + 1)
            pads = [(0, 0, 0)] * y.ndim
            pads[axis + 1] = (0, self.stride - self.size, 0)
            y = lax.pad(y, zero, pads)
            y = y.reshape(*y.shape[:axis], total, *y.shape[axis + 2 :])
        else:
            parts = []
            for i in range(self.size):
                pads = [(0, 0, 0)] * (y.ndim - 1)
                front = i * self.dilation
                pads[axis] = (front, self.reach - front - 1, self.stride - 1)
                parts.append(lax.pad(y[i], zero, pads))
            y = halving(
                jnp.stack(parts), lax.bitwise_xor if y.dtype == bool else lax.add
            )
        pads = [(0, 0, 0)] * y.ndim
        pads[axis] = (-self.low, self.low + self.spread - total, 0)
        if any(pads[axis]):
            y = lax.pad(y, zero, pads)
        return lax.slice_in_dim(y, 0, self.spread, self.base, axis)


def along(
    shape: Sequence[int],
    window_dimensions: Any,
    window_strides: Any,
    padding: Any,
    base_dilation: Any = None,
    window_dilation: Any = None,
) -> list[Windows]:
    """The windows of each axis."""
    ones = (1,) * len(shape)
    columns = zip(
        shape,
        window_dimensions,
        window_strides,
        padding,
        base_dilation or ones,
        window_dilation or ones,
        strict=True,
    )
    return [
        Windows(n, size, stride, low, high, base, apart)
        for n, size, stride, (low, high), base, apart in columns
    ]


# -- any function --------------------------------------------------------------------------


def folded(
    arrays: Sequence[Any],
    axes: Sequence[Windows],
    combine: Callable[..., Sequence[Any]],
) -> Sequence[Any]:
    """Windows of several arrays combined in order; anything where one has no entries."""
    rank = arrays[0].ndim
    for axis in reversed(range(rank)):
        w = axes[axis]
        if w.trivial:
            continue
        if doubling_pays(w):
            arrays = doubled(w, axis, arrays, combine)
        else:
            parts = [w.entries(x, axis) for x in arrays]
            arrays = _partial(combine, parts, w.valid(axis, rank))
    return arrays


def _partial(
    combine: Callable[..., Sequence[Any]], arrays: Sequence[Any], valid: Any
) -> Sequence[Any]:
    if valid is None:
        return in_order(arrays, combine)
    return in_order([*arrays, valid], _masked(combine))[:-1]


def _masked(combine: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """`combine` of entries that are there; the last operand of each side says which."""

    def both(*values: Any) -> list[Any]:
        n = len(values) // 2
        (*a, here), (*b, there) = values[:n], values[n:]
        out = combine(*a, *b)
        chosen = [
            jnp.where(here & there, c, jnp.where(here, x, y))
            for c, x, y in zip(out, a, b, strict=True)
        ]
        return [*chosen, here | there]

    return both


def doubling_pays(w: Windows) -> bool:
    """Whether windows of 2, 4, 8 ... entries, shared by all that overlap, are cheaper.

    By half, since their comparisons do not serve a gradient.
    """
    length = w.low + w.spread + w.high
    levels = (w.size - 1).bit_length() + bin(w.size).count("1") - 1
    return 2 * length * levels < w.count * (w.size - 1)


def doubled(
    w: Windows,
    axis: int,
    arrays: Sequence[Any],
    combine: Callable[..., Sequence[Any]],
    idempotent: bool = False,
) -> list[Any]:
    """Windows along one axis from those half as long, at every place.

    If `combine` is idempotent, the two halves may overlap.
    """
    every = Windows(w.length, 1, 1, w.low, w.high, w.base, 1)
    values = [every.entries(x, axis)[0] for x in arrays]
    if not every.inside().all():
        valid = every.entries(jnp.ones(_only(axis, w.length, values[0]), bool), axis)[0]
        values, combine = [*values, valid], _masked(combine)

    def two(left: Sequence[Any], right: Sequence[Any], apart: int) -> Sequence[Any]:
        """Windows of `left` followed by those of `right` that begin `apart` later."""
        shift = apart * w.dilation
        size = min(left[0].shape[axis], right[0].shape[axis] - shift)
        a = [lax.slice_in_dim(x, 0, size, axis=axis) for x in left]
        b = [lax.slice_in_dim(x, shift, shift + size, axis=axis) for x in right]
        return combine(*a, *b)

    def windows(size: int) -> Sequence[Any]:
        if size == 1:
            return values
        if idempotent:
            half = 1 << ((size - 1).bit_length() - 1)
            part = windows(half)
            return two(part, part, size - half)
        part = windows(size // 2)
        out = two(part, part, size // 2)
        return two(out, values, size - 1) if size % 2 else out

    out = windows(w.size)[: len(arrays)]
    last = (w.count - 1) * w.stride + 1
    return [lax.slice_in_dim(x, 0, last, w.stride, axis) for x in out]


def _only(axis: int, length: int, like: Any) -> list[int]:
    shape = [1] * like.ndim
    shape[axis] = length
    return shape


def occupied(axes: Sequence[Windows]) -> Any:
    """Which windows have an entry, to broadcast against the result; None: all."""
    out = np.array(True)
    for axis, w in enumerate(axes):
        shape = [1] * len(axes)
        shape[axis] = w.count
        out = out & w.inside().any(0).reshape(shape)
    return None if out.all() else out


def filled(x: Any, axes: Sequence[Windows], value: Any) -> Any:
    """`x` with `value` where a window has no entries."""
    there = occupied(axes)
    return x if there is None else jnp.where(there, x, value)


def _reduce_window(
    *values: Any,
    jaxpr: Any,
    consts: Any,
    window_dimensions: Any,
    window_strides: Any,
    padding: Any,
    base_dilation: Any,
    window_dilation: Any,
) -> list[Any]:
    """`lax.reduce_window` of several arrays, by any function."""
    n = len(values) // 2
    arrays, init = values[:n], values[n:]
    axes = along(
        arrays[0].shape,
        window_dimensions,
        window_strides,
        padding,
        base_dilation,
        window_dilation,
    )
    shape = [w.count for w in axes]
    start = [jnp.broadcast_to(i, shape) for i in init]
    if math.prod(shape) == 0:
        return start
    combine = elementwise(closed(jaxpr, consts))
    out = combine(*start, *folded(arrays, axes, combine))
    return [filled(x, axes, s) for x, s in zip(out, start, strict=True)]


# -- select and scatter by any functions ---------------------------------------------------


def _select_and_scatter(
    operand: Any,
    source: Any,
    init: Any,
    *,
    select_jaxpr: Any,
    select_consts: Any,
    scatter_jaxpr: Any,
    scatter_consts: Any,
    window_dimensions: Any,
    window_strides: Any,
    padding: Any,
) -> Any:
    """One entry of a window after the other, because any `select` may be given."""
    axes = along(operand.shape, window_dimensions, window_strides, padding)
    keep = elementwise(closed(select_jaxpr, select_consts))
    combine = elementwise(closed(scatter_jaxpr, scatter_consts))
    out = jnp.broadcast_to(init, operand.shape)
    if source.size == 0:
        return out
    candidates = _all_entries(operand, axes)
    valid = _all_entries(jnp.ones(operand.shape, bool), axes)
    best, there = candidates[0], valid[0]
    hots = [jnp.ones(source.shape, bool)]
    for entry, here in zip(candidates[1:], valid[1:], strict=True):
        stays = (keep(best, entry)[0] & there) | ~here
        best = jnp.where(stays, best, entry)
        hots = [*(h & stays for h in hots), ~stays]
        there = there | here
    for i, hot in enumerate(hots):
        place = [jnp.zeros_like(hot)] * len(hots)
        marked = _all_added(jnp.stack([*place[:i], hot, *place[i + 1 :]]), axes)
        sent = [jnp.zeros_like(source)] * len(hots)
        given = _all_added(jnp.stack([*sent[:i], source, *sent[i + 1 :]]), axes)
        out = jnp.where(marked, combine(out, given)[0], out)
    return out


def _all_entries(x: Any, axes: Sequence[Windows]) -> Any:
    """[all entries of a window, *result], in row-major order."""
    for k, w in enumerate(axes):
        # [sizes so far, counts so far, lengths to come]
        x = jnp.moveaxis(w.entries(x, 2 * k), 0, k)
    return x.reshape(-1, *(w.count for w in axes))


def _all_added(y: Any, axes: Sequence[Windows]) -> Any:
    """The transpose of `_all_entries`."""
    y = y.reshape(*(w.size for w in axes), *(w.count for w in axes))
    for k, w in reversed(list(enumerate(axes))):
        y = w.added(jnp.moveaxis(y, k, 0), 2 * k)
    return y


RULES: dict[str, Callable[..., Any]] = {
    "reduce_window": _reduce_window,
    "select_and_scatter": _select_and_scatter,
}
