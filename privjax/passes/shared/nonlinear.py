"""Functions of reals, by `protocols.functions`; division by a public value is a product."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.core.interpret import Rule, run
from privjax.errors import UnsupportedError
from privjax.passes.decompose import incomplete
from privjax.passes.decompose.engine import decompose
from privjax.passes.shared.arithmetic import add, mul_public, operands, with_tiny
from privjax.passes.shared.comparison import lt
from privjax.passes.shared.values import SECRET, Fixed
from privjax.passes.simplify import cse, inline
from privjax.protocols import functions


def _unary(function: Callable[..., Any]) -> Rule:
    def rule(cx: Any, x: Any, *, accuracy: Any = None) -> Any:
        x = with_tiny(cx, cx.fixed(x))
        return Fixed.of(*function(cx.p, cx.fp, x.share, x.scale))

    return rule


def div(cx: Any, x: Any, y: Any) -> Any:
    """x / y: a public divisor costs a product with 1/y; x / 0 is 0."""
    x, y = operands(cx, x, y)
    if isinstance(y, SECRET):
        n, d = cx.fixed(x), cx.fixed(y)
        if isinstance(x, np.ndarray) and np.all(x == 1):
            return Fixed.of(*functions.reciprocal(cx.p, cx.fp, d.share, d.scale))
        return Fixed.of(
            *functions.divide(cx.p, cx.fp, n.share, n.scale, d.share, d.scale)
        )
    if isinstance(y, np.ndarray):
        y = np.asarray(y, np.float64)
        return mul_public(cx, x, np.divide(1.0, y, out=np.zeros_like(y), where=y != 0))
    y = jnp.asarray(y)
    return mul_public(cx, x, jnp.where(y == 0, 0.0, 1.0 / y))


def atan2(cx: Any, y: Any, x: Any) -> Any:
    """The angle of (x, y)."""
    y, x = (cx.fixed(v) for v in operands(cx, y, x))
    return Fixed.of(*functions.atan2(cx.p, cx.fp, y.share, y.scale, x.share, x.scale))


def pow_(cx: Any, x: Any, y: Any) -> Any:
    """x^y, by products for small integer constants y.

    A negative x counts as 0, but where y may be an integer: then the result has the sign
    that belongs to the lowest bit of its integer part.
    """
    x, y = operands(cx, x, y)
    if not isinstance(y, SECRET):
        return _public_power(cx, x, y)
    exponent = cx.fixed(y)
    if isinstance(x, np.ndarray) and x.size and np.all(x > 0):
        share, scale = exponent.share, exponent.scale
        return Fixed.of(*functions.exp_to_base(cx.p, cx.fp, x, share, scale))
    base = with_tiny(cx, cx.fixed(x, 2 * cx.f))
    lowest = cx.fp.ring_bits - 1 - exponent.scale
    odd = cx.p.msb(cx.p.mul_public(exponent.share, 1 << lowest))
    return _power(cx, base, exponent, odd)


def _public_power(cx: Any, x: Fixed, y: Any) -> Any:
    """x^y for a secret x."""
    x, exponent = with_tiny(cx, cx.fixed(x)), cx.fixed(y, 2 * cx.f)
    if not isinstance(y, np.ndarray) or not y.size:
        y = jnp.asarray(y)
        return _power(cx, x, exponent, (jnp.mod(jnp.floor(y), 2) == 1).astype(np.uint8))
    same = float(y.flat[0])
    if np.all(y == same):
        if same in (0.5, -0.5):
            root = functions.sqrt if same > 0 else functions.rsqrt
            return Fixed.of(*root(cx.p, cx.fp, x.share, x.scale))
        if same == int(same) and -8 <= same <= 16:
            return _integer_power(cx, x, int(same))
    whole = y == np.floor(y)
    odd = (np.mod(np.floor(y), 2) == 1).astype(np.uint8) if whole.any() else None
    return _power(cx, x, exponent, odd)


def _power(cx: Any, x: Fixed, y: Fixed, odd: Any) -> Any:
    if x.scale + y.scale > 2 * cx.fp.ring_bits - 32:  # y log2(x) would be cut too short
        y = cx.factor(y)
    return Fixed.of(
        *functions.power(cx.p, cx.fp, x.share, x.scale, y.share, y.scale, odd)
    )


def _integer_power(cx: Any, x: Fixed, n: int) -> Any:
    if n == 0:
        return jnp.ones(x.shape, cx.eqn.outvars[0].aval.dtype)
    if n < 0:
        x = Fixed.of(*functions.reciprocal(cx.p, cx.fp, x.share, x.scale))
    if abs(n) == 1:
        return x
    return Fixed.of(*functions.integer_power(cx.p, cx.fp, x.share, x.scale, abs(n)))


def polygamma(cx: Any, n: Any, x: Any) -> Any:
    """The n-th derivative of digamma for a public constant n, x > 0."""
    n, x = operands(cx, n, x)
    order = _constant(cx, n, "its order")
    if order != int(order) or order < 0:
        raise UnsupportedError(
            f"polygamma of order {order}{cx.where()}: orders are 0, 1, 2, ..."
        )
    x = cx.fixed(x)
    if order == 0:
        return Fixed.of(*functions.digamma(cx.p, cx.fp, x.share, x.scale))
    factor = math.factorial(int(order)) * (-1.0) ** (order + 1)
    s = order + 1
    return Fixed.of(*functions.hurwitz(cx.p, cx.fp, x.share, x.scale, s, factor))


def zeta(cx: Any, s: Any, q: Any) -> Any:
    """The Hurwitz zeta function; cheaper if one of its arguments is a public number."""
    s, q = operands(cx, s, q)
    order, start = _number(s), _number(q)
    if order is not None and isinstance(q, SECRET):
        if order <= 1:
            raise UnsupportedError(f"zeta(s, q) with s = {order}{cx.where()}: s > 1.")
        x = cx.fixed(q)
        return Fixed.of(*functions.hurwitz(cx.p, cx.fp, x.share, x.scale, order))
    if start is None:
        return _in_parts(cx, incomplete.zeta, s, q)
    if start <= 0:
        raise UnsupportedError(f"zeta(s, q) with q = {start}{cx.where()}: q > 0.")
    x = cx.fixed(s)
    return Fixed.of(*functions.zeta(cx.p, cx.fp, x.share, x.scale, start))


def _igamma(upper: bool) -> Rule:
    def rule(cx: Any, a: Any, x: Any) -> Any:
        a, x = operands(cx, a, x)
        value = _number(a)
        if value is None or not isinstance(x, SECRET):
            whole = incomplete.igammac if upper else incomplete.igamma
            return _in_parts(cx, whole, a, x)
        x = cx.fixed(x)
        return Fixed.of(
            *functions.igamma(cx.p, cx.fp, x.share, x.scale, value, upper=upper)
        )

    return rule


def betainc(cx: Any, a: Any, b: Any, x: Any) -> Any:
    """The regularised incomplete beta function; cheaper for public numbers a and b."""
    a, b, x = operands(cx, a, b, x)
    first, second = _number(a), _number(b)
    if first is None or second is None or not isinstance(x, SECRET):
        return _in_parts(cx, incomplete.betainc, a, b, x)
    x = cx.fixed(x)
    return Fixed.of(*functions.betainc(cx.p, cx.fp, x.share, x.scale, first, second))


def _in_parts(cx: Any, fun: Callable[..., Any], *values: Any) -> Any:
    """A function in plain JAX, on values of this pass."""
    dtype = cx.eqn.outvars[0].aval.dtype
    types = [jax.ShapeDtypeStruct(v.shape, dtype) for v in values]
    secret = [isinstance(v, SECRET) for v in values]
    plain = inline(jax.make_jaxpr(fun)(*types))
    (out,) = run(cx, cse(decompose(plain, secret)), values)
    return out


def _number(value: Any) -> float | None:
    """The one number that a public array is known to consist of, if it is."""
    if isinstance(value, np.ndarray) and value.size and np.all(value == value.flat[0]):
        return float(value.flat[0])
    return None


def _constant(cx: Any, value: Any, what: str) -> float:
    """The same, or a refusal."""
    number = _number(value)
    if number is None:
        raise UnsupportedError(
            f"`{cx.eqn.primitive.name}`{cx.where()}: {what} must be one public number "
            "that is known when the program is compiled, because the polynomials depend "
            "on it. Give it as a Python number."
        )
    return number


def nextafter(cx: Any, x: Any, y: Any) -> Any:
    """The next fixed-point number: x +- the resolution, towards y."""
    x, y = operands(cx, x, y)
    up, down = (cx.p.to_arith(b.bit, cx.fp.dtype) for b in (lt(cx, x, y), lt(cx, y, x)))
    step = cx.p.add(up, cx.p.mul_public(down, -1))
    return add(cx, cx.fixed(x), Fixed.of(step, cx.f))


def reduce_precision(cx: Any, x: Any, *, exponent_bits: int, mantissa_bits: int) -> Any:
    """x: fixed-point numbers have a precision of their own."""
    return cx.fixed(x)


# Each states its error and its rounds in `protocols.functions`.
UNARY: dict[str, Callable[..., Any]] = {
    "acos": functions.acos,
    "acosh": functions.acosh,
    "asin": functions.asin,
    "asinh": functions.asinh,
    "atan": functions.atan,
    "bessel_i0e": functions.i0e,
    "bessel_i1e": functions.i1e,
    "cbrt": functions.cbrt,
    "cos": functions.cos,
    "digamma": functions.digamma,
    "erf": functions.erf,
    "erf_inv": functions.erf_inv,
    "exp": functions.exp,
    "exp2": functions.exp2,
    "expm1": functions.expm1,
    "lgamma": functions.lgamma,
    "log": functions.log,
    "logistic": functions.logistic,
    "rsqrt": functions.rsqrt,
    "sqrt": functions.sqrt,
    "tan": functions.tan,
    "tanh": functions.tanh,
}

RULES: dict[str, Rule] = {
    **{name: _unary(function) for name, function in UNARY.items()},
    "atan2": atan2,
    "div": div,
    "igamma": _igamma(upper=False),
    "igammac": _igamma(upper=True),
    "nextafter": nextafter,
    "polygamma": polygamma,
    "pow": pow_,
    "reduce_precision": reduce_precision,
    "regularized_incomplete_beta": betainc,
    "zeta": zeta,
}
