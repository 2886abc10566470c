"""Run like operations of different arrays as one, on their concatenation.

A train step multiplies the gradient of every parameter by the learning rate, and Adam
divides and takes a root per parameter. On shares each such operation is many small steps:
one operation on all parameters at once compiles and runs several times faster, and costs
the same rounds and bytes. Equations are placed as late as their results allow; those of
the same kind at the same place become one equation on flattened, concatenated operands.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Interpreter, environment, step, sub_jaxprs
from privjax.passes.simplify import retrace
from privjax.passes.taint import Tainted, TaintPass, raw
from privjax.protocols.functions import BOUNDS

# Elementwise operations worth merging, with the rounds that they take on shares.
ROUNDS = {
    "mul": 2,
    **{name: bound.rounds for name, bound in BOUNDS.items()},
    **dict.fromkeys(("lt", "gt", "le", "ge", "eq", "ne"), 7),
}
# What else takes time on shares, so that places are comparable between parameters.
OTHERS = {"dot_general": 2, "conv_general_dilated": 2, "select_n": 1}


class _Merge(TaintPass):
    rules = control.RULES
    markers = frozenset(control.RULES)

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        jaxpr, env, read = environment(closed, values)
        secret = tuple(isinstance(v, Tainted) for v in values)
        outer = self.eqn, self.index
        for group in _plan(jaxpr, secret):
            self.eqn = group[0]
            with _compat.source_of(self.eqn):
                operands = [[read(v) for v in eqn.invars] for eqn in group]
                if len(group) == 1:
                    out = [step(self, operands[0])]
                else:
                    out = _merged(self, group, operands)
            for eqn, results in zip(group, out, strict=True):
                env.update(zip(eqn.outvars, results, strict=True))
        self.eqn, self.index = outer
        return [read(v) for v in jaxpr.outvars]


def _merged(
    cx: Interpreter, group: Sequence[Any], operands: Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """One equation for all of `group`, and its result cut up again."""
    shapes = [eqn.outvars[0].aval.shape for eqn in group]
    columns: list[Any] = []
    for position in range(len(operands[0])):
        column = [ops[position] for ops in operands]
        if position and all(ops[0] is ops[position] for ops in operands):
            columns.append(columns[0])  # x * x stays a square
        elif _constant(column[0]):
            columns.append(column[0])
        else:
            columns.append(_concatenated(column, shapes))
    arrays = [raw(c) for c in columns]
    ends = np.cumsum([math.prod(s) for s in shapes])
    arrays = [a if np.ndim(a) else np.broadcast_to(a, ends[-1:]) for a in arrays]
    params = cx.eqn.primitive.get_bind_params(cx.eqn.params)
    flat = cx.eqn.primitive.bind(*arrays, **params)
    pieces = jnp.split(flat, ends[:-1])
    return [
        [Tainted(piece.reshape(shape))]
        for piece, shape in zip(pieces, shapes, strict=True)
    ]


def _concatenated(column: Sequence[Any], shapes: Sequence[Any]) -> Any:
    flat = [
        jnp.broadcast_to(raw(v), shape).reshape(-1)
        for v, shape in zip(column, shapes, strict=True)
    ]
    return jnp.concatenate(flat)


def _constant(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) and np.ndim(value) == 0


@lru_cache(maxsize=1024)
def _plan(jaxpr: Any, secret: tuple[bool, ...]) -> list[list[Any]]:
    """Equations in order of execution, in groups that run as one."""
    tainted = {v for v, s in zip(jaxpr.invars, secret, strict=True) if s}
    weights = []
    for eqn in jaxpr.eqns:
        hidden = any(v in tainted for v in _variables(eqn))
        if hidden:
            tainted.update(eqn.outvars)
        name = eqn.primitive.name
        weight = ROUNDS.get(name, OTHERS.get(name, 0)) if hidden else 0
        weights.append(1 if any(sub_jaxprs(eqn)) else weight)
    places = _latest(jaxpr, weights)
    groups: dict[Any, list[Any]] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        key: Any = i
        if weights[i] and eqn.primitive.name in ROUNDS:
            key = _kind(eqn, tainted)
        place = places[i], weights[i] > 0
        groups.setdefault((place, i if key is None else key), []).append(eqn)
    order = sorted(groups, key=lambda k: k[0])  # stable: program order within a place
    return [groups[k] for k in order]


def _kind(eqn: Any, tainted: set[Any]) -> Any:
    """Equations of equal kind may be merged."""
    operands: list[Any] = []
    for v in eqn.invars:
        literal = isinstance(v, _compat.Literal)
        what = np.asarray(v.val).tobytes() if literal else v in tainted
        operands.append((str(v.aval.dtype), what))
    same = len(eqn.invars) == 2 and eqn.invars[0] is eqn.invars[1]
    return eqn.primitive.name, str(eqn.params), tuple(operands), same


def _latest(jaxpr: Any, weights: Sequence[int]) -> list[int]:
    """The latest start of each equation, 0 for the earliest of them."""
    due: dict[Any, int] = {}
    starts = [0] * len(weights)
    for i in reversed(range(len(weights))):
        eqn = jaxpr.eqns[i]
        end = min((due.get(v, 0) for v in eqn.outvars), default=0)
        starts[i] = end - weights[i]
        for v in _variables(eqn):
            due[v] = min(due.get(v, 0), starts[i])
    return starts


def _variables(eqn: Any) -> list[Any]:
    return [v for v in eqn.invars if not isinstance(v, _compat.Literal)]


def merge(closed: Any, secret: Sequence[bool]) -> Any:
    """Merge like operations; `secret` says which inputs of the jaxpr are secret."""

    def fun(*xs: Any) -> list[Any]:
        values = [Tainted(x) if s else x for x, s in zip(xs, secret, strict=True)]
        return [raw(v) for v in _Merge().body(closed, values)]

    return retrace(closed, fun)
