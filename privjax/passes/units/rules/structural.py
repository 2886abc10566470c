"""Primitives that move values around without changing them."""

from functools import reduce
from itertools import pairwise

import numpy as np

from privjax.passes.units import layout
from privjax.passes.units.op import Op, Rule, all_of, always, axis_map, together
from privjax.passes.units.states import Digit, Part, PerUnit, Public, State


def reshape(op: Op) -> State:
    state = op.states[0]
    if not isinstance(state, PerUnit):
        return state
    shape, order = op.shapes[0], op.params.get("dimensions")
    digits = state.digits
    if order is not None:  # it transposes first
        shape = [shape[a] for a in order]
        moved = op.place(0, axis_map((a, i) for i, a in enumerate(order)))
        assert isinstance(moved, PerUnit)
        digits = moved.digits
    regrouped = layout.reshape(shape, op.out_shapes[0], digits)
    if regrouped is None:
        return op.mixed("it reshapes across the axis of units")
    same = op.shapes[0][-1:] == op.out_shapes[0][-1:]
    same = same and [d.size for d in regrouped] == [d.size for d in digits]
    return state.at(regrouped, state.own if same else frozenset())


def broadcast_in_dim(op: Op) -> State:
    to = op.params["broadcast_dimensions"]
    old, new = op.shapes[0], op.out_shapes[0]
    return op.place(
        0,
        lambda a: to[a] if old[a] == new[to[a]] else None,
        "it repeats one unit's values along an axis of units",
    )


def transpose(op: Op) -> State:
    return op.place(0, axis_map((a, i) for i, a in enumerate(op.params["permutation"])))


def squeeze(op: Op) -> State:
    gone = {d % len(op.shapes[0]) for d in op.params["dimensions"]}
    kept = [a for a in range(len(op.shapes[0])) if a not in gone]
    state = op.states[0]
    if isinstance(state, PerUnit) and state.axes and set(state.axes) <= gone:
        return op.total()  # the only unit there is
    return op.place(0, axis_map((a, i) for i, a in enumerate(kept)))


def rev(op: Op) -> State:
    turned = op.params["dimensions"]
    return op.place(0, lambda a: None if a in turned else a, "it reverses the units")


def rounds(op: Op, i: int, axis: int, *sizes: int) -> bool:
    """Whether lengths along an axis are whole rounds through all the units on it.

    Two views of a batch, one after the other, are two rounds: each holds every unit, in
    order, and may be cut off again.
    """
    state = op.states[i]
    if not isinstance(state, PerUnit):
        return False
    block = max((d.size * d.inner for d in state.digits if d.axis == axis), default=1)
    return all(size % block == 0 for size in sizes)


def some(op: Op, i: int, axis: int, piece: slice) -> PerUnit | None:
    """The units of a slice along an axis, where the axis is the units and no more.

    A single unit has no axis: its values are its own wherever they are.
    """
    state = op.states[i]
    if not op.parts or not isinstance(state, PerUnit) or len(state.digits) != 1:
        return None
    (d,) = state.digits
    if d.axis != axis or d.inner != 1 or d.size != op.shapes[i][axis]:
        return None
    before = state.part or Part((range(d.size),), d.size)
    size = len(range(d.size)[piece])
    if not size:
        return None
    digits = (Digit(axis, size) if size > 1 else Digit(None, 1),)
    return PerUnit(digits, part=before.cut(piece))


def slice_(op: Op) -> State:
    p, old, new = op.params, op.shapes[0], op.out_shapes[0]
    steps_of = p["strides"] or [1] * len(old)
    for a in op.axes(0):
        piece = slice(p["start_indices"][a], p["limit_indices"][a], steps_of[a])
        if old[a] != new[a] and (found := some(op, 0, a, piece)) is not None:
            return found

    def kept(a: int) -> int | None:
        cut = (p["start_indices"][a], p["limit_indices"][a])
        steps = 1 if p["strides"] is None else p["strides"][a]
        return (
            a if old[a] == new[a] or (steps == 1 and rounds(op, 0, a, *cut)) else None
        )

    return op.place(0, kept, "it picks some of the units")


def split(op: Op) -> list[State]:
    cut, sizes = op.params["axis"], op.params["sizes"]
    if cut in op.axes(0):
        ends = np.cumsum([0, *sizes]).tolist()
        pieces = [some(op, 0, cut, slice(*e)) for e in pairwise(ends)]
        if all(pieces):
            return list(pieces)  # type: ignore[arg-type]
    kept = lambda a: None if a == cut and not rounds(op, 0, a, *sizes) else a  # noqa: E731
    return [op.place(0, kept, "it splits the units")] * len(op.out_shapes)


def filled_up(op: Op) -> PerUnit | None:
    """A slice of the units put back in its place, as in the slice's derivative."""
    state = op.states[0]
    if not isinstance(state, PerUnit) or state.part is None or len(state.digits) > 1:
        return None
    (rows,), total = state.part.rows, state.part.total
    for axis, size in enumerate(op.shapes[0]):
        low, _, between = op.params["padding_config"][axis]
        alone = state.axis is None and size == 1
        back = low == rows.start and (size == 1 or between == rows.step - 1)
        if (alone or axis == state.axis) and back and op.out_shapes[0][axis] == total:
            return PerUnit((Digit(axis, total),))
    return None


def pad(op: Op) -> State:
    if op.is_unit(1):
        return op.mixed("it pads with a private value")

    if (whole := filled_up(op)) is not None:
        return whole
    for a in op.axes(
        0
    ):  # a negative amount is a slice, as in the derivative of padding
        low, high, between = op.params["padding_config"][a]
        if low <= 0 >= high and low + high < 0 and not between:
            piece = slice(-low, op.shapes[0][a] + high)
            if (found := some(op, 0, a, piece)) is not None:
                return found

    def kept(a: int) -> int | None:
        low, high, between = op.params["padding_config"][a]
        return a if between == 0 and rounds(op, 0, a, low, high) else None

    return op.place(0, kept, "it pads the axis of units")


def one_after_the_other(op: Op, axis: int) -> PerUnit | None:
    """Slices of the units, joined to all of them in order."""
    parts = [
        s.part
        for s, shape in zip(op.states, op.shapes, strict=True)
        if isinstance(s, PerUnit) and s.part is not None and len(s.digits) == 1
        if s.axis in (axis, None) and s.units == shape[axis]
    ]
    if len(parts) != len(op.states):
        return None
    joined = reduce(lambda a, b: Part((*a.rows, *b.rows), a.total), parts)
    return PerUnit((Digit(axis, joined.total),)) if not joined.unless_all() else None


def concatenate(op: Op) -> State:
    joined = op.params["dimension"]
    here = [i for i in range(len(op.states)) if op.is_unit(i)]
    sizes = [shape[joined] for shape in op.shapes]
    if (whole := one_after_the_other(op, joined)) is not None:
        return whole
    state = op.combine(
        op.place(
            i,
            lambda a, i=i: a if a != joined or rounds(op, i, a, *sizes) else None,  # type: ignore[misc]
            "it joins lists of units",
        )
        for i in here
    )
    if not isinstance(state, PerUnit) or joined != len(op.out_shapes[0]) - 1:
        return state
    own: set[tuple[int, int]] = set()
    column = 0
    for operand, shape in zip(op.states, op.shapes, strict=True):
        if isinstance(operand, PerUnit):
            own |= {(column + c, k) for c, k in operand.own}
        else:
            places = [state.alone(k) for k in range(len(state.digits))]
            own |= {
                (column + c, k)
                for k, axis in enumerate(places)
                if axis is not None and counts(operand, axis)
                for c in range(shape[-1])
            }
        column += shape[-1]
    return state.at(state.digits, frozenset(own))


def stack(op: Op) -> State:
    new = op.params["axis"]
    return op.combine(
        op.place(i, lambda a: a + (a >= new))
        for i in range(len(op.states))
        if op.is_unit(i)
    )


def unstack(op: Op) -> list[State]:
    gone = op.params["axis"]
    where = lambda a: None if a == gone else a - (a > gone)  # noqa: E731
    return [op.place(0, where, "it takes the units apart")] * len(op.out_shapes)


def tile(op: Op) -> State:
    repeats = op.params["reps"]
    return op.place(0, lambda a: a if repeats[a] == 1 else None, "it repeats the units")


def counts(state: State, axis: int) -> bool:
    """Whether a constant equals its own position along `axis`."""
    if not isinstance(state, Public) or state.known is None:
        return False
    value = state.known.value
    shape = [1] * value.ndim
    shape[axis] = value.shape[axis]
    return bool((value == np.arange(value.shape[axis]).reshape(shape)).all())


RULES = {
    "reshape": Rule(reshape, always),
    "broadcast_in_dim": Rule(broadcast_in_dim, always),
    "transpose": Rule(transpose, always),
    "squeeze": Rule(squeeze, always),
    "rev": Rule(rev, always),
    "slice": Rule(slice_, always),
    "split": Rule(split, always),
    "pad": Rule(pad, all_of(0, 1)),
    "concatenate": Rule(concatenate, together),
    "stack": Rule(stack, together),
    "unstack": Rule(unstack, always),
    "tile": Rule(tile, always),
}
