"""Operands of one primitive must vary over the same manual mesh axes under `shard_map`.

JAX's own operations join these sets by themselves; a primitive of ours, whose result
takes its type from one operand, has its operands joined before it is bound.
"""

from typing import Any

import jax
from jax import lax

from privjax._typing import Array


def _axes(x: Any) -> frozenset[str]:
    manual = getattr(jax.typeof(x), "manual_axis_type", None)
    return getattr(manual, "varying", frozenset())


def vary_alike(*operands: Array) -> list[Array]:
    """The operands, each made varying over every axis over which any of them varies."""
    union = frozenset().union(*(_axes(x) for x in operands))
    return [
        lax.pcast(x, tuple(sorted(union - _axes(x))), to="varying")
        if union - _axes(x)
        else x
        for x in operands
    ]
