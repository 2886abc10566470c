"""What is read off the bits of a real: its sign, its exponent and its mantissa.

The bits of a number of IEEE 754 mean nothing in fixed point, but some of what JAX's own
functions do with them does: the highest one is the sign (`jnp.signbit`: a shift by all
other places, or a comparison with 0, becomes one of the real itself); a shift by the
places of the mantissa and a mask give the exponent, another mask and an exponent of its
own the mantissa (`jnp.frexp`). -0 counts as 0.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core.interpret import Rule
from privjax.passes.taint import Tainted, raw

# Steps in which a number of fixed point is brought into [1, 2): powers of two.
_STEPS = (16, 8, 4, 2, 1)
_HALF = (8, 4, 2, 1)  # 2^16 is none of float16's


# Which bits of a real are meant, with all others 0; the exponent is shifted down and may
# have the sign above it, the mantissa has the exponent of numbers in [1/2, 1).
_ALL, _EXPONENT, _REST, _MANTISSA = "all", "exponent", "rest", "mantissa"


def _bits(value: Any, real: Any, part: str) -> Tainted:
    out = Tainted(raw(value))
    out.real, out.part = real, part
    return out


def bitcast_convert_type(cx: Any, x: Any, *, new_dtype: Any) -> Any:
    """Remembers the real whose bits these are; makes a real of the mantissa's."""
    old, new = raw(x).dtype, np.dtype(new_dtype)
    if old == new:
        return x
    if _is_part(x, _MANTISSA) and new == raw(x.real).dtype:
        return cx.apply(mantissa, x.real)[0]
    if all(jnp.issubdtype(d, jnp.integer) and d.itemsize <= 8 for d in (old, new)):
        if old.itemsize != new.itemsize:
            return cx.apply(lambda x: _reinterpreted(x, new), x)[0]
    (out,) = cx.default([x])
    real = jnp.issubdtype(old, jnp.floating)
    if real and raw(out).shape == raw(x).shape:
        return _bits(out, x, _ALL)
    return out


def _reinterpreted(x: Any, new: Any) -> Any:
    """Integers as more narrow ones, the lowest first on a last axis, or fewer wide ones."""
    sizes = sorted((x.dtype.itemsize, new.itemsize))
    narrow, wide = (np.dtype(f"uint{8 * size}") for size in sizes)
    count, width = wide.itemsize // narrow.itemsize, 8 * narrow.itemsize
    places = (np.arange(count) * width).astype(wide)
    if new.itemsize < x.dtype.itemsize:
        word = lax.convert_element_type(x, wide)[..., None]
        word = jnp.broadcast_to(word, (*x.shape, count))
        parts = lax.shift_right_logical(word, jnp.broadcast_to(places, word.shape))
        return lax.convert_element_type(lax.convert_element_type(parts, narrow), new)
    parts = lax.convert_element_type(lax.convert_element_type(x, narrow), wide)
    parts = lax.shift_left(parts, jnp.broadcast_to(places, parts.shape))
    return lax.convert_element_type(jnp.sum(parts, -1, dtype=wide), new)


def _shift_right(filled: int) -> Rule:
    def rule(cx: Any, bits: Any, by: Any) -> Any:
        """`filled` where the real is negative, if only its sign is left."""
        if _is_part(bits, _ALL) and _is(by, 8 * raw(bits).dtype.itemsize - 1):
            one = np.asarray(filled, raw(bits).dtype)
            return cx.apply(lambda x: lax.mul(_negative(x, one.dtype), one), bits.real)[
                0
            ]
        (out,) = cx.default([bits, by])
        if _is_part(bits, _ALL) and _is(by, jnp.finfo(raw(bits.real).dtype).nmant):
            return _bits(out, bits.real, _EXPONENT)
        return out

    return rule


def and_(cx: Any, x: Any, y: Any) -> Any:
    """The exponent, in the format's own way of counting; or what is not exponent."""
    bits, mask = (x, y) if isinstance(x, Tainted) else (y, x)
    if bits.part is not None:
        info, dtype = jnp.finfo(raw(bits.real).dtype), raw(bits).dtype
        field = (1 << info.nexp) - 1
        if bits.part == _EXPONENT and _is(mask, field):
            bias = dtype.type(1 - info.minexp)
            return cx.apply(lambda x: lax.add(exponent(x, dtype), bias), bits.real)[0]
        if bits.part == _ALL and _is(mask, ~(field << info.nmant)):
            (out,) = cx.default([x, y])
            return _bits(out, bits.real, _REST)
    return cx.default([x, y])[0]


def or_(cx: Any, x: Any, y: Any) -> Any:
    """The mantissa, with the exponent of numbers in [1/2, 1)."""
    (out,) = cx.default([x, y])
    bits, new = (x, y) if isinstance(x, Tainted) else (y, x)
    if _is_part(bits, _REST):
        info = jnp.finfo(raw(bits.real).dtype)
        if _is(new, -info.minexp << info.nmant):
            return _bits(out, bits.real, _MANTISSA)
    return out


def _compare(name: str) -> Rule:
    def rule(cx: Any, bits: Any, zero: Any) -> Any:
        """bits < 0 (or >= 0) is the same of the real."""
        if _is_part(bits, _ALL) and _is(zero, 0):
            if name == "lt":
                return cx.apply(lambda x: lax.lt(x, _zero(x)), bits.real)[0]
            return cx.apply(lambda x: lax.ge(x, _zero(x)), bits.real)[0]
        return cx.default([bits, zero])[0]

    return rule


def exponent(x: Any, dtype: Any) -> Any:
    """floor(log2 |x|), exactly: 11 comparisons one after the other."""
    return _octave(x, dtype)[1]


def mantissa(x: Any) -> Any:
    """x 2^-e in [1/2, 1) or (-1, -1/2]; 0 for 0. Exact."""
    half = lax.mul(_octave(x, np.dtype(np.int32))[0], np.asarray(0.5, x.dtype))
    return jnp.where(lax.lt(x, _zero(x)), lax.neg(half), half)


def _octave(x: Any, dtype: Any) -> tuple[Any, Any]:
    """(|x| 2^-e in [1, 2), e)."""
    size, places = lax.abs(x), jnp.zeros(x.shape, dtype)
    down = _STEPS if float(jnp.finfo(x.dtype).max) > 2.0**16 else _HALF
    up = (down[0],) * (32 // down[0] - 1) + down
    for steps, sign in ((down, 1), (up, -1)):
        for step in steps:
            limit = np.asarray(2.0**step if sign > 0 else 2.0 ** (1 - step), x.dtype)
            moved = lax.mul(size, np.asarray(2.0 ** (-sign * step), x.dtype))
            beyond = lax.ge(size, limit) if sign > 0 else lax.lt(size, limit)
            size = jnp.where(beyond, moved, size)
            one = lax.convert_element_type(beyond, dtype)
            places = lax.add(places, lax.mul(one, dtype.type(sign * step)))
    return size, places


def _is_part(bits: Any, part: str) -> bool:
    return isinstance(bits, Tainted) and bits.part == part


def _is(value: Any, number: int) -> bool:
    known = isinstance(value, (np.ndarray, np.generic))
    return known and bool(np.all(np.asarray(value) == number))


def _zero(x: Any) -> Any:
    return np.zeros((), x.dtype)


def _negative(x: Any, dtype: Any) -> Any:
    return lax.convert_element_type(lax.lt(x, _zero(x)), dtype)


RULES: dict[str, Rule] = {
    "bitcast_convert_type": bitcast_convert_type,
    "shift_right_arithmetic": _shift_right(-1),
    "shift_right_logical": _shift_right(1),
    "and": and_,
    "or": or_,
    "lt": _compare("lt"),
    "ge": _compare("ge"),
}
