"""Reductions, cumulative operations and positions of extrema, as trees of pairs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.passes.decompose.elementary import maximum, minimum


def _halving(x: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Combine all entries of the leading axis pairwise: log2(n) levels."""
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        pairs = combine(x[:half], x[half : 2 * half])
        x = jnp.concatenate([pairs, x[2 * half :]]) if x.shape[0] % 2 else pairs
    return x[0]


def _leading(x: Any, axes: Sequence[int]) -> Any:
    """Move `axes` to the front and flatten them."""
    rest = [d for i, d in enumerate(x.shape) if i not in axes]
    return jnp.moveaxis(x, axes, range(len(axes))).reshape(-1, *rest)


def _reduce_max(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), maximum)


def _reduce_min(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), minimum)


def _reduce_prod(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), lax.mul)


def _reduce_and(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), lax.bitwise_and)


def _reduce_or(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), lax.bitwise_or)


def _arg(x: Any, axes: Any, index_dtype: Any, better: Any) -> Any:
    """Index of the first best entry: a tournament that carries values and indices."""
    (axis,) = axes
    v = jnp.moveaxis(x, axis, 0)
    i = lax.broadcasted_iota(np.dtype(index_dtype), v.shape, 0)
    while v.shape[0] > 1:
        half = v.shape[0] // 2
        # Neighbours, so that the left one is always the earlier: it wins ties.
        a, b = v[: 2 * half : 2], v[1 : 2 * half : 2]
        ia, ib = i[: 2 * half : 2], i[1 : 2 * half : 2]
        later = better(b, a)
        w, iw = jnp.where(later, b, a), jnp.where(later, ib, ia)
        if v.shape[0] % 2:
            w = jnp.concatenate([w, v[2 * half :]])
            iw = jnp.concatenate([iw, i[2 * half :]])
        v, i = w, iw
    return i[0]


def _argmax(x: Any, *, axes: Any, index_dtype: Any) -> Any:
    return _arg(x, axes, index_dtype, lax.gt)


def _argmin(x: Any, *, axes: Any, index_dtype: Any) -> Any:
    return _arg(x, axes, index_dtype, lax.lt)


def _cumulative(x: Any, axis: int, reverse: bool, combine: Any) -> Any:
    """A parallel prefix (Kogge and Stone): log2(n) levels."""
    v = jnp.moveaxis(x, axis, 0)
    v = v[::-1] if reverse else v
    step = 1
    while step < v.shape[0]:
        v = jnp.concatenate([v[:step], combine(v[step:], v[:-step])])
        step *= 2
    v = v[::-1] if reverse else v
    return jnp.moveaxis(v, 0, axis)


def _cummax(x: Any, *, axis: int, reverse: bool) -> Any:
    return _cumulative(x, axis, reverse, maximum)


def _cummin(x: Any, *, axis: int, reverse: bool) -> Any:
    return _cumulative(x, axis, reverse, minimum)


def _cumprod(x: Any, *, axis: int, reverse: bool) -> Any:
    return _cumulative(x, axis, reverse, lax.mul)


# Shardings change no value.
RULES: dict[str, Callable[..., Any]] = {
    "reduce_max": _reduce_max,
    "reduce_min": _reduce_min,
    "reduce_prod": _reduce_prod,
    "reduce_and": _reduce_and,
    "reduce_or": _reduce_or,
    "argmax": _argmax,
    "argmin": _argmin,
    "cummax": _cummax,
    "cummin": _cummin,
    "cumprod": _cumprod,
}
