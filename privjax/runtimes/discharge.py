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
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Interpreter, mentions
from privjax.errors import PreprocessingError, UnsupportedError
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose

PARTY = "party"
REQUESTS = frozenset({"uniform", "dealt"})
MARKERS = REQUESTS | {"open"}
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
        sizes, self.places = _places(_compat.open_jaxpr(closed)[0])
        self.pools = self._draw_pools(sizes)
        return super().body(closed, values)

    def _draw_pools(self, sizes: dict[Any, int]) -> dict[Any, Any]:
        words = {kind: _words((n,), kind[0]) for kind, n in sizes.items()}
        if not words:
            return {}
        nonce = (int(Purpose.REQUEST), _POOL, 0)
        stream, at, pools = (
            chacha20.keystream(self.key, nonce, sum(words.values())),
            0,
            {},
        )
        for kind, n in words.items():
            part = lax.slice(stream, (at,), (at + n,))
            pools[kind] = chacha20.from_words(part, (sizes[kind],), kind[0])
            at += n
        return pools

    def enter(self, part: int, index: Any = None, inputs: Any = None) -> Any:
        at = jnp.uint32(0) if index is None else index
        # The part goes above the purpose, which has less than 8 bits: no two sub-jaxprs
        # of any equation share a nonce, however many branches there are.
        what = int(Purpose.LOOP) + (part << 8)
        return chacha20.derive(self.key, (what, self.index, at)), inputs

    def draw(
        self, shape: Sequence[int], dtype: Any, domain: str, result: int = 0
    ) -> Any:
        """This party's keystream for one result of the current request."""
        place = self.places.get((self.index, result))
        if place is None:
            nonce = (int(Purpose.REQUEST), self.index, result)
            return chacha20.bits(self.key, nonce, tuple(shape), dtype)
        return _from_pool(self.pools[np.dtype(dtype), domain], place, shape)


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
                sent.append(value - drawn if domain == "sum" else value ^ drawn)
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
    return draw + mine if domain == "sum" else draw ^ mine


def _words(shape: Sequence[int], dtype: Any) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // 4)


def _from_pool(pool: Any, place: int, shape: Sequence[int]) -> Any:
    return lax.slice(pool, (place,), (place + math.prod(shape),)).reshape(shape)


@functools.lru_cache(maxsize=4096)
def _places(jaxpr: Any) -> tuple[dict[Any, int], dict[Any, int]]:
    """Sizes of a scope's pools by (dtype, domain), and where each small request lies."""
    sizes: dict[Any, int] = {}
    places: dict[Any, int] = {}
    for index, eqn in enumerate(jaxpr.eqns):
        if eqn.primitive.name not in REQUESTS:
            continue
        fun = eqn.params.get("fun")
        domains = fun.results if fun is not None else (eqn.params["domain"],)
        for result, (v, domain) in enumerate(zip(eqn.outvars, domains, strict=True)):
            small = _words(v.aval.shape, v.aval.dtype) <= _SMALL
            if small and not domain.startswith("to:"):
                kind = np.dtype(v.aval.dtype), domain
                places[index, result] = sizes.get(kind, 0)
                sizes[kind] = places[index, result] + v.aval.size
    return sizes, places


def total(share: Any, domain: str) -> Any:
    """The value behind the parties' shares (an exchange of all shares)."""
    shares = lax.all_gather(share, PARTY)
    if domain == "sum":
        return jnp.sum(shares, axis=0, dtype=shares.dtype)
    if domain == "xor":
        return lax.reduce_xor(shares, (0,))
    return shares[int(domain.removeprefix("from:"))]


class Simulate(_Dealer):
    """All parties and the dealer in one program."""

    def inside(self, state: Any) -> "Simulate":
        return Simulate(state[0], self.parties)

    def dealt(self, shares: Sequence[Any], fun: Any) -> list[Any]:
        return self.deal(shares, fun)[1]


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


def _open(cx: Any, *shares: Any, domains: Any, bits: Any) -> list[Any]:
    return [total(s, d) for s, d in zip(shares, domains, strict=True)]


def _offline_open(cx: Any, *shares: Any, domains: Any, bits: Any) -> list[Any]:
    return [Unknown() for _ in shares]


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
        control.run(child, branch, [Unknown()] * len(operands))
        gathered.append(child.gathered())
    cx.deliver(0, gathered if any(gathered) else None)
    return [Unknown()] * len(cx.eqn.outvars)


def _dealt(cx: Any, *shares: Any, fun: Any) -> list[Any]:
    if any(isinstance(s, Unknown) for s in shares):
        raise UnsupportedError(
            f"a dealt tuple{cx.where()} depends on a value that the dealer must not see."
        )
    return cx.dealt(shares, fun)


_SHARED_RULES = control.RULES | {"uniform": _uniform, "dealt": _dealt, "open": _open}
Simulate.rules = Online.rules = _SHARED_RULES
Offline.rules = _SHARED_RULES | {
    "open": _offline_open,
    "while": _offline_while,
    "cond": _offline_cond,
}
