"""Secret integers: exact, wrapping as JAX's do.

An integer of `width` bits is a ring element congruent to it modulo 2^width. Sums and
products never reduce; where the sign or the size matters, the element is shifted up so
that its top bits are those of the ring (comparison), or reduced (conversion). Static
bounds tell where this is not needed.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.core.interpret import Rule
from privjax.errors import UnsupportedError
from privjax.passes.shared.values import SECRET, Boolean, Bounds, Fixed, Integer
from privjax.protocols import elements, words
from privjax.protocols.shares import Arith, Bit, moved


def limits(dtype: Any) -> tuple[int, int]:
    """The least and the largest value of an integer type."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def bounds_of(value: Any) -> Bounds:
    """Static limits of a secret or public operand."""
    if isinstance(value, Integer):
        return value.bounds
    if isinstance(value, Boolean):
        return 0, 1
    if isinstance(value, (np.ndarray, np.generic)):
        a = np.asarray(value)
        return (int(a.min()), int(a.max())) if a.size else (0, 0)
    if isinstance(value, (int, bool)):
        return int(value), int(value)
    dtype = np.dtype(value.dtype)
    return (0, 1) if dtype.kind == "b" else limits(dtype)


def result(cx: Any, share: Any, bounds: Bounds, **more: Any) -> Integer:
    """An integer of the current result's type; bounds that exceed it are dropped."""
    aval = cx.eqn.outvars[0].aval
    if bounds is not None:
        low, high = limits(aval.dtype)
        bounds = bounds if low <= bounds[0] and bounds[1] <= high else None
    return Integer(aval.dtype, share, bounds, **more)


def combined(a: Bounds, b: Bounds) -> Bounds:
    """Limits of what is one or the other."""
    if a is None or b is None:
        return None
    return min(a[0], b[0]), max(a[1], b[1])


def total(a: Bounds, b: Bounds) -> Bounds:
    """Limits of a sum."""
    return None if a is None or b is None else (a[0] + b[0], a[1] + b[1])


def times(a: Bounds, b: Bounds, count: int = 1) -> Bounds:
    """Limits of a sum of `count` products."""
    if a is None or b is None:
        return None
    corners = [x * y for x in a for y in b]
    return min(0, count * min(corners)), max(0, count * max(corners))


def exact(cx: Any, x: Any) -> Arith:
    """The ring element that is the value, not only congruent to it."""
    x = cx.integer(x)
    if x.bounds is None:
        reduced = words.low_bits(cx.p, x.share, x.width, x.signed, cx.fp.dtype)
        bounds = limits(x.dtype) if x.width < cx.fp.ring_bits else None
        return Integer(x.dtype, reduced, bounds).share
    return x.share


def as_real(cx: Any, x: Integer) -> Fixed:
    """The same number as a real: the largest one where it does not fit.

    Before its point the ring has more room than a real may use: `entire` serves products,
    which may fit again.
    """
    most = int(cx.fp.max_value) - 1
    low, high = x.bounds or limits(x.dtype)
    whole = exact(cx, x)
    if -most <= low and high <= most:
        return Fixed.of(whole, 0)
    known = Integer(x.dtype, whole, x.bounds)

    @functools.cache
    def inside() -> Arith:
        share = whole
        for end in [-most] * (low < -most) + [most] * (high > most):
            limit = np.full(whole.shape, end, x.dtype)
            over = less(cx, *((known, limit) if end < 0 else (limit, known)))
            gap = cx.p.add_public(cx.p.mul_public(whole, -1), cx.encode_integer(limit))
            share = cx.p.add(share, cx.p.bit_times(over, gap))
        return share

    def at(scale: int) -> Any:
        return lambda: cx.p.mul_public(inside(), 1 << scale)

    room = high < 1 << (cx.fp.ring_bits - 1)  # not for 64 bits without a sign
    scales: dict[int, Any] = {s: at(s) for s in (cx.f, 2 * cx.f)}
    out = Fixed(x.shape, cx.f, {0: whole if room else inside, **scales})
    out.integer = x
    return out


def bits_of(cx: Any, x: Any) -> Bit:
    """The bits of an integer, kept with it."""
    x = cx.integer(x)
    if not x.has_bits():
        x.give_bits(words.bits(cx.p, x.share, x.width))
    return x.bits


def _of_bits(cx: Any, bits: Bit) -> Integer:
    dtype = cx.eqn.outvars[0].aval.dtype
    signed = dtype.kind == "i"
    share = lambda: words.from_bits(cx.p, bits, signed, cx.fp.dtype)  # noqa: E731
    return Integer(dtype, share, limits(dtype), bits=bits, shape=bits.shape[:-1])


# -- comparison --------------------------------------------------------------------------


def less(cx: Any, x: Any, y: Any) -> Bit:
    """<x < y> of integers of one type.

    The sign of x - y where it cannot overflow. Else both are shifted up to fill the ring,
    and with s, t, d the top bits of x, y and x - y: d XOR ((s XOR t) AND (d XOR s)), for
    unsigned numbers t in the place of the last s.
    """
    p, k = cx.p, cx.fp.ring_bits
    a, b = bounds_of(x), bounds_of(y)
    if a is not None and b is not None:
        low, high = a[0] - b[1], a[1] - b[0]
        if -(1 << (k - 1)) <= low and high < 1 << (k - 1):
            return p.msb(_minus(cx, x, y))
    width, signed = _type(x, y)
    up = 1 << (k - width)
    if signed and isinstance(y, np.ndarray) and not y.any():
        return p.msb(p.mul_public(cx.integer(x).share, up))
    x, y = (p.mul_public(cx.integer(v).share, up) for v in (x, y))
    three = moved(lambda *v: jnp.stack(v), x, y, p.add(x, p.mul_public(y, -1)))
    tops = p.msb(three)
    s, t, d = (tops.moved(lambda v, i=i: v[i]) for i in range(3))
    return p.xor(d, p.and_(p.xor(s, t), p.xor(d, s if signed else t)))


def decided(x: Any, y: Any) -> bool | None:
    """x < y where static bounds say so."""
    a, b = bounds_of(x), bounds_of(y)
    if a is None or b is None:
        return None
    return True if a[1] < b[0] else False if a[0] >= b[1] else None


def equal(cx: Any, x: Any, y: Any) -> Bit:
    """<x = y> of integers of one type."""
    a, b = bounds_of(x), bounds_of(y)
    difference = _minus(cx, x, y)
    width, _ = _type(x, y)
    if a is None or b is None:
        difference = cx.p.mul_public(difference, 1 << (cx.fp.ring_bits - width))
    return cx.p.is_zero(difference)


def _type(x: Any, y: Any) -> tuple[int, bool]:
    dtype = np.dtype((x if isinstance(x, Integer) else y).dtype)
    return 8 * dtype.itemsize, dtype.kind == "i"


def _minus(cx: Any, x: Any, y: Any) -> Arith:
    if not isinstance(y, SECRET):
        return cx.p.add_public(cx.integer(x).share, -cx.encode_integer(y))
    return cx.p.add(cx.integer(x).share, cx.p.mul_public(cx.integer(y).share, -1))


# -- bitwise -----------------------------------------------------------------------------


def not_(cx: Any, x: Any) -> Integer:
    """-x - 1, or the flipped bits where they are known."""
    x = cx.integer(x)
    if x.has_bits():
        return _of_bits(cx, cx.p.xor_public(x.bits, np.uint8(1)))
    bounds = x.bounds
    if bounds is not None:
        bounds = (-bounds[1] - 1, -bounds[0] - 1) if x.signed else None
    minus = cx.p.mul_public(x.share, -1)
    one = cx.encode_integer(np.array(-1, np.int64))
    return result(cx, cx.p.add_public(minus, one), bounds)


def gate(name: str, cx: Any, x: Any, y: Any) -> Integer:
    """AND, OR or XOR of all bits; one round for two secrets, else local."""
    if not isinstance(x, SECRET):
        x, y = y, x
    a = bits_of(cx, x)
    if isinstance(y, SECRET):
        b = bits_of(cx, y)
        if name == "xor":
            return _of_bits(cx, cx.p.xor(a, b))
        both = cx.p.and_(a, b)
        if name == "or":
            both = cx.p.xor(cx.p.xor(a, b), both)
        return _of_bits(cx, both)
    b = _public_bits(y, cx.integer(x).width)
    if name == "xor":
        return _of_bits(cx, cx.p.xor_public(a, b))
    if name == "and":
        return _of_bits(cx, cx.p.and_public(a, b))
    return _of_bits(cx, cx.p.xor_public(cx.p.and_public(a, b ^ np.uint8(1)), b))


def _public_bits(value: Any, width: int) -> Any:
    word = jnp.asarray(value)
    shifted = word[..., None] >> jnp.arange(width, dtype=word.dtype)
    return (shifted & jnp.ones((), word.dtype)).astype(np.uint8)


def population_count(cx: Any, x: Any) -> Integer:
    """How many bits are set."""
    ones = cx.p.to_arith(bits_of(cx, x), cx.fp.dtype)
    count = cx.p.additive(lambda v: jnp.sum(v, -1, dtype=v.dtype), ones)
    return result(cx, count, (0, cx.integer(x).width))


def shift_left(cx: Any, x: Any, by: Any) -> Integer:
    """x 2^by, 0 from the width on; by a public number of places."""
    x, by = _same_shape(cx, x, by)
    amount, width = _amount(cx, by), cx.integer(x).width
    bounds = None
    if isinstance(by, np.ndarray):
        most = int(by.max()) if by.size else 0
        bounds = times(bounds_of(x), (1, 1 << most)) if 0 <= most < width else None
    word = cx.fp.unsigned
    weight = jnp.where(
        amount < width,
        jnp.ones((), word) << jnp.minimum(amount, width - 1).astype(word),
        jnp.zeros((), word),
    )
    weight = elements.cast(weight, cx.fp.dtype)
    return result(cx, cx.p.mul_public(cx.integer(x).share, weight), bounds)


def shift_right(arithmetic: bool) -> Rule:
    """By a public number of places: bits move down, zeros or the sign follow."""

    def rule(cx: Any, x: Any, by: Any) -> Integer:
        x, by = _same_shape(cx, x, by)
        bits = bits_of(cx, x)
        width, amount = bits.shape[-1], _amount(cx, by)
        source = jnp.arange(width) + amount[..., None]
        inside = jnp.minimum(source, width - 1)
        shifted = bits.moved(lambda v: jnp.take_along_axis(v, inside, -1))
        if arithmetic:
            return _of_bits(cx, shifted)
        keep = (source < width).astype(np.uint8)
        return _of_bits(cx, cx.p.and_public(shifted, keep))

    return rule


def _same_shape(cx: Any, x: Integer, by: Any) -> tuple[Any, Any]:
    """Both at the shape of the current result; a constant stays known."""
    shape = cx.eqn.outvars[0].aval.shape
    if isinstance(by, SECRET):
        cx.default([by])
    spread = np.broadcast_to if isinstance(by, np.ndarray) else jnp.broadcast_to
    if x.shape != shape:
        x = x.rearranged(lambda v: jnp.broadcast_to(v, shape))
    return x, spread(by, shape)


def _amount(cx: Any, by: Any) -> Any:
    """A public shift, at most the width (a negative one counts as too large)."""
    width = 8 * np.dtype(by.dtype).itemsize
    by = jnp.asarray(by).astype(np.int64)
    return jnp.where((by < 0) | (by > width), width, by)


# -- conversion --------------------------------------------------------------------------


def converted(cx: Any, x: Any, dtype: Any) -> Integer:
    """A secret of any kind as an integer of `dtype`; reals are cut off towards zero."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "iu":
        raise UnsupportedError(
            f"{dtype} on secrets{cx.where()}: integers of less than 8 bits have no "
            "arithmetic of their own here; use int8 or uint8."
        )
    if 8 * dtype.itemsize > cx.fp.ring_bits:
        raise UnsupportedError(
            f"{dtype} on secrets{cx.where()} does not fit into a ring of "
            f"{cx.fp.ring_bits} bits; use a narrower integer type, or "
            "fixed_point=privjax.FixedPoint(64, ...)."
        )
    low, high = limits(dtype)
    if isinstance(x, Fixed) and x.integer is not None:
        own = limits(x.integer.dtype)
        x = x.integer if low <= own[0] and own[1] <= high else x
    if isinstance(x, Fixed):
        most = int(cx.fp.max_value)
        share = towards_zero(cx, _inside(cx, x, low, high))
        return Integer(dtype, share, (max(low, -most), min(high, most)))
    if isinstance(x, Boolean):
        return cx.integer(x, dtype)
    bounds = x.bounds
    if bounds is None and 8 * dtype.itemsize > x.width:
        bounds = limits(x.dtype)
        share = exact(cx, x)
    else:
        share = x.share
    if bounds is not None and not (low <= bounds[0] and bounds[1] <= high):
        bounds = None
    return Integer(dtype, share, bounds)


def _inside(cx: Any, x: Fixed, low: int, high: int) -> Fixed:
    """x, saturated at the limits of an integer type that are within reach."""
    p, most = cx.p, cx.fp.max_value
    limits = [v for v in (low, high) if abs(v) < most]
    if not limits:
        return x
    gaps = [
        p.add_public(p.mul_public(x.share, -1), cx.fp.encode(np.array(v), x.scale))
        for v in limits
    ]
    signs = [-1 if v == low else 1 for v in limits]
    both = moved(lambda *v: jnp.stack(v), *gaps)
    outward = [p.mul_public(g, s) for g, s in zip(gaps, signs, strict=True)]
    beyond = p.msb(moved(lambda *v: jnp.stack(v), *outward))
    back = p.bit_times(beyond, both)
    move = p.additive(lambda v: jnp.sum(v, 0, dtype=v.dtype), back)
    return Fixed.of(p.add(x.share, move), x.scale)


def towards_zero(cx: Any, x: Fixed) -> Arith:
    """The integer part of a real, exactly."""
    if x.scale == 0:
        return x.share
    p = cx.p
    negative = p.to_arith(p.msb(x.share), cx.fp.dtype)
    raised = p.add(x.share, p.mul_public(negative, (1 << x.scale) - 1))
    return words.shift_right(p, raised, x.scale, cx.fp.dtype)


def floor(cx: Any, x: Any) -> Fixed:
    """The largest whole number not above x: x less its fractional bits, exactly.

    Where it becomes a factor it is shifted down to no bits behind the point, not to f.
    """
    scale, share = x.scale, x.share
    if scale == 0:
        return x
    low = words.low_bits(cx.p, share, scale, False, cx.fp.dtype)
    whole = cx.p.add(share, cx.p.mul_public(low, -1))
    at = {scale: whole, 0: lambda: cx.p.truncate(whole, scale)}
    return Fixed(x.shape, scale, at)


def bitcast_convert_type(cx: Any, x: Any, *, new_dtype: Any) -> Integer:
    """Between signed and unsigned integers of one width."""
    new = np.dtype(new_dtype)
    if (
        not isinstance(x, Integer)
        or new.kind not in "iu"
        or x.width != 8 * new.itemsize
    ):
        raise UnsupportedError(
            f"`bitcast_convert_type`{cx.where()} from {cx.eqn.invars[0].aval.dtype} to "
            f"{new}: the bits of a secret real are those of fixed point, not of IEEE "
            "754. Use jnp.signbit or jnp.frexp for what they say, or astype for the "
            "value; integers can be reinterpreted as integers."
        )
    return converted(cx, x, new)


def same_type(values: Sequence[Any]) -> Any:
    """The dtype of the integers among operands."""
    return next(v.dtype for v in values if isinstance(v, Integer))


def is_integer(x: Any) -> bool:
    """Whether an operand, secret or public, is an integer."""
    if isinstance(x, SECRET):
        return isinstance(x, Integer)
    return bool(jnp.issubdtype(jax.typeof(x).dtype, jnp.integer))


RULES: dict[str, Rule] = {
    "population_count": population_count,
    "shift_left": shift_left,
    "shift_right_arithmetic": shift_right(True),
    "shift_right_logical": shift_right(False),
    "bitcast_convert_type": bitcast_convert_type,
    "floor": floor,
}
