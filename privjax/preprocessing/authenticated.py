"""Authenticated shares and triples for SPDZ2k from oblivious transfer, two parties.

Cramer, Damgard, Escudero, Scholl, Xing: SPDZ2k (CRYPTO 2018, ePrint 2018/482), the
preprocessing, which adapts MASCOT (Keller, Orsini, Scholl, CCS 2016). k = s = 64.
Values [[x]] = (x_i, m_i): sum m_i = alpha sum x_i mod 2^(k+s), alpha = alpha_0 + alpha_1
with alpha_i uniform in Z_2^s. Elements are 64-bit limbs, the low one first.

MACs. Transfers with the bits of alpha_i as choices, made once, give keys that both
parties stretch: for every value x_j party j sends G(k_h^0) - G(k_h^1) + x_j for each bit
h, and the parties then hold shares of alpha_i x_j. This is done mod 2^(k+2s), together
with one random value as a mask, and checked by a random linear combination with
coefficients in Z_2^s under a coin: an error that is not zero mod 2^(k+s) has a multiple
of it that vanishes mod 2^(k+2s) for a share 2^-s of the coefficients. Then cut to k+s.

Triples. Each party chooses tau = 4 s + 2 k random bits a_h, transfers give shares of
c_h = a_h b, and two public random combinations of the a_h and c_h become (a, c) and
(a', c'). A party that offers different b in different transfers learns bits of a_h if it
is not caught; combinations are close to uniform given those (leftover hash: two elements
of k+s bits at distance 2^-s take 2 (k+s) + 2 s bits). All five are authenticated, and
(a', c') is sacrificed: for a coin t in Z_2^s, rho = t a - a' and sigma = t c - c' - rho b
are opened; sigma must be 0, and the MACs of both are checked.

Active security with abort against one of the two parties, statistical parameter s (the
MAC check loses log2(s + 1) bits), with the assumptions of `base_ot` and `extension`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.preprocessing import bitmatrix
from privjax.preprocessing.agree import open_together, toss
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import correlated, random_transfers, received_as
from privjax.preprocessing.groups import Wide
from privjax.preprocessing.host import concatenate, host, padded
from privjax.preprocessing.session import Session, expand
from privjax.prg.chacha20 import Purpose, bits

K = S = 64
TAU = 4 * S + 2 * K
RING = Wide(2)  # mod 2^(k + s): what protocols use
WORK = Wide(3)  # mod 2^(k + 2 s): in which MACs are made

_CHI, _COMBINE, _SACRIFICE = 5, 6, 7


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MacKey:
    """One party's part of the MAC key, and the transfers chosen by its bits.

    Attributes:
      alpha: uint64[1], this party's alpha_i.
      chosen: uint32[64, 8], the keys that its bits chose.
      pairs: uint32[64, 2, 8], the keys among which the other party's chose.
    """

    alpha: Array
    chosen: Array
    pairs: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shares:
    """One party's shares of authenticated values: uint64[n, 2] each.

    Attributes:
      value, mac: shares of x and of alpha x.
      own, held: where it is told, mac without what this party computes alone: this
        party's part of the other's alpha_j times its own x_i, and of alpha_i x_j.
    """

    value: Array
    mac: Array
    own: Array | None = None
    held: Array | None = None


def mac_key(me: Session) -> Side[MacKey]:
    """A fresh MAC key: 64 checked transfers in either direction, three rounds."""
    alpha = me.draw((1,), np.uint64)
    choices = bitmatrix.bits_of(alpha).reshape(-1)
    chosen, pairs = yield from random_transfers(me, choices, 8, active=True)
    return MacKey(alpha, chosen, pairs.transpose(1, 0, 2))


# -- linear combinations ---------------------------------------------------------------


@partial(jax.jit, static_argnames=("ring", "use"))
def _combined(x: Array, coin: Array, *, ring: Wide, use: int) -> Array:
    """sum over j of chi_j x_j for x[..., n, limbs], chi_j in Z_2^s from the coin."""
    chi = bits(coin, (Purpose.RAW, use, 0), (x.shape[-2],), np.uint64)
    return ring.sum(ring.mul(x, chi[:, None]), -2)


@partial(jax.jit, static_argnames="ring")
def _residue(mac: Array, value: Array, alpha: Array, *, ring: Wide) -> Array:
    """z_i = m_i - alpha_i v."""
    return ring.sub(mac, ring.mul(value, alpha))


def _sums_to_zero(me: Session, z: Array, ring: Wide, what: str) -> Side[None]:
    theirs = yield from open_together(me, z, what)
    me.require(jnp.all(ring.add(z, theirs) == 0), what)


# -- MACs ------------------------------------------------------------------------------


@jax.jit
def _stretch(pairs: Array, x: Array, call: Array) -> tuple[Array, Array]:
    """The holder of x: its share - sum 2^h G(k_h^0), and the message [n, 64, limbs]."""
    n = x.shape[0]
    streams = expand(pairs, call, WORK.words * n).reshape(S, 2, n, WORK.words)
    zero, one = WORK.from_words(streams[:, 0]), WORK.from_words(streams[:, 1])
    message = WORK.add(WORK.sub(zero, one), jnp.broadcast_to(x, zero.shape))
    return WORK.negate(_weighed(zero)), message.transpose(1, 0, 2)


@jax.jit
def _absorb(chosen: Array, alpha: Array, message: Array, call: Array) -> Array:
    """The holder of alpha: sum 2^h (G(k_h^(alpha_h)) + alpha_h message_h)."""
    n = message.shape[0]
    message = message.transpose(1, 0, 2)
    pad = WORK.from_words(expand(chosen, call, WORK.words * n).reshape(S, n, -1))
    bit = bitmatrix.bits_of(alpha).reshape(S, 1)
    return _weighed(WORK.add(pad, WORK.select(bit, message)))


def _weighed(x: Array) -> Array:
    """sum over h of 2^h x_h for x[64, n, limbs]."""
    powers = np.uint64(1) << lax.iota(np.uint64, S)
    return WORK.sum(WORK.mul(x, powers[:, None, None]), 0)


def key_products(me: Session, key: MacKey, x: Array) -> Side[tuple[Array, Array]]:
    """My shares of alpha_j x_i and alpha_i x_j mod 2^(k+2s), unchecked: x uint64[n, 3].

    Here i is this party and j the other. One round, 64 * 24 bytes per value from each
    party.
    """
    call = me.call()
    count = x.shape[0]
    share, message = host(_stretch(key.pairs, _filled(x), call))
    received = yield message[:count]
    message = received_as(received, (count, *message.shape[1:]), np.uint64)
    other = host(_absorb(key.chosen, key.alpha, _filled(host(message)), call))
    return share[:count], other[:count]


def _filled(x: Array) -> Array:
    """With zeros behind, as `extension.bucket` has it: few shapes are compiled."""
    return padded(x, bitmatrix.bucket(x.shape[0]))


def authenticate(me: Session, key: MacKey, x: Array) -> Side[Shares]:
    """[[x_0 + x_1]] from my share x, uint64[n, 2]. Six rounds.

    Raises: MacCheckError if the other party's messages were inconsistent.
    """
    mask = me.draw((1, WORK.limbs), np.uint64)
    wide = concatenate([_widened(x), mask])
    own, held = yield from key_products(me, key, wide)
    macs = _mac(own, held, wide, key.alpha)
    coin = yield from toss(me)
    mixed = WORK.add(_combined(_filled(wide[:-1]), coin, ring=WORK, use=_CHI), mask[0])
    received = yield mixed
    total = WORK.add(mixed, received_as(received, mixed.shape, np.uint64))
    mixed_mac = _combined(_filled(macs[:-1]), coin, ring=WORK, use=_CHI)
    mixed_mac = WORK.add(mixed_mac, macs[-1])
    z = _residue(mixed_mac, total, key.alpha, ring=WORK)
    yield from _sums_to_zero(me, z, WORK, "the check of new MACs")
    return Shares(x, *(v[:-1, :2] for v in (macs, own, held)))


def _widened(x: Array) -> Array:
    return concatenate([x.T, x.T[:1] & np.uint64(0)]).T


def _mac(own: Array, held: Array, x: Array, alpha: Array) -> Array:
    parts = (_filled(v) for v in (own, held, x))
    return host(_mac_of(*parts, alpha))[: x.shape[0]]


@jax.jit
def _mac_of(own: Array, held: Array, x: Array, alpha: Array) -> Array:
    return WORK.add(WORK.add(own, held), WORK.mul(x, alpha))


def check_opened(me: Session, key: MacKey, opened: Array, macs: Array) -> Side[None]:
    """The MAC check of opened values, uint64[n, 2] mod 2^(k+s). Four rounds.

    The coin is tossed after all values are fixed; a wrong one passes with probability
    2^(-s + log2(s+1)).
    """
    coin = yield from toss(me)
    value = _combined(_filled(opened), coin, ring=RING, use=_CHI)
    mac = _combined(_filled(macs), coin, ring=RING, use=_CHI)
    z = _residue(mac, value, key.alpha, ring=RING)
    yield from _sums_to_zero(me, z, RING, "the MAC check")


def open_values(me: Session, share: Array) -> Side[Array]:
    """The sum of both shares, unchecked: `check_opened` must follow. One round."""
    received = yield share
    theirs = received_as(received, share.shape, np.uint64)
    return host(_added(_filled(share), _filled(host(theirs))))[: share.shape[0]]


_added = jax.jit(RING.add)


# -- triples ---------------------------------------------------------------------------


@jax.jit
def _combine(a: Array, c: Array, coin: Array) -> Array:
    """Two combinations of the bits a[n, tau] and of c[n, tau, 2]: uint64[4, n, 2]."""
    shape = (2, *c.shape)
    r = bits(coin, (Purpose.RAW, _COMBINE, 0), shape, np.uint64)
    of_a = RING.sum(RING.select(a, r), 2)
    of_c = RING.sum(RING.mul(jnp.broadcast_to(c, shape), r), 2)
    return jnp.concatenate([of_a, of_c])


@jax.jit
def _own_products(a: Array, b: Array, one: Array, two: Array) -> Array:
    own = RING.select(a, jnp.broadcast_to(b[:, None], (*a.shape, 2)))
    return RING.add(own, RING.add(one, two).reshape(own.shape))


@jax.jit
def _linear(t: Array, x: Array, y: Array) -> Array:
    """t x - y."""
    return RING.sub(RING.mul(x, t), y)


@jax.jit
def _sigma(t: Array, x: Array, y: Array, rho: Array, z: Array) -> Array:
    """t x - y - rho z."""
    return RING.sub(_linear(t, x, y), RING.mul(rho, z))


def triples(
    me: Session, key: MacKey, count: int
) -> Side[tuple[Shares, Shares, Shares]]:
    """`count` random authenticated triples [[a]], [[b]], [[c]], c = a b mod 2^(k+s).

    Twenty rounds. From each party 384 * (16 + 16) bytes of transfers, 5 * 64 * 24 of
    MACs and 32 of openings per triple: 20,000 bytes.

    Raises: MacCheckError if the other party deviated and was caught.
    """
    a_bits = bitmatrix.unpack(me.draw((count, TAU // 32), np.uint32), TAU)
    b = me.draw((count, RING.limbs), np.uint64)
    offers = jnp.broadcast_to(b[:, None], (count, TAU, RING.limbs)).reshape(-1, 2)
    one, two = yield from correlated(
        me, RING, a_bits.reshape(-1), offers, (count * TAU,), active=True
    )
    assert one is not None and two is not None
    c_parts = _own_products(a_bits, b, one, two)
    coin = yield from toss(me)
    a, a2, c, c2 = _combine(a_bits, c_parts, coin)
    five = concatenate(host([a, b, c, a2, c2]))
    all_five = host((yield from authenticate(me, key, five)))
    parts = [
        Shares(all_five.value[i * count :][:count], all_five.mac[i * count :][:count])
        for i in range(5)
    ]
    first, second, third = parts[:3]
    yield from _sacrifice(me, key, (first, second, third), (parts[3], parts[4]))
    return first, second, third


def _sacrifice(
    me: Session,
    key: MacKey,
    triple: tuple[Shares, Shares, Shares],
    given: tuple[Shares, Shares],
) -> Side[None]:
    """Check c = a b with the help of c' = a' b, which are used up."""
    a, b, c = triple
    a2, c2 = given
    coin = yield from toss(me)
    t = bits(coin, (Purpose.RAW, _SACRIFICE, 0), (a.value.shape[0], 1), np.uint64)
    rho = yield from open_values(me, host(_linear(t, a.value, a2.value)))
    rho_mac = _linear(t, a.mac, a2.mac)
    sigma = host(_sigma(t, c.value, c2.value, rho, b.value))
    sigma_mac = _sigma(t, c.mac, c2.mac, rho, b.mac)
    sigma = yield from open_values(me, sigma)
    opened, macs = (
        concatenate(host(pair)) for pair in ([rho, sigma], [rho_mac, sigma_mac])
    )
    yield from check_opened(me, key, opened, macs)
    me.require(jnp.all(sigma == 0), "the sacrifice of triples")
