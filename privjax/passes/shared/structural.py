"""Operations that move entries about: applied to shares as they are.

`MOVES` change the order or repeat entries, so that an opened mask stays useful; `PICKS`
take some entries; `JOINS` need all operands at one scale. Public indices only.
"""

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import GatherScatterMode as Mode

from privjax.core.interpret import Rule
from privjax.errors import UnsupportedError
from privjax.passes.decompose.indexing import filler
from privjax.passes.shared import integers
from privjax.passes.shared.arithmetic import linear
from privjax.passes.shared.comparison import ne
from privjax.passes.shared.values import SECRET, Boolean, Fixed, Integer
from privjax.protocols.shares import moved

MOVES = (
    "broadcast_in_dim",
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "rev",
    "tile",
)
PICKS = ("slice", "copy", "copy_p")


def _bound(cx: Any) -> Callable[..., Any]:
    """The current primitive as a function on arrays of any dtype."""
    primitive = cx.eqn.primitive
    params = primitive.get_bind_params(cx.eqn.params)
    return lambda *xs: primitive.bind(*xs, **params)


def move(cx: Any, x: Any, **_: Any) -> Any:
    """A transpose, reshape or broadcast."""
    return x.rearranged(_bound(cx))


def pick(cx: Any, x: Any, **_: Any) -> Any:
    """Some of the entries."""
    return picked(x, _bound(cx))


def picked(x: Any, fun: Callable[[Any], Any]) -> Any:
    """A structural function of one secret, at every scale at which it is known."""
    if isinstance(x, Fixed):
        at: dict[int, Any] = {s: (lambda s=s: x.get(s).moved(fun)) for s in x.at}
        value = x.share.moved(fun)
        out = Fixed(value.shape, x.scale, at | {x.scale: value})
        out.tiny = x.tiny
        return out
    if isinstance(x, Integer):
        return x.picked(fun)
    return Boolean(x.bit.moved(fun))


def joined(
    cx: Any,
    values: Any,
    fun: Callable[..., Any],
    apply: Callable[..., Any] = moved,
) -> Any:
    """A function of several values, all brought to one kind and scale.

    It only moves entries about; with `apply=cx.p.additive` it may add them, too.
    """
    if any(isinstance(v, Fixed) for v in values):
        reals = [v for v in values if isinstance(v, Fixed)]
        scale = max(cx.f, *(v.scale for v in reals))

        def at(scale: int) -> Any:
            shares = [cx.scaled(cx.fixed(v, scale), scale) for v in values]
            return apply(fun, *shares)

        # Scales at which all of them are known stay known (0: all are whole numbers).
        common = set.intersection(*(set(v.at) for v in reals)) - {scale}
        share, whole = at(scale), len(reals) == len(values)
        more = {s: partial(at, s) for s in common if s >= cx.f or (s == 0 and whole)}
        out = Fixed(share.shape, scale, {scale: share, **more})
        tiny = {v.tiny for v in reals}
        if len(tiny) == 1 and len(reals) == len(values) and apply is moved:
            out.tiny = tiny.pop()
        return out
    if any(isinstance(v, Integer) for v in values):
        shares = [cx.integer(v).share for v in values]
        bounds = None if apply is not moved else _common_bounds(values)
        return Integer(integers.same_type(values), apply(fun, *shares), bounds)
    bits = [cx.boolean(v).bit for v in values]
    return Boolean(moved(fun, *bits))


def _common_bounds(values: Any) -> Any:
    limits = [integers.bounds_of(v) for v in values]
    return functools.reduce(integers.combined, limits)


def concatenate(cx: Any, *values: Any, dimension: int) -> Any:
    """Operands of any kind."""
    return joined(cx, values, lambda *xs: lax.concatenate(xs, dimension))


def pad(cx: Any, x: Any, value: Any, *, padding_config: Any) -> Any:
    """Public or secret padding value."""
    return joined(cx, (x, value), lambda a, v: lax.pad(a, v, padding_config))


def stack(cx: Any, *values: Any, axis: int) -> Any:
    """Operands of any kind along a new axis."""
    return joined(cx, values, lambda *xs: jnp.stack(xs, axis))


def unstack(cx: Any, x: Any, *, axis: int, **_: Any) -> Any:
    """The slices along an axis."""
    size = x.shape[axis]
    return [
        picked(x, partial(lax.index_in_dim, index=i, axis=axis, keepdims=False))
        for i in range(size)
    ]


def split(cx: Any, x: Any, *, sizes: Any, axis: int) -> Any:
    """Pieces along an axis."""
    starts = np.cumsum([0, *sizes])
    return [
        picked(
            x, partial(lax.slice_in_dim, start_index=a, limit_index=a + n, axis=axis)
        )
        for a, n in zip(starts, sizes, strict=False)
    ]


def _public(cx: Any, *indices: Any) -> None:
    if any(isinstance(i, SECRET) for i in indices):
        raise UnsupportedError(
            f"`{cx.eqn.primitive.name}`{cx.where()} has a secret index. Use a one-hot "
            "product (jax.nn.one_hot(i, n) @ table), or make the index public with "
            "public= or privjax.reveal."
        )


def dynamic_slice(cx: Any, x: Any, *starts: Any, slice_sizes: Any) -> Any:
    """Public start indices."""
    _public(cx, *starts)
    return picked(
        x,
        lambda v: lax.dynamic_slice(
            v, starts, slice_sizes, allow_negative_indices=False
        ),
    )


def dynamic_update_slice(cx: Any, x: Any, update: Any, *starts: Any) -> Any:
    """Public start indices."""
    _public(cx, *starts)
    return joined(
        cx,
        (x, update),
        lambda v, u: lax.dynamic_update_slice(
            v, u, starts, allow_negative_indices=False
        ),
    )


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
    """Public indices; entries out of bounds are 0 where JAX would fill with NaN."""
    _public(cx, indices)

    def gathered(v: Any, fill_value: Any = 0) -> Any:
        return lax.gather(
            v,
            indices,
            dimension_numbers,
            slice_sizes,
            unique_indices=unique_indices,
            indices_are_sorted=indices_are_sorted,
            mode=mode,
            fill_value=fill_value,
        )

    out = picked(x, gathered)
    fill = filler(cx.eqn.outvars[0].aval.dtype, fill_value)
    if mode != Mode.FILL_OR_DROP or not fill:
        return out
    nothing = np.zeros(x.shape, bool)
    if not isinstance(indices, np.ndarray):
        return _filled(cx, out, gathered(nothing, True), fill)
    with jax.ensure_compile_time_eval():
        outside = np.asarray(gathered(nothing, True))
    return _filled(cx, out, outside, fill) if outside.any() else out


def _filled(cx: Any, x: Any, outside: Any, fill: Any) -> Any:
    """x, which is 0 where it is public that it lies outside, with `fill` there."""
    if isinstance(x, Boolean):
        return Boolean(cx.p.xor_public(x.bit, jnp.asarray(outside).astype(np.uint8)))
    if isinstance(x, Integer):
        value = jnp.where(outside, np.array(fill, x.dtype), np.zeros((), x.dtype))
        share = cx.p.add_public(x.share, cx.encode_integer(value))
        bounds = integers.combined(x.bounds, (int(fill), int(fill)))
        return Integer(x.dtype, share, bounds)

    def at(scale: int) -> Any:
        value = jnp.where(outside, np.float64(fill), np.float64(0))
        return cx.p.add_public(x.get(scale), cx.encode(value, scale))

    return Fixed(x.shape, x.scale, {s: partial(at, s) for s in x.at})


def _scatter(how: Callable[..., Any]) -> Callable[..., Any]:
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
        """Public indices."""
        _public(cx, indices)
        return joined(
            cx,
            (x, updates),
            lambda v, u: how(
                v,
                indices,
                u,
                dimension_numbers,
                indices_are_sorted=indices_are_sorted,
                unique_indices=unique_indices,
                mode=mode,
            ),
            cx.p.additive,
        )

    return rule


def convert_element_type(
    cx: Any, x: Any, *, new_dtype: Any, weak_type: bool, sharding: Any
) -> Any:
    """Between the kinds; a real becomes an integer by cutting off towards zero."""
    if jnp.issubdtype(new_dtype, jnp.floating):
        return cx.fixed(x)
    if new_dtype == np.bool_:
        known = x if isinstance(x, Boolean) else getattr(x, "bit", None)
        return ne(cx, x, np.zeros((), np.int32)) if known is None else known
    if not jnp.issubdtype(new_dtype, jnp.integer):
        cx.default([x])
    return integers.converted(cx, x, new_dtype)


def reduce_window_sum(
    cx: Any,
    x: Any,
    *,
    window_dimensions: Any,
    window_strides: Any,
    padding: Any,
    base_dilation: Any,
    window_dilation: Any,
) -> Any:
    """Sums over windows. Local."""
    x = cx.integer(x) if isinstance(x, Boolean) else x

    def windows(v: Any) -> Any:
        return lax.reduce_window(
            v,
            np.zeros((), v.dtype),
            lax.add,
            window_dimensions,
            window_strides,
            padding,
            base_dilation,
            window_dilation,
        )

    terms = math.prod(window_dimensions)
    return linear(cx, x, lambda s: cx.p.additive(windows, s), terms)


RULES: dict[str, Rule] = {
    **dict.fromkeys(MOVES, move),
    **dict.fromkeys(PICKS, pick),
    "concatenate": concatenate,
    "pad": pad,
    "stack": stack,
    "unstack": unstack,
    "split": split,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    "scatter-add": _scatter(lax.scatter_add),
    "scatter": _scatter(lax.scatter),
    "convert_element_type": convert_element_type,
    "reduce_window_sum": reduce_window_sum,
}
