"""Between additive shares and bits: comparison, decomposition, bit products.

x = s + t where P_0 knows s = x_0 + x_1, and P_1 and P_2 know t = x_2. P_0 shares the bits
of s in one round; those of t are a share as they are. A binary adder does the rest.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols.replicated3 import arithmetic, boolean
from privjax.protocols.replicated3.boolean import each, xor_pairs
from privjax.protocols.replicated3.io import Pair, at, component, from_owner, tell
from privjax.protocols.shares import Arith, Bit, Word
from privjax.protocols.tuples import tree_order


def _summands(x: Arith) -> tuple[Any, Any]:
    """s as P_0 knows it, t as P_1 (its second) and P_2 (its first) know it."""
    first, second = x.value
    return first + second, at({2: first}, second)


def _bits_shared(s: Any, t: Any) -> tuple[Pair, Pair]:
    """The words <s> and <t>; one round."""
    return from_owner(s, 0, "xor", 8 * s.dtype.itemsize), component(t, 2)


def msb(x: Arith) -> Bit:
    """<[x < 0]>, the sign of a signed value; 1 + log2(k) rounds.

    1. P_0 shares the bits of s, rotated: the top bit lies at position 0
    2. top bit of x = top bits of s and t and the carry of the k-1 others. Position 0 is
       freed for a carry in of 0, so that there are k positions, the lowest of which does
       not propagate
    """
    s, t = (tree_order(_rotated(v)) for v in _summands(x))
    s, t = _bits_shared(s, t)
    both = xor_pairs(s, t)
    rest = np.array(~np.uint64(1) & _ones(s), s[0].dtype)  # 0 stays in its place
    propagate, value = each(lambda v: v & rest, both), each(lambda v: v & rest, s)
    carry = boolean.carry_tree(propagate, value)
    return Bit(each(lambda top, c: top.astype(np.uint8) ^ c, both, carry))


def bits_of(x: Arith) -> Word:
    """The words <x>: all bits of x as XOR shares; 1 + log2(k) rounds."""
    s, t = _bits_shared(*_summands(x))
    both = xor_pairs(s, t)
    up = np.array(1, s[0].dtype)
    carries = boolean.carry_prefix(
        each(lambda v: v << up, both), each(lambda v: v << up, s)
    )
    return Word(xor_pairs(both, carries))


def is_zero(x: Arith) -> Bit:
    """<[x = 0]>; 1 + log2(k) rounds: x = 0 exactly where all bits of s and -t agree."""
    s, t = _summands(x)
    s, t = _bits_shared(s, jnp.zeros_like(t) - t)
    ones = component(jnp.full(x.shape, _ones(s), s[0].dtype), 0)
    same = xor_pairs(xor_pairs(s, t), ones)
    width = 8 * s[0].dtype.itemsize
    while width > 1:
        width //= 2
        high, low = boolean.halves(same, width)
        (same,) = boolean.and_words(high, [low], width)
    return Bit(same)


def to_arith(b: Bit, dtype: Any) -> Arith:
    """[b] as an additively shared 0 or 1; one round, none if it was made before."""
    dtype = np.dtype(dtype)

    def make(value: Pair) -> tuple[Pair, None]:
        return _converted(value, dtype), None

    known, _ = b.masked(make)
    if known[0].dtype.itemsize < dtype.itemsize:
        known = _converted(b.value, dtype)
    return Arith(each(lambda v: v.astype(dtype), known))


def _converted(b: Pair, dtype: Any) -> Pair:
    """[b] from <b> by two transfers of one of two values; one round.

    P_0 knows a = b_0 XOR b_1; P_1 and P_2 know the choice c = b_2 (ABY3, section 5.4).

    1. y_0 from F_0, y_1 from F_1; y_2 = (a XOR c) - y_0 - y_1 is left to P_1 and P_2
    2. P_0 tells P_1 both candidates for y_2 under two masks that P_2 knows (from F_0),
       and P_2 tells P_1 the mask that belongs to c
    3. the same for P_2, with masks from F_1 that P_1 knows
    """
    b0, b1 = (v & np.uint8(1) for v in b)
    k = 8 * dtype.itemsize
    a, c = (b0 ^ b1).astype(dtype), at({2: b0}, b1)
    mine, theirs = markers.pairwise((3, *b0.shape), dtype)
    y_0, y_1 = mine[0], theirs[0]  # as P_0 knows them
    either = jnp.stack([a, jnp.asarray(1, dtype) - a]) - y_0 - y_1
    masks = at({2: theirs[1:]}, mine[1:])  # of F_0 at P_2, of F_1 at P_1
    _, (to_1, to_2, mask) = tell(
        [either + mine[1:], either + theirs[1:], _chosen(c, masks)],
        ("send:0>1", "send:0>2", "send:2>1,1>2"),
        (k, k, k),
    )
    y_2 = _chosen(c, at({2: to_2}, to_1)) - mask
    return at({2: y_2}, mine[0]), at({1: y_2}, theirs[0])


def bit_times(b: Bit, x: Arith) -> Arith:
    """[b x] for a bit and a ring array; two rounds, one if [b] was made before."""
    return arithmetic.scaled(to_arith(b, x.value[0].dtype), x)


def _chosen(c: Any, either: Any) -> Any:
    """The first of two arrays where c is 0, the second where it is 1."""
    return lax.select(c.astype(bool), either[1], either[0])


def _rotated(word: Any) -> Any:
    """The top bit at position 0, all others one up."""
    k = 8 * word.dtype.itemsize
    return (word << np.array(1, word.dtype)) | (word >> np.array(k - 1, word.dtype))


def _ones(x: Pair) -> Any:
    return np.uint64(2 ** (8 * x[0].dtype.itemsize) - 1)
