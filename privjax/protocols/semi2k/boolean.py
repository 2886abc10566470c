"""Bits as XOR shares: gates, and the carry circuit on packed words."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols.party import first_party
from privjax.protocols.shares import Bit, Word
from privjax.protocols.tuples import And


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
    (z,) = and_words(x.value & one, [y.value & one], 1)
    return Bit(z)


def and_words(x: Any, ys: Sequence[Any], bits: int) -> list[Any]:
    """<x AND y> for each of `ys`, bitwise on words of `bits` used bits; one round.

    1. dealer: <a>, <b>, <c> with c = a AND b   (one a for all y)
    2. open d = x XOR a, e = y XOR b
    3. <z> = <c> XOR d AND <b> XOR <a> AND e XOR d AND e
    """
    a = markers.uniform(x.shape, x.dtype, "xor")
    bs = [markers.uniform(y.shape, y.dtype, "xor") for y in ys]
    cs = markers.dealt([a, *bs], And(len(bs)))
    n = 1 + len(bs)
    d, *es = markers.open_values(
        [x ^ a, *(y ^ b for y, b in zip(ys, bs, strict=True))],
        ("xor",) * n,
        (bits,) * n,
    )
    return [
        c ^ (d & b) ^ (e & (a ^ first_party(d)))
        for b, c, e in zip(bs, cs, es, strict=True)
    ]


def less_than_tree(c: Any, r: Any) -> Any:
    """<[c mod 2^(k-1) < r mod 2^(k-1)]> for public c and shared bits <r>; log2(k) rounds.

    Both words come in `tuples.tree_order`. Bit j generates where r_j AND NOT c_j and
    propagates where they are equal; both are local because c is public. Each level
    combines neighbours, (g, p) o (g', p') = (g XOR p AND g', p AND p'): in tree order
    these are the two halves of the word, so that words shrink by half at every level.
    """
    k = r.dtype.itemsize * 8
    top = np.array(1 << (k - 1), r.dtype)
    rest = np.array((1 << (k - 1)) - 1, r.dtype)
    generate = r & ~c & rest
    propagate = ((r ^ first_party(~c)) & rest) | first_party(jnp.full_like(c, top))
    width = k
    while width > 1:
        width //= 2
        g_high, g_low = _halves(generate, width)
        p_high, p_low = _halves(propagate, width)
        if width == 1:  # nobody needs the last propagate
            (carried,) = and_words(p_high, [g_low], width)
        else:
            carried, propagate = and_words(p_high, [g_low, p_low], width)
        generate = g_high ^ carried
    return generate


def less_than_prefix(c: Any, r: Any) -> Any:
    """All borrows of c - r at once: bit j is <[c mod 2^(j+1) < r mod 2^(j+1)]>.

    A parallel prefix (Kogge and Stone 1973) on whole words in natural bit order;
    log2(k) rounds of two ANDs that share an operand.
    """
    k = r.dtype.itemsize * 8
    generate = r & ~c
    propagate = r ^ first_party(~c)
    step = 1
    while step < k:
        shift = np.array(step, r.dtype)
        identity = first_party(jnp.full_like(c, (1 << step) - 1))
        g_low, p_low = generate << shift, (propagate << shift) | identity
        if 2 * step == k:  # nobody needs the last propagate
            (carried,) = and_words(propagate, [g_low], k)
        else:
            carried, propagate = and_words(propagate, [g_low, p_low], k)
        generate = generate ^ carried
        step *= 2
    return generate


def bits_at(x: Word, positions: Any) -> Bit:
    """Local."""
    at, word = np.asarray(positions, x.value.dtype), x.value
    if at.ndim:
        word = lax.expand_dims(word, (word.ndim,))
    return Bit((word >> at).astype(np.uint8))


def xor_words(x: Word, y: Word) -> Word:
    """Local."""
    return Word(x.value ^ y.value)


def xor_all(x: Word, b: Bit) -> Word:
    """Local: XOR with the word that is all ones where the bit is set."""
    low = (b.value & np.uint8(1)).astype(x.value.dtype)
    return Word(x.value ^ (jnp.zeros_like(low) - low))


def shift_right(x: Word, by: int) -> Word:
    """Local."""
    return Word(x.value >> np.array(by, x.value.dtype))


def prefix_or(x: Word) -> Word:
    """Bit j of the result is the OR of bits j and above; log2(k) rounds."""
    word, k = x.value, x.value.dtype.itemsize * 8
    step = 1
    while step < k:
        shifted = word >> np.array(step, word.dtype)
        (both,) = and_words(word, [shifted], k)
        word = word ^ shifted ^ both
        step *= 2
    return Word(word)


def _halves(word: Any, width: int) -> tuple[Any, Any]:
    """(high, low) halves of `width` bits, in the narrowest unsigned type that holds."""
    dtype = np.dtype(f"uint{max(8, width)}")
    high = word >> np.array(width, word.dtype)
    low = word & np.array((1 << width) - 1, word.dtype)
    return high.astype(dtype), low.astype(dtype)
