"""Authenticated bits and words: gates for `circuits`, and the interface's bit methods.

Nielsen, Nordholt, Orlandi and Burra 2012 (TinyOT), for any number of parties Frederiksen
et al. 2015: MACs in GF(2)^64, so that XOR and AND with public bits are local on both.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols import circuits
from privjax.protocols.party import first_party
from privjax.protocols.shares import Bit, Word
from privjax.protocols.spdz2k.authenticated import (
    Bits,
    Keys,
    Words,
    as_bits,
    as_words,
    public_planes,
)
from privjax.protocols.tuples import And, halves


class Gates:
    """The gates that `circuits` asks for, on authenticated words."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def xor(self, x: Words, y: Words) -> Words:
        return Words(x.word ^ y.word, x.mac ^ y.mac)

    def xor_public(self, x: Words, v: Any) -> Words:
        """P_0 flips its bits, everybody adds Delta_i to the MACs of flipped bits."""
        v = jnp.broadcast_to(v, x.word.shape)
        mac = x.mac ^ (public_planes(v, x.width) & self.keys.delta)
        return Words(x.word ^ first_party(v), mac)

    def and_public(self, x: Words, v: Any) -> Words:
        return Words(x.word & v, x.mac & public_planes(v, x.width))

    def shift_left(self, x: Words, by: int) -> Words:
        zeros = jnp.zeros_like(x.mac[:by])
        mac = jnp.concatenate([zeros, x.mac[: x.width - by]])
        return Words(x.word << np.array(by, x.word.dtype), mac)

    def shift_right(self, x: Words, by: int) -> Words:
        zeros = jnp.zeros_like(x.mac[:by])
        mac = jnp.concatenate([x.mac[by:], zeros])
        return Words(x.word >> np.array(by, x.word.dtype), mac)

    def halves(self, x: Words, width: int) -> tuple[Words, Words]:
        high, low = halves(x.word, width)
        return Words(high, x.mac[width:]), Words(low, x.mac[:width])

    def and_words(self, x: Words, ys: Sequence[Words], bits: int) -> list[Words]:
        """x AND y for each of `ys`; one round.

        1. dealer: <a>, <b>, <c> with c = a AND b   (one a for all y)
        2. open d = x XOR a, e = y XOR b
        3. <z> = <c> XOR d AND <b> XOR e AND <a> XOR d AND e
        """
        a = self._uniform(x)
        bs = [self._uniform(y) for y in ys]
        words = [a.word, *(b.word for b in bs)]
        cs = markers.dealt(words, And(len(bs)))
        authenticated = [self.keys.authenticated_words(c, bits) for c in cs]
        d, *es = self.keys.open_words(
            [self.xor(x, a), *(self.xor(y, b) for y, b in zip(ys, bs, strict=True))],
            bits,
        )
        out = []
        for b, c, e in zip(bs, authenticated, es, strict=True):
            both = self.xor(self.and_public(b, d), self.and_public(a, e))
            out.append(self.xor_public(self.xor(c, both), d & e))
        return out

    def _uniform(self, like: Words) -> Words:
        """Fresh bits; those of a word that nobody uses stay zero."""
        word = markers.uniform(like.word.shape, like.word.dtype, "xor")
        used = np.array((1 << like.width) - 1, like.word.dtype)
        return self.keys.authenticated_words(word & used, like.width)


# -- bits ------------------------------------------------------------------------------


def xor(keys: Keys, x: Bit, y: Bit) -> Bit:
    """Local."""
    return Bit(Bits(x.value.bit ^ y.value.bit, x.value.mac ^ y.value.mac))


def xor_public(keys: Keys, x: Bit, v: Any) -> Bit:
    """Local."""
    return Bit(as_bits(Gates(keys).xor_public(as_words(x.value), jnp.uint8(v))))


def and_public(keys: Keys, x: Bit, v: Any) -> Bit:
    """Local."""
    return Bit(as_bits(Gates(keys).and_public(as_words(x.value), jnp.uint8(v))))


def and_(keys: Keys, x: Bit, y: Bit) -> Bit:
    """<x AND y>; one round."""
    (z,) = Gates(keys).and_words(as_words(x.value), [as_words(y.value)], 1)
    return Bit(as_bits(z))


# -- all bits of an element ------------------------------------------------------------


def bits_at(keys: Keys, x: Word, positions: Any) -> Bit:
    """Local."""
    at, value = np.asarray(positions), x.value
    word, mac = value.word, value.mac[at]
    if at.ndim:
        word = lax.expand_dims(word, (word.ndim,))
        mac = jnp.moveaxis(mac, 0, -1)
    bit = (word >> at.astype(word.dtype)).astype(np.uint8) & np.uint8(1)
    return Bit(Bits(bit, mac))


def xor_words(keys: Keys, x: Word, y: Word) -> Word:
    """Local."""
    return Word(Gates(keys).xor(x.value, y.value))


def xor_all(keys: Keys, x: Word, b: Bit) -> Word:
    """Local: XOR with the word that is all ones where the bit is set."""
    dtype = x.value.word.dtype
    low = (b.value.bit & np.uint8(1)).astype(dtype)
    spread = jnp.zeros_like(low) - low
    return Word(Words(x.value.word ^ spread, x.value.mac ^ b.value.mac[None]))


def shift_right(keys: Keys, x: Word, by: int) -> Word:
    """Local."""
    return Word(Gates(keys).shift_right(x.value, by))


def prefix_or(keys: Keys, x: Word) -> Word:
    """Bit j of the result is the OR of bits j and above; log2(k) rounds."""
    return Word(circuits.prefix_or(Gates(keys), x.value, keys.ring.k))
