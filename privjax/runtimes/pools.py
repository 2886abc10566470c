"""One keystream for most requests of a scope, cut into pools.

A call of the generator takes a second to compile, as much as a thousand of the operations
around it. Where each request lies is a function of the scope's jaxpr alone.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jax import lax

from privjax.core import markers
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.runtimes import neighbours

REQUESTS = frozenset({"uniform", "dealt"})
# The smallest requests come from the scope's pools, as long as all of them together have at
# most `_TOTAL` words (32 MiB, which live as long as the scope); those up to `_SMALL` do in
# any case. Pools have nonces of their own: one is of what parties draw (also in common with
# a neighbour), one of shares of dealt values.
_SMALL, _TOTAL = 1 << 18, 1 << 23
_POOL = 0xFFFFFFFF
DRAWN, PAIR, DEALT = 0, 0, 1


def drawn(key: Any, sizes: dict[Any, int], part: int) -> dict[Any, Any]:
    """One keystream, cut into a pool of each kind."""
    words = {kind: words_of(_shape(kind, n), kind[1]) for kind, n in sizes.items()}
    nonce = (int(Purpose.REQUEST), _POOL, part)
    stream, at, pools = chacha20.transposed(key, nonce, sum(words.values())), 0, {}
    for kind, n in words.items():
        shape = _shape(kind, sizes[kind])
        pools[kind] = chacha20.from_words(stream[at : at + n], shape, kind[1])
        at += n
    return pools


def of_words(words: Any, shape: Sequence[int], dtype: Any) -> Any:
    """A large request's words as its type: of uint64 all lower halves come first.

    XLA moves this into whatever reads it; reinterpreting pairs of words would be a copy.
    """
    if np.dtype(dtype).itemsize < 8:
        return chacha20.from_words(words, tuple(shape), dtype)
    half = math.prod(shape)
    low, high = words[:half].astype(np.uint64), words[half:].astype(np.uint64)
    return (low | (high << np.uint64(32))).reshape(shape)


def words_of(shape: Sequence[int], dtype: Any) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // 4)


def _shape(kind: Any, n: int) -> tuple[int, ...]:
    """Elements of two planes lie in two rows."""
    return (2, n) if kind[2] in markers.PLANES else (n,)


def taken(pool: Any, place: int, shape: Sequence[int], domain: str) -> Any:
    """A request's part of a pool, or of a pool in several rows."""
    planes = 2 if domain in markers.PLANES else 1
    rows = pool.shape[: pool.ndim - planes]
    end = place + math.prod(shape) // planes
    return lax.slice_in_dim(pool, place, end, axis=-1).reshape(*rows, *shape)


@functools.lru_cache(maxsize=4096)
def places(jaxpr: Any) -> tuple[dict[Any, int], dict[Any, int]]:
    """Sizes of a scope's pools by (primitive, dtype, domain), and where each small
    request lies."""
    sizes: dict[Any, int] = {}
    places: dict[Any, int] = {}
    requests = list(_requests(jaxpr))
    limit = _limit(words_of(aval.shape, aval.dtype) for _, _, aval in requests)
    for at, (source, domain), aval in requests:
        if words_of(aval.shape, aval.dtype) <= limit:
            kind = source, np.dtype(aval.dtype), domain
            places[at] = sizes.get(kind, 0)
            planes = 2 if domain in markers.PLANES else 1
            sizes[kind] = places[at] + aval.size // planes
    return sizes, places


def _requests(jaxpr: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(equation and result, primitive and domain, type) of all that pools may serve."""
    for index, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive.name not in REQUESTS | neighbours.PAIRWISE:
            continue
        fun = eqn.params.get("fun")
        domains = fun.results if fun else (eqn.params.get("domain", "pair"),)
        for result, (v, domain) in enumerate(zip(eqn.outvars, domains, strict=False)):
            if not domain.startswith("to:"):
                yield (index, result), (eqn.primitive.name, domain), v.aval


def _limit(words: Iterable[int]) -> int:
    """The largest request, in words, that comes from the pools."""
    ordered = sorted(words)
    totals = dict(zip(ordered, itertools.accumulate(ordered), strict=True))
    return max(w for w, total in [(_SMALL, 0), *totals.items()] if total <= _TOTAL)
