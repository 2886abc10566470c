"""Simple analytics on clients' values, from sums over clients only.

A cohort's data are one array of values [clients, examples, ...]. Every answer is made of
counts; `aggregate=` decides who sees them and what noise they carry.
"""

from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array, PyTree
from privjax.errors import InputError
from privjax.fl.mapping import Sent
from privjax.fl.rounds import Algorithm, Round
from privjax.fl.states import Client, RoundOptions, State
from privjax.prg.keys import key as fresh_key


def _counting(name: str, counts: Any, **options: Unpack[RoundOptions]) -> Round:
    """A round whose metrics are {"counts": sum of counts(public, values, mask)}."""

    def ask(public: PyTree, own: Client) -> Sent:
        (values,) = jax.tree.leaves(own.data)
        mask = jnp.ones(values.shape[0], bool) if own.mask is None else own.mask
        return Sent({"counts": counts(public, values, mask)})

    return Algorithm(
        name=name,
        start=lambda _: (),
        enrol=lambda _: (),
        offer=lambda params, _: params,
        client=ask,
        finish=lambda params, state, sums: (params, state, sums),
        **options,
    ).round


def _asked(round_: Round, public: PyTree, cohort: Any, key: Any) -> Array:
    state = State(jax.tree.map(jnp.asarray, public), (), (), jnp.int32(0))
    extra = {"key": key} if round_.needs_key else {}
    return round_(state, cohort, **extra)[1]["counts"]


class Histogram:
    """`histogram(cohort) -> counts float32[bins]`; see `histogram`."""

    def __init__(self, edges: Any, **options: Unpack[RoundOptions]) -> None:
        self.edges = np.asarray(edges, np.float32)
        if self.edges.ndim != 1 or len(self.edges) < 2 or np.any(np.diff(edges) <= 0):
            raise InputError("edges= must be at least two numbers in rising order.")
        bins = len(self.edges) - 1

        def counts(edges: Array, values: Array, mask: Array) -> Array:
            x = values.reshape(values.shape[0], -1)
            place = jnp.searchsorted(edges, x, side="right") - 1
            place = jnp.where(x == edges[-1], bins - 1, place)
            inside = (place >= 0) & (place < bins) & mask[:, None]
            hit = jax.nn.one_hot(place, bins) * inside[..., None]
            return jnp.sum(hit, axis=(0, 1))

        self.round = _counting("histogram", counts, **options)

    def __call__(self, cohort: Any, *, key: Any = None) -> Array:
        return _asked(self.round, self.edges, cohort, key)


def histogram(edges: Any, **options: Unpack[RoundOptions]) -> Histogram:
    """How many of all clients' values lie between each two edges.

    Args:
      edges: rising, [bins + 1]; the last bin includes its right edge, as in NumPy.
      **options: see `RoundOptions`.
    """
    return Histogram(edges, **options)


class Quantile:
    """`quantile(cohort) -> float32[quantiles]`; see `quantile`."""

    def __init__(
        self,
        q: Any,
        low: float,
        high: float,
        steps: int,
        **options: Unpack[RoundOptions],
    ) -> None:
        self.q = np.atleast_1d(np.asarray(q, np.float32))
        if np.any((self.q < 0) | (self.q > 1)):
            raise InputError(f"q={q} is not in [0, 1].")
        if not low < high or steps < 1:
            raise InputError(f"low={low}, high={high}, steps={steps} make no search.")
        self.low, self.high, self.steps = float(low), float(high), int(steps)

        def counts(points: Array, values: Array, mask: Array) -> Array:
            x = values.reshape(values.shape[0], -1)
            below = (x[..., None] <= points) & mask[:, None, None]
            total = jnp.sum(mask, dtype=jnp.float32) * x.shape[1]
            return jnp.append(jnp.sum(below, (0, 1), dtype=jnp.float32), total)

        self.round = _counting("quantile", counts, **options)
        self._search = jax.jit(self._searched)

    def __call__(self, cohort: Any, *, key: Any = None) -> Array:
        if not self.round.needs_key:
            return self._search(cohort, None)
        key = fresh_key() if key is None else key
        return self._search(cohort, jax.random.split(key, self.steps))

    def _searched(self, cohort: Any, keys: Any) -> Array:
        def halve(interval: tuple[Array, Array], key: Any) -> Any:
            low, high = interval
            middle = (low + high) / 2
            *below, total = _asked(self.round, middle, cohort, key)
            enough = jnp.stack(below) >= jnp.maximum(self.q * total, 1)
            low = jnp.where(enough, low, middle)
            return (low, jnp.where(enough, middle, high)), None

        shape = self.q.shape
        start = jnp.full(shape, self.low), jnp.full(shape, self.high)
        (low, high), _ = lax.scan(halve, start, keys, length=self.steps)
        return (low + high) / 2


def quantile(
    q: Any,
    *,
    low: float,
    high: float,
    steps: int = 24,
    **options: Unpack[RoundOptions],
) -> Quantile:
    """Quantiles of all clients' values by binary search on counts.

    Each of `steps` rounds asks how many values are at most the middle of the interval
    that is left; the answer is within (high - low) 2^-(steps + 1) of the least value x
    such that a share q of the values is at most x.

    Args:
      q: in [0, 1], one or several, which are searched for at the same time.
      low, high: where the values are; values outside count at the ends.
      **options: see `RoundOptions`.
    """
    return Quantile(q, low, high, steps, **options)


class HeavyHitters:
    """`hitters(cohort) -> [(symbols, count), ...]`; see `heavy_hitters`."""

    def __init__(
        self,
        length: int,
        symbols: int,
        threshold: float,
        room: int,
        **options: Unpack[RoundOptions],
    ) -> None:
        if length < 1 or symbols < 2 or room < 1:
            raise InputError(
                f"length={length}, symbols={symbols}, room={room}: no prefix tree."
            )
        self.length, self.symbols = length, symbols
        self.threshold, self.room = threshold, room

        def counts(public: PyTree, values: Array, mask: Array) -> Array:
            prefixes, used, depth = public
            known = jnp.arange(length) >= depth
            same = (values[:, None, :] == prefixes[None]) | known
            here = jnp.all(same, axis=2) & used & mask[:, None]
            following = jnp.take(values, depth, axis=1)
            next_ = jax.nn.one_hot(following, symbols)
            found = jnp.einsum("nr,ns->rs", here.astype(jnp.float32), next_)
            return jnp.minimum(found, 1)

        self.round = _counting("heavy_hitters", counts, **options)

    def __call__(
        self, cohort: Any, *, key: Any = None
    ) -> list[tuple[tuple[int, ...], float]]:
        if self.round.needs_key:
            key = fresh_key() if key is None else key
        prefixes: list[tuple[int, ...]] = [()]
        found: list[tuple[tuple[int, ...], float]] = []
        for depth in range(self.length):
            table = np.zeros((self.room, self.length), np.int32)
            for row, prefix in zip(table, prefixes, strict=False):
                row[:depth] = prefix
            used = np.arange(self.room) < len(prefixes)
            mine = None if key is None else jax.random.fold_in(key, depth)
            public = (table, used, np.int32(depth))
            counts = np.asarray(_asked(self.round, public, cohort, mine))
            found = sorted(
                (
                    ((*prefix, s), float(counts[i, s]))
                    for i, prefix in enumerate(prefixes)
                    for s in range(self.symbols)
                    if counts[i, s] >= self.threshold
                ),
                key=lambda item: -item[1],
            )[: self.room]
            prefixes = [prefix for prefix, _ in found]
            if not prefixes:
                return []
        return found


def heavy_hitters(
    *,
    length: int,
    symbols: int = 256,
    threshold: float,
    room: int = 32,
    **options: Unpack[RoundOptions],
) -> HeavyHitters:
    """Values that many clients have, found by a prefix tree on counts.

    Values are sequences of `length` symbols, int[clients, examples, length] (`spelled`
    makes them from strings). Level by level, clients count which symbol follows each
    prefix that is still frequent (as in Zhu et al. 2020, with counts in place of votes):
    rare values are never asked for. A client counts once per prefix and symbol.

    Args:
      symbols: how many symbols there are; symbols are 0 ... symbols - 1.
      threshold: the least count of clients for a prefix to be followed.
      room: how many prefixes are followed, the most frequent ones.
      **options: see `RoundOptions`.

    Returns: an object that is called with a cohort and gives (symbols, count) pairs, the
      most frequent first.
    """
    return HeavyHitters(length, symbols, threshold, room, **options)


def spelled(words: Sequence[str], length: int) -> np.ndarray:
    """Strings as int32[words, length] of UTF-8 bytes, cut or filled up with zeros."""
    out = np.zeros((len(words), length), np.int32)
    for row, word in zip(out, words, strict=True):
        data = word.encode()[:length]
        row[: len(data)] = list(data)
    return out


def word(symbols: Sequence[int]) -> str:
    """The string of a sequence of bytes."""
    return bytes(s for s in symbols if s).decode(errors="replace")
