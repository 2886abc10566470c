"""Comparisons, gates on secret booleans, and selection."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core.interpret import Rule
from privjax.passes.shared import integers
from privjax.passes.shared.arithmetic import operands
from privjax.passes.shared.values import SECRET, Boolean, Fixed
from privjax.protocols.shares import moved


def _difference(cx: Any, x: Any, y: Any) -> Any:
    """x - y of reals as one share; its sign is that of the comparison."""
    if not isinstance(x, SECRET):
        return cx.p.mul_public(_difference(cx, y, x), -1)
    x = cx.fixed(x)
    if isinstance(y, SECRET):
        y = cx.fixed(y)
        scale = max(x.scale, y.scale)
        minus = cx.p.mul_public(cx.scaled(y, scale), -1)
        return cx.p.add(cx.scaled(x, scale), minus)
    if isinstance(y, np.ndarray) and not y.any():
        return x.share
    scale = max(x.scale, cx.f)
    return cx.p.add_public(cx.scaled(x, scale), -cx.encode(y, scale))


def lt(cx: Any, x: Any, y: Any) -> Any:
    """x < y, the sign of x - y; log2(k) rounds, for integers up to two more."""
    x, y = operands(cx, x, y)
    if all(_is_boolean(v) for v in (x, y)):
        return and_(cx, _negated(cx, x), y)
    if integers.is_integer(x):
        known = integers.decided(x, y)  # as of an index, which is not negative
        if known is not None:
            return np.full(cx.eqn.outvars[0].aval.shape, known)
        return Boolean(integers.less(cx, x, y))
    return _ordered(cx, cx.p.msb(_difference(cx, x, y)), x, y)


def _ordered(cx: Any, bit: Any, x: Any, y: Any) -> Boolean:
    """What a comparison says where neither operand is a public NaN; else false."""
    for v in (x, y):
        if isinstance(v, SECRET):
            continue
        nan = np.isnan(v) if isinstance(v, np.ndarray) else jnp.isnan(v)
        if not isinstance(nan, np.ndarray) or nan.any():
            bit = cx.p.and_public(bit, jnp.logical_not(nan).astype(np.uint8))
    return Boolean(bit)


def gt(cx: Any, x: Any, y: Any) -> Any:
    """x > y: y < x."""
    return lt(cx, y, x)


def ge(cx: Any, x: Any, y: Any) -> Any:
    """x >= y: y <= x."""
    return le(cx, y, x)


def le(cx: Any, x: Any, y: Any) -> Any:
    """x <= y: not y < x."""
    x, y = operands(cx, x, y)
    not_less = _negated(cx, lt(cx, y, x))
    if not isinstance(not_less, Boolean) or integers.is_integer(x) or _is_boolean(x):
        return not_less
    return _ordered(cx, not_less.bit, x, y)


def eq(cx: Any, x: Any, y: Any) -> Boolean:
    """x = y as ring elements (booleans: not x XOR y); 1 + log2(k) rounds."""
    x, y = operands(cx, x, y)
    if isinstance(x, Boolean) or isinstance(y, Boolean):
        return not_(cx, xor(cx, x, y))
    if integers.is_integer(x):
        return Boolean(integers.equal(cx, x, y))
    return _ordered(cx, cx.p.is_zero(_difference(cx, x, y)), x, y)


def ne(cx: Any, x: Any, y: Any) -> Boolean:
    """not x = y."""
    return not_(cx, eq(cx, x, y))


def not_(cx: Any, x: Any) -> Any:
    """Local."""
    if integers.is_integer(x):
        return integers.not_(cx, x)
    return Boolean(cx.p.xor_public(cx.boolean(x).bit, np.uint8(1)))


def xor(cx: Any, x: Any, y: Any) -> Any:
    """Local."""
    x, y = operands(cx, x, y)
    if integers.is_integer(x):
        return integers.gate("xor", cx, x, y)
    if not isinstance(x, SECRET):
        x, y = y, x
    if not isinstance(y, SECRET):
        return Boolean(cx.p.xor_public(x.bit, jnp.asarray(y).astype(np.uint8)))
    return Boolean(cx.p.xor(x.bit, y.bit))


def and_(cx: Any, x: Any, y: Any) -> Any:
    """One round; local with a public operand."""
    x, y = operands(cx, x, y)
    if integers.is_integer(x):
        return integers.gate("and", cx, x, y)
    if not isinstance(x, SECRET):
        x, y = y, x
    if not isinstance(y, SECRET):
        return Boolean(cx.p.and_public(x.bit, jnp.asarray(y).astype(np.uint8)))
    return Boolean(cx.p.and_(x.bit, y.bit))


def or_(cx: Any, x: Any, y: Any) -> Any:
    """not (not x and not y)."""
    if integers.is_integer(x):
        return integers.gate("or", cx, *operands(cx, x, y))
    return not_(cx, and_(cx, _negated(cx, x), _negated(cx, y)))


def _negated(cx: Any, x: Any) -> Any:
    return not_(cx, x) if isinstance(x, SECRET) else jnp.logical_not(x)


def _is_boolean(x: Any) -> bool:
    if isinstance(x, SECRET):
        return isinstance(x, Boolean)
    return bool(jnp.asarray(x).dtype == bool)


def select_n(cx: Any, which: Any, *cases: Any) -> Any:
    """Public predicate: local. Secret: case_0 + b (case_1 - case_0), one round."""
    cases = tuple(operands(cx, *cases))
    if not isinstance(which, SECRET):
        return _select_public(cx, which, cases)
    if len(cases) != 2 or not isinstance(which, Boolean):
        cx.default([which, *cases])
    (which,) = operands(cx, which)
    dtype = cx.eqn.outvars[0].aval.dtype
    if dtype == np.bool_:
        return xor(cx, cases[0], and_(cx, which, xor(cx, *_secret_first(cx, cases))))
    if jnp.issubdtype(dtype, jnp.floating):
        scale = max([cx.f] + [c.scale for c in cases if isinstance(c, Fixed)])
        shares = [cx.scaled(_real_case(cx, c, scale), scale) for c in cases]
        chosen = _choose(cx, which, cases, shares)
        return Fixed.of(chosen, scale)
    bounds = integers.combined(*map(integers.bounds_of, cases))
    shares = [cx.integer(c).share for c in cases]
    return integers.result(cx, _choose(cx, which, cases, shares), bounds)


def _real_case(cx: Any, case: Any, scale: int) -> Fixed:
    """A case of a selection; the infinities of masks leave room for their sums."""
    return cx.fixed(case if isinstance(case, SECRET) else cx.addend(case), scale)


def _choose(cx: Any, which: Boolean, cases: Any, shares: Any) -> Any:
    zero = [isinstance(c, np.ndarray) and not c.any() for c in cases]
    if zero[0]:
        return cx.p.bit_times(which.bit, shares[1])
    if zero[1]:  # b ? 0 : x = (not b) x
        return cx.p.bit_times(not_bit(cx, which), shares[0])
    minus = cx.p.mul_public(shares[0], -1)
    return cx.p.add(shares[0], cx.p.bit_times(which.bit, cx.p.add(shares[1], minus)))


def not_bit(cx: Any, b: Boolean) -> Any:
    """not b, made once per bit so that its mask serves every selection by it."""
    if "not" not in b.bit.memo:
        b.bit.memo["not"] = cx.p.xor_public(b.bit, np.uint8(1))
    return b.bit.memo["not"]


def _secret_first(cx: Any, cases: Any) -> Any:
    return [cx.boolean(c) for c in cases]


def _select_public(cx: Any, which: Any, cases: Any) -> Any:
    dtype = cx.eqn.outvars[0].aval.dtype
    pick = lambda *v: _pick(which, v)  # noqa: E731
    if dtype == np.bool_:
        values = [cx.boolean(c) for c in cases]
        return Boolean(moved(pick, *(v.bit for v in values)))
    if jnp.issubdtype(dtype, jnp.floating):
        scale = max([cx.f] + [c.scale for c in cases if isinstance(c, Fixed)])
        shares = [cx.scaled(_real_case(cx, c, scale), scale) for c in cases]
        return Fixed.of(moved(pick, *shares), scale)
    bounds = functools.reduce(integers.combined, map(integers.bounds_of, cases))
    shares = [cx.integer(c).share for c in cases]
    return integers.result(cx, moved(pick, *shares), bounds)


def _pick(which: Any, values: Any) -> Any:
    if len(values) == 2:
        return jnp.where(jnp.asarray(which).astype(bool), values[1], values[0])
    return jnp.choose(which, values, mode="clip")


RULES: dict[str, Rule] = {
    "lt": lt,
    "gt": gt,
    "ge": ge,
    "le": le,
    "eq": eq,
    "lt_to": lt,
    "le_to": le,
    "eq_to": eq,
    "ne": ne,
    "not": not_,
    "and": and_,
    "or": or_,
    "xor": xor,
    "select_n": select_n,
}
