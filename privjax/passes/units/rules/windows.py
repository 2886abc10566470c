"""Pooling: windows that must not reach across units."""

from privjax.passes.units.op import Op, Rule, all_of, always
from privjax.passes.units.states import State


def alone(op: Op, axis: int) -> bool:
    """Whether every window holds one position along `axis`, and none is skipped."""
    p = op.params
    trivial = {
        "window_strides": 1,
        "base_dilation": 1,
        "window_dilation": 1,
        "padding": (0, 0),
    }
    return (
        p["window_dimensions"][axis] == 1
        and all(
            p[name] is None or p[name][axis] == value or tuple(p[name]) == ()
            for name, value in trivial.items()
            if name in p and name != "padding"
        )
        and tuple(p["padding"][axis]) == (0, 0)
    )


def windowed(op: Op) -> State:
    why = "its windows reach across units"
    return op.combine(
        op.place(i, lambda a: a if alone(op, a) else None, why)
        for i in range(len(op.states))
        if op.is_unit(i) and len(op.shapes[i]) == len(op.out_shapes[0])
    )


RULES = {
    **dict.fromkeys(
        ["reduce_window_max", "reduce_window_min", "select_and_gather_add"],
        Rule(windowed),
    ),
    "reduce_window_sum": Rule(windowed, always),
    "select_and_scatter_add": Rule(windowed, all_of(0)),
}
