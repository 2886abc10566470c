"""Values with MACs opened between two parties: gates, products, tests; one check at last.

Sums are `authenticated.Shares` mod 2^128, bits words of 64 bits (`protocols.spdz2k.gf4`).
What is opened here only hides random values that no output depends on yet, so that it
is enough to check all of it before anything is handed out: sums as in SPDZ2k's
BatchCheck; bits by the words that are left, which are equal for both parties. Of those a
linear universal hash over GF(2^64) under a coin is compared: other bits e_j change it by
(sum chi_j e_j) Delta, of which 62 bits are unknown.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.preprocessing import bitmatrix
from privjax.preprocessing.agree import open_together, toss
from privjax.preprocessing.authenticated import (
    RING,
    MacKey,
    Shares,
    check_opened,
    open_values,
)
from privjax.preprocessing.consistency import universal_hash
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import received_as
from privjax.preprocessing.host import concatenate, host, padded
from privjax.preprocessing.session import Session
from privjax.prg.chacha20 import Purpose, bits
from privjax.protocols.spdz2k import gf4

# Random sums by which zeros are tested, each with an error of 1/2.
TESTS = 64
_TEST = 9
Triple = tuple[Any, Any, Any]

plus = jax.jit(lambda x, y: jax.tree.map(RING.add, _bare(x), _bare(y)))
minus = jax.jit(lambda x, y: jax.tree.map(RING.sub, _bare(x), _bare(y)))
times = jax.jit(lambda x, v: jax.tree.map(lambda a: RING.mul(a, v), _bare(x)))


def _bare(x: Shares) -> Shares:
    return Shares(x.value, x.mac)


def joined(*parts: Shares) -> Shares:
    """One behind the other."""
    return jax.tree.map(lambda *v: concatenate(v), *host([_bare(x) for x in parts]))


def taken(x: Shares, at: Any) -> Shares:
    """Entries of x, along the first axis."""
    return jax.tree.map(lambda v: v[at], host(_bare(x)))


@jax.jit
def signed(x: Any, negative: Array) -> Any:
    """With negatives where it is said."""
    return jax.tree.map(lambda v: jnp.where(negative[:, None], RING.negate(v), v), x)


def at_entries(rows: Array, entries: np.ndarray) -> Array:
    """Entries of a row of which number 0 is zero, with their signs."""
    return host(signed(rows[np.abs(entries)], entries < 0))


def after_zero(rows: Array) -> Array:
    """With a zero in front, which is nobody's."""
    return concatenate([np.zeros((1, 2), np.uint64), rows])


@jax.jit
def add_public(first: Array, alpha: Array, x: Shares, v: Array) -> Shares:
    """x + v: party 0, which `first` says, adds v, both alpha_i v to the MAC."""
    own = jnp.where(first, v, jnp.zeros_like(v))
    return Shares(RING.add(x.value, own), RING.add(x.mac, RING.mul(v, alpha)))


@jax.jit
def _sign(words: Array) -> Array:
    return bitmatrix.pack(gf4.first(words, 1))


@jax.jit
def _residue(
    words: Array, mine: Array, theirs: Array, delta: Array
) -> tuple[Array, Array]:
    opened = bitmatrix.unpack(mine ^ theirs, words.shape[0])
    return opened, words ^ (gf4.ones(opened) & delta)


@jax.jit
def _digest(words: Array, coin: Array) -> Array:
    body = lax.bitcast_convert_type(words, np.uint32).reshape(1, -1)
    return universal_hash(body, jnp.zeros((1, 2), np.uint32), coin)


@jax.jit
def _hidden(x: Shares, y: Shares, triple: Triple) -> Shares:
    a, b, _ = triple
    return jax.tree.map(lambda *v: jnp.concatenate(v), minus(x, a), minus(y, b))


@jax.jit
def _beaver(opened: Array, triple: Triple) -> tuple[Shares, Array]:
    """c + d b + a e, and d e."""
    d, e = jnp.split(opened, 2)
    a, b, c = triple
    out = plus(plus(c, times(b, d)), times(a, e))
    return out, RING.mul(d, e)


@jax.jit
def _masked(x: Array, y: Array, triple: Triple) -> tuple[Array, Array]:
    both = jnp.concatenate([x ^ triple[0], y ^ triple[1]])
    return both, _sign(both)


@jax.jit
def _anded(opened: Array, triple: Triple, delta: Array) -> Array:
    d, e = (gf4.ones(v) for v in jnp.split(opened, 2))
    a, b, c = triple
    return c ^ (d & b) ^ (e & (a ^ (d & delta)))


@partial(jax.jit, static_argnames="k")
def _tests(x: Shares, high: Shares, coin: Array, *, k: int) -> Shares:
    """Random sums of x, plus 2^k h each."""
    count = x.value.shape[0]
    subset = bits(coin, (Purpose.RAW, _TEST, 0), (count,), np.uint64)
    power = np.zeros((2,), np.uint64)
    power[k // 64] = np.uint64(1 << k % 64)

    def one(at: Any) -> Any:
        picked = ((subset >> at) & np.uint64(1))[:, None]
        return jax.tree.map(lambda v: RING.sum(v * picked, 0), _bare(x))

    sums = lax.map(one, lax.iota(np.uint64, TESTS))
    return plus(sums, times(high, jnp.broadcast_to(power, (TESTS, 2))))


class Opening:
    """What one party has opened, until `verify`.

    Args:
      key: the MAC key of sums.
      delta: uint64, this party's part of the key of bits.
    """

    def __init__(self, me: Session, key: MacKey, delta: Array) -> None:
        self.me, self.key, self.delta = me, key, delta
        self._words: list[Array] = []
        self._sums: list[Shares] = []

    def bits(self, words: Array) -> Side[Array]:
        """The bits of uint64[n], uint8[n]. One round."""
        if not words.size:
            return jnp.zeros((0,), np.uint8)
        return (yield from self._bits(words, _sign(words)))

    def _bits(self, words: Array, mine: Array) -> Side[Array]:
        received = yield mine
        theirs = received_as(received, mine.shape, np.uint32)
        opened, rest = host(_residue(words, mine, theirs, self.delta))
        self._words.append(rest)
        return opened

    def zero_bits(self, words: Array) -> None:
        """Words of bits that have to be 0; nothing is sent."""
        self._words.append(host(words))

    def values(self, x: Shares) -> Side[Array]:
        """uint64[n, 2]. One round."""
        opened = yield from open_values(self.me, host(x.value))
        self._sums.append(host(Shares(opened, x.mac)))
        return opened

    def ands(self, x: Array, y: Array, triple: Triple) -> Side[Array]:
        """<x AND y>, uint64[n], with a triple that is used up. One round."""
        if not x.size:
            return x
        opened = yield from self._bits(*_masked(x, y, triple))
        return host(_anded(opened, triple, self.delta))

    def products(self, x: Shares, y: Shares, triple: Triple) -> Side[Shares]:
        """[[x y]] mod 2^128, with a triple that is used up. One round."""
        if not x.value.size:
            return x
        opened = yield from self.values(_hidden(x, y, triple))
        out, public = _beaver(opened, triple)
        return host(self.shifted(out, public))

    def shifted(self, x: Shares, v: Array) -> Shares:
        """[[x + v]] for a public v, uint64[n, 2]."""
        return add_public(np.bool_(self.me.index == 0), self.key.alpha, x, v)

    def zeros(self, x: Shares, high: Shares, k: int) -> Side[None]:
        """Check that values are 0 mod 2^k; `high` is 64 random ones, used up.

        Raises: MacCheckError if not: a wrong one passes with probability 2^-64.
        """
        if not x.value.size:
            return
        coin = yield from toss(self.me)
        opened = yield from self.values(_tests(x, high, coin, k=k))
        low = host(opened)[:, 0] & np.uint64((1 << k) - 1)
        self.me.require(jnp.all(low == 0), "the test of what was dealt")

    def verify(self) -> Side[None]:
        """Check all that was opened so far.

        Raises: MacCheckError if the other party opened anything else than it holds.
        """
        if self._words:
            coin = yield from toss(self.me)
            words = concatenate(self._words)
            # Zeros behind change nothing.
            mine = _digest(padded(words, bitmatrix.bucket(words.size)), coin)
            theirs = yield from open_together(self.me, mine, "the check of bits")
            self.me.require(jnp.all(mine == theirs), "the check of bits")
        if self._sums:
            sums = joined(*self._sums)
            yield from check_opened(self.me, self.key, sums.value, sums.mac)
        self._words, self._sums = [], []
