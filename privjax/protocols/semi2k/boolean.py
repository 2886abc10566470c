"""Bits as XOR shares: gates for `circuits`, and the interface's bit methods."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from privjax.protocols import circuits, elements, requests
from privjax.protocols.party import first_party
from privjax.protocols.shares import Bit, Word
from privjax.protocols.tuples import And, halves


class Gates:
    """The gates that `circuits` asks for, on words of XOR-shared bits."""

    @staticmethod
    def xor(x: Any, y: Any) -> Any:
        return x ^ y

    @staticmethod
    def xor_public(x: Any, v: Any) -> Any:
        return x ^ first_party(v)

    @staticmethod
    def and_public(x: Any, v: Any) -> Any:
        return x & v

    @staticmethod
    def shift_left(x: Any, by: int) -> Any:
        return x << elements.constant(by, x.dtype)

    @staticmethod
    def shift_right(x: Any, by: int) -> Any:
        return x >> elements.constant(by, x.dtype)

    halves = staticmethod(halves)

    @staticmethod
    def and_words(x: Any, ys: Sequence[Any], bits: int) -> list[Any]:
        """<x AND y> for each of `ys`, bitwise on words of `bits` used bits; one round.

        1. dealer: <a>, <b>, <c> with c = a AND b   (one a for all y)
        2. open d = x XOR a, e = y XOR b
        3. <z> = <c> XOR d AND <b> XOR <a> AND e XOR d AND e
        """
        a = requests.uniform(x.shape, x.dtype, "xor")
        bs = [requests.uniform(y.shape, y.dtype, "xor") for y in ys]
        cs = requests.dealt([a, *bs], And(len(bs)))
        n = 1 + len(bs)
        d, *es = requests.open_values(
            [x ^ a, *(y ^ b for y, b in zip(ys, bs, strict=True))],
            ("xor",) * n,
            (bits,) * n,
        )
        return [
            c ^ (d & b) ^ (e & (a ^ first_party(d)))
            for b, c, e in zip(bs, cs, es, strict=True)
        ]


# -- bits, and all bits of an element --------------------------------------------------


def xor(x: Bit, y: Bit) -> Bit:
    """Local."""
    return Bit(x.value ^ y.value)


def xor_public(x: Bit, v: Any) -> Bit:
    """Local: P_0 adds a public bit array."""
    return Bit(x.value ^ first_party(jnp.broadcast_to(v, x.shape)))


def and_public(x: Bit, v: Any) -> Bit:
    """Local."""
    return Bit(x.value & v)


def and_(x: Bit, y: Bit) -> Bit:
    """[x AND y]; one round."""
    one = jnp.uint8(1)
    (z,) = Gates.and_words(x.value & one, [y.value & one], 1)
    return Bit(z)


def bits_at(x: Word, positions: Any) -> Bit:
    """Local."""
    return Bit(elements.bits_at(x.value, positions))


def xor_words(x: Word, y: Word) -> Word:
    """Local."""
    return Word(x.value ^ y.value)


def xor_all(x: Word, b: Bit) -> Word:
    """Local: XOR with the word that is all ones where the bit is set."""
    return Word(x.value ^ elements.ones_where(b.value, x.value.dtype))


def shift_right(x: Word, by: int) -> Word:
    """Local."""
    return Word(x.value >> elements.constant(by, x.value.dtype))


def prefix_or(x: Word) -> Word:
    """Bit j of the result is the OR of bits j and above; log2(k) rounds."""
    return Word(circuits.prefix_or(Gates, x.value, x.value.dtype.itemsize * 8))
