"""The pass that applies the tables of rules to what depends on a secret."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from privjax.core import control
from privjax.core.interpret import run
from privjax.passes.decompose import (
    branches,
    collectives,
    contraction,
    elementary,
    fourier,
    indexing,
    integers,
    linalg,
    order,
    pooling,
    reductions,
    signs,
    special,
    windows,
)
from privjax.passes.simplify import retrace
from privjax.passes.taint import Tainted, TaintPass, raw

# Applied wherever an operand is secret.
RULES: dict[str, Callable[..., Any]] = {
    **elementary.RULES,
    **reductions.RULES,
    **pooling.RULES,
    **windows.RULES,
    **order.RULES,
    **integers.RULES,
    **special.RULES,
    **linalg.RULES,
    **fourier.RULES,
    **contraction.RULES,
}

# Applied where one of the operands from the given position on is secret (an index): with
# public indices these only move entries about.
INDEXED: dict[str, tuple[int, Callable[..., Any]]] = integers.INDEXED

# Applied where the first operand is an integer.
OF_INTEGERS: dict[str, Callable[..., Any]] = integers.OF_INTEGERS


class Decompose(TaintPass):
    """Apply the tables to every equation with a tainted operand, recursively."""

    def __init__(self, max_steps: int | None = None) -> None:
        self.max_steps = max_steps
        self.notes: dict[str, None] = {}  # what the user should know, in order

    rules = {
        **control.RULES,
        **branches.RULES,
        **indexing.RULES,
        **signs.RULES,
        **collectives.RULES,
    }

    def default(self, values: Sequence[Any]) -> list[Any]:
        name, params = self.eqn.primitive.name, self.eqn.params
        if name in ("ne", "eq") and values[0] is values[1]:  # the test for NaN
            return [jnp.full(self.eqn.outvars[0].aval.shape, name == "eq")]
        rule = RULES.get(name)
        if values and jnp.issubdtype(raw(values[0]).dtype, jnp.integer):
            rule = OF_INTEGERS.get(name, rule)
        if name in INDEXED:
            first, by_index = INDEXED[name]
            if any(isinstance(v, Tainted) for v in values[first:]):
                rule = by_index
        if rule is None:
            return super().default(values)
        if not any(v.aval.size for v in self.eqn.outvars):  # factors of empty matrices
            return [
                Tainted(jnp.zeros(v.aval.shape, v.aval.dtype)) for v in self.eqn.outvars
            ]
        out = self.apply(lambda *xs: rule(*xs, **params), *values)
        several = self.eqn.primitive.multiple_results
        return out if several else out[:1]


def decompose(
    closed: Any,
    secret: Sequence[bool],
    max_steps: int | None = None,
    notes: dict[str, None] | None = None,
) -> Any:
    """Rewrite a jaxpr; `secret` says which of its inputs are secret.

    `max_steps` bounds `while` loops whose predicate is secret; `notes` takes up what the
    user should know.
    """
    cx = Decompose(max_steps)
    if notes is not None:
        cx.notes = notes

    def fun(*xs: Any) -> list[Any]:
        values = [Tainted(x) if s else x for x, s in zip(xs, secret, strict=True)]
        return [raw(v) for v in run(cx, closed, values)]

    return retrace(closed, fun)
