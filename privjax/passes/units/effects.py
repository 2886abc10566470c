"""What leaves a program besides its outputs: calls of the host, and mutable arrays."""

from collections.abc import Sequence
from typing import Any

from privjax.core.interpret import mentions, sub_jaxprs
from privjax.passes.units.states import State, is_private

# Primitives that hand values to the host: with a private operand they are a leak whatever
# becomes of their results.
HOST = frozenset(
    """debug_callback debug_print pure_callback io_callback buffer_callback ffi_call
    call_exported inspect_sharding outfeed""".split()
)


def writes_on(eqn: Any) -> bool:
    """Whether an operand is a mutable array (`jax.new_ref`), which outlives the call."""
    return any(hasattr(v.aval, "inner_aval") for v in eqn.invars)


def seen_outside(eqn: Any) -> bool:
    """Whether somebody sees if and how often an equation runs.

    A `pure_callback` has no effect by JAX's account, but the host counts its calls.
    """
    called = eqn.primitive.name in HOST or any(
        mentions(body, HOST) for body in sub_jaxprs(eqn)
    )
    return called or bool(eqn.effects)


def leak(eqn: Any, labels: Sequence[State]) -> str:
    """How an equation (no control flow) hands on what it should not; empty if not."""
    if any(map(is_private, labels)):
        if writes_on(eqn):
            return "it keeps private values in a mutable array"
        if seen_outside(eqn):
            return "it hands private values to the host"
    if writes_on(eqn) and any(s.level for s in labels):
        # What is read from there later would count as independent of the units.
        return "it keeps a value computed from all units in a mutable array; return it"
    return ""
