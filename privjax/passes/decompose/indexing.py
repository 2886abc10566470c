"""Gathers, slices and choices at secret indices, obliviously.

Every entry of the table is touched, so that nothing shows which one was meant: an access
is a product with one-hot vectors (`layout`). The rules see which operands are secret. A
column of indices that is public, as the rows of x[jnp.arange(n), labels], is used as such.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import GatherScatterMode as Mode

from privjax.core.interpret import Rule
from privjax.passes.decompose import scatters
from privjax.passes.decompose.layout import (
    Layout,
    contract,
    of_gather,
    of_slice,
    positions,
    public_first,
    selectors_of,
)
from privjax.passes.decompose.order import CLIP, DROP, one_hot
from privjax.passes.decompose.reductions import summed
from privjax.passes.decompose.scatters import at_axes, columns_of, public_among
from privjax.passes.taint import Tainted, raw


def concatenate(cx: Any, *values: Any, dimension: int) -> Any:
    """Columns of indices are remembered: those that are public may be used as such."""
    (out,) = cx.default(values)
    columns = dimension == raw(out).ndim - 1 and all(
        raw(v).shape[dimension] == 1 for v in values
    )
    if columns and jnp.issubdtype(raw(out).dtype, jnp.integer):
        out.columns = [
            Tainted(v.array[..., 0]) if isinstance(v, Tainted) else v[..., 0]
            for v in values
        ]
    return out


def gather(
    cx: Any,
    x: Any,
    indices: Any,
    *,
    dimension_numbers: Any,
    slice_sizes: Any,
    unique_indices: bool,
    indices_are_sorted: bool,
    mode: Any,
    fill_value: Any,
) -> Any:
    """Secret indices: a product with one-hot vectors; 0 where JAX would fill with NaN."""
    drops = mode == Mode.FILL_OR_DROP
    if drops and filler(raw(x).dtype, fill_value) is None and raw(x).size:
        text = "an index out of bounds gives 0, where JAX gives NaN"
        cx.notes[f"{text}{cx.where()}"] = None
    if not isinstance(indices, Tainted):
        return cx.default([x, indices])[0]
    layout = of_gather(raw(x), indices.array, dimension_numbers, slice_sizes)
    columns = columns_of(indices)
    outside = DROP if drops else CLIP
    fill = filler(raw(x).dtype, fill_value) if outside == DROP else None

    def gathered(x: Any, *columns: Any) -> Any:
        return _gathered(layout, x, columns, public_among(own), outside, fill)

    own = columns
    return cx.apply(gathered, x, *columns)[0]


def filler(dtype: Any, value: Any) -> Any:
    """What JAX puts where an index is out of bounds; None for NaN."""
    if jnp.issubdtype(dtype, jnp.floating):
        return None if value is None or np.isnan(value) else value
    if value is not None:
        return value
    if np.dtype(dtype) == bool:
        return True
    info = np.iinfo(dtype)
    return info.min if info.min < 0 else info.max


def _gathered(
    layout: Layout,
    x: Any,
    columns: Sequence[Any],
    public: Sequence[int],
    outside: str,
    fill: Any,
) -> Any:
    starts = [layout.starts(c) for c in columns]
    table, width = layout.table(x), layout.width
    hidden = [k for k in range(len(starts)) if k not in public]
    shape = (layout.lanes, layout.count, *layout.windows, width)
    if math.prod(shape) == 0:
        return layout.to_windows(jnp.zeros(shape, x.dtype))
    if public:
        table = public_first(table, starts, layout, public)
        table = table.reshape(*table.shape[:-2], -1)
        width = table.shape[-1]
    selectors, inside = selectors_of(
        [starts[k] for k in hidden],
        [layout.extents[k] for k in hidden],
        [layout.windows[k] for k in hidden],
        outside,
        width,
    )
    out = contract(table, selectors)  # [batch, M, secret S ..., public S ..., rest]
    order = [*hidden, *public]
    out = out.reshape(*out.shape[:2], *(layout.windows[k] for k in order), -1)
    order = [0, 1, *(2 + order.index(k) for k in range(len(order))), out.ndim - 1]
    out = lax.transpose(out, order)
    if outside == DROP:
        out = _filled(layout, out, starts, public, inside, fill)
    return layout.to_windows(out)


def _filled(
    layout: Layout,
    out: Any,
    starts: Sequence[Any],
    public: Sequence[int],
    inside: Any,
    fill: Any,
) -> Any:
    """`out`, which is 0 where a secret start is outside, with `fill` wherever one is."""
    lanes = (..., *[None] * (out.ndim - 2))
    if public:
        _, known = positions(
            [starts[k] for k in public],
            [layout.extents[k] for k in public],
            [layout.windows[k] for k in public],
            DROP,
        )
        out = jnp.where(known[lanes], out, jnp.zeros((), out.dtype))
        inside = inside & known
    if fill is None or not fill:
        return out
    missing = ~inside[lanes]
    if out.dtype == bool:
        return out ^ missing
    missing = jnp.broadcast_to(missing, out.shape).astype(out.dtype)
    return out + missing * np.array(fill, out.dtype)


def dynamic_slice(cx: Any, x: Any, *starts: Any, slice_sizes: Any) -> Any:
    """Public starts first, then all secret ones at once."""
    if not any(isinstance(s, Tainted) for s in starts):
        return cx.default([x, *starts])[0]
    shape = raw(x).shape
    moving = [a for a, n in enumerate(slice_sizes) if n < shape[a]]
    hidden = [a for a in moving if isinstance(starts[a], Tainted)]
    seen = [starts[a] for a in moving if a not in hidden]

    def sliced(x: Any, *values: Any) -> Any:
        public, secret = values[: len(seen)], values[len(seen) :]
        first = at_axes([a for a in moving if a not in hidden], public, x.ndim)
        sizes = [shape[a] if a in hidden else n for a, n in enumerate(slice_sizes)]
        x = lax.dynamic_slice(x, first, sizes, allow_negative_indices=False)
        if not hidden:
            return x
        layout = of_slice(x.shape, slice_sizes, hidden)
        return _gathered(layout, x, secret, (), CLIP, None)

    return cx.apply(sliced, x, *seen, *(starts[a] for a in hidden))[0]


def select_n(cx: Any, which: Any, *cases: Any) -> Any:
    """A secret choice between more than two cases."""
    if not isinstance(which, Tainted) or which.array.dtype == bool:
        return cx.default([which, *cases])[0]

    def chosen(which: Any, *cases: Any) -> Any:
        hot = jnp.moveaxis(one_hot(which, len(cases), CLIP), -1, 0)
        hot = hot.reshape(len(cases), *which.shape, *[1] * (cases[0].ndim - which.ndim))
        return summed(hot, jnp.stack(cases))

    return cx.apply(chosen, which, *cases)[0]


# They ask which operands are secret, as the rules of control flow do.
RULES: dict[str, Rule] = {
    **scatters.RULES,
    "concatenate": concatenate,
    "gather": gather,
    "dynamic_slice": dynamic_slice,
    "select_n": select_n,
}
