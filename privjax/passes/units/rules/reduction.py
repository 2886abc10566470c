"""Reductions and scans along an axis, sorting, and linear algebra on trailing axes."""

from collections.abc import Callable

from privjax.passes.units.op import Op, Rule, always
from privjax.passes.units.states import State


def reduced(op: Op, axes: tuple[int, ...]) -> State:
    """Units stay, in what is left of the shape."""
    kept = [a for a in range(len(op.shapes[0])) if a not in axes]
    where = {a: i for i, a in enumerate(kept)}
    return op.combine(
        op.place(i, where.get, "it combines the units other than by a sum")
        for i in range(len(op.states))
        if op.is_unit(i)
    )


def over_axes(op: Op) -> State:
    return reduced(op, tuple(op.params["axes"]))


def reduce_sum(op: Op) -> State:
    """Summing over all digits of the unit index is what makes a sum."""
    over = set(op.params["axes"])
    axes = set(op.axes(0))
    if axes and axes <= over:
        return op.total()
    if axes & over:
        return op.apart(0, over, "it sums over a part of the units only")
    return over_axes(op)


def over_named_axis(op: Op, rule: Callable[[Op], State]) -> list[State]:
    """A collective over an axis that `vmap` named has become one over that axis."""
    if not all(isinstance(a, int) for a in op.params["axes"]):
        return [op.mixed("units spread over devices by hand are not followed")]
    if op.params["axis_index_groups"] is not None or len(op.states) > 1:
        return [op.mixed("collectives of groups are not followed")]
    return [rule(op)]


def generic_reduce(op: Op) -> list[State]:
    return [reduced(op, tuple(op.params["dimensions"]))] * len(op.out_shapes)


def along(param: str) -> Callable[[Op], State | list[State]]:
    """The values along one axis interact; it must not be the axis of units."""

    def rule(op: Op) -> State | list[State]:
        used = op.params[param]
        state = op.combine(
            op.place(
                i,
                lambda a: None if a == used else a,
                "it works along the axis of units",
            )
            for i in range(len(op.states))
            if op.is_unit(i)
        )
        return [state] * len(op.out_shapes)

    return rule


def leading(trailing: int) -> Callable[[Op], State | list[State]]:
    """Works on the last `trailing` axes; those before are a batch."""

    def rule(op: Op) -> State | list[State]:
        def batch(i: int) -> dict[int, int]:
            return {a: a for a in range(len(op.shapes[i]) - trailing)}

        state = op.combine(
            op.place(i, batch(i).get, "it works along the axis of units")
            for i in range(len(op.states))
            if op.is_unit(i)
        )
        return [state] * len(op.out_shapes)

    return rule


def fft(op: Op) -> State:
    used = len(op.params["fft_lengths"])
    batch = len(op.shapes[0]) - used
    return op.place(0, lambda a: a if a < batch else None, "it transforms the units")


REDUCTIONS = """reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor
    argmax argmin""".split()
CUMULATIVE = "cumlogsumexp cummax cummin cumprod".split()
MATRICES = """cholesky lu qr eigh svd eig schur hessenberg tridiagonal geqrf geqp3
    householder_product triangular_solve symmetric_product ormqr""".split()

RULES = {
    "reduce_sum": Rule(reduce_sum, always),
    "psum": Rule(lambda op: over_named_axis(op, reduce_sum), always),
    "pmax": Rule(lambda op: over_named_axis(op, over_axes)),
    "pmin": Rule(lambda op: over_named_axis(op, over_axes)),
    "reduce": Rule(generic_reduce),
    **dict.fromkeys(REDUCTIONS, Rule(over_axes)),
    **dict.fromkeys(CUMULATIVE, Rule(along("axis"))),
    "cumsum": Rule(along("axis"), always),
    "sort": Rule(along("dimension")),
    "top_k": Rule(along("axis")),
    "fft": Rule(fft, always),
    "lu_pivots_to_permutation": Rule(leading(1)),
    **dict.fromkeys(MATRICES, Rule(leading(2))),
}
