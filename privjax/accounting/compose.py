"""Composing entries: epsilon by several accountants, and searches over them.

A total variation distance t of what was run from what was described (noise tables,
batches that overflowed) costs (1 + exp(epsilon)) t of delta.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dp_accounting

from privjax.accounting import events
from privjax.accounting.events import Event, Unsupported


@dataclass(frozen=True)
class Entry:
    """`count` releases of one event on one data set."""

    data: str
    event: Event
    count: int


def quickly(search: Callable[[], Any]) -> Any:
    """The search's result, None where the quick accountant has no figure."""
    try:
        return search()
    except Unsupported:
        return None


def least(
    fits: Callable[[float], bool], start: float, factor: float, tolerance: float
) -> float | None:
    """The least value that fits, on the safe side; None if 2^20 is too little."""
    low = high = start
    if fits(start):
        while high > 2.0**-10 and fits(low := high / factor):
            high = low
    else:
        while not fits(high := low * factor):
            low = high
            if high > 2.0**20:
                return None
    while high / low > 1 + tolerance:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def epsilon_of(
    entries: Sequence[Entry], delta: float, data: str, neighbours: str, accountant: str
) -> float:
    """Epsilon for a unit of one data set, with the distances taken from delta."""
    counts: Counter[str] = Counter()
    lost = 0.0
    for e in entries:
        if e.data == data and e.count:
            if not events.private(e.event):
                return math.inf
            counts[events.canonical(e.event)] += e.count
            lost += e.count * events.distance(e.event)
    key = tuple(sorted(counts.items()))
    return _with_distance(key, delta, lost, neighbours, accountant)


def _with_distance(
    key: Any, delta: float, lost: float, neighbours: str, accountant: str
) -> float:
    """The least fixed point of epsilon(delta - (1 + exp(epsilon)) lost), from below."""
    found = _composed(key, delta, neighbours, accountant)
    while lost:
        left = delta - (1 + math.exp(min(found, 700.0))) * lost
        if left <= 0:
            return math.inf
        more = _composed(key, left, neighbours, accountant)
        # From below the iteration only grows; a step of no size has arrived.
        if more <= found * (1 + 1e-12):
            break
        found = more
    return found


@functools.lru_cache(maxsize=512)
def _composed(
    key: tuple[tuple[str, int], ...], delta: float, neighbours: str, accountant: str
) -> float:
    if not key:
        return 0.0
    parts = [(json.loads(text), count) for text, count in key]
    if accountant == "auto":
        return _least(parts, delta, neighbours)
    return _BY[accountant](parts, delta, neighbours)


def _least(parts: Sequence[Any], delta: float, neighbours: str) -> float:
    """By privacy loss distributions; else by Renyi divergences.

    What these amplify can be less than what they lose: both are bounds.
    """
    plain = [(events.unamplified(e), n) for e, n in parts]
    try:
        found = _by_pld(plain, delta, neighbours)
    except Unsupported:
        return _by_rdp(parts, delta, neighbours)
    return found if plain == parts else min(found, _by_rdp(parts, delta, neighbours))


def _by_pld(
    parts: Sequence[Any], delta: float, neighbours: str, width: float = events.FINE
) -> float:
    composed = [events.to_pld(e, n, neighbours, width) for e, n in parts]
    return float(
        functools.reduce(lambda a, b: a.compose(b), composed).get_epsilon_for_delta(
            delta
        )
    )


def _by_rdp(
    parts: Sequence[Any], delta: float, neighbours: str, integers: bool = False
) -> float:
    return events.rdp_epsilon(parts, delta, neighbours, integers)


def _by_gdp(parts: Sequence[Any], delta: float, neighbours: str) -> float:
    mu = math.hypot(*(events.gdp_mu(e, n, neighbours) for e, n in parts))
    return float(dp_accounting.get_epsilon_gaussian(1 / mu, delta)) if mu else 0.0


# Two that serve searches: Renyi bounds from integer orders, which take no series, and
# privacy losses on wider cells.
_BY: dict[str, Callable[..., float]] = {
    "pld": _by_pld,
    "rdp": _by_rdp,
    "coarse": functools.partial(_by_pld, width=events.COARSE),
    "quick": functools.partial(_by_rdp, integers=True),
    "gdp_approximation": _by_gdp,
}
