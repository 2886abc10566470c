"""Give the markers of a party program their meaning: three programs from one.

- `Simulate`: the dealer is inlined; all parties run under `vmap` over the party axis.
- `Offline`: only the dealer's part; yields the corrections that travel to the parties.
- `Online`: a party's part; consumes corrections, the rest comes from the party's seed.

Every request has its own nonce by construction: the keystream of a scope is addressed by
the position of the request in its jaxpr, and every sub-jaxpr (a loop body, a branch, a
called function) gets a child key derived from the equation's position, the part and, in
a loop, the iteration. Nothing is counted at run time and nothing can repeat.

All but the last party expand their shares of what the dealer makes from their seeds;
only the last party needs corrections (and an input's owner its mask in clear).
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core import control, markers
from privjax.core.interpret import Interpreter, mentions
from privjax.errors import PreprocessingError, UnsupportedError
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols import wide
from privjax.protocols.party import PARTY
from privjax.protocols.wide import Wide
from privjax.runtimes import neighbours

REQUESTS = frozenset({"uniform", "dealt"})
MARKERS = REQUESTS | {"open", "pairwise"}
# Requests up to this many words come from the scope's pool, under a nonce of its own.
_SMALL = 1 << 16
_POOL = 0xFFFFFFFF


class _Discharge(Interpreter):
    """What the three have in common: scopes, keys, uniform shares, openings."""

    tagged = False
    needs_index = True
    markers = MARKERS

    def __init__(self, key: Any, parties: int) -> None:
        self.key, self.parties = key, parties
        self.places: dict[Any, Any] = {}
        self.pools: dict[Any, Any] = {}
        self.totals: dict[Any, tuple[Any, Any]] = {}

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        # One keystream serves all small requests of a scope: a generator call costs as
        # much to compile as fifty of the operations around it.
        if self.key.ndim == 1 and mentions(closed, neighbours.PAIRWISE):
            self.key = self.with_neighbours(self.key)
        sizes, self.places = _places(_compat.open_jaxpr(closed)[0])
        self.pools = self._draw_pools(sizes)
        return super().body(closed, values)

    def _draw_pools(self, sizes: dict[Any, int]) -> dict[Any, Any]:
        own = {kind: n for kind, n in sizes.items() if kind[1] != "pair"}
        pools = self._pools(neighbours.own(self.key), own)
        if len(own) < len(sizes) and self.key.ndim > 1:
            pair = {kind: n for kind, n in sizes.items() if kind[1] == "pair"}
            first, second = self.both(lambda key: self._pools(key, pair))
            pools |= {kind: (first[kind], second[kind]) for kind in pair}
        return pools

    def _pools(self, key: Any, sizes: dict[Any, int]) -> dict[Any, Any]:
        words = {
            kind: _words(_pool_shape(kind, n), kind[0]) for kind, n in sizes.items()
        }
        if not words:
            return {}
        nonce = (int(Purpose.REQUEST), _POOL, 0)
        stream, at, pools = (
            chacha20.keystream(key, nonce, sum(words.values())),
            0,
            {},
        )
        for kind, n in words.items():
            part = lax.slice(stream, (at,), (at + n,))
            shape = _pool_shape(kind, sizes[kind])
            pools[kind] = chacha20.from_words(part, shape, kind[0])
            at += n
        return pools

    def enter(self, part: int, index: Any = None, inputs: Any = None) -> Any:
        at = jnp.uint32(0) if index is None else index
        # The part goes above the purpose, which has less than 8 bits: no two sub-jaxprs
        # of any equation share a nonce, however many branches there are.
        what = int(Purpose.LOOP) + (part << 8)
        return neighbours.derive(self.key, (what, self.index, at)), inputs

    def draw(
        self, shape: Sequence[int], dtype: Any, domain: str, result: int = 0
    ) -> Any:
        """This party's keystream for one result of the current request."""
        place = self.places.get((self.index, result))
        if place is None:
            nonce = (int(Purpose.REQUEST), self.index, result)
            return chacha20.bits(neighbours.own(self.key), nonce, tuple(shape), dtype)
        return _from_pool(self.pools[np.dtype(dtype), domain], place, shape)

    def pairwise(self, shape: Sequence[int], dtype: Any) -> Sequence[Any]:
        """The current request's streams in common with each neighbour."""
        place = self.places.get((self.index, 0))
        if place is None:
            nonce = (int(Purpose.REQUEST), self.index, 0)
            return self.both(lambda key: chacha20.bits(key, nonce, tuple(shape), dtype))
        pools = self.pools[np.dtype(dtype), "pair"]
        return [_from_pool(pool, place, shape) for pool in pools]

    def with_neighbours(self, key: Any) -> Any:
        """The keys of a program that asks for `pairwise` values; see `neighbours`."""
        return key

    def both(self, fun: Callable[[Any], Any]) -> tuple[Any, Any]:
        """`fun` of the keys in common with the party before this one and the next."""
        raise PreprocessingError(
            "the dealer has no part in keys that parties agree on."
        )

    def exchanged(self, share: Any, domain: str) -> Any:
        """What this party learns when its share is opened."""
        if domain.startswith("send:"):
            return neighbours.looked_up(share, markers.links(domain, self.parties))
        if domain.endswith(":pairs"):
            return total(share[0], domain.removesuffix(":pairs"))
        return total(share, domain)


class _Dealer(_Discharge):
    """The dealer's part: it knows all seeds, and so every uniform value."""

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        self.pool_totals: dict[Any, Any] = {}
        return super().body(closed, values)

    def uniform(self, shape: Any, dtype: Any, domain: str) -> Any:
        share = self.draw(shape, dtype, domain)
        self.totals[id(share)] = share, self.total_draw(share, domain, 0)
        return share

    def total_draw(self, draw: Any, domain: str, result: int) -> Any:
        """The sum of all parties' draws; of pooled ones taken from the pool's sum."""
        place = self.places.get((self.index, result))
        if place is None:
            return total(draw, domain)
        kind = np.dtype(draw.dtype), domain
        if kind not in self.pool_totals:
            self.pool_totals[kind] = total(self.pools[kind], domain)
        return _from_pool(self.pool_totals[kind], place, draw.shape)

    def total(self, share: Any, domain: str) -> Any:
        """The value behind a share, found once."""
        if id(share) not in self.totals:
            self.totals[id(share)] = share, total(share, domain)
        return self.totals[id(share)][1]

    def deal(self, shares: Sequence[Any], fun: Any) -> tuple[list[Any], list[Any]]:
        """(what the dealer sends, this party's shares) for a tuple.

        Every party expands a share from its seed; what is missing to the value goes to
        the last party, which adds it to its own.
        """
        operands = zip(shares, fun.operands, strict=True)
        clear = fun.clear(*(self.total(s, d) for s, d in operands))
        sent, out = [], []
        for i, (value, domain) in enumerate(zip(clear, fun.results, strict=True)):
            if domain.startswith("to:"):
                sent.append(value)
            else:
                draw = self.draw(value.shape, value.dtype, domain, i)
                drawn = self.total_draw(draw, domain, i)
                sent.append(_COMBINED[domain].missing(value, drawn))
            out.append(self.receive(sent[-1], domain, i))
        return sent, out

    def receive(self, sent: Any, domain: str, result: int) -> Any:
        return _receive(self, sent, domain, result)


def receiver(domain: str, parties: int) -> int:
    """Whom the dealer sends a result of this domain to."""
    return int(domain[3:]) if domain.startswith("to:") else parties - 1


def _receive(cx: _Discharge, sent: Any, domain: str, result: int) -> Any:
    """A party's share of what the dealer sent."""
    here = lax.axis_index(PARTY) == receiver(domain, cx.parties)
    mine = jnp.where(here, sent, jnp.zeros_like(sent))
    if domain.startswith("to:"):
        return mine
    draw = cx.draw(sent.shape, sent.dtype, domain, result)
    return _COMBINED[domain].add(draw, mine)


def _words(shape: Sequence[int], dtype: Any) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // 4)


def _pool_shape(kind: Any, n: int) -> tuple[int, ...]:
    """Elements of two planes lie in two rows."""
    return (2, n) if kind[1] == "sum128" else (n,)


def _from_pool(pool: Any, place: int, shape: Sequence[int]) -> Any:
    size = math.prod(shape) // math.prod(pool.shape[:-1])
    return lax.slice_in_dim(pool, place, place + size, axis=-1).reshape(shape)


@functools.lru_cache(maxsize=4096)
def _places(jaxpr: Any) -> tuple[dict[Any, int], dict[Any, int]]:
    """Sizes of a scope's pools by (dtype, domain), and where each small request lies."""
    sizes: dict[Any, int] = {}
    places: dict[Any, int] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive.name not in REQUESTS | neighbours.PAIRWISE:
            continue
        fun = eqn.params.get("fun")
        domains = fun.results if fun else (eqn.params.get("domain", "pair"),)
        for result, (v, domain) in enumerate(zip(eqn.outvars, domains, strict=False)):
            small = _words(v.aval.shape, v.aval.dtype) <= _SMALL
            if small and not domain.startswith("to:"):
                kind = np.dtype(v.aval.dtype), domain
                places[index, result] = sizes.get(kind, 0)
                planes = 2 if domain == "sum128" else 1
                sizes[kind] = places[index, result] + v.aval.size // planes
    return sizes, places


def _sum_wide(shares: Any) -> Any:
    return wide.stack(wide.sum(Wide(shares[:, 0], shares[:, 1]), 0))


def _add_wide(a: Any, b: Any) -> Any:
    return wide.stack(wide.unstack(a) + wide.unstack(b))


def _subtract_wide(a: Any, b: Any) -> Any:
    return wide.stack(wide.unstack(a) - wide.unstack(b))


@dataclass(frozen=True)
class _Combined:
    """How shares of a domain make a value: `all` of [parties, ...], and two by two."""

    all: Callable[[Any], Any]
    add: Callable[[Any, Any], Any]
    missing: Callable[[Any, Any], Any]


_COMBINED = {
    "sum": _Combined(
        lambda v: jnp.sum(v, axis=0, dtype=v.dtype), operator.add, operator.sub
    ),
    "xor": _Combined(lambda v: lax.reduce_xor(v, (0,)), operator.xor, operator.xor),
    "sum128": _Combined(_sum_wide, _add_wide, _subtract_wide),
}


def total(share: Any, domain: str) -> Any:
    """The value behind the parties' shares (an exchange of all shares)."""
    shares = lax.all_gather(share, PARTY)
    if domain in _COMBINED:
        return _COMBINED[domain].all(shares)
    if domain.startswith("each:"):
        return shares
    return shares[int(domain.removeprefix("from:"))]


class Simulate(_Dealer):
    """All parties and the dealer in one program."""

    def inside(self, state: Any) -> "Simulate":
        return Simulate(state[0], self.parties)

    def dealt(self, shares: Sequence[Any], fun: Any) -> list[Any]:
        return self.deal(shares, fun)[1]

    def with_neighbours(self, key: Any) -> Any:
        return jnp.stack([key, neighbours.agreed(key)])

    def both(self, fun: Callable[[Any], Any]) -> tuple[Any, Any]:
        mine = fun(self.key[1])  # drawn once, though two parties expand it
        back = neighbours.backward(self.parties)
        return mine, jax.tree.map(lambda x: neighbours.looked_up(x, back), mine)


class Online(_Discharge):
    """One party, with the material that the dealer made ahead."""

    def __init__(self, key: Any, parties: int, material: Any) -> None:
        super().__init__(key, parties)
        self.material = material

    def sub_inputs(self) -> Any:
        return self.material.get(str(self.index))

    def inside(self, state: Any) -> "Online":
        return Online(state[0], self.parties, state[1] or {})

    def uniform(self, shape: Any, dtype: Any, domain: str) -> Any:
        return self.draw(shape, dtype, domain)

    def dealt(self, shares: Sequence[Any], fun: Any) -> list[Any]:
        sent = self.material[str(self.index)]
        pairs = zip(sent, fun.results, strict=True)
        return [_receive(self, x, domain, i) for i, (x, domain) in enumerate(pairs)]

    def with_neighbours(self, key: Any) -> Any:
        mine = neighbours.agreed(key)  # told to the party before this one, once
        theirs = neighbours.passed(mine, neighbours.backward(self.parties))
        return jnp.stack([key, mine, theirs])

    def both(self, fun: Callable[[Any], Any]) -> tuple[Any, Any]:
        return fun(self.key[1]), fun(self.key[2])

    def exchanged(self, share: Any, domain: str) -> Any:
        if domain.startswith("send:"):
            return neighbours.passed(share, markers.links(domain, self.parties))
        if domain.endswith(":pairs"):
            first, second = share
            links = markers.links(domain, self.parties)
            add = _COMBINED[domain.removesuffix(":pairs")].add
            return add(add(first, second), neighbours.passed(first, links))
        return total(share, domain)


@jax.tree_util.register_pytree_node_class
class Unknown:
    """A value that the dealer does not know (it depends on data or on an opening)."""

    def tree_flatten(self) -> Any:
        return (), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> "Unknown":
        return cls()


class Offline(_Dealer):
    """The dealer's part alone, for all parties' seeds at once.

    Values that do not come from requests are `Unknown` and cost nothing; the material is
    gathered by equation, stacked over the iterations of scans.
    """

    tagged = True

    def __init__(self, key: Any, parties: int) -> None:
        super().__init__(key, parties)
        self.material: dict[str, Any] = {}

    def inside(self, state: Any) -> "Offline":
        return Offline(state[0], self.parties)

    def gathered(self) -> Any:
        return self.material

    def deliver(self, part: int, gathered: Any) -> None:
        if gathered:
            self.material[str(self.index)] = gathered

    def join(self, a: Any, b: Any) -> Any:
        return Unknown()

    def coerce(self, value: Any, like: Any) -> Any:
        return Unknown()

    def default(self, values: Sequence[Any]) -> list[Any]:
        return [Unknown()] * len(self.eqn.outvars)

    def dealt(self, shares: Sequence[Any], fun: Any) -> list[Any]:
        self.material[str(self.index)], out = self.deal(shares, fun)
        return out


def _uniform(cx: Any, *, shape: Any, dtype: Any, domain: str) -> Any:
    return cx.uniform(shape, dtype, domain)


def _open(
    cx: Any, *values: Any, domains: Any, bits: Any, checked: Any, release: bool
) -> list[Any]:
    return [cx.exchanged(s, d) for s, d in zip(values, domains, strict=False)]


def _offline_open(
    cx: Any, *values: Any, domains: Any, bits: Any, checked: Any, release: bool
) -> list[Any]:
    return [Unknown() for _ in domains]


def _pairwise(cx: Any, *, shape: Any, dtype: Any) -> Sequence[Any]:
    return cx.pairwise(shape, dtype)


def _offline_pairwise(cx: Any, *, shape: Any, dtype: Any) -> list[Any]:
    return [Unknown(), Unknown()]


def _offline_while(cx: Any, *values: Any, **params: Any) -> list[Any]:
    for jaxpr in (params["cond_jaxpr"], params["body_jaxpr"]):
        if mentions(jaxpr, REQUESTS):
            raise PreprocessingError(
                f"the while loop{cx.where()} needs correlated randomness for a number "
                "of iterations that is not known beforehand. Use lax.scan or "
                "lax.fori_loop with fixed bounds to run it with preprocessing."
            )
    return [Unknown()] * len(cx.eqn.outvars)


def _offline_cond(cx: Any, index: Any, *operands: Any, **params: Any) -> list[Any]:
    # Nobody knows yet which branch will run: deal for all of them.
    gathered = []
    for part, branch in enumerate(params["branches"]):
        child = cx.inside(cx.enter(part))
        control.run(child, branch, operands)  # shares of keys are the dealer's as well
        gathered.append(child.gathered())
    cx.deliver(0, gathered if any(gathered) else None)
    return [Unknown()] * len(cx.eqn.outvars)


def _dealt(cx: Any, *shares: Any, fun: Any) -> list[Any]:
    if any(isinstance(s, Unknown) for s in shares):
        raise UnsupportedError(
            f"a dealt tuple{cx.where()} depends on a value that the dealer must not see."
        )
    return cx.dealt(shares, fun)


_SHARED_RULES = control.RULES | {
    "uniform": _uniform,
    "dealt": _dealt,
    "pairwise": _pairwise,
    "open": _open,
}
Simulate.rules = Online.rules = _SHARED_RULES
Offline.rules = _SHARED_RULES | {
    "open": _offline_open,
    "pairwise": _offline_pairwise,
    "while": _offline_while,
    "cond": _offline_cond,
}
