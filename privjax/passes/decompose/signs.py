"""Signs that are read off the bits of a real, as `jnp.signbit` does.

The bits of a number of IEEE 754 mean nothing in fixed point, but the highest one is its
sign: a shift by all other places, or a comparison with 0, becomes one of the real itself.
-0 counts as 0.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core.interpret import Rule
from privjax.passes.taint import Tainted, raw


def bitcast_convert_type(cx: Any, x: Any, *, new_dtype: Any) -> Any:
    """Remembers the real whose bits these are."""
    if raw(x).dtype == new_dtype:
        return x
    (out,) = cx.default([x])
    real = jnp.issubdtype(raw(x).dtype, jnp.floating)
    if real and raw(out).shape == raw(x).shape:
        out.real = x
    return out


def _shift_right(filled: int) -> Rule:
    def rule(cx: Any, bits: Any, by: Any) -> Any:
        """`filled` where the real is negative, if only its sign is left."""
        if _of_real(bits) and _is(by, 8 * raw(bits).dtype.itemsize - 1):
            one = np.asarray(filled, raw(bits).dtype)
            return cx.apply(lambda x: lax.mul(_negative(x, one.dtype), one), bits.real)[
                0
            ]
        return cx.default([bits, by])[0]

    return rule


def _compare(name: str) -> Rule:
    def rule(cx: Any, bits: Any, zero: Any) -> Any:
        """bits < 0 (or >= 0) is the same of the real."""
        if _of_real(bits) and _is(zero, 0):
            if name == "lt":
                return cx.apply(lambda x: lax.lt(x, _zero(x)), bits.real)[0]
            return cx.apply(lambda x: lax.ge(x, _zero(x)), bits.real)[0]
        return cx.default([bits, zero])[0]

    return rule


def _of_real(bits: Any) -> bool:
    return isinstance(bits, Tainted) and bits.real is not None


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
    "lt": _compare("lt"),
    "ge": _compare("ge"),
}
