"""Branches on a secret: all of them run, and the result is selected."""

from typing import Any

from privjax.core import control
from privjax.core.interpret import run
from privjax.errors import UnsupportedError
from privjax.passes.shared.comparison import select_n
from privjax.passes.shared.values import SECRET, Boolean


class _Result:
    """The shape and dtype of one result, in place of an equation for `select_n`."""

    def __init__(self, var: Any, like: Any) -> None:
        self.outvars, self.source_info = [var], like.source_info
        self.primitive, self.params = like.primitive, like.params


def cond(cx: Any, index: Any, *operands: Any, **params: Any) -> list[Any]:
    """Two branches on a secret boolean; any number on a public index."""
    if not isinstance(index, SECRET):
        return control.cond(cx, index, *operands, **params)
    eqn, branches = cx.eqn, params["branches"]
    which = index if isinstance(index, Boolean) else getattr(index, "bit", None)
    if len(branches) != 2 or which is None:
        raise UnsupportedError(
            f"a switch on a secret index{cx.where()} has no rule; use lax.cond on a "
            "secret boolean, or reveal the index with privjax.reveal."
        )
    results = [run(cx, branch, operands) for branch in branches]
    cx.eqn = eqn
    out = []
    for var, case0, case1 in zip(eqn.outvars, *results, strict=True):
        cx.eqn = _Result(var, eqn)
        out.append(select_n(cx, which, case0, case1))
    cx.eqn = eqn
    return out


RULES = {"cond": cond}
