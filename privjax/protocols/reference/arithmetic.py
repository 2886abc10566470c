"""Ring arithmetic on clear words."""

from collections.abc import Callable
from typing import Any

from privjax.protocols import elements
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import Bilinear


def add(x: Arith, y: Arith) -> Arith:
    return Arith(x.value + y.value)


def add_public(x: Arith, v: Any) -> Arith:
    return Arith(x.value + elements.public(v, x.value.dtype))


def mul_public(x: Arith, v: Any) -> Arith:
    return Arith(elements.times_public(x.value, v))


def additive(fun: Callable[..., Any], *xs: Arith) -> Arith:
    return Arith(elements.additive(fun, *(x.value for x in xs)))


def product_public(op: Bilinear, x: Any, y: Any) -> Arith:
    share = x if isinstance(x, Arith) else y
    factors = (
        v.value if isinstance(v, Arith) else elements.public(v, share.value.dtype)
        for v in (x, y)
    )
    return Arith(op(*factors))


def product(op: Bilinear, x: Arith, y: Arith) -> Arith:
    return Arith(op(x.value, y.value))


def square(x: Arith) -> Arith:
    return Arith(x.value * x.value)


def truncate(x: Arith, bits: int) -> Arith:
    """x / 2^bits, rounded to the nearest."""
    half = elements.constant(1 << (bits - 1) if bits else 0, x.value.dtype)
    return Arith(elements.shift_right_signed(x.value + half, bits))
