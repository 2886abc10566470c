"""Gathers and scatters: each unit may look up, and add to, its own part only.

An index array with units has them on some axis before the last; its last axis lists one
index per indexed dimension. `own` columns hold the unit's own number, as in the idiom
`logits[jnp.arange(batch), label]`.
"""

from collections.abc import Sequence
from dataclasses import replace

from privjax.passes.units.op import Op, Rule, all_of, one_of
from privjax.passes.units.rules.structural import counts, some
from privjax.passes.units.states import (
    Mixed,
    Own,
    PerUnit,
    Public,
    State,
    Zero,
)

_ACROSS = "it looks up or writes values of other units"
_PICKED = (
    "it picks units by a computed index; loop over the units themselves "
    "(jax.lax.scan with the batch as its inputs), or use jax.vmap"
)


def own_columns(op: Op, i: int) -> Own:
    state = op.states[i]
    return state.own if isinstance(state, PerUnit) else frozenset()


def gather(op: Op) -> State:
    n, sizes = op.params["dimension_numbers"], op.params["slice_sizes"]
    shape, out_rank = op.shapes[0], len(op.out_shapes[0])
    batch = [a for a in range(out_rank) if a not in n.offset_dims]
    windows = _windows(shape, (*n.collapsed_slice_dims, *n.operand_batching_dims))
    pairs = zip(n.operand_batching_dims, n.start_indices_batching_dims, strict=True)
    paired = {a: batch[b] for a, b in pairs}
    whole = {a: n.offset_dims[k] for k, a in enumerate(windows) if sizes[a] == shape[a]}
    return op.combine(
        [
            _operand(op, n.start_index_map, sizes, whole | paired, batch),
            op.place(1, lambda a: batch[a] if a < len(batch) else None, _ACROSS),
        ]
    )


def scatter(op: Op, adds: bool = False) -> State:
    """Operand, indices, updates. Units that share a place may only be added up."""
    n = op.params["dimension_numbers"]
    shape, update = op.shapes[0], op.shapes[2]
    batch = [a for a in range(len(update)) if a not in n.update_window_dims]
    windows = _windows(shape, (*n.inserted_window_dims, *n.operand_batching_dims))
    pairs = zip(n.operand_batching_dims, n.scatter_indices_batching_dims, strict=True)
    paired = {batch[b]: a for a, b in pairs}
    whole = {
        n.update_window_dims[k]: a
        for k, a in enumerate(windows)
        if update[n.update_window_dims[k]] == shape[a]
    }
    # The units of the scattered rows, in the coordinates of the updates.
    placed = [op.place(1, lambda a: batch[a] if a < len(batch) else None, _ACROSS)]
    rows = [s for s in (*placed, op.states[2]) if isinstance(s, PerUnit | Mixed)]
    if not rows:  # public rows into a per-unit operand
        clear = set(range(len(shape))) - set(n.scatter_dims_to_operand_dims)
        public = {a for a in clear if a in whole.values() or a in paired.values()}
        return op.place(0, lambda a: a if a in public else None, _ACROSS)
    unit = op.combine(rows)
    if not isinstance(unit, PerUnit):
        return unit
    to = whole | paired
    for column, k in own_columns(op, 1):
        axis, here = n.scatter_dims_to_operand_dims[column], unit.alone(k)
        if axis in n.inserted_window_dims and here in batch and here is not None:
            if update[here] == shape[axis]:  # else positions are not their own
                to |= {here: axis}
    if all(a in to for a in unit.axes):
        digits = tuple(
            d if d.axis is None else replace(d, axis=to[d.axis]) for d in unit.digits
        )
        return op.combine([unit.at(digits), *([op.states[0]] if op.is_unit(0) else [])])
    if adds and isinstance(op.states[0], Zero) and all(a in batch for a in unit.axes):
        side = 1 if op.is_unit(1) else 2
        kept = n.scatter_indices_batching_dims
        kept = kept if side == 1 else [batch[a] for a in kept]
        return op.apart(side, set(op.axes(side)) - set(kept), _ACROSS)
    if adds and not op.is_unit(0):
        return op.mixed("it adds units into values that are not known to be zero")
    return op.mixed(_ACROSS)


def _windows(shape: Sequence[int], gone: Sequence[int]) -> list[int]:
    return [a for a in range(len(shape)) if a not in gone]


def _operand(
    op: Op,
    index_map: Sequence[int],
    sizes: Sequence[int],
    to: dict[int, int],
    batch: Sequence[int],
) -> State:
    """Where the unit axis of the operand that is looked up goes."""
    (state, rows), shape = op.states[:2], op.shapes[0]
    for k in range(len(state.digits) if isinstance(state, PerUnit) else 0):
        assert isinstance(state, PerUnit)
        axis = state.alone(k)
        if axis is None or axis not in index_map or sizes[axis] != 1:
            continue
        column = index_map.index(axis)
        # Position k looks up position k only where both have equally many.
        if isinstance(rows, PerUnit):
            if (column, k) in rows.own and len(rows.digits) == len(state.digits):
                here = rows.alone(k)
                if here is not None and op.shapes[1][here] == shape[axis]:
                    to = to | {axis: batch[here]}
        elif op.shapes[1] == (shape[axis], 1) and counts(rows, 0):
            to = to | {axis: batch[0]}
    return op.place(0, to.get, _ACROSS)


def position(state: State) -> int | None:
    """The number that an index is known to be."""
    if isinstance(state, Zero):
        return 0
    known = state.known if isinstance(state, Public) else None
    return None if known is None else int(known.value)


def dynamic_slice(op: Op) -> State:
    sizes, shape = op.params["slice_sizes"], op.shapes[0]
    for a in op.axes(0):
        start = position(op.states[1 + a])
        if sizes[a] != shape[a] and start is not None:
            start = min(max(start, 0), shape[a] - sizes[a])
            found = some(op, 0, a, slice(start, start + sizes[a]))
            if found is not None:
                others = [s for s in op.states[1:] if isinstance(s, PerUnit)]
                return op.combine([found, *others])
    return op.combine(
        [
            op.place(0, lambda a: a if sizes[a] == shape[a] else None, _PICKED),
            *(op.states[i] for i in range(1, len(op.states))),
        ]
    )


def dynamic_update_slice(op: Op) -> State:
    shape, update = op.shapes[0], op.shapes[1]
    full = lambda a: a if update[a] == shape[a] else None  # noqa: E731
    return op.combine(
        [
            op.place(0, full, _ACROSS),
            op.place(1, full, _ACROSS),
            *(op.states[i] for i in range(2, len(op.states))),
        ]
    )


RULES = {
    "gather": Rule(gather, one_of(0)),
    "scatter": Rule(scatter, all_of(0, 2)),
    "scatter-add": Rule(lambda op: scatter(op, adds=True), all_of(0, 2)),
    "scatter-sub": Rule(lambda op: scatter(op, adds=True), all_of(0, 2)),
    **dict.fromkeys(["scatter-mul", "scatter-min", "scatter-max"], Rule(scatter)),
    "dynamic_slice": Rule(dynamic_slice, all_of(0)),
    "dynamic_update_slice": Rule(dynamic_update_slice, all_of(0, 1)),
}
