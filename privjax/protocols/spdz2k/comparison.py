"""The sign of a shared value: a tree of lookups on an opened value and masked states.

After c = x + r is opened, x < 0 is a question about c, which all know, and r, which the
dealer knows: top bits and [c' < r'] (primes: without the top bit). Digits of two bits of
c' and r' compare as less (g), equal (p) or neither; the pair s = g + w p is an element of
GF(4) (see `gf4`), and two neighbours combine by

    s o s' = g + p s'      (s of the higher digit).

1. The dealer gives, for every digit of r', the bits [digit > 0], [digit > 1] and
   [digit > 2], from which g and p at a digit of c' are chosen locally.
2. The first level, s of 16 pairs of digits, is Beaver's product of p and s', with masks
   <a>, <b> and <a b + m>: what is opened is s o s' + m for a new mask m.
3. From there on states are open under masks: (s + m) and (s' + m') known, what has to be
   opened for the next level is linear in <m'>, <p of m> and <g of m + (p of m) m' + m''>,
   three words of MACs for two products.
4. The top level gives the result as a share; the top bit of r is inside.

189 words of MACs for an element of 64 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.prg.buffer import in_a_buffer
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.spdz2k import gf4
from privjax.protocols.spdz2k.arithmetic import masker
from privjax.protocols.spdz2k.authenticated import Bits, Keys
from privjax.protocols.tuples import tree_order

_WORD = 64


@dataclass(frozen=True)
class Comparison:
    """What the dealer gives for one comparison of `k` bits: planes of [digit > 0],
    [digit > 1] and [digit > 2], of more bits, and of elements of GF(4), in the order in
    which `msb` takes them."""

    k: int
    elementwise = True
    common = (0,)
    results = ("xor",) * 5

    @property
    def pairs(self) -> int:
        """States of the first level."""
        return self.k // 4

    @property
    def masks(self) -> int:
        """Words of uniform bits that the masks take: 7 for each pair, less 4."""
        return -(-(7 * self.pairs - 4) // _WORD)

    @property
    def operands(self) -> tuple[str, ...]:
        return ("xor", "sum", *("xor",) * self.masks)

    def clear(self, delta: Any, r: Any, *masks: Any) -> list[Any]:
        # Packed words are kept in memory, or they would be made anew for every plane.
        word = delta.astype(np.uint32)
        packed = in_a_buffer(lambda: self.packed(r, masks), word)
        n, (*bits, ones, omegas) = self.pairs, packed
        ones, omegas = (gf4.planes(words, 4 * n - 3) for words in (ones, omegas))
        elements = (ones & delta) ^ (omegas & gf4.omega(delta))
        return [*(gf4.planes(word, 2 * n) & delta for word in bits), elements]

    def packed(self, r: Any, masks: Sequence[Any]) -> list[Any]:
        """Bits of four kinds, and both bits of all elements, as uint64[...]."""
        take = _Cutter(masks)
        high, low, top = digits(r)
        n = self.pairs
        a, b, m = take(n), (take(n), take(n)), (take(n), take(n))
        bits = [(n, a)]
        elements = [(n, b), (n, ((a & b[0]) ^ m[0], (a & b[1]) ^ m[1]))]
        while n > 2:
            n //= 2
            (g, p), below = _split(m, n)
            m = take(n), take(n)
            product = g ^ (p & below[0]) ^ m[0], (p & below[1]) ^ m[1]
            bits.append((n, p))
            elements += [(n, below), (n, product)]
        (g, p), below = _split(m, 1)
        bits += [(1, p), (1, below[0])]
        elements.append((1, (g ^ (p & below[0]) ^ top, jnp.zeros_like(g))))
        ones, omegas = ([(w, pair[i]) for w, pair in elements] for i in (0, 1))
        return [low | high, high, low & high, *map(_word, (bits, ones, omegas))]


def digits(word: Any) -> tuple[Any, Any, Any]:
    """(high, low) bits of the digits of a word without its top bit, and that bit, uint64.

    In `tuples.tree_order`: of each pair of neighbours the higher one is in the upper half.
    """
    k = 8 * word.dtype.itemsize
    word = tree_order(word).astype(np.uint64)
    half = np.uint64(k // 2)
    rest = np.uint64(2 ** (k // 2 - 1) - 1)
    low = word & np.uint64(2 ** (k // 2) - 1)
    return (word >> half) & rest, low, word >> np.uint64(k - 1)


def _split(pair: Any, n: int) -> tuple[Any, Any]:
    """Upper and lower n bits of both words of a pair."""
    by, mask = np.uint64(n), np.uint64((1 << n) - 1)
    return tuple(v >> by for v in pair), tuple(v & mask for v in pair)


class _Cutter:
    """Takes uniform bits from words, none twice."""

    def __init__(self, words: Sequence[Any]) -> None:
        self.words, self.left = list(words), _WORD

    def __call__(self, n: int) -> Any:
        if n > self.left:
            self.words, self.left = self.words[1:], _WORD
        at, self.left = _WORD - self.left, self.left - n
        return (self.words[0] >> np.uint64(at)) & np.uint64((1 << n) - 1)


def _word(fields: Sequence[tuple[int, Any]]) -> Any:
    """Fields, as (width, value), one after the other in a word."""
    (at, word), *rest = fields
    for width, value in rest:
        word, at = word | (value << np.uint64(at)), at + width
    return word


class _Taker:
    """Takes planes one after the other."""

    def __init__(self, planes: Any) -> None:
        self.planes, self.at = planes, 0

    def __call__(self, n: int) -> Any:
        self.at += n
        return self.planes[self.at - n : self.at]


def msb(keys: Keys, x: Arith) -> Bit:
    """<[x < 0]>, the sign of a signed value; log2(k) rounds."""
    mask, c = x.masked(masker(keys))
    fun = Comparison(keys.ring.k)
    masks = [markers.uniform(x.shape, np.uint64, "xor") for _ in range(fun.masks)]
    # The opened value is x - mask: r is minus the mask.
    r = jnp.zeros((), keys.ring.dtype) - keys.known(mask)
    *over, bits, elements = markers.dealt([keys.delta, r, *masks], fun)
    high, low, top = digits(c)
    less, equal = _digits_compared(keys, high, low, *over)
    known, word = _combined(
        keys, less, equal, _Taker(bits), _Taker(elements), fun.pairs
    )
    return Bit(Bits(word, (known & np.uint8(1)) ^ top.astype(np.uint8)))


def _combined(
    keys: Keys, less: Any, equal: Any, bit: _Taker, element: _Taker, n: int
) -> tuple[Any, Any]:
    """(what is public, the word of the rest) of the tree's result."""
    below, a, b = less[:n] ^ gf4.omega(equal[:n]), bit(n), element(n)
    d, e = keys.open_elements([equal[n:] ^ a, below ^ b], (1, 2))
    masked = element(n) ^ less[n:] ^ (gf4.ones(d) & b) ^ gf4.multiple(e, a)
    known = d * e
    while n > 1:
        (state,) = keys.open_elements([masked], (2,))
        state, n = state ^ known, n // 2
        (g, p), lower, m = (state[n:] & 1, state[n:] >> 1), state[:n], bit(n)
        known = g ^ (p * lower)
        below = element(n) if n > 1 else bit(n)
        by_m = gf4.multiple(lower, m) if n > 1 else gf4.ones(lower & 1) & m
        masked = element(n) ^ (gf4.ones(p) & below) ^ by_m
    return known[0], masked[0]


def _digits_compared(
    keys: Keys, high: Any, low: Any, over0: Any, over1: Any, over2: Any
) -> tuple[Any, Any]:
    """Words of <[c_j < r_j]> and <[c_j = r_j]> for public digits of two bits, from
    <[r_j > 0]>, <[r_j > 1]> and <[r_j > 2]>."""
    count = len(over0)
    at = np.arange(count, dtype=np.uint64).reshape(count, *(1,) * high.ndim)
    upper, odd = (((v[None] >> at) & np.uint64(1)).astype(bool) for v in (high, low))
    one, zero = jnp.broadcast_to(keys.delta, over0.shape), jnp.zeros_like(over0)
    less = jnp.where(upper, jnp.where(odd, zero, over2), jnp.where(odd, over1, over0))
    # [c_j - 1 < r_j]
    at_most = jnp.where(upper, jnp.where(odd, over2, over1), jnp.where(odd, over0, one))
    return less, less ^ at_most
