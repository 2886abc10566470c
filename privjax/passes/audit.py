"""Reading a program without changing it: which outputs depend on secrets, what is said."""

from collections.abc import Sequence
from typing import Any

from privjax import _compat
from privjax.core.interpret import sub_jaxprs
from privjax.core.labels import Analysis, infer
from privjax.passes.taint import TaintPass


class _Secrecy(Analysis):
    """True: depends on a secret. Everything computed from a secret does."""

    def constant(self, value: Any) -> bool:
        return False

    def transfer(self, eqn: Any, labels: Sequence[bool]) -> list[bool]:
        hidden = any(labels) and eqn.primitive.name not in TaintPass.shown
        return [hidden] * len(eqn.outvars)

    def join(self, a: bool, b: bool) -> bool:
        return a or b

    def control(self, label: bool, outs: Sequence[bool]) -> list[bool]:
        return [label or o for o in outs]


def secrecy(secret: Sequence[bool], closed: Any) -> list[bool]:
    """Which outputs depend on the secret inputs, other than through `reveal`."""
    return infer(_Secrecy(), closed, list(secret))[0]


def marked_lines(closed: Any, names: Sequence[str]) -> list[str]:
    """`reveal float32[3] at file.py:12 (f)` for every marker of these names."""
    found = []
    for eqn in _compat.open_jaxpr(closed)[0].eqns:
        if eqn.primitive.name in names:
            line = _compat.user_line(eqn.source_info)
            why = f": {eqn.params['why']}" if "why" in eqn.params else ""
            shapes = ", ".join(v.aval.str_short() for v in eqn.outvars)
            found.append(f"{eqn.primitive.name} {shapes} at {line}{why}")
        for sub in sub_jaxprs(eqn):
            found += marked_lines(sub, names)
    return found
