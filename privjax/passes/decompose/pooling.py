"""Max pooling and its gradient: a tournament along each axis that both share.

The last axis first, so that of equal entries the first in row-major order wins, as in
JAX. The gradient repeats the comparisons of the value, which are then found to be equal
and made once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from privjax.errors import UnsupportedError
from privjax.passes.decompose.elementary import maximum, minimum
from privjax.passes.decompose.reductions import (
    Combine,
    first_best,
    greater,
    highest,
    less,
    lowest,
)
from privjax.passes.decompose.windows import (
    Windows,
    along,
    doubled,
    doubling_pays,
    filled,
)


def _tournament(
    w: Windows,
    axis: int,
    x: Any,
    better: Combine,
    carried: Sequence[Any] = (),
    flagged: bool = False,
) -> tuple[Any, list[Any], Any]:
    """The best entry of each window along one axis."""
    columns = [w.entries(c, axis) for c in (x, *carried)]
    valid = w.valid(axis, x.ndim)
    return first_best(columns[0], better, columns[1:], valid, flagged)


def _pooled(better: Combine, identity: Callable[[Any], Any], combine: Combine) -> Any:
    def rule(
        x: Any,
        *,
        window_dimensions: Any,
        window_strides: Any,
        padding: Any,
        base_dilation: Any,
        window_dilation: Any,
    ) -> Any:
        axes = along(
            x.shape,
            window_dimensions,
            window_strides,
            padding,
            base_dilation,
            window_dilation,
        )
        shape, nothing = [w.count for w in axes], identity(x.dtype)
        if math.prod(shape) == 0:
            return jnp.zeros(shape, x.dtype)
        for axis in reversed(range(x.ndim)):
            w = axes[axis]
            if w.trivial:
                continue
            if doubling_pays(w):
                (x,) = doubled(w, axis, [x], lambda a, b: [combine(a, b)], True)
            else:
                x = _tournament(w, axis, x, better)[0]
        return filled(x, axes, nothing)

    return rule


def _better(select_prim: Any) -> Combine:
    """The strict order in which later entries beat earlier ones."""
    orders: dict[str, Combine] = {"ge": greater, "le": less}
    if select_prim.name not in orders:
        raise UnsupportedError(
            f"windows that select by `{select_prim.name}` have no rule; only those that "
            "select the largest or the smallest entry (`ge`, `le`) have."
        )
    return orders[select_prim.name]


def _scattered(
    source: Any,
    operand: Any,
    *,
    select_prim: Any,
    window_dimensions: Any,
    window_strides: Any,
    padding: Any,
) -> Any:
    """`select_and_scatter_add`: each source goes to where its window is best."""
    better = _better(select_prim)
    axes = along(operand.shape, window_dimensions, window_strides, padding)
    if source.size == 0 or operand.size == 0:
        return jnp.zeros_like(operand)
    stages, x = [], operand
    for axis in reversed(range(operand.ndim)):
        if not axes[axis].trivial:
            x, _, flags = _tournament(axes[axis], axis, x, better, flagged=True)
            stages.append((axis, flags))
    out = source
    for axis, flags in reversed(stages):
        each = jnp.broadcast_to(out, flags.shape)
        out = axes[axis].added(lax.select(flags, each, jnp.zeros_like(each)), axis)
    return out


def _gathered(
    tangents: Any,
    operand: Any,
    *,
    select_prim: Any,
    window_dimensions: Any,
    window_strides: Any,
    padding: Any,
    base_dilation: Any,
    window_dilation: Any,
) -> Any:
    """`select_and_gather_add`: the tangent where each window is best."""
    better = _better(select_prim)
    axes = along(
        operand.shape,
        window_dimensions,
        window_strides,
        padding,
        base_dilation,
        window_dilation,
    )
    shape = [w.count for w in axes]
    if math.prod(shape) == 0:
        return jnp.zeros(shape, tangents.dtype)
    x, out = operand, tangents
    for axis in reversed(range(operand.ndim)):
        if not axes[axis].trivial:
            x, (out,), _ = _tournament(axes[axis], axis, x, better, [out])
    return filled(out, axes, jnp.zeros((), out.dtype))


RULES: dict[str, Callable[..., Any]] = {
    "reduce_window_max": _pooled(greater, lowest, maximum),
    "reduce_window_min": _pooled(less, highest, minimum),
    "select_and_scatter_add": _scattered,
    "select_and_gather_add": _gathered,
}
