"""From an equation that sums over units to the terms of the sum.

`AGGREGATORS` has the primitives for which something better is known than `by_unit`, which
runs the equation for each unit alone (its axis kept, at size 1) under `vmap`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax._typing import Array
from privjax.passes.dp.terms import Product, Rows, Summed
from privjax.passes.units import layout
from privjax.passes.units.states import Digit, PerUnit, State


def resolved(digits: Sequence[Digit]) -> tuple[Digit, ...]:
    """Digits as a term keeps them: sizes, and the loops that are still running."""
    return tuple(replace(d, axis=None, inner=1) for d in digits)


def split_units(x: Array, digits: Sequence[Digit]) -> Array:
    """[units, ...]: the axes that carried units remain, with what is left of them."""
    here = [d for d in digits if d.axis is not None]
    axis = PerUnit(tuple(here)).axis
    if axis is not None and x.shape[axis] == here[0].size:
        return jnp.expand_dims(jnp.moveaxis(x, axis, 0), axis + 1)
    groups = layout.factors(x.shape, here)
    flat = [f for g in groups for f in g]
    fine = x.reshape([size for size, _ in flat])
    where: dict[int, int] = {k: i for i, (_, k) in enumerate(flat) if k is not None}
    front = [where[k] for k in range(len(here))]
    rest = [i for i, (_, k) in enumerate(flat) if k is None]
    left = [math.prod(size for size, k in g if k is None) for g in groups]
    units = math.prod(d.size for d in here)
    return fine.transpose(*front, *rest).reshape(units, *left)


def by_unit(
    eqn: Any, values: Sequence[Array], states: Sequence[State], result: int = 0
) -> Summed:
    """The general way: the equation on one unit at a time."""
    digits: tuple[Digit, ...] = ()
    operands: list[Array] = []
    axes: list[int | None] = []
    for value, state in zip(values, states, strict=True):
        if isinstance(state, PerUnit) and state.axes:
            digits = state.digits
            operands.append(split_units(value, state.digits))
            axes.append(0)
        else:
            operands.append(value)
            axes.append(None)
    run = jax.vmap(lambda *xs: _compat.bind(eqn, xs)[result], in_axes=axes)
    return Summed((Rows(run(*operands), (), resolved(digits)),))


def reduce_sum(eqn: Any, values: Sequence[Array], states: Sequence[State]) -> Summed:
    """Sum what is not units first."""
    (x,), (state,) = values, states
    assert isinstance(state, PerUnit)
    rows = split_units(x, state.digits)
    over = tuple(a + 1 for a in eqn.params["axes"])
    return Summed((Rows(jnp.sum(rows, axis=over), (), resolved(state.digits)),))


def dot_general(eqn: Any, values: Sequence[Array], states: Sequence[State]) -> Summed:
    """Keep both operands, as [units, batch, contracted, free]."""
    contracted, batch = eqn.params["dimension_numbers"]
    side = next(i for i in (0, 1) if isinstance(states[i], PerUnit))
    mine = states[side]
    assert isinstance(mine, PerUnit)
    partner = dict(zip(contracted[side], contracted[1 - side], strict=True))
    moved = tuple(
        d if d.axis is None else replace(d, axis=partner[d.axis]) for d in mine.digits
    )
    digits = [mine.digits, moved] if side == 0 else [moved, mine.digits]
    parts, shapes = [], []
    for i in (0, 1):
        x = split_units(values[i], digits[i])
        c = [a + 1 for a in contracted[i]]
        b = [a + 1 for a in batch[i]]
        free = [a for a in range(1, x.ndim) if a not in (*c, *b)]
        size = [math.prod(x.shape[a] for a in axes) for axes in (b, c, free)]
        shapes.append(([x.shape[a] for a in b], [x.shape[a] for a in free]))
        parts.append(x.transpose(0, *b, *c, *free).reshape(x.shape[0], *size))
    shape = (*shapes[0][0], *shapes[0][1], *shapes[1][1])
    dtype = eqn.outvars[0].aval.dtype
    precision = eqn.params["precision"]
    left, right = parts
    product = Product(left, right, shape, dtype, precision, (), resolved(mine.digits))
    return Summed((product,))


def conv(eqn: Any, values: Sequence[Array], states: Sequence[State]) -> Summed:
    """A convolution kernel's gradient: one batched product per tap of the kernel.

    In the backward equation the batch plays the channels, the kernel's taps are the
    output's positions, and the output's cotangent is the window.
    """
    p = eqn.params
    numbers = p["dimension_numbers"]
    lhs, rhs = numbers.lhs_spec, numbers.rhs_spec
    states = _aligned(states, [lhs[1], rhs[1]])
    whole = all(isinstance(s, PerUnit) and s.axis is not None for s in states)
    if not whole or p["batch_group_count"] != 1:
        return by_unit(eqn, values, states)
    x = values[0].transpose(lhs[1], lhs[0], *lhs[2:])  # [units, out batch, *space]
    d = values[1].transpose(rhs[1], rhs[0], *rhs[2:])  # [units, out feature, *window]
    space = len(lhs) - 2
    dilation = zip(p["padding"], p["lhs_dilation"], strict=True)
    inside = [(lo, hi, k - 1) for (lo, hi), k in dilation]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *inside])
    out_shape = eqn.outvars[0].aval.shape
    taps = [out_shape[a] for a in numbers.out_spec[2:]]
    window = d.shape[2:]
    flat_d = d.reshape(*d.shape[:2], -1)
    products = []
    for tap in np.ndindex(*taps):
        step = np.asarray(p["rhs_dilation"])
        start = np.multiply(tap, p["window_strides"])
        stop = start + (np.asarray(window) - 1) * step + 1
        piece = lax.slice(x, [0, 0, *start], [*x.shape[:2], *stop], [1, 1, *step])
        piece = piece.reshape(*piece.shape[:2], -1)
        products.append(
            lax.dot_general(
                piece, flat_d, (((2,), (2,)), ((0,), (0,))), precision=p["precision"]
            )
        )
    rows = jnp.stack(products, axis=3).reshape(*products[0].shape, *taps)
    # Now [units, out batch, out feature, *taps]: put them where the equation has them.
    to = {a: i + 1 for i, a in enumerate(numbers.out_spec)}
    rows = rows.transpose(0, *(to[a] for a in range(space + 2)))
    state = states[0]
    assert isinstance(state, PerUnit)
    dtype = eqn.outvars[0].aval.dtype
    return Summed((Rows(rows.astype(dtype), (), resolved(state.digits)),))


def scatter_add(eqn: Any, values: Sequence[Array], states: Sequence[State]) -> Summed:
    """Rows of indices and of updates belong to the same units, also if one is public."""
    n = eqn.params["dimension_numbers"]
    batch = [
        a for a in range(values[2].ndim) if a not in n.update_window_dims
    ]  # axis k of the indices is axis batch[k] of the updates
    side = 1 if isinstance(states[1], PerUnit) else 2
    mine = states[side]
    assert isinstance(mine, PerUnit)
    to = dict(enumerate(batch)) if side == 1 else {a: k for k, a in enumerate(batch)}
    partner = replace(
        mine,
        digits=tuple(
            d if d.axis is None else replace(d, axis=to[d.axis]) for d in mine.digits
        ),
    )
    both = [mine, partner] if side == 1 else [partner, mine]
    return by_unit(eqn, values, [states[0], *both])


def _aligned(states: Sequence[State], axes: Sequence[int]) -> list[State]:
    """Both operands of a contraction as per unit, also if one is public."""
    mine = next(s for s in states if isinstance(s, PerUnit))
    return [
        s
        if isinstance(s, PerUnit)
        else replace(
            mine,
            digits=tuple(
                d if d.axis is None else replace(d, axis=axis) for d in mine.digits
            ),
        )
        for s, axis in zip(states, axes, strict=True)
    ]


Aggregator = Callable[[Any, Sequence[Array], Sequence[State]], Summed]

AGGREGATORS: dict[str, Aggregator] = {
    "reduce_sum": reduce_sum,
    "dot_general": dot_general,
    "conv_general_dilated": conv,
    "scatter-add": scatter_add,
    "squeeze": by_unit,
}
