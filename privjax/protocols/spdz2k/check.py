"""The batch check of opened values: random linear combinations under a late coin.

Cramer et al. 2018, figure 3 (BatchCheck), in a running form. Opened were the low k bits
v_j of values with shares x_i^j and MAC shares m_i^j mod 2^(k+s). For chi_j from a coin
that was tossed after all of them were fixed, party i adds to its `Ledger`

    u += sum_j chi_j v_j  mod 2^k,   y_i += sum_j chi_j x_i^j,   m_i += sum_j chi_j m_i^j

and to y_i and m_i a random multiple of 2^k, which hides the high bits. To compare, all
send y_i, whose sum y must be u mod 2^k, and then z_i = m_i - alpha_i y, which must add up
to 0. A wrong v_j makes y wrong mod 2^k, and then somebody has guessed alpha.

Opened bits with MACs in GF(2)^64 give words w_i^j = t_i^j XOR b_j Delta_i, whose XOR over
parties is 0. Two parties have equal words then, and compare a universal hash of them;
more parties take 64 random subset sums, which are linear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.prg.session import universal_hash
from privjax.protocols.ring import to_words
from privjax.protocols.spdz2k.extended import Extended
from privjax.protocols.spdz2k.tuples import planes

SUBSETS = 64
# The nonce of the bits' coefficients; those of sums count from 0.
_SUBSETS_OF_BITS = 0xFFFFFFFF


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ledger:
    """What a party carries from one check to the next.

    Attributes: u, y, m as above; heard is u of what owners sent, which has no MAC but
    must be the same for all; z of values under other keys; alpha is the party's key once
    anything was entered; bits is the digest of the binary words; sound is False for good
    once a check has failed.
    """

    heard: Any
    u: Any
    y: Any
    m: Any
    z: Any
    alpha: Any
    bits: Any
    sound: Any

    @classmethod
    def fresh(cls, ring: Extended, parties: int) -> "Ledger":
        zero, digest = ring.zeros(()), 8 if parties == 2 else 2 * SUBSETS
        nothing = jnp.zeros((), ring.dtype)
        return cls(
            nothing,
            nothing,
            zero,
            zero,
            zero,
            jnp.zeros((), np.uint64),
            jnp.zeros((digest,), np.uint32),
            jnp.ones((), bool),
        )


def message(ring: Extended, ledger: Ledger, y: Any) -> Any:
    """uint32[n]: what the parties compare, once y is known."""
    z = ledger.z + ledger.m - y * ledger.alpha
    common = [to_words(ledger.heard), to_words(ledger.u), ring.to_words(y)]
    return jnp.concatenate([ring.to_words(z), *common, ledger.bits])


def balanced(ring: Extended, messages: Any, u: Any, y: Any) -> Any:
    """Whether all parties' messages, uint32[parties, n], say that nobody cheated."""
    n = ring.words
    both = n + 2 * (ring.k // 32) + n
    z, common, bits = messages[:, :n], messages[:, n:both], messages[:, both:]
    total = ring.total(ring.from_words(z), (0,))
    return (
        ring.equal(total, ring.zeros(()))
        & jnp.all(common == common[:1])
        & (ring.low(y) == u)
        & jnp.all(lax.reduce_xor(bits, (0,)) == 0)
    )


@dataclass(frozen=True)
class Opened:
    """An opened value, and what authenticates it.

    `check` is (planes of share and MAC share on one axis, key) of a value of this
    program, (MAC share, key) of bits, (MAC share, keys) of a value of another program,
    opened mod 2^(k+s) with each element under a key of its own; or empty for what its
    owner sent.
    """

    domain: str
    value: Any
    check: tuple[Any, ...]

    @property
    def own(self) -> bool:
        """A value of this program."""
        return self.domain == "sum" and self.check[-1].ndim == 0


def absorb(
    ring: Extended, parties: int, ledger: Ledger, coin: Any, items: Sequence[Opened]
) -> Ledger:
    """The ledger after the openings `items`; `coin` is uint32[8], common to all."""
    heard, u, y, m = ledger.heard, ledger.u, ledger.y, ledger.m
    z, alpha = ledger.z, ledger.alpha
    said = [i for i in items if not i.check]
    own = [i for i in items if i.check and i.domain != "xor" and i.own]
    other = [i for i in items if i.check and i.domain != "xor" and not i.own]
    if said:
        low = jnp.concatenate([i.value.astype(ring.dtype).reshape(-1) for i in said])
        heard = heard + _combined(_coefficients(coin, 0, low.size), low)
    if own:
        low = jnp.concatenate([i.value.reshape(-1) for i in own])
        both = ring.of_planes(
            [
                jnp.concatenate([x.reshape(2, -1) for x in plane], 1)
                for plane in zip(*(i.check[:-1] for i in own), strict=True)
            ]
        )
        chi = _coefficients(coin, 1, low.size)
        sums = ring.total(both * chi, (1,))
        u = u + _combined(chi, low)
        y, m = (
            old + jax.tree.map(lambda v, i=i: v[i], sums)
            for i, old in enumerate((y, m))
        )
        alpha = own[0].check[-1]
    for place, item in enumerate(other):
        mac, key = item.check
        wrong = ring.from_marker(mac) - ring.from_marker(item.value) * key
        chi = _coefficients(coin, 2 + place, key.size).reshape(key.shape)
        z = z + ring.total(wrong * chi)
    bits = _binary(parties, ledger.bits, coin, items)
    return Ledger(heard, u, y, m, z, alpha, bits, ledger.sound)


def _combined(chi: Any, low: Any) -> Any:
    """Sum of chi_j v_j mod 2^k."""
    return jnp.sum(chi.astype(low.dtype) * low, dtype=low.dtype)


def _binary(parties: int, before: Any, coin: Any, items: Sequence[Opened]) -> Any:
    words = []
    for item in items:
        if item.domain == "xor":
            mac, key = item.check
            opened = planes(item.value, mac.shape[0])
            words.append((mac ^ (opened & key)).reshape(-1))
    return _digest(parties, before, coin, jnp.concatenate(words)) if words else before


def _coefficients(coin: Any, use: int, count: int) -> Any:
    """uint64[count] from the coin, odd: one wrong MAC share alone never balances."""
    stream = chacha20.keystream(coin, (int(Purpose.CHECK), use, 0), 2 * count)
    return chacha20.from_words(stream, (count,), np.uint64) | np.uint64(1)


def _digest(parties: int, before: Any, coin: Any, words: Any) -> Any:
    if parties == 2:
        return universal_hash(coin, before, words)
    stream = chacha20.keystream(
        coin, (int(Purpose.CHECK), _SUBSETS_OF_BITS, 0), 2 * words.size
    )
    chi = chacha20.from_words(stream, words.shape, np.uint64)

    def subset(at: Any) -> Any:
        picked = (chi >> at) & np.uint64(1)
        return lax.reduce_xor(words & (jnp.zeros_like(picked) - picked), (0,))

    sums = lax.map(subset, jnp.arange(SUBSETS, dtype=np.uint64))
    return before ^ lax.bitcast_convert_type(sums, np.uint32).reshape(-1)
