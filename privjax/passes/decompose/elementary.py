"""Elementwise operations in terms of sums, products, comparisons and selection."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax


def maximum(x: Any, y: Any) -> Any:
    return jnp.where(lax.gt(*_broadcast(x, y)), x, y)


def minimum(x: Any, y: Any) -> Any:
    return jnp.where(lax.gt(*_broadcast(x, y)), y, x)


def _broadcast(x: Any, y: Any) -> Any:
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        return x, y  # as JAX writes `x > 0`: equal comparisons must look alike
    return jnp.broadcast_arrays(x, y)


def _abs(x: Any) -> Any:
    return jnp.where(lax.lt(x, jnp.zeros_like(x)), lax.neg(x), x)


def _sign(x: Any) -> Any:
    zero = jnp.zeros_like(x)
    positive = lax.convert_element_type(lax.gt(x, zero), x.dtype)
    return lax.sub(positive, lax.convert_element_type(lax.lt(x, zero), x.dtype))


def _clamp(low: Any, x: Any, high: Any) -> Any:
    return minimum(maximum(x, low), high)


# Rules that exist only to be taken apart; options that change no value are named and
# ignored (accuracy hints, shardings).
RULES: dict[str, Callable[..., Any]] = {
    "max": maximum,
    "min": minimum,
    "clamp": _clamp,
    "abs": _abs,
    "sign": _sign,
    "square": lambda x: lax.mul(x, x),
    "one_minus_square": lambda x: lax.sub(jnp.ones_like(x), lax.mul(x, x)),
    "is_finite": lambda x: jnp.ones(x.shape, bool),
}
