"""From an equation that sums over units to the terms of the sum.

`AGGREGATORS` has the primitives for which something better is known than `by_unit`, which
runs the equation for each unit alone (its axis kept, at size 1) under `vmap`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax._typing import Array
from privjax.passes.dp.maps import Permuted
from privjax.passes.dp.summed import Summed
from privjax.passes.dp.terms import TOUCHED, Lookup, Product, Rows
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
    pairs = [
        zip(axes[side], axes[1 - side], strict=True) for axes in (contracted, batch)
    ]
    partner = dict(chain(*pairs))
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
    """A convolution kernel's gradient, in which the batch plays the channels.

    The kernel's taps are the output's positions, and the output's cotangent is the
    window. The input's values under the window, for each tap, are one operand of a
    contraction over the window; groups of a grouped convolution stay apart.
    """
    p = eqn.params
    numbers = p["dimension_numbers"]
    lhs, rhs, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    states = _aligned(states, [lhs[1], rhs[1]])
    state = states[0]
    whole = all(isinstance(s, PerUnit) and s.axis is not None for s in states)
    if not whole or not isinstance(state, PerUnit) or p["feature_group_count"] != 1:
        return by_unit(eqn, values, states)
    x = values[0].transpose(lhs[1], *lhs[2:], lhs[0])  # [units, *space, out batch]
    d = values[1].transpose(rhs[1], *rhs[2:], rhs[0])  # [units, *window, out feature]
    dilation = zip(p["padding"], p["lhs_dilation"], strict=True)
    inside = [(lo, hi, k - 1) for (lo, hi), k in dilation]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inside, (0, 0, 0)])
    groups, dtype = p["batch_group_count"], eqn.outvars[0].aval.dtype
    window = d.shape[1:-1]
    length = math.prod(window)
    taps = [eqn.outvars[0].aval.shape[a] for a in out[2:]]
    inputs, n = x.shape[-1] // groups, d.shape[-1] // groups
    m = math.prod(taps) * inputs

    def under(x: Array, tap: tuple[int, ...]) -> Array:
        """[length, groups, inputs]: what one tap of a unit sees."""
        step = np.asarray(p["rhs_dilation"])
        start = np.multiply(tap, p["window_strides"])
        stop = start + (np.asarray(window) - 1) * step + 1
        piece = lax.slice(x, [*start, 0], [*stop, x.shape[-1]], [*step, 1])
        return piece.reshape(length, groups, inputs)

    def operands(x: Array, d: Array) -> tuple[Array, Array]:
        """[groups, length, m] and [groups, length, n] of a unit."""
        seen = jnp.stack([under(x, tap) for tap in np.ndindex(*taps)], axis=2)
        seen, d = seen.reshape(length, groups, m), d.reshape(length, groups, n)
        return seen.swapaxes(0, 1), d.swapaxes(0, 1)

    digits, precision = resolved(state.digits), p["precision"]
    # The kernel as [groups, *taps, inputs, out feature], and where the equation has
    # these axes.
    space = len(taps)
    shape = (groups, *taps, inputs, n)
    to = {out[0]: (space + 1,), out[1]: (0, space + 2)}
    to |= {a: (k + 1,) for k, a in enumerate(out[2:])}
    order = tuple(k for a in range(space + 2) for k in to[a])
    last = Permuted(order, tuple(eqn.outvars[0].aval.shape))
    if length * length * (m + n) + TOUCHED * length * m < TOUCHED * m * n:
        a, b = jax.vmap(operands)(x, d)
        return Summed((Product(a, b, shape, dtype, precision, (last,), digits),))

    def contribution(x: Array, d: Array) -> Array:
        contract = (((1,), (1,)), ((0,), (0,)))
        out = lax.dot_general(*operands(x, d), contract, precision=precision)
        return out.reshape(shape).astype(dtype)

    rows = some_at_a_time(contribution, groups * length * m, x, d)
    return Summed((Rows(rows, (last,), digits),))


def some_at_a_time(run: Callable[..., Array], size: int, *xs: Array) -> Array:
    """`vmap` of `run`, on a CPU of as many units together as stay in its cache.

    `size` is the number of values that one unit takes on the way.
    """
    units = xs[0].shape[0]
    if jax.default_backend() != "cpu" or units * size <= _CACHED:
        return jax.vmap(run)(*xs)
    most = max(1, _CACHED // size)
    together = next(k for k in range(min(most, units), 0, -1) if units % k == 0)
    pieces = [x.reshape(units // together, together, *x.shape[1:]) for x in xs]
    out = lax.map(lambda piece: jax.vmap(run)(*piece), tuple(pieces))
    return out.reshape(units, *out.shape[2:])


# Values that stay in a cache.
_CACHED = 1 << 20


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
    table = values[0].shape
    places = {batch[a] if side == 2 else a for a in n.scatter_indices_batching_dims}
    if places & set(mine.axes):
        return _tables_apart(eqn, values, both, len(batch))
    rows_of_a_table = (
        n.scatter_dims_to_operand_dims == n.inserted_window_dims == (0,)
        and not n.operand_batching_dims
        and n.update_window_dims == tuple(range(len(batch), values[2].ndim))
        and values[2].shape[len(batch) :] == table[1:]
        and values[1].shape[-1] == 1
    )
    if not rows_of_a_table or len(table) < 2:
        return by_unit(eqn, values, [states[0], *both])
    ids = split_units(values[1], both[0].digits)
    updates = split_units(values[2], both[1].digits)
    ids = ids.reshape(ids.shape[0], -1)
    if eqn.params["mode"] == lax.GatherScatterMode.CLIP:
        ids = jnp.clip(ids, 0, table[0] - 1)
    flat = (table[0], math.prod(table[1:]))
    updates = updates.reshape(*ids.shape, flat[1])
    dtype = eqn.outvars[0].aval.dtype
    term: Lookup = Lookup(ids, updates, flat, dtype, (), resolved(mine.digits))
    if len(table) > 2:
        term = term.mapped(Permuted((0, 1), table))
    return Summed((term,))


def _tables_apart(
    eqn: Any, values: Sequence[Array], states: Sequence[PerUnit], batch: int
) -> Summed:
    """Rows added to one table for each micro-batch: [1, rows, ...] of a unit's own."""
    n, table = eqn.params["dimension_numbers"], values[0].shape[1:]
    usual = (
        n.operand_batching_dims == n.scatter_indices_batching_dims == (0,)
        and n.scatter_dims_to_operand_dims == n.inserted_window_dims == (1,)
        and n.update_window_dims == tuple(range(batch, values[2].ndim))
        and values[2].shape[batch:] == table[1:]
        and eqn.params["mode"] != lax.GatherScatterMode.CLIP
    )
    ids, updates = (
        split_units(x, s.digits) for x, s in zip(values[1:], states, strict=True)
    )
    dtype, digits = eqn.outvars[0].aval.dtype, resolved(states[0].digits)
    if usual:
        ids = ids.reshape(ids.shape[0], -1)
        flat = (table[0], math.prod(table[1:]))
        updates = updates.reshape(*ids.shape, flat[1])
        term: Lookup = Lookup(ids, updates, flat, dtype, (), digits)
        return Summed((term.mapped(Permuted((0, 1), (1, *table))),))
    at = n.operand_batching_dims
    one = tuple(1 if a in at else k for a, k in enumerate(values[0].shape))
    zeros = jnp.zeros(one, dtype)
    run = jax.vmap(lambda i, u: _compat.bind(eqn, [zeros, i, u])[0])
    return Summed((Rows(run(ids, updates), (), digits),))


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


def remaining(eqn: Any, states: Sequence[State]) -> int:
    """Which digit of the unit index the equation keeps while it sums over the others."""
    side = next(k for k, s in enumerate(states) if isinstance(s, PerUnit) and s.axes)
    state, p = states[side], eqn.params
    assert isinstance(state, PerUnit)
    if eqn.primitive.name == "dot_general":
        kept = set(p["dimension_numbers"][1][side])
    elif eqn.primitive.name == "scatter-add":
        n, rank = p["dimension_numbers"], eqn.invars[2].aval.ndim
        batch = [a for a in range(rank) if a not in n.update_window_dims]
        paired = n.scatter_indices_batching_dims
        kept = set(paired) if side == 1 else {batch[a] for a in paired}
    else:
        kept = set(state.axes) - set(p["axes"])
    return next(k for k, d in enumerate(state.digits) if d.axis in kept)


Aggregator = Callable[[Any, Sequence[Array], Sequence[State]], Summed]

AGGREGATORS: dict[str, Aggregator] = {
    "reduce_sum": reduce_sum,
    "psum": reduce_sum,
    "dot_general": dot_general,
    "conv_general_dilated": conv,
    "scatter-add": scatter_add,
    "squeeze": by_unit,
}
