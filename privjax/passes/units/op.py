"""What a unit rule sees of an equation, and what it can answer."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from privjax._typing import Shape
from privjax.passes.units.states import Cause, Mixed, PerUnit, State, Sum, Zero


@dataclass(frozen=True)
class Op:
    """One equation: parameters, shapes, and the states of its operands.

    `inexact` says whether its first result is floating-point or complex, `parts`
    whether sums over some of the units are sums over all of them, the others adding zero.
    """

    name: str
    params: dict[str, Any]
    states: Sequence[State]
    shapes: Sequence[Shape]
    out_shapes: Sequence[Shape]
    line: str
    inexact: bool
    parts: bool = True

    # -- questions -------------------------------------------------------------------

    def axes(self, i: int) -> tuple[int, ...]:
        """The axes of operand `i` that carry units (none unless it is per unit)."""
        state = self.states[i]
        return state.axes if isinstance(state, PerUnit) else ()

    def is_unit(self, i: int) -> bool:
        return isinstance(self.states[i], PerUnit)

    @property
    def sums(self) -> frozenset[int]:
        """Operands that are sums over units."""
        return frozenset(i for i, s in enumerate(self.states) if isinstance(s, Sum))

    @property
    def zeros(self) -> frozenset[int]:
        return frozenset(i for i, s in enumerate(self.states) if isinstance(s, Zero))

    # -- answers ---------------------------------------------------------------------

    def cause(self, why: str) -> Cause:
        return Cause(self.name, self.line, why)

    def mixed(self, why: str) -> Mixed:
        return Mixed(self.cause(why))

    def total(self) -> Sum:
        """A sum over all units."""
        return Sum()

    def apart(self, i: int, gone: Collection[int], why: str) -> State:
        """A sum over some digits of operand `i`'s units, for each value of another one.

        It is a sum over all units, each of which adds to a place of its own and zero to
        the others. One digit may remain, alone on its axis.
        """
        state = self.states[i]
        assert isinstance(state, PerUnit)
        left = [d for d in state.digits if d.axis is not None and d.axis not in gone]
        if left and not self.parts:
            return self.mixed(why)
        for d in left:
            if len(left) > 1 or d.inner != 1 or d.size != self.shapes[i][d.axis or 0]:
                return self.mixed(why)
        return Sum()

    def keep(self, i: int = 0) -> State:
        """Operand `i`'s unit axes stay where they are."""
        return self.place(i, lambda axis: axis)

    def place(
        self,
        i: int,
        where: Callable[[int], int | None],
        why: str = "it moves or picks values along the axis of units",
    ) -> State:
        """Operand `i`'s unit axes go to `where(axis)`, unbroken; None: they do not."""
        state = self.states[i]
        if not isinstance(state, PerUnit):
            return state
        digits = []
        for d in state.digits:
            to = None if d.axis is None else where(d.axis)
            if d.axis is not None and to is None:
                return self.mixed(why)
            digits.append(replace(d, axis=to))
        return state.at(tuple(digits))

    def combine(self, states: Iterable[State]) -> State:
        """Values that meet element by element (already placed in the result)."""
        found: PerUnit | None = None
        for state in states:
            if isinstance(state, Mixed | Sum):
                return state
            if isinstance(state, PerUnit):
                here = state.at(state.digits)
                if found is not None and found != here:
                    return self.mixed("values of different units meet")
                found = here
        return found if found is not None else self.mixed("no unit axis is left")


def axis_map(pairs: Iterable[tuple[int, int]]) -> Callable[[int], int | None]:
    """`where` for `Op.place` from (old axis, new axis) pairs."""
    return dict(pairs).get


@dataclass(frozen=True)
class Rule:
    """What a primitive does with units.

    Attributes:
      per_unit: states of the results (one state, or a list) when some operand is per unit
        and none is a sum.
      linear: whether the primitive is linear in the operands that are sums (or zero)
        jointly, the other ones being public; None where it never is.
    """

    per_unit: Callable[[Op], State | list[State]]
    linear: Callable[[Op], bool] | None = None


# -- answers for `linear` --------------------------------------------------------------


def always(op: Op) -> bool:
    """Every operand: the primitive has only linear ones."""
    return True


def together(op: Op) -> bool:
    """All operands must be sums or zero: a public one would be an offset."""
    return len(op.sums | op.zeros) == len(op.states)


def one_of(*positions: int) -> Callable[[Op], bool]:
    """Bilinear: exactly one of these operands is a sum (a zero if there is no sum)."""

    def linear(op: Op) -> bool:
        here = op.sums or op.zeros
        return len(here) == 1 and here <= set(positions)

    return linear


def all_of(*positions: int) -> Callable[[Op], bool]:
    """Linear in these operands jointly; the others must be public."""

    def linear(op: Op) -> bool:
        here = op.sums | op.zeros
        return here >= set(positions) and op.sums <= set(positions)

    return linear
