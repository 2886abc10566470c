"""A round that is already written over the clients axis: verify it, mark its sums.

The unit analysis (`privjax.passes.units`) with clients as units says of every value
whether it is public, of one client each, or a sum over clients. What leaves must be
public or a sum; an equation that makes a sum out of clients' values becomes its
contributions, client by client, and an `aggregate` marker.

"Sum" means any sum of per-client contributions, as the program states it. Where its own
constants leave but one client in a sum it is refused (`places`); weights that are given at
run time may do so as well, and who may run which program with which weights is for people
to agree on: the pass shows them where values leave.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from privjax import _compat
from privjax._typing import Array
from privjax.core import control
from privjax.core.interpret import Interpreter, run
from privjax.core.labels import Labels, infer
from privjax.core.trace import Traced
from privjax.errors import LeakError, UnsupportedError
from privjax.passes.dp.aggregators import AGGREGATORS, by_unit
from privjax.passes.dp.rolled import over_slices
from privjax.passes.federated.client import output_name
from privjax.passes.federated.indexed import one_at_a_time
from privjax.passes.federated.loops import carries_one, made_by
from privjax.passes.federated.places import singled_out
from privjax.passes.federated.spread import side_by_side
from privjax.passes.federated.stacked import beside_each_other
from privjax.passes.federated.survivors import aggregate
from privjax.passes.federated.unrolled import rolled_up
from privjax.passes.simplify import cse, dce, inline
from privjax.passes.units import (
    PUBLIC,
    Mixed,
    PerUnit,
    Public,
    State,
    Sum,
    Zero,
    per_unit,
)
from privjax.passes.units.analysis import Walk
from privjax.passes.units.states import Part
from privjax.prg.chacha20 import Purpose, derive


class _Leaving(Walk):
    """The unit analysis where a sum over clients leaves them as soon as it is formed.

    From there on it is public, of level 1. In a loop over clients a sum is not complete
    before the loop ends.
    """

    def __init__(self) -> None:
        super().__init__({}, strict=False)
        self.loops = 0

    def through(self, walk: Any, eqn: Any, labels: list[State]) -> Any:
        over_clients = False
        if eqn.primitive.name == "scan":
            xs = labels[sum(_compat.scan_arity(eqn.params, len(labels))) :]
            over_clients = any(isinstance(s, PerUnit) and s.axis == 0 for s in xs)
        self.loops += over_clients
        outs, below = super().through(walk, eqn, labels)
        self.loops -= over_clients
        return self._left(outs), below

    def transfer(self, eqn: Any, labels: Sequence[State]) -> list[State]:
        if eqn.primitive.name == "rev" and (turned := _turned(eqn, labels[0])):
            return [turned]
        return self._left(super().transfer(eqn, labels))

    def _linear(self, op: Any, rule: Any, level: int) -> Sum | None:
        """c.at[k].add(v) with k and v of this step's client alone adds to its sum."""
        if self.loops and op.name in ("scatter-add", "scatter-sub"):
            kept, *own = op.states
            if isinstance(kept, Sum) and all(
                isinstance(s, Zero | Public) or (isinstance(s, PerUnit) and not s.axes)
                for s in own
            ):
                return kept if kept.level >= level else None
        return super()._linear(op, rule, level)

    def out_of_scan(self, label: State) -> State:
        """A running sum is one over some of the clients: two of them tell one's value."""
        if self.loops and isinstance(label, Sum):
            why = "a loop over clients hands out its sum before all of them are in it"
            return Mixed(self.cause(why))
        return super().out_of_scan(label)

    def _raised(self, labels: Sequence[State]) -> list[State]:
        """Inside of a loop over clients no sum has left yet."""
        return list(labels) if self.loops else super()._raised(labels)

    def control(self, label: State, outs: Sequence[State]) -> list[State]:
        """Whether something is handed to the host may not be up to a client."""
        if isinstance(label, PerUnit) and self.eqn.effects:
            self.leaks.append(self.cause("a client's data decide about what it does"))
        return super().control(label, outs)

    def _left(self, states: Sequence[State]) -> list[State]:
        if self.loops:
            return list(states)
        return [Public(1) if isinstance(s, Sum) else s for s in states]


def _turned(eqn: Any, state: State) -> State | None:
    """The clients in reverse order: all of them, but they meet no others' values.

    Elsewhere values meet by their places; here `part` says whose they are.
    """
    if not isinstance(state, PerUnit) or len(state.digits) != 1:
        return None
    (d,) = state.digits
    if d.axis not in eqn.params["dimensions"] or d.inner != 1:
        return None
    if d.size != eqn.invars[0].aval.shape[d.axis]:
        return None
    part = state.part or Part((range(d.size),), d.size)
    return replace(state, part=part.cut(slice(None, None, -1)), own=frozenset())


@dataclass(frozen=True)
class RoundProgram:
    """A verified round: flat inputs to flat outputs, with their states."""

    closed: Any
    labels: Labels
    ins: Sequence[State]
    outs: Sequence[State]
    clients: int

    def run(
        self,
        values: Sequence[Any],
        *,
        method: Any,
        key_words: Any = None,
        survivors: Any = None,
    ) -> tuple[list[Array], list[Array]]:
        """The round with every sum over clients formed by `method`.

        Args:  survivors: bool[clients], whose contributions count; None for all.
        Returns: the flat outputs, and those of them that depend on the clients.
        """
        closed, labels = self.closed, self.labels
        if not method.streams or survivors is not None:
            closed = beside_each_other(closed, self.clients)
            if closed is not self.closed:
                _, labels = infer(_Leaving(), closed, self.ins)
        out = run(_Sums(labels, method, key_words, survivors), closed, values)
        pairs = zip(out, self.outs, strict=True)
        return out, [x for x, state in pairs if state.level]


def round_program(traced: Traced, own: Sequence[bool]) -> RoundProgram:
    """Verify that only sums over clients leave them.

    Args:
      own: per flat input, whether its leading axis is the clients.

    Raises:
      LeakError: an output is of single clients, or mixes them other than by a sum, or a
        client's data goes to the host; with the line where that happens.
    """
    closed = dce(inline(side_by_side(traced.closed)))
    states: list[State] = [
        per_unit(0, aval.shape[0]) if mine else PUBLIC
        for aval, mine in zip(closed.in_avals, own, strict=True)
    ]
    clients = next(s.units for s in states if isinstance(s, PerUnit))
    try:
        return _verified(traced, closed, states, clients)
    except LeakError:
        # It may be a sum in a form that the analysis does not follow.
        closed = inline(one_at_a_time(rolled_up(cse(closed), clients)))
    return _verified(traced, dce(over_slices(closed)), states, clients)


def _verified(
    traced: Traced, closed: Any, states: Sequence[State], clients: int
) -> RoundProgram:
    walk = _Leaving()
    outs, labels = infer(walk, closed, states)
    if walk.leaks:
        raise LeakError(
            f"{traced.name}: {walk.leaks[0]}. The clients' data must not go there."
        )
    jaxpr, _ = _compat.open_jaxpr(closed)
    for k, (state, var) in enumerate(zip(outs, jaxpr.outvars, strict=True)):
        out = f"{traced.name}: output {output_name(traced.out_tree, k)}"
        if isinstance(state, PerUnit):
            raise LeakError(
                f"{out} has one value per client{made_by(jaxpr, var)}; only sums over "
                "clients may leave them. Return its sum or mean, or leave it out."
            )
        if isinstance(state, Mixed):
            raise LeakError(
                f"{out} is no sum over clients: {state.cause}. Only sums of what each "
                "client computes alone may leave them."
            )
    if (what := carries_one(closed, labels)) is not None:
        raise LeakError(
            f"{traced.name}: a loop over clients carries one client's value{what} to its "
            "end; only sums over clients may leave them: add to the carry, and do nothing "
            "else with it."
        )
    if (eqn := singled_out(closed, labels)) is not None:
        line = _compat.user_line(eqn.source_info)
        raise LeakError(
            f"{traced.name}: `{eqn.primitive.name}` ({line}) tells clients apart by "
            "constants that are written into the program (a mask, weights, places), and "
            "one client's value can be told from what is summed. Treat all alike; weights "
            "that the clients agree on are an argument of the round."
        )
    return RoundProgram(closed, labels, states, outs, clients)


class _Sums(Interpreter):
    """Replaces every equation that makes a sum of clients' values."""

    tagged = False
    rules = control.RULES

    def __init__(
        self, labels: Labels, method: Any, key_words: Any, survivors: Any
    ) -> None:
        self.labels = labels
        self.method = method
        self.words = key_words
        self.survivors = survivors
        self.needs_index = method.needs_key
        self.part = 0

    def plain(self, values: Sequence[Any]) -> list[Any]:
        eqn = self.eqn
        below = self.labels.below.get(self.index)
        if below is not None:
            if not any(map(_concerns, below)):
                return super().plain(values)
            return list(self.rules[eqn.primitive.name](self, *values, **eqn.params))
        ins, outs = self._states(eqn.invars), self._states(eqn.outvars)
        if eqn.primitive.name == "declassify" or not _makes_sum(ins, outs):
            return super().plain(values)
        if not any(isinstance(s, PerUnit) and s.axes for s in ins):
            if self.method.streams and self.survivors is None:
                return super().plain(values)
            what = "survivors=" if self.method.streams else self.method
            raise UnsupportedError(
                f"`{eqn.primitive.name}`{self.where()} adds one client after the other "
                f"in a loop, which {what} cannot take part in. Compute all "
                "clients with jax.vmap, or stack what the loop computes, then sum."
            )
        words = None
        if self.method.needs_key:
            words = derive(self.words, (Purpose.CALL, self.index, 0))
        rows = _in_order(_rows(eqn, values, ins), ins)
        return aggregate(rows, self.method, words, self.survivors)

    def _states(self, atoms: Sequence[Any]) -> list[State | None]:
        return [
            None if isinstance(v, _compat.Literal) else self.labels.of.get(v)
            for v in atoms
        ]

    def enter(self, part: int, index: Any = None, inputs: Any = None) -> Any:
        self.part = part
        if not self.method.needs_key:
            return None
        step = 0 if index is None else index
        scope = derive(self.words, (Purpose.LOOP, self.index, part))
        return derive(scope, (Purpose.LOOP, step, 0))

    def inside(self, state: Any) -> "_Sums":
        below = self.labels.below[self.index][self.part]
        return _Sums(below, self.method, state, self.survivors)


def _rows(eqn: Any, values: Sequence[Any], states: Sequence[Any]) -> list[Array]:
    """Every client's contribution to each result: [clients, ...]."""
    name = eqn.primitive.name
    if name == "dot_general" and eqn.outvars[0].aval.dtype.kind not in "fcV":
        raise UnsupportedError(
            f"`dot_general` ({_compat.user_line(eqn.source_info)}) contracts the "
            "clients in integers; multiply and sum them instead."
        )
    if name in AGGREGATORS:
        return [AGGREGATORS[name](eqn, values, states).rows()]
    return [
        by_unit(eqn, values, states, result=k).rows() for k in range(len(eqn.outvars))
    ]


def _in_order(rows: list[Array], states: Sequence[Any]) -> list[Array]:
    """Contributions by the clients' numbers, as `survivors` counts them."""
    parts = [s.part for s in states if isinstance(s, PerUnit) and s.part is not None]
    if not parts:
        return rows
    order = np.argsort(parts[0].numbers)
    return [x[order] for x in rows]


def _makes_sum(ins: Sequence[Any], outs: Sequence[Any]) -> bool:
    """Whether clients' values go in and nothing but a sum over clients comes out."""
    return any(isinstance(s, PerUnit) for s in ins) and any(
        isinstance(s, Sum) or (isinstance(s, Public) and s.level) for s in outs
    )


def _concerns(labels: Labels) -> bool:
    """Whether clients' values get into a body."""
    return any(isinstance(s, PerUnit) for s in labels.of.values())
