"""Between additive shares and bits: comparison, decomposition, bit products."""

from typing import Any

import numpy as np

from privjax.protocols import circuits, elements, requests
from privjax.protocols.elements import cast, constant
from privjax.protocols.party import first_party
from privjax.protocols.semi2k.arithmetic import fresh_mask
from privjax.protocols.semi2k.boolean import Gates
from privjax.protocols.shares import Arith, Bit, Word
from privjax.protocols.tuples import BitsOf, BitTimes, BitToSum, tree_order


def msb(x: Arith) -> Bit:
    """<[x < 0]>, the sign of a signed value; log2(k) rounds.

    1. dealer: [r] and its bits <r_j> (an edaBit); open c = x + r
    2. x = c - r, so its top bit is c_{k-1} XOR r_{k-1} XOR [c' < r'] (primes: without
       the top bit)
    """
    c, r, pairs = _open_masked(x, "tree")
    k = c.dtype.itemsize * 8
    borrow = circuits.less_than_tree(Gates, tree_order(c), r, pairs)
    # The top bit keeps its place in tree order.
    top = elements.bits_at(r, k - 1) ^ first_party(elements.bits_at(c, k - 1))
    return Bit(top ^ borrow)


def bits_of(x: Arith) -> Word:
    """The words <x>: all bits of x as XOR shares; log2(k) rounds."""
    c, r, pairs = _open_masked(x, "prefix")
    borrow = circuits.less_than_prefix(Gates, c, r, pairs)
    return Word(r ^ first_party(c) ^ (borrow << constant(1, c.dtype)))


def is_zero(x: Arith) -> Bit:
    """<[x = 0]>; log2(k) rounds: x = 0 exactly where all bits of c and r agree."""
    c, r, pairs = _open_masked(x, "all")
    return Bit(circuits.all_equal(Gates, c, r, pairs))


def _open_masked(x: Arith, order: str) -> tuple[Any, Any, Any]:
    """An edaBit (Escudero et al. 2020): c = x + r opened, <r>, products of its bits."""
    k = x.value.dtype.itemsize * 8
    r = requests.uniform(x.shape, x.value.dtype, "sum")
    word, pairs = requests.dealt([r], BitsOf(order))
    (c,) = requests.open_values([x.value + r], ("sum",), (k,))
    return c, word, pairs


def _bit_mask(value: Any) -> tuple[Any, Any]:
    """A uniform bit <t>, and the opened bit XOR t."""
    t = requests.uniform(value.shape, np.uint8, "xor")
    (m,) = requests.open_values([(value ^ t) & np.uint8(1)], ("xor",), (1,))
    return t, m


def to_arith(b: Bit, dtype: Any) -> Arith:
    """[b] as an additively shared 0 or 1; one round, none if b's mask is open.

    1. dealer: <t>, [t] (a daBit); open m = b XOR t
    2. [b] = m + (1 - 2 m) [t]
    """
    t, m = b.masked(_bit_mask)
    return Arith(_flip(m, _arith_mask(b, t, dtype), dtype))


def bit_times(b: Bit, x: Arith) -> Arith:
    """[b x] for a bit and a ring array; one round.

    1. dealer: <t>, [t], [a], [t a]; open m = b XOR t and d = x - a together
    2. b x = b (d + a) = d (m + (1 - 2m) t) + m a + (1 - 2m) t a
    """
    dtype = x.value.dtype
    t, m = b.masked(_bit_mask)
    a, d = x.masked(fresh_mask)
    (ta,) = requests.dealt([t, a], BitTimes())
    on = cast(m, dtype)
    bit = _flip(m, _arith_mask(b, t, dtype), dtype)
    sign = constant(1, dtype) - (on + on)
    return Arith(d * bit + on * a + sign * ta)


def _arith_mask(b: Bit, t: Any, dtype: Any) -> Any:
    """[t] for the bit's mask <t>, made once per bit."""
    key = ("sum", np.dtype(dtype))
    if key not in b.memo:
        (b.memo[key],) = requests.dealt([t], BitToSum(np.dtype(dtype)))
    return b.memo[key]


def _flip(m: Any, t: Any, dtype: Any) -> Any:
    """[m XOR t] for public m and additively shared t."""
    on = cast(m, dtype)
    return first_party(on) + t - (on + on) * t
