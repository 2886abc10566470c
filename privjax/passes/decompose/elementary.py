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


def _integer_pow(x: Any, *, y: int) -> Any:
    if y < 0:
        return jnp.ones_like(x) / lax.integer_pow(x, -y)
    result, base = None, x
    while y:
        if y & 1:
            result = base if result is None else lax.mul(result, base)
        y >>= 1
        base = lax.mul(base, base) if y else base
    return jnp.ones_like(x) if result is None else result


def _abs(x: Any) -> Any:
    return jnp.where(lax.lt(x, jnp.zeros_like(x)), lax.neg(x), x)


def _sign(x: Any) -> Any:
    zero = jnp.zeros_like(x)
    positive = lax.convert_element_type(lax.gt(x, zero), x.dtype)
    return lax.sub(positive, lax.convert_element_type(lax.lt(x, zero), x.dtype))


def _clamp(low: Any, x: Any, high: Any) -> Any:
    return minimum(maximum(x, low), high)


def _pow(x: Any, y: Any) -> Any:
    y = jnp.asarray(y)
    return lax.exp(lax.mul(*_broadcast(lax.log(x), y.astype(x.dtype))))


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
    "integer_pow": _integer_pow,
    "pow": _pow,
    "log1p": lambda x, *, accuracy=None: lax.log(lax.add(x, jnp.ones_like(x))),
    "log2": lambda x, *, accuracy=None: lax.mul(
        lax.log(x), jnp.full_like(x, 1 / np.log(2))
    ),
    "expm1": lambda x, *, accuracy=None: lax.sub(lax.exp(x), jnp.ones_like(x)),
    "erfc": lambda x: lax.sub(jnp.ones_like(x), lax.erf(x)),
    "sinh": lambda x, *, accuracy=None: 0.5 * (lax.exp(x) - lax.exp(-x)),
    "cosh": lambda x, *, accuracy=None: 0.5 * (lax.exp(x) + lax.exp(-x)),
    "is_finite": lambda x: jnp.ones(x.shape, bool),
}
