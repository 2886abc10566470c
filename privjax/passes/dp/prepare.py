"""From the user's program to one in which sums over units are found at the outermost level.

Calls are spliced in place, custom derivative rules and linear solves by what they run (a
program that is rewritten here is differentiated no more), and so is `jax.checkpoint`,
whose recomputation survives as a barrier that the compiler does not merge across.
"""

from typing import Any

from jax import lax

from privjax.core import control
from privjax.core.interpret import Interpreter, mentions, run
from privjax.passes.dp.rolled import over_slices
from privjax.passes.simplify import CALLS, REMAT, dce, retrace


def _remat(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    if params["prevent_cse"]:
        values = lax.optimization_barrier(values)
    return run(cx, params["jaxpr"], values)


def _linear_solve(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """The solution alone, not the rules for its derivatives."""
    counts, programs = params["const_lengths"], params["jaxprs"]
    before = counts.matvec + counts.vecmat
    consts = values[before : before + counts.solve]
    right = values[sum(counts) :]
    return run(cx, programs.solve, [*consts, *right])


_RULES = {
    **dict.fromkeys(CALLS | {"custom_vmap_call"}, control.inline),
    **dict.fromkeys(REMAT, _remat),
    "custom_linear_solve": _linear_solve,
}


class _Splice(Interpreter):
    tagged = False
    rules = control.RULES | _RULES
    markers = frozenset(_RULES)


def prepare(closed: Any) -> Any:
    """`closed` without calls and dead code, with loops over slices that they count."""
    if mentions(closed, _Splice.markers):
        closed = retrace(closed, lambda *xs: run(_Splice(), closed, xs))
    return dce(over_slices(dce(closed)))
