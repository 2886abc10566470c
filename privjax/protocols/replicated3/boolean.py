"""Bits as replicated XOR shares: gates, and the carry circuit on packed words."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols.replicated3.arithmetic import BACKWARD
from privjax.protocols.replicated3.io import Pair, component, tell
from privjax.protocols.shares import Bit, Word


def each(fun: Callable[..., Any], *pairs: Pair) -> Pair:
    """A function that is linear over XOR, on both components."""
    first, second = (fun(*(p[j] for p in pairs)) for j in (0, 1))
    return first, second


def xor_pairs(x: Pair, y: Pair) -> Pair:
    return x[0] ^ y[0], x[1] ^ y[1]


def xor(x: Bit, y: Bit) -> Bit:
    """Local."""
    return Bit(xor_pairs(x.value, y.value))


def xor_public(x: Bit, v: Any) -> Bit:
    """Local: the holders of x_0 add a public bit array."""
    return Bit(xor_pairs(x.value, component(jnp.broadcast_to(v, x.shape), 0)))


def and_public(x: Bit, v: Any) -> Bit:
    """Local."""
    return Bit(each(lambda b: b & v, x.value))


def and_(x: Bit, y: Bit) -> Bit:
    """<x AND y>; one round, one bit per party."""
    (z,) = and_words(x.value, [y.value], 1)
    return Bit(z)


def and_words(x: Pair, ys: Sequence[Pair], bits: int) -> list[Pair]:
    """<x AND y> for each of `ys`, bitwise on words of `bits` used bits; one round.

    As `arithmetic.product`, with XOR for + and AND for the product.
    """
    used = np.array((1 << bits) - 1, x[0].dtype)
    own = []
    for y in ys:
        z = (x[0] & (y[0] ^ y[1])) ^ (x[1] & y[0])
        mine, theirs = markers.pairwise(z.shape, z.dtype)
        own.append((z ^ mine ^ theirs) & used)
    own, told = tell(own, (BACKWARD,) * len(own), (bits,) * len(own))
    return list(zip(own, told, strict=True))


def carry_tree(propagate: Pair, value: Pair) -> Pair:
    """The carry out of a chain of k positions, in `tuples.tree_order`; log2(k) rounds.

    A position passes the carry below it on where `propagate` is set, and gives `value`
    where not: in s + t these are s XOR t, and s or t, which agree there. Two positions
    are one with p AND p' and v XOR p AND (v XOR v') (the low one primed). The lowest
    position must not propagate. In tree order neighbours are the two halves of a word.
    """
    width = 8 * value[0].dtype.itemsize
    while width > 1:
        width //= 2
        p_high, p_low = halves(propagate, width)
        v_high, v_low = halves(value, width)
        differ = xor_pairs(v_high, v_low)
        if width == 1:  # nobody needs the last propagate
            (change,) = and_words(p_high, [differ], width)
        else:
            change, propagate = and_words(p_high, [differ, p_low], width)
        value = xor_pairs(v_high, change)
    return value


def carry_prefix(propagate: Pair, value: Pair) -> Pair:
    """All carries at once: bit j is the carry out of positions 0 to j; log2(k) rounds.

    A parallel prefix (Kogge and Stone 1973) in natural bit order. Position 0 must not
    propagate; then what is shifted in from below is never looked at.
    """
    k = 8 * value[0].dtype.itemsize
    step = 1
    while step < k:
        shift = np.array(step, value[0].dtype)
        v_low = each(lambda v, by=shift: v << by, value)
        p_low = each(lambda p, by=shift: p << by, propagate)
        differ = xor_pairs(value, v_low)
        if 2 * step == k:  # nobody needs the last propagate
            (change,) = and_words(propagate, [differ], k)
        else:
            change, propagate = and_words(propagate, [differ, p_low], k)
        value = xor_pairs(value, change)
        step *= 2
    return value


def bits_at(x: Word, positions: Any) -> Bit:
    """Local."""

    def part(word: Any) -> Any:
        at = np.asarray(positions, word.dtype)
        if at.ndim:
            word = lax.expand_dims(word, (word.ndim,))
        return (word >> at).astype(np.uint8)

    return Bit(each(part, x.value))


def xor_words(x: Word, y: Word) -> Word:
    """Local."""
    return Word(xor_pairs(x.value, y.value))


def xor_all(x: Word, b: Bit) -> Word:
    """Local: XOR with the word that is all ones where the bit is set."""

    def part(word: Any, bit: Any) -> Any:
        low = (bit & np.uint8(1)).astype(word.dtype)
        return word ^ (jnp.zeros_like(low) - low)

    return Word(each(part, x.value, b.value))


def shift_right(x: Word, by: int) -> Word:
    """Local."""
    return Word(each(lambda word: word >> np.array(by, word.dtype), x.value))


def prefix_or(x: Word) -> Word:
    """Bit j of the result is the OR of bits j and above; log2(k) rounds."""
    word, k = x.value, 8 * x.value[0].dtype.itemsize
    step = 1
    while step < k:
        by = step
        shifted = each(lambda v, by=by: v >> np.array(by, v.dtype), word)
        (both,) = and_words(word, [shifted], k)
        word = xor_pairs(xor_pairs(word, shifted), both)
        step *= 2
    return Word(word)


def halves(x: Pair, width: int) -> tuple[Pair, Pair]:
    """(high, low) halves of `width` bits, in the narrowest unsigned type that holds."""
    dtype = np.dtype(f"uint{max(8, width)}")
    mask = (1 << width) - 1
    high = each(lambda v: (v >> np.array(width, v.dtype)).astype(dtype), x)
    low = each(lambda v: (v & np.array(mask, v.dtype)).astype(dtype), x)
    return high, low
