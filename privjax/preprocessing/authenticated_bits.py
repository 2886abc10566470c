"""Bits with MACs for spdz2k, and triples of them, with active security, two parties.

An extension with more base keys gives rows of 192 bits, q_j = t_j + x_j Delta, for a key
Delta of 128 bits of the setup and the 64 bits of the program's Delta (see
`protocols.spdz2k.gf4`). Its consistency check binds the chooser to one bit x_j for all of
them. With b = b_0 XOR b_1, b_i chosen by party i, the words b_i Delta_i + t + q of both
parties add up to b Delta: this is <b>, long.

Triples. Katz, Ranellucci, Rosulek, Wang (CRYPTO 2018, ePrint 2018/578), section 4, after
Wang, Ranellucci, Katz (CCS 2017): with C the word of y, party i sends
H(K) + H(K + Delta_i) + C_i for the key K of the other's bit of x; both then have words of
x y Delta, whose first bits are XORed with a bit of <r> and opened; that <r> + d and the
words agree is compared by digests. A cheater can make the comparison depend on the
honest party's bits of x, one for each triple that it touches, and is caught with
probability 1/2 for each. So triples are put into buckets at random, of which the x are
added up: `bucket_size` takes as many as leave one unknown but with probability 2^-64.

H is BLAKE2s, hiding 192 bits by 128 secret ones. From each party 24 bytes per bit, and
triple and member of a bucket 3 of these, 24 bytes, one bit, and one when they are joined.
"""

import math
from functools import cache, partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.preprocessing import bitmatrix
from privjax.preprocessing.agree import open_together, toss
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import extend, pads, received_as
from privjax.preprocessing.host import host
from privjax.preprocessing.session import ROW_WORDS, Session, Setup
from privjax.prg.blake2s import blake2s
from privjax.prg.chacha20 import Purpose, bits
from privjax.protocols.spdz2k import gf4

SECURITY = 64
# Words of a row: 128 bits that only hashes see, and the program's word.
LONG = ROW_WORDS + 2
_BUCKETS = 8


def joined(me: Session, *parts: tuple[Array, Array, Array]) -> Setup:
    """The session's base keys with more behind them, each (choices, chosen, pairs)."""
    own = me.keys
    columns = [(own.delta, own.chosen, own.pairs), *parts]
    delta, chosen, pairs = (jnp.concatenate(c) for c in zip(*columns, strict=True))
    return Setup(delta, chosen, pairs, own.own)


# -- bits ------------------------------------------------------------------------------


@jax.jit
def long_words(x: Array, t: Array, q: Array, delta: Array) -> Array:
    """uint32[rows, 6]: this party's words of x_0 XOR x_1, of bits that are drawn only."""
    bits = jnp.pad(x, (0, t.shape[0] - x.shape[0])).astype(np.uint32)
    return t[:, :LONG] ^ q[:, :LONG] ^ bits[:, None] * delta[:LONG]


def short(words: Array, at: int = ROW_WORDS) -> Array:
    """uint64: what of long words, or of rows, the program has."""
    low, high = (words[..., at + i].astype(np.uint64) for i in (0, 1))
    return low | high << np.uint64(32)


def bits_of_mine(
    me: Session, keys: Setup, x: Array
) -> Side[tuple[Array, Array, Array]]:
    """(long words, t, q) of bits x_0 XOR x_1 from mine, uint8[n]. Three rounds.

    Raises: MacCheckError if the other party chose different bits for different keys.
    """
    count = x.shape[0]
    t, q = yield from extend(me, x, count, active=True, keys=keys)
    assert t is not None and q is not None
    words = host(long_words(x, t, q, keys.delta))
    return words[:count], host(t)[:count], host(q)[:count]


def random_words(me: Session, keys: Setup, count: int) -> Side[Array]:
    """<t> of uniform bits, uint64[count]."""
    if not count:
        return jnp.zeros((0,), np.uint64)
    words, _, _ = yield from bits_of_mine(me, keys, drawn_bits(me, count))
    return short(words)


def drawn_bits(me: Session, count: int) -> Array:
    drawn = me.draw((bitmatrix.bucket(bitmatrix.words_for(count)),), np.uint32)
    return host(_bits(drawn))[:count]


_bits = jax.jit(lambda words: bitmatrix.unpack(words, 32 * words.shape[0]))


# -- triples ---------------------------------------------------------------------------


def _log_choose(n: int, k: int) -> float:
    """log2 of a binomial coefficient."""
    return (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    ) / math.log(2)


@cache
def bucket_size(count: int) -> int:
    """The least b with which, of `count` buckets of b triples each, one consists of
    triples with known x with probability 2^-64 at the most.

    A cheater who touches t triples is not caught with probability 2^-t; a bucket is
    among them with probability C(t, b) / C(count b, b).
    """
    for b in range(2, SECURITY + 2):
        total = count * b
        tried = range(b, min(total, 8 * SECURITY) + 1)
        worst = max(_log_choose(t, b) - t for t in tried)
        if math.log2(count) + worst - _log_choose(total, b) <= -SECURITY:
            return b
    raise AssertionError("a bucket of 65 triples is enough for any number")


@jax.jit
def _garbled(
    q: Array, delta: Array, c: Array, number: Array, call: Array
) -> tuple[Array, Array]:
    """S: H(K), and H(K) + H(K + Delta) + C."""
    rows = q[:, :ROW_WORDS]
    zero = pads(rows, number, call, words=LONG)
    one = pads(rows ^ delta[:ROW_WORDS], number, call, words=LONG)
    return zero, zero ^ one ^ c


@jax.jit
def _evaluated(
    t: Array,
    x: Array,
    zero: Array,
    message: Array,
    c: Array,
    number: Array,
    call: Array,
) -> Array:
    """This party's word of x y Delta."""
    pad = pads(t[:, :ROW_WORDS], number, call, words=LONG)
    chosen = x.astype(np.uint32)[:, None]
    return zero ^ pad ^ chosen * (message ^ c)


def _first(words: Array) -> Array:
    return words[:, ROW_WORDS].astype(np.uint8) & np.uint8(1)


@jax.jit
def _masked(product: Array, r: Array) -> Array:
    return bitmatrix.pack(_first(product) ^ _first(r))


@jax.jit
def _corrected(
    product: Array, r: Array, mine: Array, theirs: Array, delta: Array
) -> tuple[Array, Array]:
    """<z> as a long word, and a digest of what must be equal for both."""
    d = bitmatrix.unpack(mine ^ theirs, r.shape[0])
    z = r ^ d[:, None].astype(np.uint32) * delta[:LONG]
    return z, blake2s((product ^ z).reshape(-1))


def leaky_triples(
    me: Session, keys: Setup, count: int
) -> Side[tuple[Array, Array, Array]]:
    """<x>, <y> and <x AND y>, uint64[count] each: correct, but bits of x may be known.

    Raises: MacCheckError if the other party was caught.
    """
    own = drawn_bits(me, 3 * count)
    words, t, q = yield from bits_of_mine(me, keys, own)
    x, y, r = (words[i * count : (i + 1) * count] for i in range(3))
    call = me.call()
    zero, message = _garbled(q[:count], keys.delta, y, me.number, call)
    received = yield message
    theirs = received_as(received, message.shape, np.uint32)
    product = _evaluated(t[:count], own[:count], zero, theirs, y, me.number, call)
    d = _masked(product, r)
    received = yield d
    other = received_as(received, d.shape, np.uint32)
    z, digest = _corrected(product, r, d, other, keys.delta)
    shown = yield from open_together(me, digest, "the comparison of AND triples")
    me.require(jnp.all(shown == digest), "the comparison of AND triples")
    return short(x), short(y), short(z)


@partial(jax.jit, static_argnames="size")
def _bucketed(words: tuple[Array, ...], coin: Array, *, size: int) -> list[Array]:
    """[buckets, size] each, in an order that the coin gives."""
    count = words[0].shape[0]
    order = jnp.argsort(bits(coin, (Purpose.RAW, _BUCKETS, 0), (count,), np.uint64))
    return [w[order].reshape(-1, size) for w in words]


@jax.jit
def _sums(x: Array, y: Array, z: Array, opened: Array) -> tuple[Array, Array, Array]:
    """x = sum x_b, y = y_1, z = sum z_b + (y_1 + y_b) x_b."""
    moved = z[:, 1:] ^ (gf4.ones(opened) & x[:, 1:])

    def total(w: Array) -> Array:
        return lax.reduce(w, np.uint64(0), lax.bitwise_xor, (1,))

    return total(x), y[:, 0], z[:, 0] ^ total(moved)


class Opens(Protocol):
    """`opening.Opening`: opens bits, and checks them later."""

    def bits(self, words: Array) -> Side[Array]: ...


def and_triples(
    me: Session, keys: Setup, opening: Opens, count: int
) -> Side[tuple[Array, Array, Array]]:
    """<x>, <y>, <x AND y> of uniform bits that nobody knows: uint64[count] each.

    Twelve rounds; `opening` checks the differences that are opened.

    Raises: MacCheckError if the other party was caught.
    """
    if not count:
        none = jnp.zeros((0,), np.uint64)
        return (none,) * 3
    size = bucket_size(count)
    leaky = yield from leaky_triples(me, keys, count * size)
    coin = yield from toss(me)
    x, y, z = _bucketed(leaky, coin, size=size)
    opened = yield from opening.bits(_differences(y))
    return host(_sums(x, y, z, opened.reshape(count, size - 1)))


_differences = jax.jit(lambda y: (y[:, :1] ^ y[:, 1:]).reshape(-1))
