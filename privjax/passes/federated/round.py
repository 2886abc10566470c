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
from privjax.passes.federated.places import singled_out
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
        _adds_up(traced.name, eqn, body, n_carry)
    if (eqn := singled_out(closed, labels)) is not None:
        line = _compat.user_line(eqn.source_info)
        raise LeakError(
            f"{traced.name}: `{eqn.primitive.name}` ({line}) multiplies the values of all "
            "clients but one by zeros that are written into the program: what is summed "
            "is that client's value. Sum over all of them; weights that the clients agree "
            "on are an argument of the round."
        )
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


def _adds_up(name: str, eqn: Any, body: Labels, n_carry: int) -> None:
    """A loop over clients must add to what it carries, and leave it as it is otherwise.

    A carry that is overwritten, in whole or in part, or that fades, ends as the value of
    the last client, or nearly so. All of these are linear in each client's value.
    """
    jaxpr, _ = _compat.open_jaxpr(eqn.params["jaxpr"])
    n_consts = len(jaxpr.invars) - n_carry - _scanned(eqn)
    carries = jaxpr.invars[n_consts : n_consts + n_carry]
    for into, var in zip(carries, jaxpr.outvars[:n_carry], strict=True):
        state = None if isinstance(var, _compat.Literal) else body.of[var]
        own = isinstance(state, PerUnit) and any(
            d.loop == id(eqn) for d in state.digits
        )
        if own or (isinstance(state, Sum) and not _kept(jaxpr, into, var)):
            raise LeakError(
                f"{name}: a loop over clients carries one client's value"
                f"{_made_by(jaxpr, var)} to its end; only sums over clients may leave "
                "them: add to the carry, and do nothing else with it."
            )


def _scanned(eqn: Any) -> int:
    return len(eqn.invars) - sum(_compat.scan_arity(eqn.params, len(eqn.invars)))


def _kept(jaxpr: Any, into: Any, var: Any) -> bool:
    """Whether `var` is `into` plus something that does not depend on it."""
    made = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    touched = {into}
    for eqn in jaxpr.eqns:
        if any(not isinstance(v, _compat.Literal) and v in touched for v in eqn.invars):
            touched.update(eqn.outvars)

    def free(v: Any) -> bool:
        return isinstance(v, _compat.Literal) or v not in touched

    def kept(v: Any) -> bool:
        if isinstance(v, _compat.Literal) or v is into:
            return v is into
        eqn = made.get(v)
        if eqn is None:
            return False
        ins, which = list(eqn.invars), eqn.outvars.index(v)
        match eqn.primitive.name:
            case "add" | "add_any":
                return any(kept(a) and free(b) for a, b in (ins, ins[::-1]))
            case "sub":
                return kept(ins[0]) and free(ins[1])
            case "convert_element_type" | "copy" | "copy_p" | "reduce_precision":
                return kept(ins[0])
            case "optimization_barrier":
                return kept(ins[which])
            case "select_n":
                return free(ins[0]) and all(map(kept, ins[1:]))
            case "cond":
                return free(ins[0]) and all(
                    _through(_compat.open_jaxpr(b)[0], ins[1:], which)
                    for b in eqn.params["branches"]
                )
            case "scan":
                n_consts, n_carry = _compat.scan_arity(eqn.params, len(ins))
                place = n_consts + which
                inner, _ = _compat.open_jaxpr(eqn.params["jaxpr"])
                others = [x for k, x in enumerate(ins) if k != place]
                return (
                    which < n_carry
                    and kept(ins[place])
                    and all(map(free, others))
                    and _kept(inner, inner.invars[place], inner.outvars[which])
                )
        return False

    def _through(body: Any, operands: list[Any], which: int) -> bool:
        """The same of one result of a branch."""
        return any(
            kept(x)
            and all(free(y) for j, y in enumerate(operands) if j != k)
            and _kept(body, body.invars[k], body.outvars[which])
            for k, x in enumerate(operands)
        )

    return kept(var)


def _made_by(jaxpr: Any, var: Any) -> str:
    """` (file.py:12 (function))` of the equation that computes `var`, where known."""
    for eqn in jaxpr.eqns:
        if var in eqn.outvars:
            line = _compat.user_line(eqn.source_info)
            return f" ({line})" if line else ""
    return " (an input, returned as it is)"
