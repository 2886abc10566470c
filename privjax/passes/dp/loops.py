"""Loops and branches that carry or yield sums over units.

A loop that only adds to a sum hands out the operands of what it adds, stacked, and the
sum is taken outside: over time the contraction becomes longer, over micro-batches there
are more units. A loop that does anything else with a sum carries the contributions of all
units.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privjax import _compat
from privjax._typing import Array
from privjax.core.labels import Labels
from privjax.errors import UnsupportedError
from privjax.passes.dp.aggregators import resolved
from privjax.passes.dp.apart import Apart
from privjax.passes.dp.evaluate import CONTROL, Evaluator, Value, run_body
from privjax.passes.dp.maps import Permuted
from privjax.passes.dp.summed import NotAdditive, Summed, added
from privjax.passes.dp.terms import Lookup, Rows, Term
from privjax.passes.units.states import Digit, Part, PerUnit, Sum


def scan(ev: Evaluator, index: int, eqn: Any, values: Sequence[Value]) -> list[Value]:
    labels = ev.labels.below[index][0]
    try:
        return _adding_scan(ev, labels, eqn, values)
    except NotAdditive:
        return _carrying_scan(ev, labels, eqn, values)


def _adding_scan(
    ev: Evaluator, labels: Labels, eqn: Any, values: Sequence[Value]
) -> list[Value]:
    body, n_consts, n_carry, sums = _parts(eqn, labels)
    carry_values = values[n_consts : n_consts + n_carry]
    outer = [*values[:n_consts], *values[n_consts + n_carry :]]
    if any(isinstance(v, Summed) for v in outer):
        raise NotAdditive

    def step(carry: Any, xs: Any) -> Any:
        full = list(carry)
        for k in sums:
            full[k] = Summed((), (k,))
        out, _ = run_body(body, labels, [*values[:n_consts], *full, *xs])
        for k in sums:
            if not isinstance(out[k], Summed) or out[k].carried != (k,):
                raise NotAdditive
        kept = [None if k in sums else out[k] for k in range(n_carry)]
        terms = [_plain_terms(out[k]) for k in sums]
        ys = [_plain_terms(y) if isinstance(y, Summed) else y for y in out[n_carry:]]
        if any(isinstance(y, Summed) and y.carried for y in out[n_carry:]):
            raise NotAdditive
        return kept, (terms, ys)

    init = [None if k in sums else v for k, v in enumerate(carry_values)]
    carry, (terms, ys) = _scan(eqn, step, init, values[n_consts + n_carry :])
    out = list(carry)
    for k, stacked in zip(sums, terms, strict=True):
        parts = [Summed(tuple(_over_steps(t, id(eqn)) for t in stacked))]
        if isinstance(carry_values[k], Summed):
            parts.append(carry_values[k])
        out[k] = added(parts)
    out += [
        Summed(tuple(_per_step(t, id(eqn)) for t in y)) if isinstance(y, tuple) else y
        for y in ys
    ]
    return out


def _carrying_scan(
    ev: Evaluator, labels: Labels, eqn: Any, values: Sequence[Value]
) -> list[Value]:
    """Sums are carried as the contributions of all units."""
    body, n_consts, n_carry, sums = _parts(eqn, labels)
    units, digits, part = _units(labels)
    if any(d.loop == id(eqn) for d in digits):
        raise UnsupportedError(
            f"`scan`{_where(eqn)} runs over units and does more with a sum over them "
            "than to add to it."
        )
    consts, carry = values[:n_consts], values[n_consts : n_consts + n_carry]
    xs = values[n_consts + n_carry :]
    shapes = [v.aval for v in _compat.open_jaxpr(body)[0].invars]
    init = [
        _rows(v, units, shapes[n_consts + k]) if k in sums else v
        for k, v in enumerate(carry)
    ]
    wrap = lambda x: Summed((Rows(x, (), digits, part),))  # noqa: E731
    summed_xs = [isinstance(x, Summed) for x in xs]
    xs = [
        jnp.moveaxis(x.whole().rows(), 1, 0) if isinstance(x, Summed) else x for x in xs
    ]

    def step(carry: Any, xs: Any) -> Any:
        full = [wrap(x) if k in sums else x for k, x in enumerate(carry)]
        here = [wrap(x) if s else x for x, s in zip(xs, summed_xs, strict=True)]
        out, _ = run_body(body, labels, [*consts, *full, *here])
        kept = [
            _rows(x, units, shapes[n_consts + k]) if k in sums else x
            for k, x in enumerate(out[:n_carry])
        ]
        return kept, [
            y.whole().rows() if isinstance(y, Summed) else y for y in out[n_carry:]
        ]

    carry, ys = _scan(eqn, step, init, xs)
    out = [wrap(x) if k in sums else x for k, x in enumerate(carry)]
    for y, var in zip(ys, eqn.outvars[n_carry:], strict=True):
        summed = isinstance(ev.state(var), Sum)
        out.append(wrap(jnp.moveaxis(y, 0, 1)) if summed else y)
    return out


def while_loop(
    ev: Evaluator, index: int, eqn: Any, values: Sequence[Value]
) -> list[Value]:
    """Sums are carried as the contributions of all units."""
    test, body = ev.labels.below[index]
    nc, nb = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    units, digits, part = _units(body)
    carry = values[nc + nb :]
    invars = _compat.open_jaxpr(eqn.params["body_jaxpr"])[0].invars[nb:]
    sums = [k for k, v in enumerate(invars) if isinstance(body[v], Sum)]
    wrap = lambda x: Summed((Rows(x, (), digits, part),))  # noqa: E731
    pack = lambda vs: [  # noqa: E731
        _rows(v, units, invars[k].aval) if k in sums else v for k, v in enumerate(vs)
    ]
    unpack = lambda vs: [wrap(v) if k in sums else v for k, v in enumerate(vs)]  # noqa: E731

    def going_on(state: Any) -> Any:
        inputs = [*values[:nc], *unpack(state)]
        return run_body(eqn.params["cond_jaxpr"], test, inputs)[0][0]

    def step(state: Any) -> Any:
        inputs = [*values[nc : nc + nb], *unpack(state)]
        return pack(run_body(eqn.params["body_jaxpr"], body, inputs)[0])

    return unpack(lax.while_loop(going_on, step, pack(carry)))


def cond(ev: Evaluator, index: int, eqn: Any, values: Sequence[Value]) -> list[Value]:
    """A choice between programs, public or of one unit; sums pass as contributions.

    A carry of the loop around, to which all branches only add, passes by.
    """
    which, operands = values[0], values[1:]
    below = ev.labels.below[index]
    units, digits, part = next(
        found for x in (ev.labels, *below) if (found := _units(x))[0]
    )
    wrap = lambda x: Summed((Rows(x, (), digits, part),))  # noqa: E731
    summed = [isinstance(v, Summed) for v in operands]
    sums = [isinstance(ev.state(v), Sum) for v in eqn.outvars]
    passed: list[list[tuple[int, ...]]] = []

    def branch(k: int) -> Any:
        def run(*xs: Any) -> Any:
            inputs = [
                Summed(wrap(x).terms if v.terms else (), v.carried) if s else x
                for x, v, s in zip(xs, operands, summed, strict=True)
            ]
            out, _ = run_body(eqn.params["branches"][k], below[k], inputs)
            passed.append([x.carried if isinstance(x, Summed) else () for x in out])
            return [
                _rows(
                    replace(x, carried=()) if isinstance(x, Summed) else x,
                    units,
                    v.aval,
                )
                if s
                else x
                for x, s, v in zip(out, sums, eqn.outvars, strict=True)
            ]

        return run

    flat = [
        (Summed(v.terms).whole().rows() if v.terms else jnp.zeros(()))
        if isinstance(v, Summed)
        else v
        for v in operands
    ]
    branches = [branch(k) for k in range(len(eqn.params["branches"]))]
    out = lax.switch(which, branches, *flat)
    if any(p != passed[0] for p in passed):
        raise NotAdditive
    return [
        replace(wrap(x), carried=c) if s else x
        for x, s, c in zip(out, sums, passed[0], strict=True)
    ]


CONTROL.update({"scan": scan, "while": while_loop, "cond": cond})


def _scan(eqn: Any, step: Any, init: Any, xs: Any) -> Any:
    p = eqn.params
    return lax.scan(
        step, init, xs, length=p["length"], reverse=p["reverse"], unroll=p["unroll"]
    )


def _parts(eqn: Any, labels: Labels) -> tuple[Any, int, int, list[int]]:
    """The body, its numbers of constants and carries, and the carries that are sums."""
    n_consts, n_carry = _compat.scan_arity(eqn.params, len(eqn.invars))
    body = eqn.params["jaxpr"]
    carry = _compat.open_jaxpr(body)[0].invars[n_consts : n_consts + n_carry]
    sums = [k for k, v in enumerate(carry) if isinstance(labels[v], Sum)]
    return body, n_consts, n_carry, sums


def _units(labels: Labels) -> tuple[int, tuple[Digit, ...], Part | None]:
    """How many units the sums of a scope are about, their digits, and which they are.

    All units, also where a slice is worked on, but in a loop over that slice.
    """
    for state in labels.of.values():
        if isinstance(state, PerUnit):
            if state.part is not None and not any(d.loop for d in state.digits):
                return state.part.total, (Digit(None, state.part.total),), None
            return state.units, resolved(state.digits), state.part
    return 0, (), None


def _rows(value: Value, units: int, aval: Any) -> Array:
    """A sum's contributions; what is no sum is zero."""
    if isinstance(value, Summed) and value.terms:
        return value.whole().rows().astype(aval.dtype)
    return jnp.zeros((units, *aval.shape), aval.dtype)


def _plain_terms(value: Summed) -> tuple[Any, ...]:
    """Terms that are arrays, and can leave a loop's body."""
    return tuple(t.dense() if isinstance(t, Apart) else t for t in value.terms)


def _over_steps(term: Term, loop: int) -> Term:
    """The sum over a loop's steps of a term whose arrays are stacked along axis 0."""
    at = _digit(term, loop)
    if at is not None:
        return _more_units(term, at)
    return term.over_steps()


def _more_units(term: Term, at: int) -> Term:
    """Each step had units of its own: the loop's index is their digit number `at`."""
    before = [d.size for d in term.digits[:at] if not d.loop]
    after = [d.size for d in term.digits[at + 1 :] if not d.loop]

    def merge(x: Array) -> Array:
        steps, tail = x.shape[0], x.shape[2:]
        fine = x.reshape(steps, *before, *after, *tail)
        units = steps * math.prod(before) * math.prod(after)
        return jnp.moveaxis(fine, 0, len(before)).reshape(units, *tail)

    digits = list(term.digits)
    digits[at] = replace(digits[at], loop=0)
    return replace(term.each(merge), digits=tuple(digits))


def _per_step(term: Term, loop: int) -> Any:
    """A term stacked along axis 0, where the loop's results are kept for each step."""
    at = _digit(term, loop)
    if at is not None:  # units of its own in every step: they add to that place alone
        shape = jax.eval_shape(jax.vmap(lambda t: t.rows()), term).shape
        steps, one = shape[0], (1, *shape[2:])
        order = tuple(range(len(one) - 1))
        more = _more_units(term, at).mapped(Permuted(order, one))
        found = Apart(Summed((more,)), 0, steps, at)
        return found if term.part is None else replace(found.dense(), part=term.part)
    maps = tuple(m.lifted() for m in term.maps)
    if isinstance(term, Lookup):
        each = jax.vmap(lambda ids, b: replace(term, ids=ids, b=b, maps=()).rows())
        x = jnp.moveaxis(each(term.ids, term.b), 0, 1)
        return Rows(x, maps, term.digits, term.part)
    if isinstance(term, Rows):
        return replace(term, x=jnp.moveaxis(term.x, 0, 1), maps=maps)
    steps = term.a.shape[0]
    a, b = (
        jnp.moveaxis(x, 0, 1).reshape(x.shape[1], steps * x.shape[2], *x.shape[3:])
        for x in (term.a, term.b)
    )
    # Groups of all steps, in the order [step, group, m, n] of the stacked result.
    return replace(term, a=a, b=b, shape=(steps, *term.shape), maps=maps)


def _digit(term: Term, loop: int) -> int | None:
    return next((k for k, d in enumerate(term.digits) if d.loop == loop), None)


def _where(eqn: Any) -> str:
    line = _compat.user_line(eqn.source_info)
    return f" ({line})" if line else ""
