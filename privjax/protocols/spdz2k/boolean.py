"""Authenticated bits and words: gates for `circuits`, and the interface's bit methods.

Nielsen, Nordholt, Orlandi and Burra 2012 (TinyOT), for any number of parties Frederiksen
et al. 2015: MACs that are linear over GF(2), so that XOR and AND with public bits are
local on them.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.protocols import circuits
from privjax.protocols.shares import Bit, Word
from privjax.protocols.spdz2k import gf4
from privjax.protocols.spdz2k.authenticated import Bits, Keys, Planes
from privjax.protocols.spdz2k.tuples import AndMacs


class Gates:
    """The gates that `circuits` asks for, on planes: uint64[width, ...]."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def xor(self, x: Any, y: Any) -> Any:
        return x ^ y

    def xor_public(self, x: Any, v: Any) -> Any:
        """Everybody adds Delta_i where bits are flipped."""
        v = jnp.broadcast_to(v, x.shape[1:])
        return x ^ (gf4.planes(v, x.shape[0]) & self.keys.delta)

    def and_public(self, x: Any, v: Any) -> Any:
        return x & gf4.planes(jnp.asarray(v), x.shape[0])

    def shift_left(self, x: Any, by: int) -> Any:
        return jnp.concatenate([jnp.zeros_like(x[:by]), x[: x.shape[0] - by]])

    def shift_right(self, x: Any, by: int) -> Any:
        return jnp.concatenate([x[by:], jnp.zeros_like(x[:by])])

    def halves(self, x: Any, width: int) -> tuple[Any, Any]:
        return x[width:], x[:width]

    def and_words(self, x: Any, ys: Sequence[Any], bits: int) -> list[Any]:
        """x AND y for each of `ys`; one round.

        1. dealer: <a>, <b>, <c> with c = a AND b   (one a for all y)
        2. open d = x XOR a, e = y XOR b
        3. <z> = <c> XOR d AND <b> XOR e AND <a> XOR d AND e
        """
        n, shape = len(ys), x.shape[1:]
        dtype = np.dtype(f"uint{max(8, bits)}")
        words = [markers.uniform(shape, dtype, "xor") for _ in range(1 + n)]
        fun = AndMacs(bits, n)
        (made,) = markers.dealt([self.keys.delta, *words], fun)
        masked = jnp.concatenate([x, *ys]) ^ made[: (1 + n) * bits]
        (opened,) = self.keys.open_elements([masked], (1,))

        def part(array: Any, i: int) -> Any:
            return array[i * bits : (i + 1) * bits]

        a, d = part(made, 0), gf4.ones(part(opened, 0))
        out = []
        for i in range(1, 1 + n):
            b, c, e = part(made, i), part(made, i + n), gf4.ones(part(opened, i))
            out.append(c ^ (d & b) ^ (e & (a ^ (d & self.keys.delta))))
        return out


# -- bits ------------------------------------------------------------------------------


def xor(keys: Keys, x: Bit, y: Bit) -> Bit:
    """Local."""
    word = x.value.word ^ y.value.word
    plain = jnp.broadcast_to(x.value.plain ^ y.value.plain, word.shape)
    return Bit(Bits(word, plain))


def xor_public(keys: Keys, x: Bit, v: Any) -> Bit:
    """Local."""
    v = jnp.broadcast_to(jnp.uint8(v) & np.uint8(1), x.shape)
    return Bit(Bits(x.value.word, x.value.plain ^ v))


def and_public(keys: Keys, x: Bit, v: Any) -> Bit:
    """Local."""
    v = jnp.broadcast_to(jnp.uint8(v) & np.uint8(1), x.shape)
    return Bit(Bits(x.value.word & gf4.ones(v), x.value.plain & v))


def and_(keys: Keys, x: Bit, y: Bit) -> Bit:
    """<x AND y>; one round."""
    words = jnp.broadcast_arrays(*(keys.word_inside(b.value) for b in (x, y)))
    (z,) = Gates(keys).and_words(words[0][None], [words[1][None]], 1)
    return Bit(Bits.of(z[0]))


# -- all bits of an element ------------------------------------------------------------


def bits_at(keys: Keys, x: Word, positions: Any) -> Bit:
    """Local."""
    at = np.asarray(positions)
    word = x.value.word[at]
    return Bit(Bits.of(jnp.moveaxis(word, 0, -1) if at.ndim else word))


def xor_words(keys: Keys, x: Word, y: Word) -> Word:
    """Local."""
    return Word(Planes(x.value.word ^ y.value.word))


def xor_all(keys: Keys, x: Word, b: Bit) -> Word:
    """Local: every plane XORed with the bit."""
    return Word(Planes(x.value.word ^ keys.word_inside(b.value)[None]))


def shift_right(keys: Keys, x: Word, by: int) -> Word:
    """Local."""
    return Word(Planes(Gates(keys).shift_right(x.value.word, by)))


def prefix_or(keys: Keys, x: Word) -> Word:
    """Bit j of the result is the OR of bits j and above; log2(k) rounds."""
    return Word(Planes(circuits.prefix_or(Gates(keys), x.value.word, keys.ring.k)))
