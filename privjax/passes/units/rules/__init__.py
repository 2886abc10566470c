"""The rule tables, one file per group of primitives. A name not in here is refused."""

from privjax.passes.units.effects import HOST
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

__all__ = ["HOST", "RULES"]

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **structural.RULES,
    **reduction.RULES,
    **windows.RULES,
    **contraction.RULES,
    **indexing.RULES,
    **randomness.RULES,
}
