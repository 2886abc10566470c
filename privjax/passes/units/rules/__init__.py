"""The rule tables, one file per group of primitives. A name not in here is refused."""

from privjax.passes.units.op import Rule
from privjax.passes.units.rules import (
    contraction,
    elementwise,
    indexing,
    randomness,
    reduction,
    structural,
    windows,
)

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **structural.RULES,
    **reduction.RULES,
    **windows.RULES,
    **contraction.RULES,
    **indexing.RULES,
    **randomness.RULES,
}

# Primitives that hand values to the host: with a private operand they are a leak whatever
# becomes of their results.
HOST = frozenset(
    """debug_callback debug_print pure_callback io_callback buffer_callback ffi_call
    call_exported inspect_sharding""".split()
)
