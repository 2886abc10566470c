"""Factorisations and solutions of secret matrices: the table of their rules.

Eigenvalues of general matrices (`eig`, `schur`) have none: how many steps they take
depends on the matrix.
"""

from collections.abc import Callable
from typing import Any

from privjax.passes.decompose import eigen, factorisations, reflections, triangular

RULES: dict[str, Callable[..., Any]] = {
    **triangular.RULES,
    **factorisations.RULES,
    **reflections.RULES,
    **eigen.RULES,
}
