"""Positions and order: one-hot vectors of secret integers, sorting, the largest k.

A one-hot vector comes from comparisons with all thresholds (XOR of neighbours), or from
the bits of the integer and a tree of ANDs. Few entries are sorted by rank: all pairs are
compared at once, the rank of an entry counts those before it, and its one-hot vector
places it: rounds that do not depend on n. More go through Batcher's merge exchange
(Knuth, vol. 3, 5.2.2 M), whose stages are the steps of one scan, with public
permutations between them. Counted cost decides between the two.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.errors import UnsupportedError
from privjax.passes.decompose.reductions import (
    COMPARISON_ROUNDS,
    GATE,
    ROUND,
    SELECTION,
    greater,
    halving,
    less,
    opponents,
    rows,
)

# An integer beyond the positions counts as the nearest, as none, or cannot be.
CLIP, DROP, INSIDE = "clip", "drop", "inside"

Before = Callable[[Sequence[Any], Sequence[Any]], Any]


# -- one-hot vectors -----------------------------------------------------------------------


def one_hot(index: Any, n: int, outside: str = DROP) -> Any:
    """bool[..., n] of a secret integer array."""
    (hot,) = digits(index, n, outside, 0)
    return hot


def digits(index: Any, n: int, outside: str, low_bits: int) -> list[Any]:
    """One-hot vectors [..., A], [..., 2^low_bits] whose product over digits is that of n.

    One vector [..., n] when `low_bits` is 0.
    """
    if low_bits == 0 and by_thresholds(n, math.prod(index.shape), outside):
        return [_from_thresholds(index, n, outside)]
    bits = _bits(index, max(1, (n - 1).bit_length()))
    counts = [-(-n // (1 << low_bits)), 1 << low_bits]
    parts = [bits[..., low_bits:], bits[..., :low_bits]]
    hots = [_from_bits(b, c) for b, c in zip(parts, counts, strict=True) if b.shape[-1]]
    if outside == INSIDE:
        return hots
    low, high = _beyond(index, n)
    if outside == DROP:
        return [_without(hots[0], low, high), *hots[1:]]
    last = [(n - 1) >> low_bits, (n - 1) % (1 << low_bits)]
    return [_moved_in(h, low, high, at) for h, at in zip(hots, last, strict=False)]


def by_thresholds(n: int, count: int, outside: str) -> bool:
    ends = 0 if outside == INSIDE else 2
    bits = max(1, (n - 1).bit_length())
    thresholds = COMPARISON_ROUNDS * ROUND + count * (n - 1 + (outside == DROP) * 2)
    levels = math.ceil(math.log2(bits)) + (ends > 0)
    by_bits = (COMPARISON_ROUNDS + levels) * ROUND + count * (
        bits + ends + 1.5 * n * GATE
    )
    return thresholds <= by_bits


def _from_thresholds(index: Any, n: int, outside: str) -> Any:
    """[i < k] changes from 0 to 1 behind the index: XOR of neighbours."""
    first, last = (0, n) if outside == DROP else (1, n - 1)
    word = wide(index, n)
    k = lax.broadcasted_iota(word.dtype, (*word.shape, last - first + 1), word.ndim)
    below = lax.lt(jnp.broadcast_to(word[..., None], k.shape), k + _as(first, word))
    if outside != DROP:
        edge = (*word.shape, 1)
        ends = jnp.zeros(edge, bool), jnp.ones(edge, bool)
        below = jnp.concatenate([ends[0], below, ends[1]], -1)
    return below[..., 1:] ^ below[..., :-1]


def wide(index: Any, n: int) -> Any:
    """The index in a type that holds n."""
    return index if np.iinfo(index.dtype).max >= n else index.astype(np.int32)


def _as(value: int, like: Any) -> Any:
    return np.array(value, like.dtype)


def _bits(index: Any, count: int) -> Any:
    """bool[..., count], lowest first: each is the sign once it has been shifted up."""
    word = index.astype(np.int32)[..., None]
    shape = (*index.shape, count)
    up = _as(31, word) - lax.broadcasted_iota(np.int32, shape, index.ndim)
    return lax.lt(lax.shift_left(jnp.broadcast_to(word, shape), up), _as(0, word))


def _from_bits(bits: Any, count: int) -> Any:
    """bool[..., count]: products of the one-hot vectors of the high and the low half."""
    used = max(1, (count - 1).bit_length())
    if count == 1:
        return jnp.ones((*bits.shape[:-1], 1), bool)
    if used == 1:
        return jnp.concatenate([~bits[..., :1], bits[..., :1]], -1)
    half = used // 2
    low = _from_bits(bits[..., :half], 1 << half)
    high = _from_bits(bits[..., half:], -(-count // (1 << half)))
    both = high[..., :, None] & low[..., None, :]
    return both.reshape(*bits.shape[:-1], -1)[..., :count]


def _beyond(index: Any, n: int) -> tuple[Any, Any]:
    """(index < 0, index >= n), None where the type cannot hold such a value."""
    info = np.iinfo(index.dtype)
    low = lax.lt(index, _as(0, index)) if info.min < 0 else None
    high = lax.gt(index, _as(n - 1, index)) if info.max > n - 1 else None
    return low, high


def _without(hot: Any, low: Any, high: Any) -> Any:
    outside = [b for b in (low, high) if b is not None]
    if not outside:
        return hot
    return hot & ~reduce(lax.bitwise_xor, outside)[..., None]


def _moved_in(hot: Any, low: Any, high: Any, last: int) -> Any:
    """An index below the first position selects it, one above the last one that."""
    hot = _without(hot, low, high)
    for where, at in ((low, 0), (high, last)):
        if where is not None:
            here = np.arange(hot.shape[-1]) == at
            hot = hot ^ (where[..., None] & here)
    return hot


@lru_cache(maxsize=1024)
def low_digit(n: int, count: int, width: int) -> int:
    """How many bits the low digit of `count` indices best has; 0 for a single digit.

    For a contraction with a table of n rows of `width` entries, by what is opened.
    """
    best = count * n * 0.6, 0
    for low in range(1, max(1, (n - 1).bit_length())):
        high, size = -(-n >> low), 1 << low
        opened = count * 0.6 * (high + size + size * width)
        best = min(best, (opened + 2 * ROUND, low))
    return best[1]


# -- order ---------------------------------------------------------------------------------


def lexicographic(first: Sequence[Any], second: Sequence[Any]) -> Any:
    """Whether the entries of `first` come before those of `second`, key by key."""
    before = less(first[-1], second[-1])
    for x, y in zip(first[-2::-1], second[-2::-1], strict=True):
        smaller, larger = less(x, y), less(y, x)
        before = smaller ^ (~(smaller ^ larger) & before)
    return before


def _sort(*operands: Any, dimension: int, is_stable: bool, num_keys: int) -> list[Any]:
    """`lax.sort` of several operands by the first `num_keys`."""
    arrays = [jnp.moveaxis(x, dimension, 0) for x in operands]
    n, lanes = arrays[0].shape[0], math.prod(arrays[0].shape[1:])
    if n <= 1 or lanes == 0:
        return list(operands)
    if by_rank(n, n, lanes) <= _by_network(n, lanes):
        ranks = _ranks(arrays[:num_keys], lexicographic)
        out = _placed(ranks, arrays, n)
    else:
        # A network keeps no order among equal entries: their numbers decide.
        ties = is_stable and num_keys < len(arrays)
        out = through_network(arrays, num_keys, ties)
    return [jnp.moveaxis(x, 0, dimension) for x in out]


def by_rank(n: int, kept: int, lanes: int) -> float:
    """Cost of comparing all pairs of n entries and placing `kept` of them."""
    bits = max(1, (n - 1).bit_length())
    levels = math.ceil(math.log2(bits)) if bits > 1 else 0
    rounds = 2 * COMPARISON_ROUNDS + levels + 2
    per_lane = n * (n - 1) / 2 + n * bits + n * kept * (1.5 * GATE + SELECTION)
    return rounds * ROUND + lanes * per_lane


def _by_network(n: int, lanes: int) -> float:
    depth, width = _network(n)[0].shape[0], _network(n)[1].shape[1]
    per_stage = width * (1 + 2 * SELECTION)
    return depth * ((COMPARISON_ROUNDS + 1) * ROUND + lanes * per_stage)


def _ranks(keys: Sequence[Any], before: Before) -> Any:
    """How many entries of the leading axis come before each; of equals the first does."""
    n = keys[0].shape[0]
    first, second = np.triu_indices(n, 1)
    swapped = before([rows(k, second) for k in keys], [rows(k, first) for k in keys])
    pairs, is_second = opponents(n)
    # An earlier entry counts unless swapped with this one, a later one if it is.
    sign = np.where(is_second, -1, 1).astype(np.int32)
    lanes = [1] * (keys[0].ndim - 1)
    each = rows(swapped, pairs.ravel()).reshape(n, n - 1, *keys[0].shape[1:])
    steps = each.astype(np.int32) * sign.reshape(n, n - 1, *lanes)
    place = np.arange(n, dtype=np.int32).reshape(n, *lanes)
    return jnp.sum(steps, 1, dtype=np.int32) + place


def _placed(ranks: Any, arrays: Sequence[Any], kept: int) -> list[Any]:
    """The entries of rank 0 to kept - 1, in order."""
    hot = one_hot(ranks, ranks.shape[0], INSIDE)[..., :kept]
    hot = jnp.moveaxis(hot, -1, 1)  # [entries, places, lanes]
    return [_chosen(hot, x) for x in arrays]


def _chosen(hot: Any, x: Any) -> Any:
    """Entries by one-hot vectors on the leading axis, for every place on the second."""
    x = jnp.broadcast_to(x[:, None], hot.shape)
    if x.dtype == bool:
        return halving(hot & x, lax.bitwise_xor)
    return jnp.sum(lax.mul(hot.astype(x.dtype), x), 0, dtype=x.dtype)


# -- networks ------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _network(n: int) -> tuple[Any, Any, Any]:
    """Merge exchange on n entries, as (int32[stages, n], bool[stages, width], int32[n]).

    Before each stage the entries are permuted so that entry i < width is compared with
    entry width + i; the flags tell which of these pairs mean anything. The last
    permutation restores the order.
    """
    stages = []
    top = 1 << ((n - 1).bit_length() - 1)
    p = top
    while p:
        q, r, d = top, 0, p
        while True:
            stages.append([(i, i + d) for i in range(n - d) if i & p == r])
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    width = max(map(len, stages))
    layouts, active = [np.arange(n)], []
    for pairs in stages:
        used = {i for pair in pairs for i in pair}
        idle = [i for i in range(n) if i not in used]
        missing = width - len(pairs)
        low = [a for a, _ in pairs] + idle[:missing]
        high = [b for _, b in pairs] + idle[missing : 2 * missing]
        layouts.append(np.array(low + high + idle[2 * missing :]))
        active.append(np.arange(width) < len(pairs))
    layouts.append(np.arange(n))
    steps = [
        np.argsort(before)[after]
        for before, after in zip(layouts, layouts[1:], strict=False)
    ]
    moves = np.array(steps, np.int32)
    return moves[:-1], np.array(active), moves[-1]


def through_network(arrays: Sequence[Any], num_keys: int, ties: bool) -> list[Any]:
    n = arrays[0].shape[0]
    moves, active, last = _network(n)
    width = active.shape[1]
    keys = list(arrays[:num_keys])
    if ties:
        keys.append(lax.broadcasted_iota(np.int32, keys[0].shape, 0))
    state = [*keys, *arrays[num_keys:]]
    shape = (width, *[1] * (arrays[0].ndim - 1))

    def stage(state: Sequence[Any], step: Any) -> Any:
        move, means = step
        state = [rows(x, move) for x in state]
        low = [x[:width] for x in state]
        high = [x[width : 2 * width] for x in state]
        swap = lexicographic(high[: len(keys)], low[: len(keys)])
        swap = swap & jnp.broadcast_to(means.reshape(shape), swap.shape)
        return [
            jnp.concatenate(
                [lax.select(swap, b, a), lax.select(swap, a, b), x[2 * width :]]
            )
            for a, b, x in zip(low, high, state, strict=True)
        ], None

    state, _ = lax.scan(stage, state, (jnp.asarray(moves), jnp.asarray(active)))
    sorted_keys = state[:num_keys]
    return [rows(x, last) for x in (*sorted_keys, *state[len(keys) :])]


# -- the largest k -------------------------------------------------------------------------


def _top_k(x: Any, *, k: int, axis: int, is_stable: bool = True) -> list[Any]:
    """The k largest in descending order, and where: of equals the first comes first.

    JAX 0.11 says whether that is asked for.
    """
    v = jnp.moveaxis(x, axis, 0)
    index = lax.broadcasted_iota(np.int32, v.shape, 0)
    values, index = _largest(v, index, k)
    return [jnp.moveaxis(values, 0, axis), jnp.moveaxis(index, 0, axis)]


def _approximate(
    x: Any,
    *,
    k: int,
    reduction_dimension: int,
    recall_target: float,
    is_max_k: bool,
    reduction_input_size_override: int,
    aggregate_to_topk: bool,
) -> list[Any]:
    """`approx_max_k` and `approx_min_k`, exactly: an approximation is no cheaper here."""
    if not aggregate_to_topk:
        raise UnsupportedError(
            "approx_max_k with aggregate_to_topk=False on secrets: its result depends on "
            "the device. Leave it at True."
        )
    values, index = _top_k(
        x if is_max_k else _reversed(x), k=k, axis=reduction_dimension % x.ndim
    )
    return [values if is_max_k else _reversed(values), index]


def _largest(v: Any, index: Any, k: int) -> tuple[Any, Any]:
    """Blocks of the leading axis keep k entries each, until one block is left."""
    n, lanes = v.shape[0], math.prod(v.shape[1:])
    if k == 0 or lanes == 0 or n <= 1:
        return v[:k], index[:k]
    size = block(n, k, lanes)[1]
    if size is None:
        out = through_network([_reversed(v), index], 2, ties=False)
        return _reversed(out[0][:k]), out[1][:k]
    blocks = n // size
    parts = [
        jnp.moveaxis(x[: blocks * size].reshape(blocks, size, *x.shape[1:]), 1, 0)
        for x in (v, index)
    ]
    ranks = _ranks(parts[:1], lambda a, b: greater(a[0], b[0]))
    best = [
        jnp.moveaxis(x, 1, 0).reshape(blocks * k, *x.shape[2:])
        for x in _placed(ranks, parts, k)
    ]
    if size == n:
        return best[0], best[1]
    rest = [
        jnp.concatenate([b, x[blocks * size :]])
        for b, x in zip(best, (v, index), strict=True)
    ]
    return _largest(rest[0], rest[1], k)


def _reversed(x: Any) -> Any:
    """A map of a type to itself that reverses its order."""
    return lax.neg(x) if jnp.issubdtype(x.dtype, jnp.floating) else lax.bitwise_not(x)


@lru_cache(maxsize=4096)
def block(n: int, k: int, lanes: int) -> tuple[float, int | None]:
    """(cost, entries per block; None to sort all of them)"""
    best: tuple[float, int | None] = (2 * _by_network(n, lanes), None)
    for size in {n, *(s for s in (4, 8, 16, 32, 64, 128, 256) if 2 * k <= s < n)}:
        blocks, rest = divmod(n, size)
        cost = by_rank(size, k, lanes * blocks)
        if size < n:
            cost += block(blocks * k + rest, k, lanes)[0]
        if cost < best[0]:
            best = cost, size
    return best


RULES: dict[str, Callable[..., Any]] = {
    "sort": _sort,
    "top_k": _top_k,
    "approx_top_k": _approximate,
}
