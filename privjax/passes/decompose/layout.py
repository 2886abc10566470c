"""Gathers and scatters in one form, and contractions with one-hot vectors.

The form: a table [batch, D_1 ... D_K, rest], an index [batch, M] for each of the K axes,
and windows [batch, M, S_1 ... S_K, rest]. A secret index is a one-hot vector, or the
product of two short ones for its high and its low digit, which are contracted one after
the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.passes.decompose.order import CLIP, digits, low_digit, wide
from privjax.passes.decompose.reductions import halving

EXACT = lax.Precision.HIGHEST


# -- the common form -----------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How operand, indices and windows of a gather or scatter fit together.

    Attributes:
      shape: of the operand.
      sizes: of the window, per axis of the operand.
      batch, indexed: axes of the operand; the others are `rest`.
      index_batch: the axes of the indices that go with `batch`.
      dropped: axes of the operand that the windows do not have.
      window: axes of the updates (or of the result) that belong to the window.
      index_shape: of the indices, without the last axis.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    batch: tuple[int, ...]
    indexed: tuple[int, ...]
    index_batch: tuple[int, ...]
    dropped: tuple[int, ...]
    window: tuple[int, ...]
    index_shape: tuple[int, ...]

    @property
    def rest(self) -> tuple[int, ...]:
        used = {*self.batch, *self.indexed}
        return tuple(a for a in range(len(self.shape)) if a not in used)

    @property
    def index_rest(self) -> tuple[int, ...]:
        axes = range(len(self.index_shape))
        return tuple(a for a in axes if a not in self.index_batch)

    @property
    def lanes(self) -> int:
        return math.prod(self.shape[a] for a in self.batch)

    @property
    def count(self) -> int:
        """M: index vectors per batch entry."""
        return math.prod(self.index_shape[a] for a in self.index_rest)

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple(self.shape[a] for a in self.indexed)

    @property
    def windows(self) -> tuple[int, ...]:
        return tuple(self.sizes[a] for a in self.indexed)

    @property
    def width(self) -> int:
        """R: entries of the window on the axes that are not indexed."""
        return math.prod(self.sizes[a] for a in self.rest)

    def table(self, x: Any) -> Any:
        """[batch, D_1 ... D_K, rest]: what the windows can reach."""
        x = lax.slice(x, [0] * x.ndim, self._reach())
        x = lax.transpose(x, (*self.batch, *self.indexed, *self.rest))
        return x.reshape(self.lanes, *self.extents, self.width)

    def restored(self, table: Any, x: Any) -> Any:
        """The operand with a new table."""
        order = (*self.batch, *self.indexed, *self.rest)
        table = table.reshape([self._reach()[a] for a in order])
        table = lax.transpose(table, np.argsort(order))
        if table.shape == x.shape:
            return table
        zeros = [np.int32(0)] * x.ndim
        return lax.dynamic_update_slice(x, table, zeros)

    def _reach(self) -> tuple[int, ...]:
        return tuple(
            self.sizes[a] if a in self.rest else d for a, d in enumerate(self.shape)
        )

    def starts(self, column: Any) -> Any:
        """[batch, M] of one column of the indices."""
        order = (*self.index_batch, *self.index_rest)
        return lax.transpose(column, order).reshape(self.lanes, self.count)

    def _labels(self) -> tuple[list[Any], list[Any]]:
        """Axes of the common form, and those of the primitive's windows, by name."""
        common: list[Any] = [
            ("index", a) for a in (*self.index_batch, *self.index_rest)
        ]
        common += [("operand", a) for a in (*self.indexed, *self.rest)]
        common = [c for c in common if c not in {("operand", a) for a in self.dropped}]
        inner = (a for a in range(len(self.shape)) if a not in self.dropped)
        outer = iter(range(len(self.index_shape)))
        rank = len(self.window) + len(self.index_shape)
        own: list[Any] = [
            ("operand", next(inner)) if p in self.window else ("index", next(outer))
            for p in range(rank)
        ]
        return common, own

    def from_windows(self, updates: Any) -> Any:
        """Updates as [batch, M, S_1 ... S_K, rest]."""
        common, own = self._labels()
        updates = lax.transpose(updates, [own.index(c) for c in common])
        return updates.reshape(self.lanes, self.count, *self.windows, self.width)

    def to_windows(self, y: Any) -> Any:
        """[batch, M, S_1 ... S_K, rest] as the primitive's result."""
        common, own = self._labels()
        shape = [
            (self.index_shape if kind == "index" else self.sizes)[a]
            for kind, a in common
        ]
        return lax.transpose(y.reshape(shape), [common.index(c) for c in own])


def of_gather(x: Any, indices: Any, dims: Any, slice_sizes: Any) -> Layout:
    return Layout(
        x.shape,
        tuple(slice_sizes),
        tuple(dims.operand_batching_dims),
        tuple(dims.start_index_map),
        tuple(dims.start_indices_batching_dims),
        (*dims.collapsed_slice_dims, *dims.operand_batching_dims),
        tuple(dims.offset_dims),
        indices.shape[:-1],
    )


def of_scatter(x: Any, indices: Any, updates: Any, dims: Any) -> Layout:
    dropped = (*dims.inserted_window_dims, *dims.operand_batching_dims)
    inner = iter(dims.update_window_dims)
    sizes = [1 if a in dropped else updates.shape[next(inner)] for a in range(x.ndim)]
    return Layout(
        x.shape,
        tuple(sizes),
        tuple(dims.operand_batching_dims),
        tuple(dims.scatter_dims_to_operand_dims),
        tuple(dims.scatter_indices_batching_dims),
        dropped,
        tuple(dims.update_window_dims),
        indices.shape[:-1],
    )


def of_slice(shape: Any, sizes: Any, axes: Sequence[int]) -> Layout:
    window = tuple(range(len(shape)))
    return Layout(tuple(shape), tuple(sizes), (), tuple(axes), (), (), window, ())


# -- selectors -----------------------------------------------------------------------------


def selectors_of(
    starts: Sequence[Any],
    extents: Sequence[int],
    sizes: Sequence[int],
    outside: str,
    width: int | None = None,
) -> tuple[list[list[Any]], Any]:
    """One-hot vectors bool[batch, M, S, F] for each index [batch, M], per digit.

    And bool[batch, M]: whether anything is selected. Without a `width` of what is to be
    contracted each index has one digit.
    """
    selectors, inside = [], []
    for k, (start, extent, size) in enumerate(zip(starts, extents, sizes, strict=True)):
        n, low = extent - size + 1, 0
        if size == 1 and width is not None:
            behind = width * math.prod(extents[k + 1 :])
            low = low_digit(n, math.prod(start.shape), behind)
        hots = digits(start, n, outside, low)
        inside.append(halving(jnp.moveaxis(hots[0], -1, 0), lax.bitwise_xor))
        selectors.append([_shifted(h, size) for h in hots])
    return selectors, reduce(lax.bitwise_and, inside)


def _shifted(hot: Any, size: int) -> Any:
    """[..., S, D] from [..., D - S + 1]: entry s of a window lies s positions further."""
    if size == 1:
        return hot[..., None, :]
    front = [(0, 0, 0)] * (hot.ndim - 1)
    moved = [
        lax.pad(hot, np.array(False), [*front, (s, size - 1 - s, 0)])
        for s in range(size)
    ]
    return jnp.stack(moved, -2)


def contract(table: Any, selectors: Sequence[Sequence[Any]]) -> Any:
    """Windows [batch, M, S_1 ... S_K, rest] of a table: one product per digit.

    A table [batch, M, D_1 ... D_K, rest] has entries of its own for every index vector.
    """
    flat = [f for factors in selectors for f in factors]
    lanes, count = flat[0].shape[:2]
    if table.ndim < len(selectors) + 3:
        table = table[:, None]
    digits_of = [math.prod(f.shape[3] for f in factors) for factors in selectors]
    pads = [(0, n - d, 0) for n, d in zip(digits_of, table.shape[2:-1], strict=True)]
    zero = np.zeros((), table.dtype)
    out = lax.pad(table, zero, [(0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)])
    windows = 1
    for hot in flat:
        size, extent = hot.shape[2:]
        out = product(hot, out.reshape(lanes, out.shape[1], windows, extent, -1))
        windows *= size
    return out.reshape(
        lanes, count, *(f[0].shape[2] for f in selectors), table.shape[-1]
    )


def product(hot: Any, x: Any) -> Any:
    """[b, m, w, s, r]: sum over f of hot[b, m, s, f] x[b, m (or 1), w, f, r]."""
    if x.dtype == bool:
        both = hot[:, :, None, :, :, None] & x[:, :, :, None]
        return halving(jnp.moveaxis(both, 4, 0), lax.bitwise_xor)
    hot = hot.astype(x.dtype)
    if x.shape[1] == 1 < hot.shape[1]:
        return jnp.einsum("bmsf,bwfr->bmwsr", hot, x[:, 0], precision=EXACT)
    return jnp.einsum("bmsf,bmwfr->bmwsr", hot, x, precision=EXACT)


def spread(
    updates: Any, selectors: Sequence[Sequence[Any]], extents: Sequence[int], own: bool
) -> Any:
    """The transpose of `contract`: windows added up in [batch, D_1 ... D_K, rest].

    With `own`, [batch, M, D_1 ... D_K, rest]: not added over the index vectors.
    """
    flat = [f for factors in selectors for f in factors]
    lanes, count = flat[0].shape[:2]
    windows = math.prod(f.shape[2] for f in flat)
    out = updates
    for i, hot in reversed(list(enumerate(flat))):
        size = hot.shape[2]
        windows //= size
        out = out.reshape(lanes, count, windows, size, -1)
        weights = hot.astype(out.dtype)
        if i == 0 and not own:
            out = jnp.einsum("bmsf,bmsr->bfr", weights, out[:, :, 0], precision=EXACT)
        else:
            out = jnp.einsum("bmsf,bmwsr->bmwfr", weights, out, precision=EXACT)
    front = (lanes, count) if own else (lanes,)
    padded = [math.prod(f.shape[3] for f in factors) for factors in selectors]
    out = out.reshape(*front, *padded, updates.shape[-1])
    inside = (*front, *extents, updates.shape[-1])
    return lax.slice(out, [0] * out.ndim, inside)


# -- public positions ----------------------------------------------------------------------


def positions(
    starts: Sequence[Any], extents: Sequence[int], sizes: Sequence[int], outside: str
) -> tuple[Any, Any]:
    """(int32[batch, M, S], bool[batch, M]): where windows lie in the flattened axes, and
    whether they are inside."""
    inside: Any = np.array(True)
    flat: Any = np.zeros(1, np.int32)
    for start, extent, size in zip(starts, extents, sizes, strict=True):
        start, last = wide(start, extent), extent - size
        inside = inside & ((start >= 0) & (start <= last))
        first = jnp.clip(start, 0, last).astype(np.int32)
        along = first[..., None] + np.arange(size, dtype=np.int32)
        flat = flat[..., :, None] * np.int32(extent) + along[..., None, :]
        flat = flat.reshape(*along.shape[:-1], -1)
    if outside == CLIP:
        inside = jnp.ones_like(inside)
    return flat, inside


def public_first(
    table: Any, starts: Sequence[Any], layout: Layout, public: Sequence[int]
) -> Any:
    """[batch, M, secret D ..., public S, rest]: entries at the public positions."""
    hidden = [k for k in range(len(starts)) if k not in public]
    lanes = table.shape[0]
    order = (0, *(1 + k for k in public), *(1 + k for k in hidden), table.ndim - 1)
    table = lax.transpose(table, order)
    flat = table.reshape(lanes, -1, *(layout.extents[k] for k in hidden), layout.width)
    at, _ = positions(
        [starts[k] for k in public],
        [layout.extents[k] for k in public],
        [layout.windows[k] for k in public],
        CLIP,
    )
    picked = jax.vmap(taken)(flat, at)  # [batch, M, public S, secret D ..., rest]
    return jnp.moveaxis(picked, 2, -2)


def taken(x: Any, at: Any) -> Any:
    return x.at[at].get(mode="promise_in_bounds")
