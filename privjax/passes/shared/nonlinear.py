"""Functions of reals, by `protocols.functions`; division by a public value is a product."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core.interpret import Rule
from privjax.passes.shared.arithmetic import mul_public, operands
from privjax.passes.shared.values import SECRET, Fixed
from privjax.protocols import functions


def _unary(function: Callable[..., Any]) -> Rule:
    def rule(cx: Any, x: Any, *, accuracy: Any = None) -> Any:
        x = cx.fixed(x)
        return Fixed.of(*function(cx.p, cx.fp, x.share, x.scale))

    return rule


def div(cx: Any, x: Any, y: Any) -> Any:
    """x / y: a public divisor costs a product with 1/y."""
    x, y = operands(cx, x, y)
    if isinstance(y, SECRET):
        n, d = cx.fixed(x), cx.fixed(y)
        if isinstance(x, np.ndarray) and np.all(x == 1):
            return Fixed.of(*functions.reciprocal(cx.p, cx.fp, d.share, d.scale))
        return Fixed.of(
            *functions.divide(cx.p, cx.fp, n.share, n.scale, d.share, d.scale)
        )
    known = isinstance(y, np.ndarray)
    inverse = 1.0 / np.asarray(y, np.float64) if known else 1.0 / jnp.asarray(y)
    return mul_public(cx, x, inverse)


# Each states its error and its rounds in `protocols.functions`.
RULES: dict[str, Rule] = {
    "exp": _unary(functions.exp),
    "exp2": _unary(functions.exp2),
    "log": _unary(functions.log),
    "logistic": _unary(functions.logistic),
    "tanh": _unary(functions.tanh),
    "erf": _unary(functions.erf),
    "sqrt": _unary(functions.sqrt),
    "rsqrt": _unary(functions.rsqrt),
    "div": div,
}
