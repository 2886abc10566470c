"""What the unit analysis knows of a value: the lattice of states.

    ZERO <= PUBLIC <= PER_UNIT <= MIXED        ZERO <= SUM <= MIXED

A *unit* is one privacy unit: an example of a batch, a client, a user. With private inputs
x_1 ... x_B a value is

- `Zero`       known to be zero (an accumulator before its first step),
- `Public`     the same whatever the private inputs are,
- `PerUnit`    slice i is a function of x_i (and of public values) only,
- `Sum`        c_1(x_1) + ... + c_B(x_B) for some functions c_i,
- `Mixed`      anything else, with the first operation that made it so.

A sum over some of the units is a sum over all of them: the others add zero. So is a value
in which every unit has a place of its own, as the gradients of micro-batches side by side,
or two examples' gradients added one after the other.

`level` counts the releases upstream: a value computed from a released sum is public again,
at level 1; if it meets per-unit values, these are of level 1 as well, and their sum is
a second round of talking to the units.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cause:
    """Which operation did something, where in the user's file, and why it matters."""

    primitive: str
    line: str
    why: str

    def __str__(self) -> str:
        where = f" ({self.line})" if self.line else ""
        return f"`{self.primitive}`{where}: {self.why}"


@dataclass(frozen=True)
class Digit:
    """Where one digit of the unit index is found in a value's shape.

    The unit index is written in mixed radix, most significant digit first; reshaping
    [k*b, d] to [k, b, d] splits one digit into two. A digit of `size` values occupies
    `axis` so that index = (free * size + digit) * inner + rest. Where a loop runs over
    the digit, `axis` is None and `loop` identifies the `scan` equation.
    """

    axis: int | None
    size: int
    inner: int = 1
    loop: int = 0


@dataclass(frozen=True)
class Part:
    """Some of the units, by their numbers in the batch of `total`, in order."""

    rows: tuple[range, ...]
    total: int

    @property
    def numbers(self) -> np.ndarray:
        return np.concatenate([np.asarray(r, np.int64) for r in self.rows])

    def cut(self, piece: slice) -> "Part | None":
        """A slice of consecutive units; None where that is all of them."""
        return Part((self.rows[0][piece],), self.total).unless_all()

    def unless_all(self) -> "Part | None":
        everything = np.array_equal(self.numbers, np.arange(self.total))
        return None if everything else self


# (column, number of the digit)
Own = frozenset[tuple[int, int]]


class Known:
    """A small constant array, compared by content."""

    def __init__(self, value: np.ndarray) -> None:
        self.value = value

    def _key(self) -> tuple[Any, ...]:
        return self.value.shape, self.value.dtype.str, self.value.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Known{self.value.shape}"


@dataclass(frozen=True)
class Zero:
    @property
    def level(self) -> int:
        return 0


@dataclass(frozen=True)
class Public:
    """`known` holds the value itself where it is a small integer constant.

    `via` says, at levels above 0, which release the value comes from.
    """

    level: int = 0
    known: Known | None = None
    via: str = field(default="", compare=False)


@dataclass(frozen=True)
class PerUnit:
    """`own`: columns of the last axis that hold a digit of each unit's own index (for
    gathers), as pairs of column and digit.

    `fed` is the operation at which a released value met this per-unit one. `part` says
    which units there are where a slice has taken some; digits count within it.
    """

    digits: tuple[Digit, ...]
    level: int = 0
    own: Own = frozenset()
    fed: Cause | None = field(default=None, compare=False)
    part: Part | None = None

    def at(self, digits: tuple[Digit, ...], own: Own = frozenset()) -> "PerUnit":
        """The same units in other places, without a level."""
        return PerUnit(digits, own=own, part=self.part)

    def alone(self, k: int) -> int | None:
        """The axis on which digit `k` is the only one, and the fastest index."""
        d = self.digits[k]
        return d.axis if d.inner == 1 and self.axes.count(d.axis) == 1 else None

    @property
    def axis(self) -> int | None:
        """The unit axis when units are exactly the slices along one axis, else None.

        Inside of a loop over units these are the units of one step.
        """
        here = [d for d in self.digits if d.axis is not None]
        return here[0].axis if len(here) == 1 and here[0].inner == 1 else None

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that carry digits of the unit index."""
        return tuple(d.axis for d in self.digits if d.axis is not None)

    @property
    def units(self) -> int:
        """How many units are in the value's shape (loops not counted)."""
        sizes = [d.size for d in self.digits if d.axis is not None]
        return int(np.prod(sizes, dtype=np.int64))


@dataclass(frozen=True)
class Onto:
    """A loop's carry, plus terms of `unit` alone (None: plus nothing yet).

    Which of two such terms is added, if any, may depend on that unit.
    """

    carry: int
    unit: PerUnit | None = None

    def plus(self, unit: PerUnit | None) -> "Onto | None":
        """With one more term; None where that is of another unit."""
        if unit is None or self.unit in (None, unit):
            return replace(self, unit=unit or self.unit)
        return None


@dataclass(frozen=True)
class Sum:
    level: int = 0
    onto: Onto | None = None
    fed: Cause | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Mixed:
    cause: Cause = field(compare=False)
    level: int = 0


State = Zero | Public | PerUnit | Sum | Mixed

ZERO = Zero()
PUBLIC = Public()


def per_unit(axis: int, size: int, level: int = 0) -> PerUnit:
    """Units are the `size` slices along `axis`."""
    return PerUnit((Digit(axis, size),), level)


def is_private(state: State) -> bool:
    return isinstance(state, PerUnit | Sum | Mixed)


def join(a: State, b: State, cause: Cause) -> State:
    """The least state above both; `cause` explains it where that is `Mixed`."""
    if a == b:
        return a
    for x in (a, b):
        if isinstance(x, Mixed):
            return x
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Zero):
            return y if not isinstance(y, Public) else replace(y, known=None)
        if isinstance(x, Public):
            level = max(x.level, y.level)
            if isinstance(y, Public):
                return Public(level, via=x.via or y.via)
            if isinstance(y, PerUnit):
                return replace(y, level=level, own=frozenset())
        if isinstance(x, Sum) and as_sum(y) is not None:
            onto = one_onto([x, y])
            return replace(x, level=max(x.level, y.level), onto=onto)
    if (
        isinstance(a, PerUnit)
        and isinstance(b, PerUnit)
        and a.at(a.digits) == b.at(b.digits)
    ):
        return replace(a, level=max(a.level, b.level), own=a.own & b.own)
    return Mixed(cause)


def one_onto(states: Sequence[State]) -> Onto | None:
    """What sums onto the same carry, with terms of the same unit, have in common."""
    found: Onto | None = None
    for state in states:
        onto = state.onto if isinstance(state, Sum) else None
        if onto is None or (found is not None and found.carry != onto.carry):
            return None
        found = onto if found is None else found.plus(onto.unit)
        if found is None:
            return None
    return found


def one_unit(state: State) -> PerUnit | None:
    """Which unit a value is of, that is of one alone."""
    if isinstance(state, PerUnit) and not state.axes:
        return state.at(state.digits)
    return None


def as_sum(state: State) -> State | None:
    """The state read as a sum over units, where it is one.

    The contribution of the unit that a loop is at is a sum with one term.
    """
    if isinstance(state, PerUnit) and not state.axes:
        return Sum(state.level, fed=state.fed)
    return state if isinstance(state, Sum | Zero) else None
