"""Products: where the unit axis is contracted, a sum over units is born."""

from privjax.passes.units.op import Op, Rule, one_of
from privjax.passes.units.states import PerUnit, State

_ACROSS = "it multiplies values of different units"


def dot_general(op: Op) -> State:
    (lc, rc), (lb, rb) = op.params["dimension_numbers"]
    ranks = [len(s) for s in op.shapes]
    free = [
        [a for a in range(ranks[i]) if a not in (*c, *b)]
        for i, (c, b) in enumerate([(lc, lb), (rc, rb)])
    ]
    out = [
        {a: i for i, a in enumerate((*lb, *free[0]))},
        {a: i for i, a in enumerate(rb)}
        | {a: len(lb) + len(free[0]) + i for i, a in enumerate(free[1])},
    ]
    contracted = [set(lc), set(rc)]
    # Where a digit of both operands is contracted, the same digit must meet itself.
    for i in (0, 1):
        axes = set(op.axes(i))
        if not axes & contracted[i]:
            continue
        batch = (lb, rb)[i]
        if not axes <= contracted[i] | set(batch):
            return op.mixed("it sums over a part of the units only")
        other = op.states[1 - i]
        if isinstance(other, PerUnit):
            mine = op.states[i]
            assert isinstance(mine, PerUnit)
            to = zip(((lc, lb), (rc, rb))[i], ((lc, lb), (rc, rb))[1 - i], strict=True)
            partner = dict(p for a, b in to for p in zip(a, b, strict=True))
            moved = op.place(i, partner.get)
            if moved != other.at(other.digits):
                return op.mixed(_ACROSS)
        return op.apart(i, contracted[i], "it sums over a part of the units only")
    return op.combine(op.place(i, out[i].get, _ACROSS) for i in (0, 1))


def conv(op: Op) -> State:
    """Batch and feature axes may carry units; spatial axes may not."""
    p = op.params
    lhs, rhs, out = p["dimension_numbers"]
    by_feature, by_batch = p["feature_group_count"], p["batch_group_count"]
    for i, mine, partner in ((0, lhs[1], rhs[1]), (1, rhs[1], lhs[1])):
        # In a convolution's own gradient the batch is contracted, as if it were channels.
        if op.axes(i) != (mine,):
            continue
        if by_feature != 1:
            break
        other = op.states[1 - i]
        if isinstance(other, PerUnit):
            if op.place(i, {mine: partner}.get) != other.at(other.digits):
                return op.mixed(_ACROSS)
        return op.total()
    # Convolutions of single units under `vmap` are groups of one convolution.
    for groups, axis in ((by_feature, lhs[1]), (by_batch, lhs[0])):
        if groups > 1 and _outermost(op, 0, axis, groups):
            if _outermost(op, 1, rhs[0], groups):
                return op.place(1, {rhs[0]: out[1]}.get)
    if by_batch != 1 or (by_feature != 1 and op.axes(1)):
        return op.mixed("this grouping of a convolution is not understood")
    where = [{lhs[0]: out[0]}, {rhs[0]: out[1]}]
    return op.combine(
        op.place(i, where[i].get, "it convolves along the axis of units")
        for i in (0, 1)
    )


def _outermost(op: Op, i: int, axis: int, groups: int) -> bool:
    """Whether the units are the slowest index of an axis, and no group holds two."""
    state = op.states[i]
    if not isinstance(state, PerUnit) or len(state.digits) != 1:
        return False
    (d,) = state.digits
    whole = d.size * d.inner == op.shapes[i][axis]
    return d.axis == axis and whole and groups % d.size == 0


RULES = {
    "dot_general": Rule(dot_general, one_of(0, 1)),
    "conv_general_dilated": Rule(conv, one_of(0, 1)),
}
