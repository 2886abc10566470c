"""Ask the dealer once for like things: requests of a scope come first, in few pieces.

What the dealer makes depends on no opening, so that all small requests of a scope can
stand at its beginning. Tuples of one kind (every truncation by 18 bits, every MAC of a
ring element) become one request on flattened, concatenated operands: a tuple is a dozen
operations to compile, whatever its size. Large requests stay where they are used, so
that their material does not lie in memory for longer than needed.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core import control, markers
from privjax.core.interpret import Interpreter, environment, mentions, step, sub_jaxprs
from privjax.passes.simplify import retrace

REQUESTS = frozenset({"uniform", "dealt"})
# Tuples of up to this many elements are merged.
SMALL = 1 << 16


class _Deal(Interpreter):
    tagged = False
    markers = REQUESTS
    rules = control.RULES | {
        "uniform": lambda cx, *, shape, dtype, domain: cx.plain([])[0],
        "dealt": lambda cx, *values, fun: cx.plain(values),
    }

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        jaxpr, env, read = environment(closed, values)
        outer = self.eqn
        for group in _plan(jaxpr):
            self.eqn = group[0]
            operands = [[read(v) for v in eqn.invars] for eqn in group]
            with _compat.source_of(self.eqn):
                if len(group) == 1:
                    results = [step(self, operands[0])]
                else:
                    results = _merged(group, operands)
            for eqn, out in zip(group, results, strict=True):
                env.update(zip(eqn.outvars, out, strict=True))
        self.eqn = outer
        return [read(v) for v in jaxpr.outvars]


def _merged(group: Sequence[Any], operands: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """One `dealt` for all of `group`, and its results cut up again."""
    fun = group[0].params["fun"]
    whole = _common(fun)
    columns = []
    for i, domain in enumerate(fun.operands):
        column = [ops[i] for ops in operands]
        columns.append(column[0] if i in whole else _flat(column, domain))
    out = markers.dealt(columns, fun)
    shapes = [_shape(eqn) or () for eqn in group]
    ends = np.cumsum([math.prod(s) for s in shapes])
    results = []
    for shape, end in zip(shapes, ends, strict=True):
        start = end - math.prod(shape)
        results.append(
            [
                lax.slice_in_dim(v, start, end, axis=-1).reshape(*v.shape[:-1], *shape)
                for v in out
            ]
        )
    return results


def _flat(column: Sequence[Any], domain: str) -> Any:
    lead = 1 if domain in markers.PLANES else 0
    return jnp.concatenate([v.reshape(*v.shape[:lead], -1) for v in column], axis=-1)


def _common(fun: Any) -> tuple[int, ...]:
    """Operands that all elements share (a key)."""
    return getattr(fun, "common", ())


def _shape(eqn: Any) -> tuple[int, ...] | None:
    """The shape of an elementwise tuple; None where operands differ."""
    fun = eqn.params["fun"]
    shapes = {
        tuple(v.aval.shape[1:] if domain in markers.PLANES else v.aval.shape)
        for i, (v, domain) in enumerate(zip(eqn.invars, fun.operands, strict=True))
        if i not in _common(fun)
    }
    return shapes.pop() if len(shapes) == 1 else None


def _kind(eqn: Any) -> Any:
    """Tuples of equal kind are merged; None for what is not."""
    if eqn.primitive.name != "dealt":
        return None
    fun = eqn.params["fun"]
    shape = _shape(eqn) if getattr(fun, "elementwise", False) else None
    common = [eqn.invars[i] for i in _common(fun)]
    scalars = all(v.aval.shape in ((), (2,)) for v in common)
    if shape is None or not scalars or math.prod(shape) > SMALL:
        return None
    return fun, tuple(str(v.aval.dtype) for v in eqn.invars), tuple(map(id, common))


@lru_cache(maxsize=4096)
def _plan(jaxpr: Any) -> list[list[Any]]:
    """Equations in order of execution, in groups that run as one."""
    eqns = jaxpr.eqns
    kinds = [_kind(eqn) for eqn in eqns]
    made = {v: i for i, eqn in enumerate(eqns) for v in eqn.outvars}
    needed = _ancestors(eqns, made, [i for i, k in enumerate(kinds) if k is not None])
    late = {i for i in needed if mentions_open(eqns[i])}
    if late:  # a tuple of something that was opened: not a dealer's, leave it all
        return [[eqn] for eqn in eqns]
    level: dict[Any, int] = {}
    stages: dict[int, tuple[list[Any], dict[Any, list[Any]]]] = {}
    for i, eqn in enumerate(eqns):
        if i not in needed:
            continue
        below = max((level.get(v, 0) for v in _variables(eqn)), default=0)
        plain, merged = stages.setdefault(below, ([], {}))
        if kinds[i] is None:
            plain.append([eqn])
        else:
            merged.setdefault(kinds[i], []).append(eqn)
        above = below + (kinds[i] is not None)
        level.update(dict.fromkeys(eqn.outvars, above))
    first = [
        group
        for at in sorted(stages)
        for group in (*stages[at][0], *stages[at][1].values())
    ]
    return first + [[eqn] for i, eqn in enumerate(eqns) if i not in needed]


def _ancestors(eqns: Any, made: dict[Any, int], roots: Sequence[int]) -> set[int]:
    seen, todo = set(roots), list(roots)
    while todo:
        for v in _variables(eqns[todo.pop()]):
            i = made.get(v)
            if i is not None and i not in seen:
                seen.add(i)
                todo.append(i)
    return seen


def mentions_open(eqn: Any) -> bool:
    opening = frozenset({"open"})
    return eqn.primitive.name == "open" or any(
        mentions(sub, opening) for sub in sub_jaxprs(eqn)
    )


def _variables(eqn: Any) -> list[Any]:
    return [v for v in eqn.invars if not isinstance(v, _compat.Literal)]


def deal(closed: Any, **options: Any) -> Any:
    """The party program with its requests first; the values it computes stay the same."""
    return retrace(closed, lambda *xs: _Deal().body(closed, xs), **options)
