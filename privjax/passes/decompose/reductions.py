"""Reductions, cumulative operations and positions of extrema.

An extremum is found by a tournament. Groups of two make a binary tree; in a larger group
all pairs are compared at once, and the entry that beats all others is picked out: more
comparisons in fewer rounds. The sizes of the groups are chosen by counted cost.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex_core

from privjax.passes.decompose.elementary import maximum, minimum

# Costs in units of one comparison of numbers, which sends about 40 bytes. A round takes
# as long as a thousand of them: half a millisecond on a local network of 1 Gbit/s.
ROUND = 1000.0
COMPARISON_ROUNDS = 6
SELECTION = 0.5  # a product by a bit
GATE = 0.05  # an AND

Combine = Callable[[Any, Any], Any]


def greater(x: Any, y: Any) -> Any:
    """x > y, of booleans too."""
    return less(y, x) if x.dtype == bool else lax.gt(x, y)


def less(x: Any, y: Any) -> Any:
    """x < y, of booleans too."""
    return lax.bitwise_and(lax.bitwise_not(x), y) if x.dtype == bool else lax.lt(x, y)


def rows(x: Any, positions: Any) -> Any:
    """Entries of the leading axis at public positions, which are known to be inside."""
    if not isinstance(positions, jax.Array):
        positions = _constant(tuple(int(i) for i in positions))
    dims = lax.GatherDimensionNumbers(
        tuple(range(1, x.ndim)), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    inside = lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return lax.gather(x, positions[:, None], dims, (1, *x.shape[1:]), mode=inside)


@lru_cache(maxsize=1024)
def _constant(positions: tuple[int, ...]) -> Any:
    return np.array(positions, np.int32)  # one object: equal gathers merge


def summed(flags: Any, x: Any) -> Any:
    """The entry of the leading axis whose flag is set, at most one per lane."""
    if x.dtype == bool:
        return halving(flags & x, lax.bitwise_xor)
    flags = jnp.broadcast_to(flags, x.shape)
    return jnp.sum(lax.select(flags, x, jnp.zeros_like(x)), 0, dtype=x.dtype)


# -- trees ---------------------------------------------------------------------------------


def halving(x: Any, combine: Combine) -> Any:
    """Combine all entries of the leading axis pairwise: log2(n) levels."""
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        pairs = combine(x[:half], x[half : 2 * half])
        x = jnp.concatenate([pairs, x[2 * half :]]) if x.shape[0] % 2 else pairs
    return x[0]


def closed(jaxpr: Any, consts: Sequence[Any]) -> Any:
    """A jaxpr with its constants, which JAX 0.10 keeps beside it."""
    return jaxpr if hasattr(jaxpr, "consts") else jex_core.ClosedJaxpr(jaxpr, consts)


def elementwise(jaxpr: Any) -> Callable[..., list[Any]]:
    """A jaxpr on scalars as a function of arrays of one shape."""
    fun = jex_core.jaxpr_as_fun(jaxpr)

    def on_arrays(*xs: Any) -> list[Any]:
        shape = xs[0].shape
        out = jax.vmap(fun)(*(x.reshape(-1) for x in xs))
        return [y.reshape(shape) for y in out]

    return on_arrays


def in_order(xs: Sequence[Any], combine: Callable[..., Sequence[Any]]) -> Sequence[Any]:
    """Combine the entries of the leading axis of several arrays, neighbours first."""
    while xs[0].shape[0] > 1:
        even = xs[0].shape[0] // 2 * 2
        pairs = combine(*(x[:even:2] for x in xs), *(x[1:even:2] for x in xs))
        xs = [jnp.concatenate([p, x[even:]]) for p, x in zip(pairs, xs, strict=True)]
    return [x[0] for x in xs]


def leading(x: Any, axes: Sequence[int]) -> Any:
    """Move `axes` to the front and flatten them."""
    rest = [d for i, d in enumerate(x.shape) if i not in axes]
    count = math.prod(x.shape[a] for a in axes)
    return jnp.moveaxis(x, axes, range(len(axes))).reshape(count, *rest)


# -- tournaments ---------------------------------------------------------------------------


def first_best(
    v: Any,
    better: Combine,
    carried: Sequence[Any] = (),
    valid: Any = None,
    flagged: bool = False,
) -> tuple[Any, list[Any], Any]:
    """(best, entries of `carried` where it is, flags) along the leading axis.

    Of equal entries the first one wins. Entries that are not `valid` (public, of a shape
    that broadcasts to that of `v`) lose against all others. The flags mark the position
    of the best in each lane; they are found along the way, without a further round.
    """
    n, lanes, boolean = v.shape[0], math.prod(v.shape[1:]), bool(v.dtype == bool)
    columns = [v, *carried]
    members = np.arange(n)[:, None]  # entries below each survivor, -1 for none
    flags = jnp.ones((n, 1, *v.shape[1:]), bool)
    while columns[0].shape[0] > 1:
        size = group_size(columns[0].shape[0], lanes, boolean)
        groups = columns[0].shape[0] // size
        alive: Any = None if valid is None else _grouped(valid, groups, size)
        wins, won = _round_robin(
            [_grouped(c, groups, size) for c in columns], better, alive
        )
        inside = groups * size
        columns = [_followed(w, c[inside:]) for w, c in zip(won, columns, strict=True)]
        if valid is not None:
            valid = _followed(alive.any(0), valid[inside:])
        if flagged:
            below = _grouped(flags, groups, size) & wins[:, :, None]
            flags = _regrouped(jnp.moveaxis(below, 0, 1), flags[inside:], False)
            part = members[:inside].reshape(groups, size, -1)
            members = _regrouped(part, members[inside:], -1)
    if not flagged:
        return columns[0][0], [c[0] for c in columns[1:]], None
    (places,) = np.nonzero(np.asarray(members)[0] >= 0)
    every = len(places) == flags.shape[1]
    flags = flags[0] if every else rows(flags[0], places)
    return columns[0][0], [c[0] for c in columns[1:]], flags


def _grouped(x: Any, groups: int, size: int) -> Any:
    """[size, groups, ...] of the leading axis."""
    part = x[: groups * size].reshape(groups, size, *x.shape[1:])
    return jnp.moveaxis(part, 1, 0)


def _followed(x: Any, rest: Any) -> Any:
    return jnp.concatenate([x, rest]) if rest.shape[0] else x


def _regrouped(groups: Any, rest: Any, filler: Any) -> Any:
    """[groups, size, members] and [rest, members] as one [survivors, more members]."""
    xp = np if isinstance(groups, np.ndarray) else jnp
    n, size, below, *lanes = groups.shape
    flat = groups.reshape(n, size * below, *lanes)
    if not rest.shape[0]:
        return flat
    missing = xp.full((rest.shape[0], (size - 1) * below, *lanes), filler)
    return xp.concatenate([flat, xp.concatenate([rest, missing], 1)])


def _round_robin(
    columns: Sequence[Any], better: Combine, valid: Any
) -> tuple[Any, list[Any]]:
    """(who wins, its entries of all columns) along the leading axis."""
    v = columns[0]
    size = v.shape[0]
    if size == 2:
        later = better(v[1], v[0])
        if valid is not None:  # public
            later = (later & (valid[0] & valid[1])) ^ (valid[1] & ~valid[0])
        won = [lax.select(later, c[1], c[0]) for c in columns]
        return jnp.stack([~later, later]), won
    first, second = np.triu_indices(size, 1)
    later = better(rows(v, second), rows(v, first))
    if valid is not None:
        a, b = rows(valid, first), rows(valid, second)
        later = (later & (a & b)) ^ (b & ~a)
    pair, is_second = opponents(size)
    each = rows(later, pair.ravel()).reshape(size, size - 1, *v.shape[1:])
    beats = each ^ ~is_second.reshape(size, size - 1, *[1] * (v.ndim - 1))
    wins = halving(jnp.moveaxis(beats, 1, 0), lax.bitwise_and)
    return wins, [summed(wins, c) for c in columns]


@lru_cache(maxsize=128)
def opponents(size: int) -> tuple[Any, Any]:
    """For each entry and opponent: the number of their pair, and who is second in it."""
    first, second = np.triu_indices(size, 1)
    number = np.zeros((size, size), np.int32)
    number[first, second] = number[second, first] = np.arange(len(first))
    others = np.array([[j for j in range(size) if j != i] for i in range(size)])
    return np.take_along_axis(number, others, 1), others < np.arange(size)[:, None]


def group_size(n: int, lanes: int, boolean: bool) -> int:
    """The size of the groups that n entries are best compared in."""
    return _tournament(n, lanes, boolean)[1]


# Larger groups than these never pay, except all at once.
_SIZES = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32)


@lru_cache(maxsize=65536)
def _tournament(n: int, lanes: int, boolean: bool) -> tuple[float, int]:
    """(cost of a tournament of n entries, size of its first groups)"""
    if n <= 1:
        return 0.0, 1
    unit, rounds = (GATE, 1) if boolean else (1.0, COMPARISON_ROUNDS)
    best = math.inf, 2
    for size in {s for s in _SIZES if s <= n} | ({n} if n <= 64 else set()):
        groups, rest = divmod(n, size)
        per_group = size * (size - 1) / 2 * unit + SELECTION
        levels = rounds + 1
        if size > 2:
            per_group += size * (size - 2) * GATE + (size - 1) * SELECTION
            levels += math.ceil(math.log2(size - 1))
        cost = levels * ROUND + groups * lanes * per_group
        best = min(best, (cost + _tournament(groups + rest, lanes, boolean)[0], size))
    return best


def _arg(x: Any, axes: Any, index_dtype: Any, better: Combine) -> Any:
    (axis,) = axes
    v = jnp.moveaxis(x, axis, 0)
    index = lax.broadcasted_iota(np.dtype(index_dtype), v.shape, 0)
    return first_best(v, better, [index])[1][0]


def _argmax(x: Any, *, axes: Any, index_dtype: Any) -> Any:
    return _arg(x, axes, index_dtype, greater)


def _argmin(x: Any, *, axes: Any, index_dtype: Any) -> Any:
    return _arg(x, axes, index_dtype, less)


def lowest(dtype: Any) -> Any:
    """What every value of a type is at least."""
    if np.dtype(dtype) == bool:
        return np.array(False)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf, dtype)
    return np.array(np.iinfo(dtype).min, dtype)


def highest(dtype: Any) -> Any:
    """What every value of a type is at most."""
    if np.dtype(dtype) == bool:
        return np.array(True)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(np.inf, dtype)
    return np.array(np.iinfo(dtype).max, dtype)


def _extreme(better: Combine, identity: Callable[[Any], Any]) -> Callable[..., Any]:
    def rule(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
        v = leading(x, axes)
        if v.shape[0] == 0:
            return jnp.full(v.shape[1:], identity(x.dtype))
        return first_best(v, better)[0]

    return rule


def _tree(combine: Combine, identity: Callable[[Any], Any]) -> Callable[..., Any]:
    def rule(x: Any, *, axes: Any, out_sharding: Any = None) -> Any:
        v = leading(x, axes)
        if v.shape[0] == 0:
            return jnp.full(v.shape[1:], identity(x.dtype))
        return halving(v, combine)

    return rule


def _reduce(*values: Any, computation: Any, jaxpr: Any, dimensions: Any) -> Any:
    """`lax.reduce` with any function: a tree that keeps the order of the entries."""
    n = len(values) // 2
    arrays = [leading(x, sorted(dimensions)) for x in values[:n]]
    init = [
        jnp.broadcast_to(i, x.shape[1:])
        for i, x in zip(values[n:], arrays, strict=True)
    ]
    if arrays[0].shape[0] == 0:
        return init
    combine = elementwise(jaxpr)
    return combine(*init, *in_order(arrays, combine))


# -- cumulative ----------------------------------------------------------------------------


def prefixes(v: Any, combine: Combine) -> Any:
    """All prefixes along the leading axis (Sklansky 1960): log2(n) levels, each of n/2."""
    n, step = v.shape[0], 1
    while step < n:
        i = np.arange(n)
        right = i // step % 2 == 1
        source = i[right] // step * step - 1
        changed = combine(rows(v, source), rows(v, i[right]))
        place = np.where(right, n + np.cumsum(right) - 1, i)
        v = rows(jnp.concatenate([v, changed]), place)
        step *= 2
    return v


def _cumulative(combine: Combine) -> Callable[..., Any]:
    def rule(x: Any, *, axis: int, reverse: bool) -> Any:
        v = jnp.moveaxis(x, axis, 0)
        if v.size == 0:
            return x
        v = prefixes(v[::-1], combine)[::-1] if reverse else prefixes(v, combine)
        return jnp.moveaxis(v, 0, axis)

    return rule


def _logaddexp(x: Any, y: Any) -> Any:
    high = maximum(x, y)
    return high + lax.log1p(lax.exp(minimum(x, y) - high))


def _all_ones(dtype: Any) -> Any:
    return np.array(True) if np.dtype(dtype) == bool else np.array(-1).astype(dtype)


def _zero(dtype: Any) -> Any:
    return np.zeros((), dtype)


def _one(dtype: Any) -> Any:
    return np.ones((), dtype)


# Shardings change no value.
RULES: dict[str, Callable[..., Any]] = {
    "reduce": _reduce,
    "reduce_max": _extreme(greater, lowest),
    "reduce_min": _extreme(less, highest),
    "reduce_prod": _tree(lax.mul, _one),
    "reduce_and": _tree(lax.bitwise_and, _all_ones),
    "reduce_or": _tree(lax.bitwise_or, _zero),
    "reduce_xor": _tree(lax.bitwise_xor, _zero),
    "argmax": _argmax,
    "argmin": _argmin,
    "cummax": _cumulative(maximum),
    "cummin": _cumulative(minimum),
    "cumprod": _cumulative(lax.mul),
    "cumlogsumexp": _cumulative(_logaddexp),
}
