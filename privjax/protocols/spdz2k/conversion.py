"""Between authenticated sums and bits: decomposition and bit products.

Values are opened under a mask a as d = x - a, so that c = x + r with r = -a. One mask of a
value serves all that is done with it.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.protocols import circuits
from privjax.protocols.shares import Arith, Bit, Word
from privjax.protocols.spdz2k.arithmetic import masker
from privjax.protocols.spdz2k.authenticated import Bits, Keys, Planes, Sum
from privjax.protocols.spdz2k.boolean import Gates
from privjax.protocols.spdz2k.tuples import EdaBits
from privjax.protocols.tuples import BitTimes, BitToSum


def bits_of(keys: Keys, x: Arith) -> Word:
    """All bits of x; log2(k) rounds."""
    gates = Gates(keys)
    c, r, pairs = _open_masked(keys, x, "prefix")
    borrow = circuits.less_than_prefix(gates, c, r, pairs)
    word = gates.xor(gates.xor_public(r, c), gates.shift_left(borrow, 1))
    return Word(Planes(word))


def is_zero(keys: Keys, x: Arith) -> Bit:
    """<[x = 0]>; log2(k) rounds: x = 0 exactly where all bits of c and r agree."""
    c, r, pairs = _open_masked(keys, x, "all")
    return Bit(Bits.of(circuits.all_equal(Gates(keys), c, r, pairs)[0]))


def _open_masked(keys: Keys, x: Arith, order: str) -> tuple[Any, Any, Any]:
    """An edaBit with MACs: c = x + r mod 2^k opened, planes of the bits of r mod 2^k, and
    of products of them."""
    k = keys.ring.k
    mask, c = x.masked(masker(keys))
    r = jnp.zeros((), keys.ring.dtype) - keys.known(mask)
    (planes,) = markers.dealt([keys.delta, r], EdaBits(order))
    return c, planes[:k], planes[k:]


def _bit_masker(keys: Keys) -> Callable[[Bits], tuple[Bits, Any]]:
    def fresh(value: Bits) -> tuple[Bits, Any]:
        """A uniform <t>, and the bit XOR t, opened."""
        t = keys.uniform_bits(value.shape)
        (m,) = keys.open_elements([value.word ^ t.word], (1,))
        return t, m ^ value.plain

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
    a, d = x.masked(masker(keys))
    (ta,) = keys.dealt([t.bit, keys.known(a)], BitTimes())
    bit = _flip(keys, m, _arith_mask(keys, b, t))
    # (1 - 2m) t a as a choice of signs: cheaper than a product.
    own = a.times(m.astype(np.uint64)) + _signed(keys, m, ta)
    return Arith(bit.times(ring.factor(d)) + own)


def _arith_mask(keys: Keys, b: Bit, t: Bits) -> Sum:
    """[[t]] for the bit's mask <t>, made once per bit."""
    if "sum" not in b.memo:
        fun = BitToSum(keys.ring.dtype)
        (b.memo["sum"],) = keys.dealt([t.bit], fun)
    return b.memo["sum"]


def _signed(keys: Keys, m: Any, x: Sum) -> Sum:
    """-x where m is set, else x."""
    on = jnp.broadcast_to(m.astype(bool), (2, *x.shape))
    return Sum(keys.ring.select(on, (-x).both, x.both))  # of a dealt x: nothing public


def _flip(keys: Keys, m: Any, t: Sum) -> Sum:
    """[[m XOR t]] for public m and an authenticated t."""
    return _signed(keys, m, t).add_public(m.astype(keys.ring.dtype))
