"""Collectives along the axis of a `vmap`, which are reductions of the whole array.

Under `vmap(..., axis_name=...)` an axis is a place in the array; a name that is left is
one of devices, and refused.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from privjax.core.interpret import Rule


def _reduction(reduce: Callable[..., Any]) -> Rule:
    def rule(cx: Any, *xs: Any, axes: Any, axis_index_groups: Any) -> Any:
        if axis_index_groups is not None or not all(isinstance(a, int) for a in axes):
            out = cx.default(xs)
        else:
            out = [cx.apply(lambda v: reduce(v, axes), x)[0] for x in xs]
        return out if cx.eqn.primitive.multiple_results else out[0]

    return rule


RULES: dict[str, Rule] = {
    "psum": _reduction(lambda x, axes: jnp.sum(x, axes, dtype=x.dtype)),
    "pmax": _reduction(jnp.max),
    "pmin": _reduction(jnp.min),
}
