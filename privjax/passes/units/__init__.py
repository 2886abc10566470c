"""The unit analysis: which values depend on one privacy unit, on a sum, or on a mix.

    analyse(closed, unit_axes) -> UnitAnalysis

`states.py` has the lattice, `layout.py` the arithmetic of reshaped unit axes,
`analysis.py` the walk, and `rules/` one table per group of primitives: what each does
to the unit axis, and in which operands it is linear.
"""

from privjax.passes.units.analysis import UnitAnalysis, analyse
from privjax.passes.units.states import (
    PUBLIC,
    ZERO,
    Cause,
    Digit,
    Mixed,
    PerUnit,
    Public,
    State,
    Sum,
    Zero,
    is_private,
    per_unit,
)

__all__ = [
    "PUBLIC",
    "ZERO",
    "Cause",
    "Digit",
    "Mixed",
    "PerUnit",
    "Public",
    "State",
    "Sum",
    "UnitAnalysis",
    "Zero",
    "analyse",
    "is_private",
    "per_unit",
]
