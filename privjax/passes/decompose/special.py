"""Elementary and special functions in terms of those with protocols of their own.

Each row keeps the error that `protocols.functions.bounds` states: sums of fixed-point
numbers are exact, so that 1 + x loses nothing for a small x.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax


def _like(x: Any, value: float) -> Any:
    return jnp.full_like(x, value)


def _sin(x: Any, *, accuracy: Any = None) -> Any:
    """cos(x - pi/2): sines and cosines of a program run as one."""
    return lax.cos(lax.sub(x, _like(x, np.pi / 2)))


def _halves(x: Any, fun: Callable[[Any], Any]) -> tuple[Any, Any]:
    """`fun` of x - log 2 and of -x - log 2: half of e^x does not saturate before it."""
    less = _like(x, np.log(2))
    return fun(lax.sub(x, less)), fun(lax.sub(lax.neg(x), less))


def _sinh(x: Any, *, accuracy: Any = None) -> Any:
    return lax.sub(*_halves(x, lax.expm1))


def _cosh(x: Any, *, accuracy: Any = None) -> Any:
    return lax.add(*_halves(x, lax.exp))


def _atanh(x: Any) -> Any:
    twice = lax.sub(lax.log1p(x), lax.log1p(lax.neg(x)))
    return lax.mul(_like(x, 0.5), twice)


def _integer_pow(x: Any, *, y: int) -> Any:
    """A square is a product; other powers of reals saturate, which takes a comparison."""
    if y == 2:
        return lax.mul(x, x)
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return lax.pow(x, np.asarray(y, x.dtype))
    result, base = jnp.ones_like(x), x
    while y:
        result = lax.mul(result, base) if y & 1 else result
        y >>= 1
        base = lax.mul(base, base) if y else base
    return result


# The hints on accuracy change nothing here.
RULES: dict[str, Callable[..., Any]] = {
    "atanh": _atanh,
    "cosh": _cosh,
    "erfc": lambda x: lax.sub(_like(x, 1.0), lax.erf(x)),
    "integer_pow": _integer_pow,
    "log1p": lambda x, *, accuracy=None: lax.log(lax.add(x, _like(x, 1.0))),
    "log2": lambda x, *, accuracy=None: lax.mul(lax.log(x), _like(x, 1 / np.log(2))),
    "sin": _sin,
    "sinh": _sinh,
}
