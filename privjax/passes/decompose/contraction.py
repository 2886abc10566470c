"""Ragged and block-scaled products as ordinary ones."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.errors import UnsupportedError


def _ragged_dot(
    x: Any,
    y: Any,
    sizes: Any,
    *,
    ragged_dot_dimension_numbers: Any,
    precision: Any,
    preferred_element_type: Any,
    group_offset: Any,
    out_sharding: Any = None,
) -> Any:
    """Rows of `x` outside of a group count as zeros: one product over all groups."""
    numbers = ragged_dot_dimension_numbers
    (xc, yc), (xb, yb) = numbers.dot_dimension_numbers
    (ragged,) = numbers.lhs_ragged_dimensions
    if ragged in xb or np.ndim(sizes) != 1 or group_offset is not None:
        raise UnsupportedError(
            "a ragged product with ragged batches or groups per batch has no rule; "
            "use one product per group."
        )
    ends = jnp.cumsum(sizes)
    row = lax.broadcasted_iota(ends.dtype, (ends.size, x.shape[ragged]), 1)
    inside = (row >= (ends - sizes)[:, None]) & (row < ends[:, None])
    shape = [ends.size, *(1 for _ in x.shape)]
    shape[1 + ragged] = x.shape[ragged]
    grouped = jnp.where(inside.reshape(shape), x, jnp.zeros((), x.dtype))
    batch = [b + 1 for b in xb], list(yb)
    if ragged in xc:
        contract = [c + 1 for c in xc], list(yc)
        out = lax.dot_general(
            grouped,
            y,
            (contract, batch),
            preferred_element_type=preferred_element_type,
        )
        return jnp.moveaxis(out, len(xb), 0)
    contract = [0, *(c + 1 for c in xc)], [*numbers.rhs_group_dimensions, *yc]
    return lax.dot_general(
        grouped, y, (contract, batch), preferred_element_type=preferred_element_type
    )


def _scaled_dot(
    x: Any,
    y: Any,
    x_scale: Any,
    y_scale: Any,
    *,
    dimension_numbers: Any,
    preferred_element_type: Any,
) -> Any:
    """Every block of an operand times its scale, then one product."""
    dtype = preferred_element_type
    x, y = (
        lax.mul(v.astype(dtype), _spread(s, v.shape).astype(dtype))
        for v, s in ((x, x_scale), (y, y_scale))
    )
    return lax.dot_general(x, y, dimension_numbers, preferred_element_type=dtype)


def _spread(scale: Any, shape: tuple[int, ...]) -> Any:
    for axis, (n, m) in enumerate(zip(shape, scale.shape, strict=True)):
        scale = jnp.repeat(scale, n // m, axis)
    return scale


RULES: dict[str, Callable[..., Any]] = {
    "ragged_dot_general": _ragged_dot,
    "scaled_dot": _scaled_dot,
}
