"""Functions of reals, by `protocols.functions`; division by a public value is a product."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core.interpret import Rule
from privjax.passes.shared.arithmetic import mul_public, operands
from privjax.passes.shared.values import SECRET


def div(cx: Any, x: Any, y: Any) -> Any:
    """x / y: a public divisor costs a product with 1/y."""
    x, y = operands(cx, x, y)
    if isinstance(y, SECRET):
        return cx.default([x, y])
    known = isinstance(y, np.ndarray)
    inverse = 1.0 / np.asarray(y, np.float64) if known else 1.0 / jnp.asarray(y)
    return mul_public(cx, x, inverse)


RULES: dict[str, Rule] = {"div": div}
