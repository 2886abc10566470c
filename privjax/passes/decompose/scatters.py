"""Scatters and updates of slices.

At secret positions every entry of the table is touched. At public positions the shared
pass adds and replaces; other functions combine what falls on one place in a tree first.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import GatherScatterMode as Mode

from privjax.passes.decompose.elementary import maximum, minimum
from privjax.passes.decompose.layout import (
    Layout,
    contract,
    of_scatter,
    of_slice,
    positions,
    product,
    selectors_of,
    spread,
    taken,
)
from privjax.passes.decompose.order import CLIP, DROP
from privjax.passes.decompose.reductions import (
    closed,
    elementwise,
    halving,
    prefixes,
)
from privjax.passes.taint import Tainted, raw


def columns_of(indices: Any) -> list[Any]:
    """The columns of secret indices, each secret or public."""
    known = getattr(indices, "columns", None)
    if known is not None:
        return known
    return [Tainted(indices.array[..., k]) for k in range(indices.array.shape[-1])]


def public_among(columns: Sequence[Any]) -> list[int]:
    return [k for k, c in enumerate(columns) if not isinstance(c, Tainted)]


def at_axes(axes: Sequence[int], starts: Sequence[Any], rank: int) -> list[Any]:
    """Starts on all axes, 0 on those not named."""
    known = dict(zip(axes, starts, strict=True))
    return [known.get(a, np.int32(0)) for a in range(rank)]


# -- scatters ------------------------------------------------------------------------------


def scatter_add(
    cx: Any,
    x: Any,
    indices: Any,
    updates: Any,
    *,
    dimension_numbers: Any,
    indices_are_sorted: bool,
    unique_indices: bool,
    mode: Any,
    update_jaxpr: Any,
    update_consts: Any,
) -> Any:
    """Secret indices: the transpose of a gather."""
    if not isinstance(indices, Tainted):
        return cx.default([x, indices, updates])[0]
    layout = of_scatter(raw(x), indices.array, raw(updates), dimension_numbers)
    columns, outside = columns_of(indices), _outside(mode)

    def added(x: Any, updates: Any, *values: Any) -> Any:
        return _added(layout, x, values, public_among(columns), updates, outside)

    return cx.apply(added, x, updates, *columns)[0]


def scatter_sub(
    cx: Any,
    x: Any,
    indices: Any,
    updates: Any,
    *,
    dimension_numbers: Any,
    indices_are_sorted: bool,
    unique_indices: bool,
    mode: Any,
    update_jaxpr: Any,
    update_consts: Any,
) -> Any:
    """The negative is added."""

    def subtracted(x: Any, indices: Any, updates: Any) -> Any:
        return lax.scatter_add(
            x,
            indices,
            lax.neg(updates),
            dimension_numbers,
            indices_are_sorted=indices_are_sorted,
            unique_indices=unique_indices,
            mode=mode,
        )

    return cx.apply(subtracted, x, indices, updates)[0]


def _outside(mode: Any) -> str:
    return CLIP if mode == Mode.CLIP else DROP


def _added(
    layout: Layout,
    x: Any,
    columns: Sequence[Any],
    public: Sequence[int],
    updates: Any,
    outside: str,
) -> Any:
    if updates.size == 0 or x.size == 0:
        return x
    starts = [layout.starts(c) for c in columns]
    hidden = [k for k in range(len(starts)) if k not in public]
    order = [*public, *hidden]
    table, new = layout.table(x), layout.from_windows(updates)
    # [batch, M, secret S ..., public S and rest]
    new = lax.transpose(new, (0, 1, *(2 + k for k in (*hidden, *public)), new.ndim - 1))
    new = new.reshape(*new.shape[: 2 + len(hidden)], -1)
    extents = [layout.extents[k] for k in hidden]
    selectors, _ = selectors_of(
        [starts[k] for k in hidden],
        extents,
        [layout.windows[k] for k in hidden],
        outside,
        new.shape[-1],
    )
    new = spread(new, selectors, extents, own=bool(public))
    if public:
        known = [layout.extents[k] for k in public]
        sizes = [layout.windows[k] for k in public]
        flat, inside = positions([starts[k] for k in public], known, sizes, outside)
        new = new.reshape(*new.shape[:-1], math.prod(sizes), layout.width)
        new = jnp.moveaxis(new, -2, 2)  # [batch, M, public S, secret D ..., rest]
        at = jnp.where(inside[..., None], flat, np.int32(math.prod(known)))
        zeros = jnp.zeros((math.prod(known), *new.shape[3:]), x.dtype)
        new = jax.vmap(lambda a, u: zeros.at[a].add(u, mode="drop"))(at, new)
    new = new.reshape(table.shape[0], *(layout.extents[k] for k in order), layout.width)
    back = [0, *(1 + order.index(k) for k in range(len(order))), table.ndim - 1]
    return layout.restored(table + lax.transpose(new, back), x)


def _combining(combine: Callable[[Any, Any], Any] | None) -> Callable[..., Any]:
    """`scatter` (no function: its own `update_jaxpr`), or one that combines."""

    def rule(
        cx: Any,
        x: Any,
        indices: Any,
        updates: Any,
        *,
        dimension_numbers: Any,
        indices_are_sorted: bool,
        unique_indices: bool,
        mode: Any,
        update_jaxpr: Any,
        update_consts: Any,
    ) -> Any:
        how = combine or _function(update_jaxpr, update_consts)
        secret = isinstance(indices, Tainted)
        if how is None and not secret:
            return cx.default([x, indices, updates])[0]
        columns = (
            columns_of(indices)
            if secret
            else [indices[..., k] for k in range(indices.shape[-1])]
        )
        layout = of_scatter(raw(x), raw(indices), raw(updates), dimension_numbers)
        outside = _outside(mode)

        def written(x: Any, updates: Any, *values: Any) -> Any:
            if updates.size == 0 or x.size == 0:
                return x
            fun = _written if secret else _combined_in_public
            return fun(layout, x, values, updates, how, unique_indices, outside)

        return cx.apply(written, x, updates, *columns)[0]

    return rule


def _function(jaxpr: Any, consts: Any) -> Callable[[Any, Any], Any] | None:
    """The function of `x.at[i].apply`; None where an update just replaces."""
    if jaxpr is None:
        return None
    if not jaxpr.eqns and jaxpr.outvars[0] is jaxpr.invars[1]:
        return None
    fun = elementwise(closed(jaxpr, consts))
    return lambda old, new: fun(old, new)[0]


def _written(
    layout: Layout,
    x: Any,
    columns: Sequence[Any],
    updates: Any,
    combine: Callable[[Any, Any], Any] | None,
    unique: bool,
    outside: str,
) -> Any:
    """Secret positions: all are touched, those meant take the update."""
    starts = [layout.starts(c) for c in columns]
    table, new = layout.table(x), layout.from_windows(updates)
    selectors, _ = selectors_of(starts, layout.extents, layout.windows, outside)
    lanes, count, width = layout.lanes, layout.count, layout.width
    hot = _all_axes(selectors)  # [batch, M, S, N]
    flat = table.reshape(lanes, -1, width)
    new = new.reshape(lanes, count, -1, width)
    if combine in _REDUCTIONS and not unique and count > 1:
        out = _reduced(flat, hot, new, combine)
    elif combine is None or unique or count == 1:
        if combine is not None:
            old = contract(table, selectors).reshape(new.shape)
            new = combine(old, new)
        out = _replaced(flat, hot, new, unique or count == 1)
    else:  # any function: one index vector after the other

        def one(flat: Any, step: Any) -> Any:
            hot, new = (s[:, None] for s in step)
            old = contract(flat, [[hot]]).reshape(new.shape)
            return _replaced(flat, hot, combine(old, new), True), None

        steps = [jnp.moveaxis(v, 1, 0) for v in (hot, new)]
        out = lax.scan(one, flat, steps)[0]
    return layout.restored(out.reshape(table.shape), x)


def _all_axes(selectors: Sequence[Sequence[Any]]) -> Any:
    """[batch, M, S, N]: one-hot vectors of windows in the flattened axes."""
    out = selectors[0][0]
    for (hot,) in selectors[1:]:
        both = out[:, :, :, None, :, None] & hot[:, :, None, :, None, :]
        windows, places = out.shape[2] * hot.shape[2], out.shape[3] * hot.shape[3]
        out = both.reshape(*out.shape[:2], windows, places)
    return out


def _replaced(flat: Any, hot: Any, new: Any, unique: bool) -> Any:
    """flat[b, n, r] with new[b, m, s, r] where hot[b, m, s, n]: the last one counts."""
    lanes, count, size, places = hot.shape
    if not unique and count > 1:
        covered = halving(jnp.moveaxis(hot, 2, 0), lax.bitwise_xor)
        after = jnp.moveaxis(covered, 1, 0)[::-1]  # later ones first
        later = prefixes(after[:-1], lax.bitwise_or)[::-1]
        later = jnp.concatenate([later, jnp.zeros_like(later[:1])])
        hot = hot & ~jnp.moveaxis(later, 0, 1)[:, :, None]
    hot = hot.reshape(lanes, count * size, places)
    new = new.reshape(lanes, count * size, -1)
    anywhere = halving(jnp.moveaxis(hot, 1, 0), lax.bitwise_xor)
    if count * size > 1:
        turned = jnp.moveaxis(hot, 1, 2)[:, None]
        new = product(turned, new[:, None, None])[:, 0, 0]
    return jnp.where(anywhere[..., None], new, flat)


def _reduced(flat: Any, hot: Any, new: Any, combine: Any) -> Any:
    """All updates of a position at once, where they may be combined in any order."""
    reduction, identity = _REDUCTIONS[combine]
    lanes, count, size, places = hot.shape
    hot = hot.reshape(lanes, count * size, places, 1)
    new = new.reshape(lanes, count * size, 1, -1)
    flat = flat[:, None]
    neutral = flat if identity is None else jnp.full((), identity, flat.dtype)
    entries = jnp.where(hot, new, neutral)
    return reduction(jnp.concatenate([flat, entries], 1), axis=1)


def _all_product(x: Any, axis: int) -> Any:
    return jnp.prod(x, axis, dtype=x.dtype)


# The reduction of what is combined, and its neutral value; None: the entry itself.
_REDUCTIONS: dict[Any, tuple[Callable[..., Any], Any]] = {
    lax.mul: (_all_product, 1),
    maximum: (jnp.max, None),
    minimum: (jnp.min, None),
}


def _combined_in_public(
    layout: Layout,
    x: Any,
    columns: Sequence[Any],
    updates: Any,
    combine: Any,
    unique: bool,
    outside: str,
) -> Any:
    """Public positions: those of one place are combined in a tree, then with the entry."""
    if not unique and layout.count > 1 and combine not in _REDUCTIONS:
        return _written(layout, x, columns, updates, combine, unique, outside)
    starts = [layout.starts(c) for c in columns]
    table = layout.table(x)
    flat = table.reshape(layout.lanes, -1, layout.width)
    new = layout.from_windows(updates).reshape(layout.lanes, -1, layout.width)
    at, inside = positions(starts, layout.extents, layout.windows, outside)
    at = jnp.where(inside[..., None], at, np.int32(flat.shape[1]))
    at = at.reshape(layout.lanes, -1)
    if not unique and layout.count > 1:
        at, new = jax.vmap(partial(_by_place, combine))(at, new)

    def combined(flat: Any, at: Any, new: Any) -> Any:
        old = flat.at[at].get(mode="clip")
        return flat.at[at].set(combine(old, new), mode="drop")

    out = jax.vmap(combined)(flat, at, new)
    return layout.restored(out.reshape(table.shape), x)


def _by_place(combine: Any, at: Any, new: Any) -> tuple[Any, Any]:
    """(places, rows) with the rows of one place combined: all others lie out of bounds.

    Rows are sorted by place; at each level row r of a place takes up row r + step, for r
    a multiple of twice the step. Such a place has more than `step` rows, so that there
    are at most n / (step + 1) of these pairs.
    """
    n = at.shape[0]
    order = jnp.argsort(at, stable=True)
    at, new = at[order], taken(new, order)
    start = jnp.searchsorted(at, at).astype(np.int32)
    rank = np.arange(n, dtype=np.int32) - start
    step = 1
    while step < n:
        partner = jnp.roll(at, -step).at[-step:].set(-1)
        pairs = (rank % (2 * step) == 0) & (partner == at)
        (first,) = jnp.nonzero(pairs, size=n // (step + 1), fill_value=n)
        a, b = (new.at[first + s].get(mode="clip") for s in (0, step))
        new = new.at[first].set(combine(a, b), mode="drop")
        step *= 2
    return jnp.where(rank == 0, at, np.iinfo(np.int32).max), new


def dynamic_update_slice(cx: Any, x: Any, update: Any, *starts: Any) -> Any:
    """Secret starts: within the block that the public ones select."""
    if not any(isinstance(s, Tainted) for s in starts):
        return cx.default([x, update, *starts])[0]
    shape, sizes = raw(x).shape, raw(update).shape
    moving = [a for a, n in enumerate(sizes) if n < shape[a]]
    hidden = [a for a in moving if isinstance(starts[a], Tainted)]
    open_axes = [a for a in moving if a not in hidden]
    seen = [starts[a] for a in open_axes]

    def updated(x: Any, update: Any, *values: Any) -> Any:
        public, secret = values[: len(seen)], values[len(seen) :]
        first = at_axes(open_axes, public, x.ndim)
        if hidden and update.size:
            block = [shape[a] if a in hidden else n for a, n in enumerate(sizes)]
            layout = of_slice(tuple(block), sizes, hidden)
            inner = lax.dynamic_slice(x, first, block, allow_negative_indices=False)
            update = _written(layout, inner, secret, update, None, True, CLIP)
        return lax.dynamic_update_slice(x, update, first, allow_negative_indices=False)

    return cx.apply(updated, x, update, *seen, *(starts[a] for a in hidden))[0]


RULES: dict[str, Callable[..., Any]] = {
    "scatter": _combining(None),
    "scatter-add": scatter_add,
    "scatter-sub": scatter_sub,
    "scatter-mul": _combining(lax.mul),
    "scatter-max": _combining(maximum),
    "scatter-min": _combining(minimum),
    "dynamic_update_slice": dynamic_update_slice,
}
