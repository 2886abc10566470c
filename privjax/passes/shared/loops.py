"""Loops with secret carries: what their first values lose in fixed point.

A constant that enters a loop becomes a traced value there, so that `encode` cannot look
at it. It is looked at here, against the scale that its carry turned out to need.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Rule
from privjax.errors import UnsupportedError
from privjax.passes.shared.values import Fixed


def scan(cx: Any, *values: Any, **params: Any) -> list[Any]:
    """`scan`, with a look at what its carries begin with."""
    n_consts, n_carry = _compat.scan_arity(params, len(values))
    out = control.scan(cx, *values, **params)
    _starts(cx, values, (n_consts, n_carry), params["jaxpr"], out)
    return out


def while_loop(cx: Any, *values: Any, **params: Any) -> list[Any]:
    """`while`, with a look at what its carries begin with."""
    first, n_consts = params["cond_nconsts"], params["body_nconsts"]
    out = control.while_loop(cx, *values, **params)
    operands = values[first:]
    arity = n_consts, len(operands) - n_consts
    _starts(cx, operands, arity, params["body_jaxpr"], out)
    return out


def _starts(
    cx: Any, operands: Sequence[Any], arity: tuple[int, int], body: Any, out: Any
) -> None:
    """Warn of first values that do not fit; refuse a loop that would only compute 0.

    `operands` begin with constants and carries of the body, as many as `arity` says.
    """
    n_consts, n_carry = arity
    init = operands[n_consts : n_consts + n_carry]
    lost = [_lost(cx, v, o) for v, o in zip(init, out[:n_carry], strict=True)]
    if not any(lost):
        return
    rest = [False] * (len(operands) - n_consts - n_carry)
    zero = [_is_zero(v) or bool(gone) for v, gone in zip(init, lost, strict=True)]
    while True:  # until those that stay 0 are stable
        after = zeros(body, [*[False] * n_consts, *zero, *rest])[:n_carry]
        stay = [a and b for a, b in zip(zero, after, strict=True)]
        if stay == zero:
            break
        zero = stay
    kept = [_unchanged(body, n_consts + i, i) for i in range(n_carry)]
    for value, gone, stays, same in zip(init, lost, zero, kept, strict=True):
        if gone and stays and not same:
            raise UnsupportedError(
                f"a loop{cx.where()} begins with {np.max(np.abs(value)):.4g}, which is "
                f"below the resolution of {gone:.4g}, and what it carries "
                "is a multiple of that: all of it would be 0. Begin with 1.0 and "
                "multiply the result, or reveal what the loop needs with "
                "privjax.reveal."
            )


def _lost(cx: Any, value: Any, carried: Any) -> float:
    """The resolution at which a constant counts as 0 in its carry, or 0 where it does
    not; the user is told."""
    if not isinstance(carried, Fixed) or not _known(value):
        return 0.0
    cx.check_constant(value, carried.scale)
    size = np.abs(np.asarray(value, np.float64))
    below = np.any(size > 0) and np.all(size < 2.0 ** -(carried.scale + 1))
    return 2.0**-carried.scale if below else 0.0


def _known(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic))


def _is_zero(value: Any) -> bool:
    """Whether a value is a constant of zeros."""
    return _known(value) and not np.any(value)


def _unchanged(body: Any, position: int, i: int) -> bool:
    jaxpr, _ = _compat.open_jaxpr(body)
    return jaxpr.outvars[i] is jaxpr.invars[position]


# Zero where any operand is, where the first is, where all are, or all but the first.
_JUDGES: dict[str, Callable[[list[bool]], bool]] = {
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), any),
    **dict.fromkeys(
        (
            "abs",
            "broadcast_in_dim",
            "convert_element_type",
            "copy",
            "cumsum",
            "div",
            "dynamic_slice",
            "neg",
            "reduce_max",
            "reduce_min",
            "reduce_sum",
            "reshape",
            "rev",
            "sign",
            "slice",
            "sqrt",
            "square",
            "squeeze",
            "stop_gradient",
            "transpose",
        ),
        lambda zero: zero[0],
    ),
    **dict.fromkeys(("add", "add_any", "concatenate", "max", "min", "pad", "sub"), all),
    "select_n": lambda zero: all(zero[1:]),
}


def zeros(closed: Any, known: Sequence[bool]) -> list[bool]:
    """Which outputs of a jaxpr are 0 if the `known` inputs are, whatever the others."""
    jaxpr, consts = _compat.open_jaxpr(closed)
    found = {v: _is_zero(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}
    found.update(zip(jaxpr.invars, known, strict=True))

    def of(atom: Any) -> bool:
        if isinstance(atom, _compat.Literal):
            return not np.any(atom.val)
        return found[atom]

    for eqn in jaxpr.eqns:
        operands = [of(v) for v in eqn.invars]
        found.update(zip(eqn.outvars, _outputs(eqn, operands), strict=True))
    return [of(v) for v in jaxpr.outvars]


def _outputs(eqn: Any, operands: list[bool]) -> list[bool]:
    name, count = eqn.primitive.name, len(eqn.outvars)
    if name == "cond":
        branches = [zeros(b, operands[1:]) for b in eqn.params["branches"]]
        return [all(column) for column in zip(*branches, strict=True)]
    judge = _JUDGES.get(name)
    return [judge is not None and judge(operands)] * count


RULES: dict[str, Rule] = {"scan": scan, "while": while_loop}
