"""The walk of the unit analysis over a program, and what it finds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp

from privjax import _compat
from privjax.core.labels import Analysis, Labels, infer
from privjax.errors import InputError
from privjax.passes.units import constants, effects
from privjax.passes.units.op import Op
from privjax.passes.units.rules import RULES
from privjax.passes.units.states import (
    PUBLIC,
    ZERO,
    Cause,
    Digit,
    Mixed,
    Onto,
    PerUnit,
    Public,
    State,
    Sum,
    Zero,
    as_sum,
    is_private,
    join,
    one_onto,
    one_unit,
    per_unit,
)


@dataclass(frozen=True)
class Demand:
    """A sum over units that is used other than linearly: it must be released there."""

    var: Any
    eqn: Any
    cause: Cause


@dataclass(frozen=True)
class UnitAnalysis:
    """The states of a program's values.

    Attributes:
      closed: the program.
      outs: one state per output.
      labels: states of all variables, and of those inside of loops and branches.
      demands: where sums over units meet a use that is not linear, in program order.
        After it the sum counts as public, one level up.
      natural: for each variable of `released`, its state before it was released.
      leaks: operations that hand private values to the host, or keep them.
    """

    closed: Any
    outs: list[State]
    labels: Labels
    demands: list[Demand] = field(default_factory=list)
    natural: dict[Any, State] = field(default_factory=dict)
    leaks: list[Cause] = field(default_factory=list)

    def state(self, atom: Any) -> State:
        """The state of a variable or literal of the outermost jaxpr."""
        if isinstance(atom, _compat.Literal):
            return constants.state_of(atom.val)
        return self.labels[atom]

    def equations(self) -> Iterator[tuple[Any, list[State], list[State]]]:
        """(equation, states of its operands, states of its results), in order."""
        for eqn in _compat.open_jaxpr(self.closed)[0].eqns:
            yield (
                eqn,
                [self.state(v) for v in eqn.invars],
                [self.state(v) for v in eqn.outvars],
            )


def analyse(
    closed: Any,
    unit_axes: Sequence[int | None],
    *,
    released: Mapping[Any, str] | None = None,
    strict: bool = False,
) -> UnitAnalysis:
    """Find the state of every value of a closed jaxpr.

    Calls should be inlined first (`passes.simplify.inline`), so that causes and releases
    are found at the outermost level.

    Args:
      closed: the program.
      unit_axes: for each flat input the axis whose slices are the units, or None for
        public inputs.
      released: variables of the outermost jaxpr that count as released (public, one
        level up) once computed, each with the line of the use that demands it.
      strict: a sum used other than linearly makes its result `Mixed` instead of public.

    Raises:
      InputError: private inputs disagree on the number of units, or there are none.
    """
    ins: list[State] = []
    units = None
    for aval, axis in zip(closed.in_avals, unit_axes, strict=True):
        if axis is None:
            ins.append(PUBLIC)
            continue
        size = aval.shape[axis]
        if units is not None and size != units:
            raise InputError(f"private inputs have {units} and {size} units.")
        units = size
        ins.append(per_unit(axis, size))
    walk = Walk(released or {}, strict, parts=True)
    outs, labels = infer(walk, closed, ins)
    return UnitAnalysis(closed, outs, labels, walk.demands, walk.natural, walk.leaks)


class Walk(Analysis):
    """`parts`: whether slices of the units, and sums over them, are followed."""

    def __init__(
        self, released: Mapping[Any, str], strict: bool, parts: bool = False
    ) -> None:
        self.parts = parts
        self.released = released
        self.strict = strict
        self.depth = 0
        self.lines: list[str] = []  # of the loops and branches around
        self.demands: list[Demand] = []
        self.natural: dict[Any, State] = {}
        self.leaks: list[Cause] = []
        self.carries: set[Any] = set()  # what bodies of scans carry

    # -- the hooks of core.labels ------------------------------------------------------

    def constant(self, value: Any) -> State:
        return constants.state_of(value)

    def join(self, a: State, b: State) -> State:
        why = "values of different units, or a sum and other values, meet here"
        if {type(a), type(b)} == {Public, Sum}:
            why = (
                "a sum over units accumulates on top of a public value; start the "
                "accumulator with zeros and add the value afterwards"
            )
        return join(a, b, self.cause(why))

    def into_scan(self, label: State) -> State:
        if isinstance(label, Public):
            return replace(label, known=None)
        if not isinstance(label, PerUnit):
            return label
        digits = []
        for d in label.digits:
            if d.axis == 0 and d.inner == 1 and d.size == self.eqn.params["length"]:
                digits.append(Digit(None, d.size, loop=id(self.eqn)))
            elif d.axis == 0:
                return Mixed(self.cause("it loops over parts of units"))
            else:
                digits.append(_shift(d, -1))
        return replace(label, digits=tuple(digits), own=frozenset())

    def out_of_scan(self, label: State) -> State:
        if isinstance(label, Public):
            return replace(label, known=None)
        if isinstance(label, Sum):
            return replace(label, onto=None)
        if not isinstance(label, PerUnit):
            return label
        here = id(self.eqn)
        digits = tuple(
            Digit(0, d.size) if d.axis is None and d.loop == here else _shift(d, 1)
            for d in label.digits
        )
        return replace(label, digits=digits, own=frozenset())

    def carried(self, label: State) -> State:
        """What was of this iteration's unit is of an earlier one in the next."""
        if isinstance(label, Sum):
            return replace(label, onto=None)
        if not isinstance(label, PerUnit):
            return label
        if all(d.loop != id(self.eqn) for d in label.digits):
            return label
        if label.axes:
            return Mixed(self.cause("one step of the loop sees the units of another"))
        return Sum(label.level, fed=label.fed)

    def control(self, label: State, outs: Sequence[State]) -> list[State]:
        if isinstance(label, Zero | Public):
            why = "its branch depends on a value computed from all units"
            fed = self.cause(why + _via([label])) if label.level else None
            if fed and effects.writes_on(self.eqn):
                self.leaks.append(fed)
            return [self._level(s, label.level, fed, _via([label])) for s in outs]
        cause = self.cause("its branch or trip count depends on private values")
        if effects.seen_outside(self.eqn):
            self.leaks.append(cause)
        if isinstance(label, PerUnit) and not label.axes:
            why = "its branch depends on single units"
            one = replace(label, own=frozenset())
            return [
                self._chosen(s, label, why)
                if isinstance(s, Sum)
                else join(s, one, self.cause(why))
                for s in outs
            ]
        return [Mixed(label.cause if isinstance(label, Mixed) else cause)] * len(outs)

    def _chosen(self, state: Sum, label: PerUnit, why: str) -> State:
        """A sum where one unit decides how it was formed.

        A sum that comes from outside is not this unit's to choose. What it adds to a
        loop's carry is.
        """
        onto = None if state.onto is None else state.onto.plus(one_unit(label))
        if onto is None:
            why += " and chooses between sums over all of them"
            return Mixed(self.cause(why))
        return replace(state, level=max(state.level, label.level), onto=onto)

    def through(self, walk: Any, eqn: Any, labels: list[State]) -> Any:
        if eqn.primitive.name == "shard_map" and any(map(is_private, labels)):
            why = "units spread over devices by hand are not followed"
            return [Mixed(self.cause(why))] * len(eqn.outvars), []
        outermost = self.depth == 0
        if eqn.primitive.name == "cond":
            labels = self._onto_carries(eqn, labels)
        else:
            labels = [
                replace(s, onto=None) if isinstance(s, Sum) else s for s in labels
            ]
        out = self._inside(walk, eqn, labels)
        sums = [i for i, s in enumerate(labels) if isinstance(s, Sum)]
        mixed = _mixed(out[0]) is not None and _mixed(labels) is None
        if sums and mixed and outermost and not self.strict:
            # Not linear in the sums that enter: look at it as what follows a release,
            # which only the outermost program can make.
            again = self._inside(walk, eqn, self._raised(labels))
            if _mixed(again[0]) is None:
                out = again
                cause = self.cause("a sum over units is used non-linearly")
                self._demand(sums, cause)
        return self._released(eqn, out[0]), out[1]

    def _inside(self, walk: Any, eqn: Any, labels: list[State]) -> Any:
        self.depth += 1
        self.lines.append(_compat.user_line(eqn.source_info))
        if eqn.primitive.name == "scan":
            n_consts, n_carry = _compat.scan_arity(eqn.params, len(eqn.invars))
            body = _compat.open_jaxpr(eqn.params["jaxpr"])[0].invars
            self.carries.update(body[n_consts : n_consts + n_carry])
        out = walk(self, eqn, labels)
        self.eqn = eqn
        self.lines.pop()
        self.depth -= 1
        return out

    def transfer(self, eqn: Any, labels: Sequence[State]) -> list[State]:
        why = effects.leak(eqn, labels)
        if why:
            self.leaks.append(self.cause(why))
        labels = self._onto_carries(eqn, labels)
        return self._released(eqn, self._states(eqn, labels))

    def _onto_carries(self, eqn: Any, labels: Sequence[State]) -> list[State]:
        """A carry that is a sum adds nothing to itself yet."""
        return [
            replace(s, onto=Onto(id(v)))
            if isinstance(s, Sum)
            and not isinstance(v, _compat.Literal)
            and v in self.carries
            else s
            for v, s in zip(eqn.invars, labels, strict=True)
        ]

    # -- one equation ------------------------------------------------------------------

    def _states(self, eqn: Any, labels: Sequence[State]) -> list[State]:
        n = len(eqn.outvars)
        name = eqn.primitive.name
        mixed = _mixed(labels)
        if name == "declassify":
            return [PUBLIC] * n
        if name == "release":
            return [self._asked(labels[0])]
        if name == "optimization_barrier":  # one result per operand
            return list(labels)
        if mixed is not None:
            return [mixed] * n
        rule = RULES.get(name)
        op = self._op(eqn, labels)
        level = max((s.level for s in labels), default=0)
        if not any(map(is_private, labels)):
            if op.zeros and rule is not None and rule.linear and rule.linear(op):
                return [ZERO] * n
            folded = constants.fold(eqn, labels)
            return [folded or Public(level, via=_via(labels))] * n
        if op.sums:
            summed = _onto(op, level) or self._linear(op, rule, level)
            if summed is not None:
                return [summed] * n
            cause = self.cause(
                "a sum over units is used in an operation that is not linear in it"
            )
            if self.strict or self.depth:
                return [Mixed(cause, level)] * n
            self._demand(sorted(op.sums), cause)
            labels = self._raised(labels)
            op = self._op(eqn, labels)
            level = max(s.level for s in labels)
            if not any(map(is_private, labels)):
                return [Public(level, via=_via(labels))] * n
        if rule is None:
            why = "this primitive has no rule for the axis of units"
            return [Mixed(self.cause(why), level)] * n
        found = rule.per_unit(op)
        states = found if isinstance(found, list) else [found]
        if _mixed(states) is not None:
            summed = self._linear(op, rule, level)
            states = [summed] * n if summed is not None else states
        own_level = max(s.level for s in labels if isinstance(s, PerUnit))
        fed = next((s.fed for s in labels if isinstance(s, PerUnit) and s.fed), None)
        if level > own_level:
            why = "a value computed from all units meets the values of single units"
            fed = self.cause(why + _via(labels))
        return [self._level(s, level, fed, _via(labels)) for s in states]

    def _asked(self, state: State) -> State:
        """What a sum is once the user has it released, with noise, here."""
        if isinstance(state, Sum):
            if not self.depth:
                return Public(state.level)
            return Mixed(self.cause("a release inside of a loop or branch"))
        if isinstance(state, PerUnit):
            return Mixed(self.cause("only sums over units can be released"))
        return state

    def _linear(self, op: Op, rule: Any, level: int) -> Sum | None:
        """The result as a sum over units, where the equation is linear in its sums."""
        if rule is None or rule.linear is None:
            return None
        read = [as_sum(s) or s for s in op.states]
        sums = [s for s in read if isinstance(s, Sum)]
        if any(isinstance(s, PerUnit) for s in read) or not sums:
            return None
        least = min(s.level for s in sums)
        if level > least or not rule.linear(replace(op, states=read)):
            return None
        return Sum(level, fed=next((s.fed for s in sums if s.fed), None))

    def _op(self, eqn: Any, labels: Sequence[State]) -> Op:
        return Op(
            eqn.primitive.name,
            eqn.params,
            labels,
            [_shape(v.aval) for v in eqn.invars],
            [_shape(v.aval) for v in eqn.outvars],
            _compat.user_line(eqn.source_info),
            bool(eqn.outvars)
            and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact),
            self.parts,
        )

    def _level(
        self, state: State, level: int, fed: Cause | None = None, via: str = ""
    ) -> State:
        if isinstance(state, Public):
            known = state.known if not level else None
            return Public(max(level, state.level), known, state.via or via)
        if isinstance(state, Zero):
            return Public(level, via=via) if level else state
        if isinstance(state, PerUnit | Sum):
            fed = fed or state.fed
            return replace(state, level=max(level, state.level), fed=fed)
        return replace(state, level=max(level, state.level))

    # -- releases ----------------------------------------------------------------------

    def _demand(self, positions: Sequence[int], cause: Cause) -> None:
        if self.depth == 0:
            for i in positions:
                self.demands.append(Demand(self.eqn.invars[i], self.eqn, cause))

    def _raised(self, labels: Sequence[State]) -> list[State]:
        """What follows if the sums among `labels` are released for this use."""
        line = _compat.user_line(self.eqn.source_info)
        return [_release(s, "", line) if isinstance(s, Sum) else s for s in labels]

    def _released(self, eqn: Any, states: list[State]) -> list[State]:
        if self.depth or not self.released:
            return states
        states = list(states)
        for i, var in enumerate(eqn.outvars):
            if var in self.released:
                self.natural[var] = states[i]
                if isinstance(states[i], Sum):
                    made = _compat.user_line(eqn.source_info)
                    states[i] = _release(states[i], made, self.released[var])
        return states

    def cause(self, why: str) -> Cause:
        """What the current equation did: at its line, or that of the loop around it."""
        own = _compat.user_line(self.eqn.source_info)
        line = own or next(filter(None, reversed(self.lines)), "")
        return Cause(self.eqn.primitive.name, line, why)


def _onto(op: Op, level: int) -> Sum | None:
    """A loop's carry with something of one unit added to it, or not.

    where(p, c + f, c + g) = c + where(p, f, g): if p, f and g are of one unit alone, what
    is added is, too, and the sum that is carried stays one.
    """
    sums = [s for s in op.states if isinstance(s, Sum)]
    found = one_onto(sums)
    if found is None or any(s.level < level for s in sums):
        return None
    if op.name == "select_n":
        which = op.states[0]
        kept = len(sums) == len(op.states) - 1 and not isinstance(which, Sum)
        kept = kept and (one_unit(which) is not None or not is_private(which))
        other: State = which
    else:
        first = op.name == "sub" and op.states[0] is sums[0]
        plus = op.name in ("add", "add_any") or first
        rest = [s for s in op.states if not isinstance(s, Sum)]
        kept = plus and len(sums) == len(rest) == 1 and as_sum(rest[0]) is not None
        other = rest[0] if rest else sums[0]
    onto = found.plus(one_unit(other)) if kept else None
    return None if onto is None else replace(sums[0], level=level, onto=onto)


def _mixed(states: Sequence[State]) -> Mixed | None:
    return next((s for s in states if isinstance(s, Mixed)), None)


def _release(state: State, made: str, used: str) -> Public:
    """A sum after its release."""
    origin = f" of {made}" if made else ""
    return Public(state.level + 1, via=f" (the sum{origin}, as used in {used})")


def _via(states: Sequence[State]) -> str:
    return next((s.via for s in states if isinstance(s, Public) and s.via), "")


def _shift(d: Digit, by: int) -> Digit:
    return d if d.axis is None else replace(d, axis=d.axis + by)


def _shape(aval: Any) -> tuple[int, ...]:
    return tuple(getattr(aval, "shape", ()))
