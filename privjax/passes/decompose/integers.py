"""Division, shifts by secret places, and rounding, in terms of bits and comparisons."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax


def _is_constant(x: Any) -> bool:
    return isinstance(x, (np.ndarray, np.generic)) and np.ndim(x) == 0


def _magnitude(x: Any) -> Any:
    """|x| in the unsigned type of the same width (that of the least value fits)."""
    unsigned = np.dtype(f"uint{8 * x.dtype.itemsize}")
    return lax.convert_element_type(lax.abs(x) if _signed(x) else x, unsigned)


def _signed(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.signedinteger))


def _quotient(n: Any, d: Any) -> Any:
    """floor(n / d) of unsigned numbers; all ones where d is 0."""
    width = 8 * n.dtype.itemsize
    if _is_constant(d):
        if int(d) == 0:
            return jnp.full_like(n, np.iinfo(n.dtype).max)
        if int(d) & (int(d) - 1) == 0:
            return lax.shift_right_logical(n, n.dtype.type(int(d).bit_length() - 1))
        if width <= 32:
            return _by_constant(n, int(d))
    return _by_bits(n, d)


def _by_constant(n: Any, d: int) -> Any:
    """Granlund and Montgomery 1994: n times 2^t / d, rounded up; at most one too much."""
    t = 31 + d.bit_length()
    wide = lax.convert_element_type(n, np.uint64)
    product = lax.mul(wide, np.uint64(-(-(1 << t) // d)))
    q = lax.shift_right_logical(product, jnp.full_like(product, t))
    signed = lax.convert_element_type(q, np.int64)
    rest = lax.sub(lax.convert_element_type(n, np.int64), lax.mul(signed, np.int64(d)))
    over = lax.convert_element_type(lax.lt(rest, jnp.zeros_like(rest)), np.int64)
    return lax.convert_element_type(lax.sub(signed, over), n.dtype)


def _by_bits(n: Any, d: Any) -> Any:
    """Long division, one bit of the quotient a step."""
    width = 8 * n.dtype.itemsize
    # The rest is doubled before it is compared: one more bit, or a look at its top.
    wide = np.dtype(np.int64) if width < 64 else np.dtype(np.uint64)
    n, d = (lax.convert_element_type(jnp.asarray(v), wide) for v in (n, d))
    d = jnp.broadcast_to(d, n.shape)
    places = np.arange(width, dtype=wide).reshape((width,) + (1,) * n.ndim)
    places = np.broadcast_to(places, (width, *n.shape))
    spread = jnp.broadcast_to(n, places.shape)
    digits = lax.bitwise_and(
        lax.shift_right_logical(spread, jnp.asarray(places)), jnp.ones_like(spread)
    )

    def step(rest: Any, digit: Any) -> Any:
        doubled = lax.add(lax.add(rest, rest), digit)
        fits = lax.ge(doubled, d)
        if width == 64:
            top = jnp.full_like(rest, 1 << 63)
            fits = lax.bitwise_or(fits, lax.ge(rest, top))
        kept = jnp.where(fits, lax.sub(doubled, d), doubled)
        return kept, lax.convert_element_type(fits, wide)

    _, found = lax.scan(step, jnp.zeros_like(n), digits, reverse=True)
    weights = np.array([1 << j for j in range(width)], np.uint64).astype(wide)
    weighted = lax.mul(
        found,
        jnp.broadcast_to(
            weights.reshape(places.shape[:1] + (1,) * n.ndim), found.shape
        ),
    )
    quotient = jnp.sum(weighted, 0, dtype=wide)
    return lax.convert_element_type(quotient, np.dtype(f"uint{width}"))


def _div(x: Any, y: Any) -> Any:
    """Rounded towards zero."""
    x = jnp.broadcast_to(x, np.broadcast_shapes(np.shape(x), np.shape(y)))
    if not _signed(x):
        return _quotient(x, y)
    q = lax.convert_element_type(_quotient(_magnitude(x), _unsigned(y)), x.dtype)
    return jnp.where(_unequal_signs(x, y), lax.neg(q), q)  # x / 0 is -1


def _unsigned(y: Any) -> Any:
    """A divisor's magnitude; that of a constant stays known."""
    if _is_constant(y):
        return np.asarray(abs(int(y)), f"uint{8 * y.dtype.itemsize}")
    return _magnitude(y)


def _unequal_signs(x: Any, y: Any) -> Any:
    negative = lax.lt(x, jnp.zeros_like(x))
    if _is_constant(y):
        if y == 0:
            return jnp.zeros_like(negative)
        return jnp.logical_not(negative) if y < 0 else negative
    zero = jnp.zeros_like(y)
    unequal = lax.bitwise_xor(negative, lax.lt(y, zero))
    return lax.bitwise_and(unequal, lax.ne(y, zero))


def _rem(x: Any, y: Any) -> Any:
    """x - y trunc(x / y), of the sign of x."""
    x = jnp.broadcast_to(x, np.broadcast_shapes(np.shape(x), np.shape(y)))
    return lax.sub(x, lax.mul(_div(x, y), jnp.broadcast_to(y, x.shape)))


def _real_rem(x: Any, y: Any) -> Any:
    """As C's fmod, for |x / y| < 2^26: the second quotient is within one of the right one.

    A quotient errs by 2^-14 of itself at most.
    """
    x, y = jnp.broadcast_arrays(x, y)
    a, b = lax.abs(x), lax.abs(y)
    rest = a
    for _ in range(2):
        rest = lax.sub(rest, lax.mul(b, lax.floor(lax.div(rest, b))))
    rest = jnp.where(lax.lt(rest, jnp.zeros_like(rest)), lax.add(rest, b), rest)
    rest = jnp.where(lax.ge(rest, b), lax.sub(rest, b), rest)
    return jnp.where(lax.lt(x, jnp.zeros_like(x)), lax.neg(rest), rest)


def _secret_shift(shift: Callable[[Any, Any], Any], arithmetic: bool) -> Any:
    """A shift by secret places: one selection per bit of their number."""

    def rule(x: Any, by: Any) -> Any:
        width, (x, by) = 8 * x.dtype.itemsize, jnp.broadcast_arrays(x, by)
        out = x
        for j in range((width - 1).bit_length()):
            bit = lax.bitwise_and(by, jnp.full_like(by, 1 << j))
            moved = shift(out, jnp.full_like(out, 1 << j))
            out = jnp.where(lax.ne(bit, jnp.zeros_like(bit)), moved, out)
        inside = lax.bitwise_and(
            lax.ge(by, jnp.zeros_like(by)), lax.lt(by, jnp.full_like(by, width))
        )
        last = shift(x, jnp.full_like(x, width - 1)) if arithmetic else None
        return jnp.where(inside, out, jnp.zeros_like(x) if last is None else last)

    return rule


def _clz(x: Any) -> Any:
    """Leading zeros: what is left when all bits below the first one are set."""
    width, by = 8 * x.dtype.itemsize, 1
    while by < width:
        below = lax.shift_right_logical(x, jnp.full_like(x, by))
        x = lax.bitwise_or(x, below)
        by *= 2
    return lax.population_count(lax.bitwise_not(x))


def _mulhi(x: Any, y: Any) -> Any:
    """The upper half of a product: by a wider one, or of 64 bits by halves
    (Warren, Hacker's Delight, 8-2)."""
    width = 8 * x.dtype.itemsize
    shift = lax.shift_right_arithmetic if _signed(x) else lax.shift_right_logical
    if width < 64:
        wide = np.dtype(np.int64 if _signed(x) else np.uint64)
        product = lax.mul(*(lax.convert_element_type(v, wide) for v in (x, y)))
        out = shift(product, jnp.full_like(product, width))
        return lax.convert_element_type(out, x.dtype)
    down, low = jnp.full_like(x, 32), jnp.full_like(x, 0xFFFFFFFF)
    (x1, x0), (y1, y0) = ((shift(v, down), lax.bitwise_and(v, low)) for v in (x, y))
    carried = lax.mul(x1, y0) + lax.shift_right_logical(lax.mul(x0, y0), down)
    crossed = lax.mul(x0, y1) + lax.bitwise_and(carried, low)
    return lax.mul(x1, y1) + shift(carried, down) + shift(crossed, down)


def _ceil(x: Any) -> Any:
    return lax.neg(lax.floor(lax.neg(x)))


def _round(x: Any, *, rounding_method: Any) -> Any:
    if rounding_method == lax.RoundingMethod.TO_NEAREST_EVEN:
        half = jnp.full_like(x, 0.5)
        up = lax.floor(lax.add(x, half))
        tie = lax.eq(lax.sub(up, x), half)
        pair = lax.mul(up, half)
        odd = lax.ne(lax.floor(pair), pair)
        one = lax.convert_element_type(lax.bitwise_and(tie, odd), x.dtype)
        return lax.sub(up, one)
    negative = lax.lt(x, jnp.zeros_like(x))
    size = lax.floor(lax.add(jnp.where(negative, lax.neg(x), x), jnp.full_like(x, 0.5)))
    return jnp.where(negative, lax.neg(size), size)


# Of reals.
RULES: dict[str, Callable[..., Any]] = {
    "ceil": _ceil,
    "round": _round,
    "rem": _real_rem,
    "clz": _clz,
    "mulhi": _mulhi,
}

# Of integers, where reals have rules of their own.
OF_INTEGERS: dict[str, Callable[..., Any]] = {
    "div": _div,
    "rem": _rem,
}

# Where the number of places is secret.
INDEXED: dict[str, tuple[int, Callable[..., Any]]] = {
    "shift_left": (1, _secret_shift(lax.shift_left, False)),
    "shift_right_logical": (1, _secret_shift(lax.shift_right_logical, False)),
    "shift_right_arithmetic": (1, _secret_shift(lax.shift_right_arithmetic, True)),
}
