"""The offline part of a two-party spdz2k program without a dealer, with active security.

One party's `prepare`, from its seed to the corrections that the online program takes:

1. MAC keys: transfers chosen by the bits of the program's alpha_i and Delta_i.
2. Each party is bound to bits: those of its share of every mask that is decomposed, of
   daBits. MACs of uniform values and of what the bits make up; proof that they agree
   (`composed`).
3. Triples of sums (`authenticated.triples`) and of bits (`authenticated_bits`).
4. On these: bits of masks r = r_0 + r_1 by an adder; daBits b_0 + b_1 - 2 b_0 b_1;
   truncation pairs from carries as numbers; products; comparisons.
5. Results as shares of k bits, of which party 1 is told its one; MACs of them, and a test
   that they are what step 4 gave mod 2^k. The same for what an input's owner was told.
6. Check of all that was opened; then party 0 tells its shares of MACs less its draws.

Nothing in 5 and 6 is secret: what party 0 tells is masked by what it draws. The values of
party 0 are those of a dealer's run with the same seed only where they are drawn.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax._typing import Array
from privjax.errors import PreprocessingError
from privjax.preprocessing import bit_tuples, bitmatrix, composed, opening
from privjax.preprocessing.authenticated import (
    RING,
    MacKey,
    Shares,
    authenticate,
    triples,
)
from privjax.preprocessing.authenticated_bits import (
    and_triples,
    bits_of_mine,
    drawn_bits,
    joined,
    random_words,
    short,
)
from privjax.preprocessing.delivered import Delivery
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import random_transfers
from privjax.preprocessing.host import concatenate, host, stack, wide
from privjax.preprocessing.offline import filled, matched, requests
from privjax.preprocessing.opening import after_zero, at_entries, signed
from privjax.preprocessing.plan import Entries, Plan
from privjax.preprocessing.session import KAPPA, Session
from privjax.preprocessing.structure import Structure, kind, known, limbs, structure
from privjax.protocols.spdz2k import gf4

ALPHA_BITS = DELTA_BITS = 64

_bits_of = jax.jit(bitmatrix.bits_of)


@jax.jit
def _split(alpha: Array, delta: Array, proof: Array) -> tuple[Array, Array]:
    """Delta as words, and the bits of all three."""
    choices = [bitmatrix.bits_of(v).reshape(-1) for v in (alpha, delta, proof)]
    words = lax.bitcast_convert_type(delta, np.uint32).reshape(-1)
    return words, jnp.concatenate(choices)


@jax.jit
def _own_mac(x: Array, own: Array, alpha: Array) -> Array:
    return RING.add(own, RING.mul(x, alpha))


@jax.jit
def _xor(x: Shares, y: Shares, product: Shares) -> Shares:
    """x + y - 2 x y."""
    both = opening.plus(product, product)
    return opening.minus(opening.plus(x, y), both)


@jax.jit
def _truncation(high: Shares, low: Shares, top: Shares, weight: Array) -> Shares:
    weight = jnp.broadcast_to(weight, top.value.shape)
    return opening.minus(opening.plus(high, low), opening.times(top, weight))


@partial(jax.jit, static_argnames="terms")
def _totals(x: Shares, *, terms: int) -> Shares:
    return jax.tree.map(lambda v: RING.sum(v.reshape(-1, terms, 2), 1), x)


class _Stock:
    """Triples, of which each is taken once."""

    def __init__(self, made: Sequence[Any]) -> None:
        self._made, self._at = tuple(made), 0

    def take(self, count: int) -> Any:
        at, self._at = self._at, self._at + count
        return jax.tree.map(lambda v: v[at : at + count], self._made)


def _the_same(before: Array | None, key: Array) -> Array:
    """A MAC key as [1]: a program has one, whichever request and iteration it is of."""
    one = key[:1] if before is None else before
    if not isinstance(key, _compat.Tracer) and np.any(np.asarray(key != one)):
        raise PreprocessingError("a program with several MAC keys of a kind.")
    return one


def prepare(me: Session, party: Any, seed: Any) -> Side[Any]:
    """This party's corrections for one run of a two-party spdz2k program.

    Args:
      party: the closed jaxpr of a party's program, the same for both.
      seed: uint32[8], the seed with which this party will run the program.

    Returns: the tree that the online program consumes; zeros where nothing is meant for
    this party.

    Raises:
      MacCheckError: the other party was caught cheating. Throw the setup away.
      UnsupportedError: a request that needs a dealer: noise, shares of earlier programs.
    """
    s = structure(party)
    pairs = matched(requests(party), host(known(party, np.int32(me.index), seed)))
    own = [known_part for _, known_part in pairs]
    made = yield from _Party(me, s, own).run()
    return filled(requests(party), iter(made))


class _Party(Delivery):
    """One party's run; each method a step of the module's list."""

    def __init__(self, me: Session, s: Structure, own: Sequence[Any]) -> None:
        super().__init__(me, s, own)
        self.plan = Plan.of(s)

    def run(self) -> Side[list[list[Array]]]:
        me, plan = self.me, self.plan
        yield from self.keys()
        yield from self.bound()
        wanted = plan.products + plan.times + plan.dabits
        sums = (yield from triples(me, self.key, wanted)) if wanted else ()
        self.triples = _Stock(sums)
        count = (self.s.k - 1) * plan.numbers.size + sum(plan.ands.values())
        made = yield from and_triples(me, self.long, self.open, count)
        self.ands = _Stock(made)
        uniform = yield from random_words(
            me, self.long, sum(plan.masks.values()) + plan.bits
        )
        self.flags = uniform[sum(plan.masks.values()) :]
        yield from self.decompose()
        yield from self.numbers_of_bits()
        results = yield from self.values()
        planes = yield from self.planes(_Stock([uniform]))
        out = yield from self.results(results)
        yield from self.open.verify()
        return (yield from self.told(out | planes))

    # -- 1, 2: keys, bits, MACs --------------------------------------------------------

    def keys(self) -> Side[None]:
        me, names = self.me, [kind(w.fun) for w in self.s.wanted]
        alpha = delta = None
        for name, (operands, _) in zip(names, self.own, strict=True):
            key = operands[0].reshape(-1)
            if name == "SumMacs":
                alpha = _the_same(alpha, key.astype(np.uint64))
            elif name in ("BitMacs", "AndMacs", "EdaBits", "Comparison"):
                delta = _the_same(delta, key)
        alpha = me.draw((1,), np.uint64) if alpha is None else alpha
        if delta is None:
            secret = me.draw((1,), np.uint64) & ~gf4.FIRST
            delta = secret | np.uint64(me.index == 0)
        proof = me.draw((KAPPA // 32,), np.uint32)
        words, choices = _split(alpha, delta, proof)
        chosen, pairs = host((yield from random_transfers(me, choices, 8, active=True)))
        pairs = pairs.transpose(1, 0, 2)
        a, b = ALPHA_BITS, ALPHA_BITS + DELTA_BITS
        self.key = MacKey(alpha, chosen[:a], pairs[:a])
        more = [(words, chosen[a:b], pairs[a:b]), (proof, chosen[b:], pairs[b:])]
        self.long, self.proving = joined(me, *more[:1]), joined(me, *more)
        self.open = opening.Opening(me, self.key, delta[0])

    def bound(self) -> Side[None]:
        """Bits and MACs that agree."""
        me, plan, s = self.me, self.plan, self.s
        sources = [
            limbs(self.own[i][0][1], s.wanted[i].lead, s.wanted[i].fun.domain)[at]
            for i, at in s.uniform.items()
        ]
        x = concatenate([np.zeros((0, 2), np.uint64), *sources])
        self._tested(x)
        numbers = at_entries(after_zero(x), plan.numbers)
        mask = me.draw((1, 2), np.uint64)
        cut = tuple((n, bits, s.k - 1) for n, bits in plan.cut)
        layout = composed.Layout(plan.numbers.size, plan.dabits, cut)
        high = composed.parts_of(numbers, layout)
        dabits = drawn_bits(me, plan.dabits)
        made = host(
            (x, high, wide(dabits), mask, me.draw((opening.TESTS, 2), np.uint64))
        )
        macs = host((yield from authenticate(me, self.key, concatenate(made))))
        ends = np.cumsum([v.shape[0] for v in made])
        sources_, high_, singles_, mask_, self.masks = (
            jax.tree.map(lambda v, a=a, b=b: v[a:b], macs)
            for a, b in zip([0, *ends], ends, strict=False)
        )
        # The entry 0 is zero, whatever the other party would like.
        sources_ = jax.tree.map(after_zero, sources_)
        self.sources, self.high = sources_, high_
        self.singles = singles_
        if not layout.numbers + layout.singles:
            return
        own = [host(_bits_of(v)).reshape(-1) for v in (numbers, mask)]
        bits = concatenate([own[0], dabits, own[1]])
        words, t, q = yield from bits_of_mine(me, self.proving, bits)

        def row(name: str) -> Array:
            values = getattr(sources_, name)
            of_numbers = at_entries(values, plan.numbers)
            rest = [getattr(v, name) for v in (high_, singles_, mask_)]
            return concatenate([of_numbers, *rest])

        parts = composed.Parts(row("value"), row("own"), row("held"))
        yield from composed.prove(
            me, self.proving, self.key.alpha, bits, t, q, parts, layout
        )
        split = composed.WIDTH * layout.numbers
        held = short(q[:split]).reshape(-1, composed.WIDTH)
        both = short(words)
        mine = both[:split].reshape(-1, composed.WIDTH) ^ held
        ordered = (mine, held) if me.index == 0 else (held, mine)
        self.number_bits = [v.T for v in ordered]
        self.dabit_words = both[split : split + layout.singles]

    def _tested(self, x: Array) -> None:
        """Whether this party's operands are where the structure says.

        Raises: PreprocessingError if not: the program is not what was looked at.
        """
        rows = after_zero(x)
        if isinstance(rows, _compat.Tracer):
            return
        low = np.uint64((1 << self.s.k) - 1)
        for (i, j), entries in self.s.operands.items():
            if self.own[i][0][j].dtype == np.uint8:  # a bit
                continue
            own = np.asarray(self.own[i][0][j]).reshape(-1).astype(np.uint64)
            if own.size and np.any((own ^ at_entries(rows, entries)[:, 0]) & low):
                raise PreprocessingError(
                    "operands of requests are not where they were."
                )

    # -- 4: what the triples are for ---------------------------------------------------

    def decompose(self) -> Side[None]:
        """Planes of the bits of all numbers, and the carries into them."""
        n, k = self.plan.numbers.size, self.s.k
        if not n:
            return
        carry: Any = np.zeros((n,), np.uint64)
        planes, carries = [], [carry]
        for j in range(k):
            a, b = (v[j] for v in self.number_bits)
            planes.append(a ^ b ^ carry)
            if j < k - 1:
                triple = self.ands.take(n)
                made = yield from self.open.ands(a ^ carry, b ^ carry, triple)
                carry = made ^ carry
                carries.append(carry)
        self.planes_of, self.carries = stack(planes), stack(carries)

    def numbers_of_bits(self) -> Side[None]:
        """[[b]] for all bits that are wanted as numbers: of truncations, then flags."""
        plan, k = self.plan, self.s.k
        if not plan.dabits:
            return
        b = self.singles
        zero = b.value & np.uint64(0)
        mine = Shares(b.value, host(_own_mac(b.value, b.own, self.key.alpha)))
        theirs = Shares(zero, b.held)
        x, y = (mine, theirs) if self.me.index == 0 else (theirs, mine)
        both = yield from self.open.products(x, y, self.triples.take(plan.dabits))
        numbers = _xor(x, y, both)
        words = []
        if plan.cut:
            n, at = (np.array([c[i] for c in plan.cut]) for i in (0, 1))
            words = [
                self.carries[at, n],
                self.carries[k - 1, n],
                self.planes_of[k - 1, n],
            ]
        words.append(self.flags[plan.flags])
        m = yield from self.open.bits(concatenate(words) ^ self.dabit_words)
        flipped = signed(numbers, m.astype(bool))
        self.numbers = host(self.open.shifted(flipped, wide(m)))

    def _flag(self, entries: Entries) -> Shares:
        at = 3 * len(self.plan.cut) + np.searchsorted(self.plan.flags, entries)
        return opening.taken(self.numbers, at)

    def values(self) -> Side[dict[tuple[int, int], Shares]]:
        """Sums that are dealt, as [[x]] mod 2^128, right mod 2^k."""
        s, out = self.s, {}
        cut = 0
        for i, want in enumerate(s.wanted):
            name = kind(want.fun)
            if name == "Truncation":
                n = s.operands[i, 0].size
                out[i, 0], out[i, 1] = self._truncated(want.fun.bits, cut, n)
                cut += n
            elif name == "BitToSum":
                out[i, 0] = self._flag(s.operands[i, 0])
            elif name == "BitTimes":
                x, y = self._flag(s.operands[i, 0]), self.source(s.operands[i, 1])
                triple = self.triples.take(s.operands[i, 1].size)
                out[i, 0] = yield from self.open.products(x, y, triple)
        where = list(s.products)
        if where:
            terms = [
                np.concatenate([s.products[i][j].reshape(-1) for i in where])
                for j in (0, 1)
            ]
            x, y = (self.source(t) for t in terms)
            triple = self.triples.take(self.plan.products)
            flat = yield from self.open.products(x, y, triple)
            at = 0
            for i in where:
                n, k = s.products[i][0].shape
                part = jax.tree.map(lambda v, a=at, b=n * k: v[a : a + b], flat)
                out[i, 0] = host(_totals(part, terms=k))
                at += n * k
        return {place: out[place] for place in s.results}

    def _truncated(self, bits: int, at: int, n: int) -> tuple[Shares, Shares]:
        """H + (carry out of the low bits) - 2^(k-1-bits) (carry into the top), and the
        top bit, with H the sum of both parties' (r_i mod 2^(k-1)) >> bits."""
        total = len(self.plan.cut)
        low, top_in, top = (
            opening.taken(self.numbers, i * total + np.arange(at, at + n))
            for i in range(3)
        )
        high = opening.taken(self.high, np.arange(at, at + n))
        weight = np.array([2 ** (self.s.k - 1 - bits), 0], np.uint64)
        return host(_truncation(high, low, top_in, weight)), top

    def planes(self, stock: _Stock) -> Side[dict[tuple[int, int], Array]]:
        """What is dealt as words: [planes, entries], or [entries]."""
        s, out, left, right, after = self.s, {}, [], [], []
        for i, want in enumerate(s.wanted):
            if not isinstance(want.fun, bit_tuples.KINDS):
                continue
            n = s.sizes[i]
            (uniform,) = stock.take(self.plan.masks[i])
            r = None
            if (i, 1) in s.operands:
                numbers = np.searchsorted(self.plan.numbers, s.operands[i, 1])
                r = self.planes_of[:, numbers]
            uniform = uniform.reshape(-1, n)
            x, y = host(bit_tuples.factors(r, uniform, fun=want.fun))
            left.append(x.reshape(-1))
            right.append(y.reshape(-1))
            after.append((i, x.shape, r, uniform))
        at = 0
        for i, want in enumerate(s.wanted):
            if kind(want.fun) == "BitMacs":
                out[i, 0] = self.flags[at : at + s.sizes[i]]
                at += s.sizes[i]
        if not left:
            return out
        triple = self.ands.take(sum(self.plan.ands.values()))
        made = yield from self.open.ands(concatenate(left), concatenate(right), triple)
        at = 0
        for i, shape, r, uniform in after:
            size, fun = int(np.prod(shape)), s.wanted[i].fun
            products = made[at : at + size].reshape(shape)
            planes = host(bit_tuples.results(r, uniform, products, fun=fun))
            out |= {(i, j): p for j, p in enumerate(planes)}
            at += size
        return out
