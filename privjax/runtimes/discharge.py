"""Give the markers of a party program their meaning: three programs from one.

- `Simulate`: the dealer is inlined; all parties run under `vmap` over the party axis.
- `Offline`: only the dealer's part; yields the corrections that travel to the parties.
- `Online`: a party's part; consumes corrections, the rest comes from the party's seed.

Every request has its own nonce by construction: the keystream of a scope is addressed by
the position of the request in its jaxpr, and every sub-jaxpr (a loop body, a branch, a
called function) gets a child key derived from the equation's position, the part and, in
a loop, the iteration. Nothing is counted at run time and nothing can repeat.

All but the last party expand their shares of what the dealer makes from their seeds;
only the last party needs corrections, which are its shares (and an input's owner its mask
in clear).
"""

from collections.abc import Callable, Sequence
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
from privjax.protocols.party import PARTY
from privjax.runtimes import neighbours, pools
from privjax.runtimes.combined import COMBINED, total
from privjax.runtimes.pools import REQUESTS

MARKERS = REQUESTS | {"open", "pairwise"}


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
        sizes, self.places = pools.places(_compat.open_jaxpr(closed)[0])
        self.pools = self._draw_pools(sizes)
        return super().body(closed, values)

    def _draw_pools(self, sizes: dict[Any, int]) -> dict[Any, Any]:
        drawn, pair, dealt = (
            {kind: n for kind, n in sizes.items() if kind[0] == source}
            for source in ("uniform", "pairwise", "dealt")
        )
        made: dict[Any, Any] = {}
        if drawn:
            made |= pools.drawn(neighbours.own(self.key), drawn, pools.DRAWN)
        if dealt:
            made |= self.expanded(lambda key: pools.drawn(key, dealt, pools.DEALT))
        if pair and self.key.ndim > 1:
            first, second = self.both(lambda key: pools.drawn(key, pair, pools.PAIR))
            made |= {kind: (first[kind], second[kind]) for kind in pair}
        return made

    def enter(self, part: int, index: Any = None, inputs: Any = None) -> Any:
        at = jnp.uint32(0) if index is None else index
        # The part goes above the purpose, which has less than 8 bits: no two sub-jaxprs
        # of any equation share a nonce, however many branches there are.
        what = int(Purpose.LOOP) + (part << 8)
        return neighbours.derive(self.key, (what, self.index, at)), inputs

    def draw(
        self, shape: Sequence[int], dtype: Any, domain: str, result: int = 0
    ) -> Any:
        """What this party expands from its seed for one result of the current request.

        Of what is dealt the last party expands nothing: zeros.
        """
        stream = self.stream(shape, dtype, domain, result)
        if self.eqn.primitive.name == "uniform":
            return stream
        last = lax.axis_index(PARTY) == self.parties - 1
        return jnp.where(last, np.zeros((), dtype), self.own_row(stream))

    def stream(self, shape: Sequence[int], dtype: Any, domain: str, result: int) -> Any:
        """The keystream of the current request; see `expanded`."""
        source = self.eqn.primitive.name
        place = self.places.get((self.index, result))
        if place is not None:
            pool = self.pools[source, np.dtype(dtype), domain]
            return pools.taken(pool, place, shape, domain)

        def bits(key: Any) -> Any:
            nonce = (int(Purpose.REQUEST), self.index, result)
            words = chacha20.transposed(key, nonce, pools.words_of(shape, dtype))
            return pools.of_words(words, shape, dtype)

        own = neighbours.own(self.key)
        return bits(own) if source == "uniform" else self.expanded(bits)

    def expanded(self, fun: Callable[[Any], Any]) -> Any:
        """`fun` of the key from which shares of dealt values are expanded."""
        return fun(neighbours.own(self.key))

    def own_row(self, stream: Any) -> Any:
        """This party's part of a result of `expanded`."""
        return stream

    def pairwise(self, shape: Sequence[int], dtype: Any) -> Sequence[Any]:
        """The current request's streams in common with each neighbour."""
        place = self.places.get((self.index, 0))
        if place is None:
            nonce = (int(Purpose.REQUEST), self.index, 0)
            count = pools.words_of(shape, dtype)

            def words(key: Any) -> Any:
                return chacha20.transposed(key, nonce, count)

            return self.both(lambda key: pools.of_words(words(key), shape, dtype))
        streams = self.pools["pairwise", np.dtype(dtype), "pair"]
        return [pools.taken(pool, place, shape, "pair") for pool in streams]

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
        self.streams: dict[Any, Any] = {}
        return super().body(closed, values)

    def stream(self, shape: Sequence[int], dtype: Any, domain: str, result: int) -> Any:
        """Made once, for what the dealer sends and for the share that a party expands."""
        at = self.index, result
        if at not in self.streams:
            self.streams[at] = super().stream(shape, dtype, domain, result)
        return self.streams[at]

    def expanded(self, fun: Callable[[Any], Any]) -> Any:
        """`fun` of the keys of all parties but the last, one row for each."""
        keys = lax.all_gather(neighbours.own(self.key), PARTY)
        return jax.vmap(fun)(keys[: self.parties - 1])

    def own_row(self, stream: Any) -> Any:
        out, number = stream[0], lax.axis_index(PARTY)
        for i in range(1, len(stream)):
            out = jnp.where(number == i, stream[i], out)
        return out

    def uniform(self, shape: Any, dtype: Any, domain: str) -> Any:
        share = self.draw(shape, dtype, domain)
        self.totals[id(share), domain] = share, self.drawn(share, domain)
        return share

    def drawn(self, draw: Any, domain: str) -> Any:
        """The sum of what all parties drew; of pooled values taken from the pool's sum."""
        place = self.places.get((self.index, 0))
        if place is None:
            return total(draw, domain)
        kind = "uniform", np.dtype(draw.dtype), domain
        if kind not in self.pool_totals:
            self.pool_totals[kind] = total(self.pools[kind], domain)
        return pools.taken(self.pool_totals[kind], place, draw.shape, domain)

    def total(self, share: Any, domain: str) -> Any:
        """The value behind a share, found once."""
        if (id(share), domain) not in self.totals:
            self.totals[id(share), domain] = share, total(share, domain)
        return self.totals[id(share), domain][1]

    def deal(self, shares: Sequence[Any], fun: Any) -> tuple[list[Any], list[Any]]:
        """(what the dealer sends, this party's shares) for a tuple.

        All parties but the last expand a share from their seeds; what is missing to the
        value is the last party's.
        """
        operands = zip(shares, fun.operands, strict=True)
        clear = fun.clear(*(self.total(s, d) for s, d in operands))
        sent, out = [], []
        for i, (value, domain) in enumerate(zip(clear, fun.results, strict=True)):
            if domain.startswith("to:"):
                sent.append(value)
            else:
                rows = self.stream(value.shape, value.dtype, domain, i)
                combined = COMBINED[domain]
                others = rows[0] if len(rows) == 1 else combined.all(rows)
                sent.append(combined.missing(value, others))
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
    if domain.startswith("to:"):
        return jnp.where(here, sent, jnp.zeros_like(sent))
    return jnp.where(here, sent, cx.draw(sent.shape, sent.dtype, domain, result))


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
            add = COMBINED[domain.removesuffix(":pairs")].add
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
