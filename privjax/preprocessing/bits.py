"""Bits by oblivious transfer: AND, bits as numbers, sums as bits. Semi-honest.

XOR shares <b>, additive shares [x]; party i's share has the index i.

    AND            a b = a_0 b_0 + a_1 b_1 + a_0 b_1 + a_1 b_0: two transfers per bit
    bit to number  t = t_0 + t_1 - 2 t_0 t_1: one transfer
    bit times      t a = sum over i of t_i a_i + t_(1-i) a_i (1 - 2 t_i): two transfers
    bits of a sum  each party knows the bits of its own share; a prefix adder
                   (Sklansky 1960) over ANDs gives those of the sum: 2 (w / 2) log2 w
                   transfers of two bits and w of one, for w bits
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.preprocessing import bitmatrix
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import correlated, random_transfers
from privjax.preprocessing.groups import BITS, Ring
from privjax.preprocessing.session import Session


def and_bits(me: Session, a: Array, b: Array) -> Side[Array]:
    """My shares of a AND b for bits a[n] (uint8) and b[n, others]. Two rounds."""
    if not b.size:
        return b
    one, two = yield from correlated(me, BITS, a, b, tuple(b.shape))
    assert one is not None and two is not None
    return (a[:, None] & b) ^ one ^ two


def one_sided_and(me: Session, mine: Array) -> Side[Array]:
    """My shares of x AND y, x known to party 0 and y to party 1: `mine` is uint8[n]."""
    if me.index == 0:
        _, part = yield from correlated(me, BITS, None, mine, None)
    else:
        part, _ = yield from correlated(me, BITS, mine, None, tuple(mine.shape))
    assert part is not None
    return part


def and_triples(me: Session, count: int) -> Side[tuple[Array, Array, Array]]:
    """My shares of random bits <a>, <b> and <c = a AND b>, uint8[count].

    From random transfers: the pads' difference is my a, my choice my b. One round and
    16 bytes per triple and party, no corrections.
    """
    words = me.draw((bitmatrix.words_for(count),), np.uint32)
    b = bitmatrix.unpack(words, count)
    chosen, pairs = yield from random_transfers(me, b, 1)
    bit = (jnp.concatenate([pairs, chosen[None]])[..., 0] & np.uint32(1)).astype(
        np.uint8
    )
    a = bit[0] ^ bit[1]
    return a, b, (a & b) ^ bit[0] ^ bit[2]


def bit_to_sum(me: Session, t: Array, dtype: Any) -> Side[Array]:
    """My additive share of a bit of which I have the XOR share t, uint8. Two rounds."""
    dtype = np.dtype(dtype)
    bit = (t & np.uint8(1)).reshape(-1)
    if not bit.size:
        return t.astype(dtype)
    group = Ring(dtype)
    if me.index == 0:
        _, part = yield from correlated(me, group, None, bit.astype(dtype), None)
    else:
        part, _ = yield from correlated(me, group, bit, None, tuple(bit.shape))
    assert part is not None
    return (bit.astype(dtype) - dtype.type(2) * part).reshape(t.shape)


def bit_times(me: Session, t: Array, a: Array) -> Side[Array]:
    """My additive share of t * a for a bit <t> (uint8) and [a]. Two rounds."""
    shape = jnp.broadcast_shapes(t.shape, a.shape)
    bit = jnp.broadcast_to(t & np.uint8(1), shape).reshape(-1)
    flat = jnp.broadcast_to(a, shape).reshape(-1)
    if not flat.size:
        return flat.reshape(shape)
    wide = bit.astype(a.dtype)
    offers = flat - a.dtype.type(2) * wide * flat
    group = Ring(a.dtype)
    one, two = yield from correlated(me, group, bit, offers, tuple(offers.shape))
    assert one is not None and two is not None
    return (wide * flat + one + two).reshape(shape)


# -- bits of a sum ---------------------------------------------------------------------


@partial(jax.jit, static_argnames="level")
def _split(g: Array, p: Array, *, level: int) -> tuple[Array, Array]:
    """Upper halves of blocks of 2^(level+1) positions, and what enters them from below.

    Returns: p of the upper halves, [half], and the (g, p) of the positions below them,
    [half, 2].
    """
    n, w = g.shape
    size = 1 << level
    blocks = [x.reshape(n, w // (2 * size), 2, size) for x in (g, p)]
    below = jnp.stack([x[:, :, 0, -1:] for x in blocks], axis=-1)
    upper = blocks[1][:, :, 1]
    return upper.reshape(-1), jnp.broadcast_to(below, (*upper.shape, 2)).reshape(-1, 2)


@partial(jax.jit, static_argnames="level")
def _join(g: Array, p: Array, products: Array, *, level: int) -> tuple[Array, Array]:
    n, w = g.shape
    size = 1 << level
    shape = (n, w // (2 * size), 2, size)
    g, p = g.reshape(shape), p.reshape(shape)
    products = products.reshape(n, w // (2 * size), size, 2)
    g = g.at[:, :, 1].set(g[:, :, 1] ^ products[..., 0])
    p = p.at[:, :, 1].set(products[..., 1])
    return g.reshape(n, w), p.reshape(n, w)


def sum_bits(me: Session, r: Array) -> Side[tuple[Array, Array]]:
    """Bits of r_0 + r_1 mod 2^w and the carries out of each position.

    Rounds: 2 + 2 log2 w, that is 14 for 64 bits.

    Args: r, my additive share, uint32 or uint64 [...].
    Returns: my XOR shares, both uint8[..., w]: bit j, and the carry out of bits 0..j.
    """
    own = bitmatrix.bits_of(r)
    w = own.shape[-1]
    p = own.reshape(-1, w)
    if not p.size:
        return own, own
    g = (yield from one_sided_and(me, p.reshape(-1))).reshape(p.shape)
    spread = p
    for level in range(w.bit_length() - 1):
        upper, below = _split(g, spread, level=level)
        products = yield from and_bits(me, upper, below)
        g, spread = _join(g, spread, products, level=level)
    total = p ^ jnp.pad(g[:, :-1], ((0, 0), (1, 0)))
    return total.reshape(own.shape), g.reshape(own.shape)


@partial(jax.jit, static_argnames="bits")
def bits_for_truncation(total: Array, carry: Array, bits: int) -> Array:
    """The three bits, [3, ...], that `truncated` needs as numbers; local.

    The carry out of the low `bits` bits, the carry into the top bit, the top bit.
    """
    low = carry[..., bits - 1] if bits else jnp.zeros_like(carry[..., 0])
    return jnp.stack([low, carry[..., -2], total[..., -1]])


@partial(jax.jit, static_argnames="bits")
def truncated(r: Array, numbers: Array, bits: int) -> tuple[Array, Array]:
    """Additive shares of (r mod 2^(w-1)) >> bits and of the top bit of r; local.

    With L_i = r_i mod 2^(w-1), c the carry out of the low `bits` bits of L_0 + L_1 and
    d the carry into bit w-1: (r mod 2^(w-1)) >> bits = sum (L_i >> bits) + c -
    2^(w-1-bits) d.
    """
    w, kind = r.dtype.itemsize * 8, r.dtype.type
    c, d, top = numbers
    high = (r & kind(2 ** (w - 1) - 1)) >> kind(bits)
    return high + c - (d << kind(w - 1 - bits)), top
