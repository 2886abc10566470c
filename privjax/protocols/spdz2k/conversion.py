"""Between authenticated sums and bits: comparison, decomposition, bit products."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.protocols import circuits
from privjax.protocols.shares import Arith, Bit, Word
from privjax.protocols.spdz2k import tuples
from privjax.protocols.spdz2k.arithmetic import _masker
from privjax.protocols.spdz2k.authenticated import Bits, Keys, Sum, Words, as_bits
from privjax.protocols.spdz2k.boolean import Gates
from privjax.protocols.tuples import BitsOf, BitToSum, tree_order


def msb(keys: Keys, x: Arith) -> Bit:
    """<[x < 0]>, the sign of a signed value; log2(k) rounds.

    1. dealer: [[r]] and its bits <r_j> (an edaBit); open c = x + r
    2. x = c - r, so its top bit is c_{k-1} XOR r_{k-1} XOR [c' < r'] (primes: without
       the top bit)
    """
    gates = Gates(keys)
    c, r, pairs = _open_masked(keys, x, "tree")
    last = keys.ring.k - 1  # the top bit keeps its place in tree order
    borrow = circuits.less_than_tree(gates, tree_order(c), r, pairs)
    top = Words((r.word >> np.array(last, c.dtype)).astype(np.uint8), r.mac[last:])
    top = gates.xor_public(top, (c >> np.array(last, c.dtype)).astype(np.uint8))
    return Bit(as_bits(gates.xor(top, borrow)))


def bits_of(keys: Keys, x: Arith) -> Word:
    """All bits of x; log2(k) rounds."""
    gates = Gates(keys)
    c, r, pairs = _open_masked(keys, x, "prefix")
    borrow = circuits.less_than_prefix(gates, c, r, pairs)
    return Word(gates.xor(gates.xor_public(r, c), gates.shift_left(borrow, 1)))


def is_zero(keys: Keys, x: Arith) -> Bit:
    """<[x = 0]>; log2(k) rounds: x = 0 exactly where all bits of c and r agree."""
    c, r, pairs = _open_masked(keys, x, "all")
    return Bit(as_bits(circuits.all_equal(Gates(keys), c, r, pairs)))


def _open_masked(keys: Keys, x: Arith, order: str) -> tuple[Any, Words, Words]:
    """An edaBit with MACs: c = x + r mod 2^k opened, the bits of r mod 2^k, and products
    of them."""
    ring = keys.ring
    r = keys.uniform(x.shape)
    fun = tuples.Lifted(ring, BitsOf(order))
    word, pairs = markers.dealt([r.known(ring)], fun)
    (c,) = keys.open_sums([x.value + r])
    width = ring.k if order == "prefix" else ring.k // 2
    return (
        c,
        keys.authenticated_words(word, ring.k),
        keys.authenticated_words(pairs, width),
    )


def _bit_masker(keys: Keys) -> Callable[[Bits], tuple[Bits, Any]]:
    def fresh(value: Bits) -> tuple[Bits, Any]:
        """A uniform <t>, and the bit XOR t, opened."""
        t = keys.authenticated_bits(
            markers.uniform(value.bit.shape, np.uint8, "xor") & np.uint8(1)
        )
        masked = Words((value.bit ^ t.bit) & np.uint8(1), (value.mac ^ t.mac)[None])
        (m,) = keys.open_words([masked], 1)
        return t, m

    return fresh


def to_arith(keys: Keys, b: Bit, dtype: Any) -> Arith:
    """[[b]], 0 or 1; one round, none if b's mask is open.

    1. dealer: <t>, [[t]] (a daBit); open m = b XOR t
    2. [[b]] = m + (1 - 2 m) [[t]]
    """
    t, m = b.masked(_bit_masker(keys))
    return Arith(_flip(keys, m, _arith_mask(keys, b, t)))


def bit_times(keys: Keys, b: Bit, x: Arith) -> Arith:
    """[[b x]] for a bit and a ring array; one round.

    1. dealer: <t>, [[t]], [[a]], [[t a]]; open m = b XOR t and d = x - a together
    2. b x = b (d + a) = d (m + (1 - 2m) t) + m a + (1 - 2m) t a
    """
    ring = keys.ring
    t, m = b.masked(_bit_masker(keys))
    a, d = x.masked(_masker(keys))
    (ta,) = keys.dealt([t.bit, a.known(ring)], tuples.BitTimes(ring))
    bit = _flip(keys, m, _arith_mask(keys, b, t))
    # (1 - 2m) t a as a choice of signs: cheaper than a product.
    own = a.times(m.astype(np.uint64)) + _signed(keys, m, ta)
    return Arith(bit.times(ring.factor(d)) + own)


def _arith_mask(keys: Keys, b: Bit, t: Bits) -> Sum:
    """[[t]] for the bit's mask <t>, made once per bit."""
    if "sum" not in b.memo:
        fun = tuples.Lifted(keys.ring, BitToSum(keys.ring.dtype))
        (b.memo["sum"],) = keys.dealt([t.bit], fun)
    return b.memo["sum"]


def _signed(keys: Keys, m: Any, x: Sum) -> Sum:
    """-x where m is set, else x."""
    on = jnp.broadcast_to(m.astype(bool), (2, *x.shape))
    return Sum(keys.ring.select(on, (-x).both, x.both))


def _flip(keys: Keys, m: Any, t: Sum) -> Sum:
    """[[m XOR t]] for public m and an authenticated t."""
    return keys.add_public(_signed(keys, m, t), m.astype(keys.ring.dtype))
