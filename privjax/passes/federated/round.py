"""A round that is already written over the clients axis: verify it, mark its sums.

The unit analysis (`privjax.passes.units`) with clients as units says of every value
whether it is public, of one client each, or a sum over clients. What leaves must be
public or a sum; an equation that makes a sum out of clients' values becomes its
contributions, client by client, and an `aggregate` marker.

"Sum" means any sum of per-client contributions, as the program states it: a program
that multiplies all clients but one by zero sums as well. Who may run which program is
for people to agree on; the pass shows them where values leave.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from privjax import _compat
from privjax._typing import Array
from privjax.core import control
from privjax.core.interpret import Interpreter, run
from privjax.core.labels import Labels, infer
from privjax.core.trace import Traced
from privjax.errors import LeakError, UnsupportedError
from privjax.passes.dp.aggregators import AGGREGATORS, by_unit
from privjax.passes.federated.client import output_name
from privjax.passes.federated.survivors import aggregate
from privjax.passes.simplify import dce, inline
from privjax.passes.units import PUBLIC, Mixed, PerUnit, Public, State, Sum, per_unit
from privjax.passes.units.analysis import _Walk as Walk
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
        return self._left(super().transfer(eqn, labels))

    def _left(self, states: Sequence[State]) -> list[State]:
        if self.loops:
            return list(states)
        return [Public(1) if isinstance(s, Sum) else s for s in states]


@dataclass(frozen=True)
class RoundProgram:
    """A verified round: flat inputs to flat outputs."""

    closed: Any
    labels: Labels
    outs: Sequence[State]

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
        sums = _Sums(self.labels, method, key_words, survivors)
        out = run(sums, self.closed, values)
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
    closed = dce(inline(traced.closed))
    walk = _Leaving()
    states = [
        per_unit(0, aval.shape[0]) if mine else PUBLIC
        for aval, mine in zip(closed.in_avals, own, strict=True)
    ]
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
                f"{out} has one value per client{_made_by(jaxpr, var)}; only sums over "
                "clients may leave them. Return its sum or mean, or leave it out."
            )
        if isinstance(state, Mixed):
            raise LeakError(
                f"{out} is no sum over clients: {state.cause}. Only sums of what each "
                "client computes alone may leave them."
            )
    for eqn, body, n_carry in _loops(closed, labels):
        _no_overwriting(traced.name, eqn, body, n_carry)
    return RoundProgram(closed, labels, outs)


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
        return aggregate(_rows(eqn, values, ins), self.method, words, self.survivors)

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


def _makes_sum(ins: Sequence[Any], outs: Sequence[Any]) -> bool:
    """Whether clients' values go in and nothing but a sum over clients comes out."""
    return any(isinstance(s, PerUnit) for s in ins) and any(
        isinstance(s, Sum) or (isinstance(s, Public) and s.level) for s in outs
    )


def _concerns(labels: Labels) -> bool:
    """Whether clients' values get into a body."""
    return any(isinstance(s, PerUnit) for s in labels.of.values())


def _loops(closed: Any, labels: Labels) -> Iterator[tuple[Any, Any, int]]:
    """Every `scan` at any depth: the equation, its body's labels, its carries."""
    jaxpr, _ = _compat.open_jaxpr(closed)
    for i, eqn in enumerate(jaxpr.eqns):
        bodies = labels.below.get(i, [])
        if eqn.primitive.name == "scan":
            yield eqn, bodies[0], _compat.scan_arity(eqn.params, len(eqn.invars))[1]
            yield from _loops(eqn.params["jaxpr"], bodies[0])


def _no_overwriting(name: str, eqn: Any, body: Labels, n_carry: int) -> None:
    """A carry that takes a client's value as it is would leave as a sum of one term."""
    jaxpr, _ = _compat.open_jaxpr(eqn.params["jaxpr"])
    for var in jaxpr.outvars[:n_carry]:
        state = None if isinstance(var, _compat.Literal) else body.of[var]
        if isinstance(state, PerUnit) and any(d.loop == id(eqn) for d in state.digits):
            raise LeakError(
                f"{name}: a loop over clients carries one client's value"
                f"{_made_by(jaxpr, var)} to its end; only sums over clients may leave "
                "them."
            )


def _made_by(jaxpr: Any, var: Any) -> str:
    """` (file.py:12 (function))` of the equation that computes `var`, where known."""
    for eqn in jaxpr.eqns:
        if var in eqn.outvars:
            line = _compat.user_line(eqn.source_info)
            return f" ({line})" if line else ""
    return " (an input, returned as it is)"
