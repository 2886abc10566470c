"""What a loop over clients adds to its carry, side by side.

A secure sum needs the contributions of all clients, and so does one over survivors. Where
a carry is only ever added to, c + f(x_k) in step k, the loop hands out f(x_k) instead,

    scan(c -> c + f(x_k), c_0)   ->   c_0 + sum over clients of scan(f(x_k))

which is what its body gives for c = 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Interpreter, mentions, run
from privjax.passes.simplify import retrace

_SCAN = frozenset({"scan"})


def beside_each_other(closed: Any, clients: int) -> Any:
    """`closed`, with the sums that loops of so many steps form after these loops."""
    if not mentions(closed, _SCAN):
        return closed
    return retrace(closed, lambda *xs: run(_Stack(clients), closed, xs))


def _scan(cx: "_Stack", *values: Any, **params: Any) -> list[Any]:
    n_consts, n_carry = _compat.scan_arity(params, len(values))
    body, _ = _compat.open_jaxpr(params["jaxpr"])
    added = [
        k for k in range(n_carry) if _only_added_to(body, body.invars[n_consts + k], k)
    ]
    if params["length"] != cx.clients or not added:
        return list(control.RULES["scan"](cx, *values, **params))
    consts, start = values[:n_consts], values[n_consts : n_consts + n_carry]
    others = [k for k in range(n_carry) if k not in added]

    def step(carry: Any, xs: Any) -> Any:
        before = [jnp.zeros_like(x) for x in start]
        for k, x in zip(others, carry, strict=True):
            before[k] = x
        out = run(cx, params["jaxpr"], [*consts, *before, *xs])
        return [out[k] for k in others], (out[n_carry:], [out[k] for k in added])

    carry, (ys, terms) = lax.scan(
        step,
        [start[k] for k in others],
        list(values[n_consts + n_carry :]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    ends = dict(zip(others, carry, strict=True))
    for k, x in zip(added, terms, strict=True):
        ends[k] = start[k] + jnp.sum(x, 0, dtype=x.dtype)
    return [*(ends[k] for k in range(n_carry)), *ys]


def _only_added_to(body: Any, carry: Any, place: int) -> bool:
    """Whether what a carry ends a step with is itself and something else."""
    made = {carry}
    for eqn in body.eqns:
        at = [k for k, v in enumerate(eqn.invars) if _in(v, made)]
        if not at:
            continue
        if not _adds(eqn, at):
            return False
        made.add(eqn.outvars[0])
    ends = [k for k, v in enumerate(body.outvars) if _in(v, made)]
    return ends == [place] and body.outvars[place] is not carry


def _adds(eqn: Any, at: Sequence[int]) -> bool:
    """Whether an equation keeps what its operands `at` carry, once."""
    match eqn.primitive.name:
        case "add" | "add_any":
            return len(at) == 1
        case "sub" | "scatter-add" | "scatter-sub":
            return at == [0]
        case "select_n":
            return at == list(range(1, len(eqn.invars)))
        case _:
            return False


def _in(atom: Any, made: set[Any]) -> bool:
    return not isinstance(atom, _compat.Literal) and atom in made


class _Stack(Interpreter):
    tagged = False
    rules: Mapping[str, Any] = {**control.RULES, "scan": _scan}
    markers = _SCAN

    def __init__(self, clients: int) -> None:
        self.clients = clients
