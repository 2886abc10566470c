"""Primitives that move values around without changing them."""

import numpy as np

from privjax.passes.units import layout
from privjax.passes.units.op import Op, Rule, all_of, always, axis_map, together
from privjax.passes.units.states import PerUnit, Public, State


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
    same_columns = op.shapes[0][-1:] == op.out_shapes[0][-1:]
    return PerUnit(regrouped, own=state.own if same_columns else frozenset())


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


def slice_(op: Op) -> State:
    p, old, new = op.params, op.shapes[0], op.out_shapes[0]

    def kept(a: int) -> int | None:
        cut = (p["start_indices"][a], p["limit_indices"][a])
        steps = 1 if p["strides"] is None else p["strides"][a]
        return (
            a if old[a] == new[a] or (steps == 1 and rounds(op, 0, a, *cut)) else None
        )

    return op.place(0, kept, "it picks some of the units")


def split(op: Op) -> list[State]:
    cut, sizes = op.params["axis"], op.params["sizes"]
    kept = lambda a: None if a == cut and not rounds(op, 0, a, *sizes) else a  # noqa: E731
    return [op.place(0, kept, "it splits the units")] * len(op.out_shapes)


def pad(op: Op) -> State:
    if op.is_unit(1):
        return op.mixed("it pads with a private value")

    def kept(a: int) -> int | None:
        low, high, between = op.params["padding_config"][a]
        return a if between == 0 and rounds(op, 0, a, low, high) else None

    return op.place(0, kept, "it pads the axis of units")


def concatenate(op: Op) -> State:
    joined = op.params["dimension"]
    here = [i for i in range(len(op.states)) if op.is_unit(i)]
    sizes = [shape[joined] for shape in op.shapes]
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
    own, column = set(), 0
    for operand, shape in zip(op.states, op.shapes, strict=True):
        if isinstance(operand, PerUnit):
            own |= {column + c for c in operand.own}
        elif state.axis is not None and counts(operand, state.axis):
            own |= set(range(column, column + shape[-1]))
        column += shape[-1]
    return PerUnit(state.digits, own=frozenset(own))


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
