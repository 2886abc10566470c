"""Write operations on secrets in terms of fewer ones, in plain JAX.

This pass knows no protocol: every rule is an ordinary JAX function that equals the
primitive (up to NaN and infinity, which fixed point does not have), so that a rule can be
checked against JAX itself. Equal sub-expressions that appear (the comparison inside relu
and inside its gradient) are merged afterwards by `simplify.cse`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import control
from privjax.core.interpret import run
from privjax.passes import pooling
from privjax.passes.simplify import retrace
from privjax.passes.taint import Tainted, TaintPass, raw


def _max(x: Any, y: Any) -> Any:
    return jnp.where(lax.gt(*_broadcast(x, y)), x, y)


def _min(x: Any, y: Any) -> Any:
    return jnp.where(lax.gt(*_broadcast(x, y)), y, x)


def _broadcast(x: Any, y: Any) -> Any:
    if np.ndim(x) == 0 or np.ndim(y) == 0:
        return x, y  # as JAX writes `x > 0`: equal comparisons must look alike
    return jnp.broadcast_arrays(x, y)


def _halving(x: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Combine all entries of the leading axis pairwise: log2(n) levels."""
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        pairs = combine(x[:half], x[half : 2 * half])
        x = jnp.concatenate([pairs, x[2 * half :]]) if x.shape[0] % 2 else pairs
    return x[0]


def _leading(x: Any, axes: Sequence[int]) -> Any:
    """Move `axes` to the front and flatten them."""
    rest = [d for i, d in enumerate(x.shape) if i not in axes]
    return jnp.moveaxis(x, axes, range(len(axes))).reshape(-1, *rest)


def _reduce_max(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), _max)


def _reduce_min(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), _min)


def _reduce_prod(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), lax.mul)


def _reduce_and(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), lax.bitwise_and)


def _reduce_or(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
    return _halving(_leading(x, axes), lax.bitwise_or)


def _arg(x: Any, axes: Any, index_dtype: Any, better: Any) -> Any:
    """Index of the first best entry: a tournament that carries values and indices."""
    (axis,) = axes
    v = jnp.moveaxis(x, axis, 0)
    i = lax.broadcasted_iota(np.dtype(index_dtype), v.shape, 0)
    while v.shape[0] > 1:
        half = v.shape[0] // 2
        # Neighbours, so that the left one is always the earlier: it wins ties.
        a, b = v[: 2 * half : 2], v[1 : 2 * half : 2]
        ia, ib = i[: 2 * half : 2], i[1 : 2 * half : 2]
        later = better(b, a)
        w, iw = jnp.where(later, b, a), jnp.where(later, ib, ia)
        if v.shape[0] % 2:
            w = jnp.concatenate([w, v[2 * half :]])
            iw = jnp.concatenate([iw, i[2 * half :]])
        v, i = w, iw
    return i[0]


def _argmax(x: Any, *, axes: Any, index_dtype: Any) -> Any:
    return _arg(x, axes, index_dtype, lax.gt)


def _argmin(x: Any, *, axes: Any, index_dtype: Any) -> Any:
    return _arg(x, axes, index_dtype, lax.lt)


def _integer_pow(x: Any, *, y: int) -> Any:
    if y < 0:
        return jnp.ones_like(x) / lax.integer_pow(x, -y)
    result, base = None, x
    while y:
        if y & 1:
            result = base if result is None else lax.mul(result, base)
        y >>= 1
        base = lax.mul(base, base) if y else base
    return jnp.ones_like(x) if result is None else result


def _abs(x: Any) -> Any:
    return jnp.where(lax.lt(x, jnp.zeros_like(x)), lax.neg(x), x)


def _sign(x: Any) -> Any:
    zero = jnp.zeros_like(x)
    positive = lax.convert_element_type(lax.gt(x, zero), x.dtype)
    return lax.sub(positive, lax.convert_element_type(lax.lt(x, zero), x.dtype))


def _clamp(low: Any, x: Any, high: Any) -> Any:
    return _min(_max(x, low), high)


def _pow(x: Any, y: Any) -> Any:
    y = jnp.asarray(y)
    return lax.exp(lax.mul(*_broadcast(lax.log(x), y.astype(x.dtype))))


def _cumulative(x: Any, axis: int, reverse: bool, combine: Any) -> Any:
    """A parallel prefix (Kogge and Stone): log2(n) levels."""
    v = jnp.moveaxis(x, axis, 0)
    v = v[::-1] if reverse else v
    step = 1
    while step < v.shape[0]:
        v = jnp.concatenate([v[:step], combine(v[step:], v[:-step])])
        step *= 2
    v = v[::-1] if reverse else v
    return jnp.moveaxis(v, 0, axis)


def _cummax(x: Any, *, axis: int, reverse: bool) -> Any:
    return _cumulative(x, axis, reverse, _max)


def _cummin(x: Any, *, axis: int, reverse: bool) -> Any:
    return _cumulative(x, axis, reverse, _min)


def _cumprod(x: Any, *, axis: int, reverse: bool) -> Any:
    return _cumulative(x, axis, reverse, lax.mul)


# Rules that exist only to be taken apart; options that change no value are named and
# ignored (accuracy hints, shardings).
RULES: dict[str, Callable[..., Any]] = {
    "max": _max,
    "min": _min,
    "clamp": _clamp,
    "abs": _abs,
    "sign": _sign,
    "square": lambda x: lax.mul(x, x),
    "one_minus_square": lambda x: lax.sub(jnp.ones_like(x), lax.mul(x, x)),
    "integer_pow": _integer_pow,
    "pow": _pow,
    "log1p": lambda x, *, accuracy=None: lax.log(lax.add(x, jnp.ones_like(x))),
    "log2": lambda x, *, accuracy=None: lax.mul(
        lax.log(x), jnp.full_like(x, 1 / np.log(2))
    ),
    "expm1": lambda x, *, accuracy=None: lax.sub(lax.exp(x), jnp.ones_like(x)),
    "erfc": lambda x: lax.sub(jnp.ones_like(x), lax.erf(x)),
    "sinh": lambda x, *, accuracy=None: 0.5 * (lax.exp(x) - lax.exp(-x)),
    "cosh": lambda x, *, accuracy=None: 0.5 * (lax.exp(x) + lax.exp(-x)),
    "is_finite": lambda x: jnp.ones(x.shape, bool),
    "reduce_max": _reduce_max,
    "reduce_min": _reduce_min,
    "reduce_prod": _reduce_prod,
    "reduce_and": _reduce_and,
    "reduce_or": _reduce_or,
    "argmax": _argmax,
    "argmin": _argmin,
    "cummax": _cummax,
    "cummin": _cummin,
    "cumprod": _cumprod,
    "reduce_window_max": pooling.window_max,
    "select_and_scatter_add": pooling.scatter_to_max,
}


def _branch(cx: "Decompose", index: Any, *operands: Any, **params: Any) -> list[Any]:
    """A branch on a secret: all branches run, and the results are selected."""
    if not isinstance(index, Tainted):
        return control.cond(cx, index, *operands, **params)
    results = [run(cx, branch, operands) for branch in params["branches"]]
    return [cx.apply(_select, index, *cases) for cases in zip(*results, strict=True)]


def _select(index: Any, *cases: Any) -> Any:
    if len(cases) == 2:  # a predicate: the index came from a boolean
        return jnp.where(lax.convert_element_type(index, bool), cases[1], cases[0])
    out = cases[-1]
    for k in reversed(range(1, len(cases) - 1)):
        out = jnp.where(lax.le(index, np.asarray(k, index.dtype)), cases[k], out)
    return jnp.where(lax.le(index, np.asarray(0, index.dtype)), cases[0], out)


class Decompose(TaintPass):
    """Apply `RULES` to every equation with a tainted operand, recursively."""

    rules = control.RULES | {"cond": _branch}

    def default(self, values: Sequence[Any]) -> list[Any]:
        name, params = self.eqn.primitive.name, self.eqn.params
        if name in ("ne", "eq") and values[0] is values[1]:  # the test for NaN
            return [jnp.full(self.eqn.outvars[0].aval.shape, name == "eq")]
        if name in RULES:
            return [self.apply(lambda *xs: RULES[name](*xs, **params), *values)]
        return super().default(values)

    def apply(self, fun: Callable[..., Any], *values: Any) -> Any:
        """A function of arrays on values of this pass, decomposed in its turn."""
        arrays = [v for v in values if not _is_constant(v)]
        avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in map(raw, arrays)]

        def body(*xs: Any) -> list[Any]:
            given = iter(xs)  # constants stay constants, so that equal ones are seen
            return [fun(*(v if _is_constant(v) else next(given) for v in values))]

        return run(self, jax.make_jaxpr(body)(*avals), arrays)[0]


def _is_constant(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) and np.ndim(value) == 0


def decompose(closed: Any, secret: Sequence[bool]) -> Any:
    """Rewrite a jaxpr; `secret` says which of its inputs are secret."""

    def fun(*xs: Any) -> list[Any]:
        values = [Tainted(x) if s else x for x, s in zip(xs, secret, strict=True)]
        return [raw(v) for v in run(Decompose(), closed, values)]

    return retrace(closed, fun)
