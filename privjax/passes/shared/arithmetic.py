"""Sums and products of secrets, and of a secret with a public value."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core.interpret import Rule
from privjax.passes.shared import integers
from privjax.passes.shared.values import SECRET, Boolean, Fixed
from privjax.protocols.tuples import MUL


def operands(cx: Any, *values: Any) -> list[Any]:
    """Values broadcast to the shape of the current result (scalars may be literals)."""
    shape = cx.eqn.outvars[0].aval.shape
    return [broadcast(v, shape) for v in values]


def broadcast(value: Any, shape: tuple[int, ...]) -> Any:
    """A secret or public value of rank 0 spread to `shape`."""
    if tuple(getattr(value, "shape", ())) == tuple(shape):
        return value
    if isinstance(value, SECRET):
        return value.rearranged(lambda x: jnp.broadcast_to(x, shape))
    if isinstance(value, jax.Array):
        return jnp.broadcast_to(value, shape)
    return np.broadcast_to(value, shape)  # a constant stays known


def is_real(cx: Any) -> bool:
    """Whether the current result is a real (else an integer)."""
    return jnp.issubdtype(cx.eqn.outvars[0].aval.dtype, jnp.floating)


def add(cx: Any, x: Any, y: Any) -> Any:
    """x + y at the larger scale. Local."""
    x, y = operands(cx, x, y)
    if not is_real(cx):
        return _integer_sum(cx, x, y)
    if not isinstance(x, SECRET):
        x, y = y, x
    x = cx.fixed(x)
    if not isinstance(y, SECRET):
        if _is_zero(y, cx.fp.resolution):
            return _tiny_sum(cx, x, y) if np.any(y) else x
        scale = max(x.scale, cx.f)
        y = cx.encode(cx.addend(y), scale)
        share = cx.p.add_public(cx.scaled(x, scale), y)
        return Fixed.of(share, scale)
    y = cx.fixed(y)
    scale = max(x.scale, y.scale)
    return Fixed.of(cx.p.add(cx.scaled(x, scale), cx.scaled(y, scale)), scale)


def _tiny_sum(cx: Any, x: Fixed, y: Any) -> Fixed:
    """x and what is below the resolution of factors: only `with_tiny` shows it.

    That needs an x of finer resolution: x that was rounded to 0 may be more than y.
    """
    y = np.asarray(y, np.float64)
    tiny = x.tiny + float(y.flat[0])
    seen = np.all(y == y.flat[0]) and abs(tiny) >= 2.0 ** (4 - x.scale)
    cx.note(
        f"the constant {np.max(np.abs(y)):.4g}{cx.where()} is below the resolution of "
        f"{cx.fp.resolution:.4g} and counts as 0"
        + (", but in roots and logarithms of the sum" if seen else "")
    )
    if not seen:
        return x
    out = Fixed(x.shape, x.scale, x.at)
    out.tiny = tiny
    return out


def with_tiny(cx: Any, x: Fixed) -> Fixed:
    """x for a function that tells small numbers apart, as in sqrt(v + 1e-8)."""
    if not x.tiny:
        return x
    tiny = cx.encode(np.full(x.shape, x.tiny), x.scale)
    return Fixed.of(cx.p.add_public(x.share, tiny), x.scale)


def _integer_sum(cx: Any, x: Any, y: Any) -> Any:
    bounds = integers.total(integers.bounds_of(x), integers.bounds_of(y))
    if not isinstance(x, SECRET):
        x, y = y, x
    x = cx.integer(x).share
    if isinstance(y, SECRET):
        return integers.result(cx, cx.p.add(x, cx.integer(y).share), bounds)
    return integers.result(cx, cx.p.add_public(x, cx.encode_integer(y)), bounds)


def neg(cx: Any, x: Any) -> Any:
    """-x. Local."""
    return linear(cx, x, lambda share: cx.p.mul_public(share, -1), -1)


def sub(cx: Any, x: Any, y: Any) -> Any:
    """x - y. Local."""
    x, y = operands(cx, x, y)
    return add(cx, x, neg(cx, y) if isinstance(y, SECRET) else -jnp.asarray(y))


def linear(cx: Any, x: Any, fun: Callable[[Any], Any], terms: int = 1) -> Any:
    """A linear function of the share, at the value's own scale.

    `terms`: how many entries it adds up at most, with the sign that it gives them.
    """
    if isinstance(x, Fixed):
        return Fixed.of(fun(x.share), x.scale)
    x = cx.integer(x)
    sign = -1 if terms < 0 else 1
    bounds = integers.times(x.bounds, (sign, sign), abs(terms))
    return integers.result(cx, fun(x.share), bounds)


def mul(cx: Any, x: Any, y: Any, *, out_dtype: Any = None) -> Any:
    """x * y: a product of factors, or a selection where one of them is a bit."""
    x, y = operands(cx, x, y)
    if not isinstance(x, SECRET):
        x, y = y, x
    if not isinstance(y, SECRET):
        return mul_public(cx, x, y)
    if not is_real(cx):
        return _integer_product(cx, x, y)
    x, y = cx.fixed(x), cx.fixed(y)
    if x is not y:
        x, y = x.entire, y.entire
    if x.bit is None:
        x, y = y, x
    if x.bit is not None:
        return Fixed.of(cx.p.bit_times(x.bit.bit, y.share), y.scale)
    if x is y:
        x = cx.factor(x)
        return Fixed.of(cx.p.square(x.share), 2 * x.scale)
    x, y = factors(cx, x, y)
    return Fixed.of(cx.p.product(MUL, x.share, y.share), x.scale + y.scale)


def _integer_product(cx: Any, x: Any, y: Any) -> Any:
    bounds = integers.times(integers.bounds_of(x), integers.bounds_of(y))
    x, y = cx.integer(x), cx.integer(y)
    if x.bit is None:
        x, y = y, x
    if x.bit is not None:
        return integers.result(cx, cx.p.bit_times(x.bit.bit, y.share), bounds)
    return integers.result(cx, cx.p.product(MUL, x.share, y.share), bounds)


def factors(cx: Any, x: Fixed, y: Fixed) -> tuple[Fixed, Fixed]:
    """Two reals at scales that add up to at most 2f."""
    if x.scale + y.scale <= 2 * cx.f:
        return x, y
    if 0 in x.at:  # a whole number: the other one keeps all its bits
        return Fixed.of(x.get(0), 0), y
    if 0 in y.at:
        return x, Fixed.of(y.get(0), 0)
    return cx.factor(x), cx.factor(y)


def mul_public(cx: Any, x: Any, c: Any) -> Any:
    """x * c for a public c.

    Integers and powers of two cost nothing. A constant known now gets as many bits as it
    needs for a relative precision of 2^-18 (`fp.precision`). Any other is encoded with f
    bits, and what they leave is a second factor, so that 1 / n is as precise for large n.
    A value with more than f bits behind the point is multiplied in two parts, high and
    low, so that it keeps them: c * x = c * high + c * low.
    """
    if not is_real(cx):
        bounds = integers.times(integers.bounds_of(x), integers.bounds_of(c))
        share = cx.p.mul_public(cx.integer(x).share, cx.encode_integer(c))
        return integers.result(cx, share, bounds)
    x = cx.fixed(x).entire
    if x.bit is None and _is_large(cx, c):
        return _large_product(cx, x, c)
    c = cx.addend(c)
    # With more than f bits in c the product of what fits would not fit.
    bits = _constant_bits(c, cx.f, min(cx.f, cx.fp.precision))
    if x.bit is not None:
        return _bit_product(cx, x, c)
    if bits == 0:
        return Fixed.of(cx.p.mul_public(x.share, _ring(cx, c, 0)), x.scale)
    power = _power_of_two(c)
    if power is not None and x.scale + power <= 2 * cx.f:
        return Fixed.of(_signed(cx, x.share, c), x.scale + power)
    c, rest, bits = _in_two(cx, c, bits)
    if x.scale <= cx.f:
        out = Fixed.of(cx.p.mul_public(x.share, _ring(cx, c, bits)), x.scale + bits)
        if rest is not None:
            part = cx.p.mul_public(x.share, _ring(cx, rest, bits))
            out = Fixed.of(cx.p.add(out.share, cx.p.truncate(part, cx.f)), out.scale)
        return cx.factor(out, 2 * cx.f)
    high = cx.factor(x)
    low = cx.p.add(x.share, cx.p.mul_public(high.share, -(1 << (x.scale - high.scale))))
    first = _scaled_product(cx, high.share, high.scale, c, bits)
    second, scale = cx.p.mul_public(low, _ring(cx, c, bits)), x.scale
    if rest is not None:
        second = cx.p.mul_public(second, 1 << (2 * cx.f - scale))
        part = cx.p.mul_public(high.share, _ring(cx, rest, bits))
        second, scale = cx.p.add(second, part), 2 * cx.f
    second = cx.p.truncate(second, bits)
    scale, tail = 2 * cx.f, Fixed.of(second, scale)
    return Fixed.of(cx.p.add(cx.scaled(first, scale), cx.scaled(tail, scale)), scale)


def _bit_product(cx: Any, x: Fixed, c: Any) -> Fixed:
    """c * bit, with f bits behind the point, or 2f where c has more. Local."""

    def at(scale: int) -> Any:
        return cx.p.mul_public(x.share, _ring(cx, c, scale))

    cx.check_constant(c, 2 * cx.f)
    known = isinstance(c, (np.ndarray, np.generic))
    if known and np.all(np.asarray(c, np.float64) * 2.0**cx.f % 1 == 0):
        return Fixed.of(at(cx.f), cx.f)
    scales = cx.f, 2 * cx.f
    return Fixed(x.shape, 2 * cx.f, {s: functools.partial(at, s) for s in scales})


def _in_two(cx: Any, c: Any, bits: int | None) -> tuple[Any, Any, int]:
    """(c to `bits` bits, what is left of it times 2^f, bits); None: nothing to speak of.

    `bits` is None for what is only known at run time.
    """
    if bits is None:
        bits, c = cx.f, jnp.asarray(c).astype(cx.fp.real)
        near = jnp.round(c * 2.0**bits) * 2.0**-bits
        return near, (c - near) * 2.0**cx.f, bits
    c = np.asarray(c, np.float64)
    near = np.round(c * 2.0**bits) * 2.0**-bits
    left = c - near
    if np.all(np.abs(left) <= np.abs(c) * 2.0**-cx.fp.precision):
        return c, None, bits
    return near, left * 2.0**cx.f, bits


def _is_large(cx: Any, c: Any) -> bool:
    """Whether c is a constant with entries that do not fit, though a product may."""
    if not isinstance(c, (np.ndarray, np.generic)):
        return False
    size = np.abs(np.asarray(c, np.float64))
    return bool(np.any((size >= cx.fp.max_value) & (size < 2.0 ** (2 * cx.f))))


def _large_product(cx: Any, x: Fixed, c: Any) -> Any:
    """x * c where c does not fit: x is cut off to where the product does, in 8 rounds.

    So -1e9 times a mask of zeros and ones is a mask, and 1e9 times 1e-6 is 1000.
    """
    c = np.asarray(c, np.float64)
    large = (np.abs(c) >= cx.fp.max_value) & (np.abs(c) < 2.0 ** (2 * cx.f))
    scale = 2 * cx.f
    limit = cx.fp.encode(cx.fp.max_value / 4 / np.where(large, np.abs(c), 1.0), scale)
    share = cx.scaled(x, scale)
    above = cx.p.add_public(cx.p.mul_public(share, -1), limit)  # negative beyond it
    below = cx.p.add_public(share, limit)
    shares = [share, cx.p.bit_times(cx.p.msb(above), above)]
    shares.append(cx.p.mul_public(cx.p.bit_times(cx.p.msb(below), below), -1))
    inside = functools.reduce(cx.p.add, shares)
    out = Fixed.of(cx.p.mul_public(inside, _ring(cx, np.where(large, c, 0), 0)), scale)
    if large.all():
        return out
    return add(cx, out, mul_public(cx, x, np.where(large, 0, c)))


def _scaled_product(cx: Any, share: Any, scale: int, c: Any, bits: int) -> Fixed:
    """share * c, brought down to scale 2f where c has more than f bits."""
    out = Fixed.of(cx.p.mul_public(share, _ring(cx, c, bits)), scale + bits)
    return cx.factor(out, 2 * cx.f)


def _ring(cx: Any, c: Any, bits: int) -> Any:
    """A public real as ring elements with `bits` fractional bits (no saturation)."""
    return cx.fp.encode(jnp.asarray(c), bits)


def _constant_bits(c: Any, f: int, mantissa: int) -> int | None:
    """Fractional bits that a constant needs; None when it is only known at run time.

    Enough for its smallest entry, but not more than f where the largest is above 1.
    """
    if not isinstance(c, (np.ndarray, np.generic, float, int)):
        return None
    a = np.abs(np.asarray(c, np.float64))
    if np.all(a == np.round(a)):
        return 0
    least, most = (_mantissa_bits(v, mantissa) for v in (a[a > 0].min(), a.max()))
    return min(least, max(most, f))


def _mantissa_bits(size: float, mantissa: int) -> int:
    return max(1, mantissa - math.floor(math.log2(size)) - 1)


def _power_of_two(c: Any) -> int | None:
    """p when the constant c is +-2^-p for one p > 0."""
    if not isinstance(c, (np.ndarray, np.generic, float, int)):
        return None
    a = np.abs(np.asarray(c, np.float64)).ravel()
    if a.size == 0 or np.any(a != a[0]) or not 0 < a[0] < 1:
        return None
    power = -math.log2(a[0])
    return int(power) if power == int(power) else None


def _signed(cx: Any, share: Any, c: Any) -> Any:
    return (
        share
        if np.all(np.asarray(c) > 0)
        else cx.p.mul_public(
            share, cx.encode_integer(jnp.sign(jnp.asarray(c)).astype(cx.fp.signed))
        )
    )


def _is_zero(y: Any, resolution: float) -> bool:
    """Whether adding a constant changes nothing that a factor could show.

    Adam's eps of 1e-8 must not become a divisor where sqrt(v) is below resolution: it
    counts as zero, and a quotient by zero as zero.
    """
    known = isinstance(y, (np.ndarray, np.generic))
    return known and bool(np.all(np.abs(y) < resolution))


def reduce_sum(cx: Any, x: Any, *, axes: Any, out_sharding: Any) -> Any:
    """Local."""
    x = cx.integer(x) if isinstance(x, Boolean) else x
    total = lambda v: jnp.sum(v, axes, dtype=v.dtype)  # noqa: E731
    terms = math.prod(x.shape[a] for a in axes)
    return linear(cx, x, lambda s: cx.p.additive(total, s), terms)


def cumsum(cx: Any, x: Any, *, axis: int, reverse: bool) -> Any:
    """Local."""
    total = lambda v: lax.cumsum(v, axis=axis, reverse=reverse)  # noqa: E731
    return linear(cx, x, lambda s: cx.p.additive(total, s), x.shape[axis])


RULES: dict[str, Rule] = {
    "add": add,
    "add_any": add,
    "sub": sub,
    "neg": neg,
    "mul": mul,
    "reduce_sum": reduce_sum,
    "cumsum": cumsum,
}
