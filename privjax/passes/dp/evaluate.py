"""Running equations on values of which some are sums over units, held as terms."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privjax import _compat
from privjax._typing import Array
from privjax.core.labels import Labels
from privjax.errors import UnsupportedError
from privjax.passes.dp.aggregators import AGGREGATORS, remaining, resolved
from privjax.passes.dp.apart import Apart
from privjax.passes.dp.maps import Map
from privjax.passes.dp.summed import NotAdditive, Summed, added
from privjax.passes.dp.terms import Rows
from privjax.passes.units import constants
from privjax.passes.units.states import PerUnit, State, Sum

Value = Any  # an array, or `Summed`

# Linear equations of one operand that keep every norm.
ISOMETRIES = frozenset(
    """neg transpose reshape squeeze copy copy_p convert_element_type rev name
    stop_gradient""".split()
)


class Evaluator:
    """One scope: a jaxpr, the states of its variables, and their values.

    `release` is what the marker of that name does to a sum.
    """

    def __init__(
        self,
        labels: Labels,
        natural: dict[Any, State] | None = None,
        release: Callable[[int, Any, Summed], Array] | None = None,
    ) -> None:
        self.labels = labels
        self.natural = natural or {}
        self.release = release
        self.env: dict[Any, Value] = {}
        self.scalars: dict[Any, Value] = {}

    def state(self, atom: Any) -> State:
        if isinstance(atom, _compat.Literal):
            return constants.state_of(atom.val)
        return self.natural[atom] if atom in self.natural else self.labels[atom]

    def read(self, atom: Any) -> Value:
        if isinstance(atom, _compat.Literal):
            return jnp.asarray(atom.val, getattr(atom.aval, "dtype", None))
        return self.env[atom]

    def step(self, index: int, eqn: Any) -> None:
        """Run one equation and keep its results."""
        with _compat.source_of(eqn):
            out = self.results(index, eqn, [self.read(v) for v in eqn.invars])
        self.env.update(zip(eqn.outvars, out, strict=True))

    def results(self, index: int, eqn: Any, values: Sequence[Value]) -> list[Value]:
        name = eqn.primitive.name
        states = [self.state(v) for v in eqn.invars]
        if name == "release" and self.release and isinstance(values[0], Summed):
            return [self.release(index, eqn, values[0])]
        if not any(isinstance(self.state(v), Sum) for v in eqn.outvars):
            if name == "broadcast_in_dim" and values[0].size == 1:
                self.scalars[eqn.outvars[0]] = values[0].reshape(())
            pairs = zip(values, eqn.invars, strict=True)
            return _compat.bind(eqn, [plain(v, atom) for v, atom in pairs])
        if name in CONTROL:
            return CONTROL[name](self, index, eqn, values)
        if name == "optimization_barrier":
            held = iter(lax.optimization_barrier([v for v in values if is_plain(v)]))
            return [next(held) if is_plain(v) else v for v in values]
        if any(isinstance(s, PerUnit) and s.axes for s in states):
            if name not in AGGREGATORS:
                line = _compat.user_line(eqn.source_info)
                raise UnsupportedError(
                    f"`{name}` ({line}) sums over units in a way that has no rule here."
                )
            part = next(s.part for s in states if isinstance(s, PerUnit) and s.axes)
            found = AGGREGATORS[name](eqn, values, states).within(part)
            return [placed(eqn, found, states)]
        if name == "select_n" and isinstance(states[0], PerUnit):
            atom = eqn.invars[0]
            which = self.scalars[atom] if atom in self.scalars else values[0]
            return [chosen(which, values[1:])]
        values = [
            one_unit(v, s) if isinstance(s, PerUnit) else v
            for v, s in zip(values, states, strict=True)
        ]
        return self.linear(eqn, values)

    def linear(self, eqn: Any, values: Sequence[Value]) -> list[Value]:
        """An equation that is linear in the operands that are `Summed`."""
        name = eqn.primitive.name
        sums = [v for v in values if isinstance(v, Summed)]
        if name == "convert_element_type":
            # Sums stay in at least float32 until they are released: rounding a sum to a
            # narrower type would move it by more than its sensitivity.
            kept = _kind(eqn.invars[0]) == _kind(eqn.outvars[0])
            return [sums[0]] if kept else self.by_rows(eqn, values)
        if name == "reduce_sum":
            terms = [t for v in sums for t in v.terms]
            axes, shape = tuple(eqn.params["axes"]), eqn.outvars[0].aval.shape
            if all(isinstance(t, Apart) and (t.axis,) == axes for t in terms):
                return [added([t.together(shape) for t in terms])]
        if name in ISOMETRIES:
            return [sums[0].mapped(Map(eqn))]
        if name in ("add", "add_any"):  # what is no sum is zero
            return [added(sums)]
        if name == "sub":
            minus = jnp.full((), -1, jnp.int8)
            first, last = values
            kept = [first] if isinstance(first, Summed) else []
            return [
                added([*kept, last.scaled(minus)] if isinstance(last, Summed) else kept)
            ]
        if name in ("mul", "div"):
            k = 1 if isinstance(values[0], Summed) else 0
            atom = eqn.invars[k]
            literal = isinstance(atom, _compat.Literal)
            scalar = not literal and atom in self.scalars
            factor = self.scalars[atom] if scalar else values[k]
            if factor.ndim == 0:
                return [sums[0].scaled(factor if name == "mul" else 1 / factor)]
        return self.by_rows(eqn, values)

    def by_rows(self, eqn: Any, values: Sequence[Value]) -> list[Value]:
        """The general way: the equation on the contributions of each unit."""
        sums = [v for v in values if isinstance(v, Summed)]
        if len({t.part for v in sums for t in v.terms}) > 1:
            values = [v.whole() if isinstance(v, Summed) else v for v in values]
        first = next(v for v in values if isinstance(v, Summed))
        axes = [0 if isinstance(v, Summed) else None for v in values]
        operands = [
            v.rows().astype(atom.aval.dtype) if isinstance(v, Summed) else v
            for v, atom in zip(values, eqn.invars, strict=True)
        ]
        out = jax.vmap(lambda *xs: _compat.bind(eqn, xs), in_axes=axes)(*operands)
        return [Summed((Rows(x, (), first.digits, first.part),)) for x in out]


def is_plain(value: Value) -> bool:
    return not isinstance(value, Summed)


def _kind(atom: Any) -> Any:
    """Real or complex floating-point numbers, or neither."""
    kinds = (jnp.floating, jnp.complexfloating)
    return next((k for k in kinds if jnp.issubdtype(atom.aval.dtype, k)), None)


def one_unit(x: Array, state: PerUnit) -> Summed:
    """The value of the unit that a loop is at, as a sum of one contribution."""
    return Summed((Rows(x[None], (), resolved(state.digits), state.part),))


def chosen(which: Array, cases: Sequence[Summed]) -> Summed:
    """What is added to a loop's carry where the step's unit says which.

    The cases are the same carry, each with terms of its own.
    """
    carried = cases[0].carried
    if any(c.carried != carried for c in cases):
        raise NotAdditive
    parts = []
    for k, case in enumerate(cases):
        mine = which == k
        if which.ndim == 0:
            keep = lambda x, mine=mine: jnp.where(mine, x, jnp.zeros((), x.dtype))  # noqa: E731
            parts.append(Summed(tuple(t.each(keep) for t in case.terms)))
        elif case.terms:
            rows = Summed(case.terms).rows()
            rows = jnp.where(mine, rows, jnp.zeros((), rows.dtype))
            parts.append(Summed((Rows(rows, (), case.digits, case.part),)))
    return Summed(added(parts).terms, carried)


def placed(eqn: Any, value: Summed, states: Sequence[State]) -> Summed:
    """Sums over some digits of the unit index, at places that another one numbers."""
    shape = eqn.outvars[0].aval.shape
    rows = jax.eval_shape(lambda terms: Summed(terms).rows(), value.terms)
    ones = rows.shape[1:]
    if ones == shape:
        return value
    ((axis, size),) = [
        (a, new)
        for a, (old, new) in enumerate(zip(ones, shape, strict=True))
        if old != new
    ]
    at = remaining(eqn, states)
    placed = Apart(value, axis, size, at)
    if value.part is not None:
        return Summed((placed.dense(),)).within(value.part)
    return Summed((placed,))


def plain(value: Value, atom: Any) -> Array:
    """A sum without clipping: only what the user declassifies is ever used so."""
    if not isinstance(value, Summed):
        return value
    value = value.whole()
    units = value.terms[0].units
    return value.weighted(jnp.ones(units), jnp.ones(units, bool)).astype(
        atom.aval.dtype
    )


def run_body(
    closed: Any, labels: Labels, values: Sequence[Value]
) -> tuple[list[Value], list[State]]:
    """Run the body of a loop or branch: its results and their states."""
    jaxpr, consts = _compat.open_jaxpr(closed)
    scope = Evaluator(labels)
    scope.env.update(zip(jaxpr.constvars, consts, strict=True))
    scope.env.update(zip(jaxpr.invars, values, strict=True))
    for i, eqn in enumerate(jaxpr.eqns):
        scope.step(i, eqn)
    outs = jaxpr.outvars
    return [scope.read(v) for v in outs], [scope.state(v) for v in outs]


CONTROL: dict[str, Callable[..., list[Value]]] = {}
