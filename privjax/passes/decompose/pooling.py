"""Max pooling and its gradient as one tournament that both share.

Windows are laid out by public slices (a linear map); a one-hot of the first largest entry
of each window is found once and used for the value and, transposed, for the gradient.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privjax.errors import UnsupportedError


def _windows(x: Any, dims: Sequence[int], strides: Sequence[int], pads: Any) -> Any:
    """[window entries, *output shape]; entries beyond the edge are very negative."""
    low = jnp.asarray(-(2.0**20), x.dtype)  # public: compares below any value in range
    x = lax.pad(x, low, [(a, b, 0) for a, b in pads])
    return _slices(x, dims, strides)


def _slices(x: Any, dims: Sequence[int], strides: Sequence[int]) -> Any:
    out = [(n - d) // s + 1 for n, d, s in zip(x.shape, dims, strides, strict=True)]
    parts = []
    for start in itertools.product(*map(range, dims)):
        stop = [
            a + (n - 1) * s + 1 for a, n, s in zip(start, out, strides, strict=True)
        ]
        parts.append(lax.slice(x, start, stop, strides))
    return jnp.stack(parts)


def _first_max(w: Any) -> tuple[Any, Any]:
    """(largest entry, one-hot of the first largest) along the leading axis.

    A tournament of neighbours: the left one is always the earlier and wins ties.
    """
    best, hot = w, None
    members = [[i] for i in range(w.shape[0])]  # entries below each survivor
    flags: dict[int, Any] = {}
    while len(members) > 1:
        half = len(members) // 2
        a, b = best[: 2 * half : 2], best[1 : 2 * half : 2]
        later = lax.gt(b, a)
        won = jnp.where(later, b, a)
        best = jnp.concatenate([won, best[2 * half :]]) if len(members) % 2 else won
        merged = []
        for i in range(half):
            for entry in members[2 * i]:
                stays = ~later[i]
                flags[entry] = flags[entry] & stays if entry in flags else stays
            for entry in members[2 * i + 1]:
                flags[entry] = flags[entry] & later[i] if entry in flags else later[i]
            merged.append(members[2 * i] + members[2 * i + 1])
        members = merged + members[2 * half :]
    if not flags:
        return w[0], jnp.ones(w.shape, bool)
    hot = jnp.stack([flags[i] for i in range(w.shape[0])])
    return best[0], hot


def window_max(
    x: Any,
    *,
    window_dimensions: Any,
    window_strides: Any,
    padding: Any,
    base_dilation: Any = None,
    window_dilation: Any = None,
) -> Any:
    """`reduce_window_max` without dilation."""
    _no_dilation(base_dilation, window_dilation)
    return _first_max(_windows(x, window_dimensions, window_strides, padding))[0]


def scatter_to_max(
    source: Any,
    operand: Any,
    *,
    select_prim: Any,
    window_dimensions: Any,
    window_strides: Any,
    padding: Any,
) -> Any:
    """`select_and_scatter_add` for a max pool: each source goes to its window's max."""
    if select_prim.name != "ge":
        raise UnsupportedError(
            f"select_and_scatter_add selecting by `{select_prim.name}` has no rule; "
            "only the gradient of a max pool (`ge`) has."
        )
    _, hot = _first_max(_windows(operand, window_dimensions, window_strides, padding))
    spread = _transposed(
        lambda x: _slices(
            lax.pad(x, jnp.zeros((), x.dtype), [(a, b, 0) for a, b in padding]),
            window_dimensions,
            window_strides,
        ),
        operand,
    )
    source = jnp.broadcast_to(source, hot.shape)
    return spread(jnp.where(hot, source, jnp.zeros_like(source)))


def _transposed(linear: Callable[[Any], Any], like: Any) -> Callable[[Any], Any]:
    transpose = jax.linear_transpose(
        linear, jax.ShapeDtypeStruct(like.shape, like.dtype)
    )
    return lambda y: transpose(y)[0]


def _no_dilation(*dilations: Any) -> None:
    for dilation in dilations:
        if dilation is not None and any(d != 1 for d in dilation):
            raise UnsupportedError(
                "a max pool with dilated windows has no rule; pad or slice instead."
            )


RULES: dict[str, Callable[..., Any]] = {
    "reduce_window_max": window_max,
    "select_and_scatter_add": scatter_to_max,
}
