"""Ring arithmetic on clear words."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.protocols.shares import Arith
from privjax.protocols.tuples import Bilinear


def add(x: Arith, y: Arith) -> Arith:
    return Arith(x.value + y.value)


def add_public(x: Arith, v: Any) -> Arith:
    return Arith(x.value + v)


def mul_public(x: Arith, v: Any) -> Arith:
    dtype = x.value.dtype
    if isinstance(v, int):  # negative ones too
        v = np.array(v % (1 << (8 * dtype.itemsize)), dtype)
    return Arith(x.value * jnp.asarray(v, dtype))


def additive(fun: Callable[..., Any], *xs: Arith) -> Arith:
    return Arith(fun(*(x.value for x in xs)))


def product_public(op: Bilinear, x: Any, y: Any) -> Arith:
    return Arith(op(*(v.value if isinstance(v, Arith) else v for v in (x, y))))


def product(op: Bilinear, x: Arith, y: Arith) -> Arith:
    return Arith(op(x.value, y.value))


def square(x: Arith) -> Arith:
    return Arith(x.value * x.value)


def truncate(x: Arith, bits: int) -> Arith:
    """x / 2^bits, rounded to the nearest."""
    dtype = np.dtype(f"int{8 * x.value.dtype.itemsize}")
    half = np.array(1 << (bits - 1) if bits else 0, dtype)
    signed = lax.bitcast_convert_type(x.value, dtype)
    nearest = (signed + half) >> np.array(bits, dtype)
    return Arith(lax.bitcast_convert_type(nearest, x.value.dtype))
