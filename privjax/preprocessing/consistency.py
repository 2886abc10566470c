"""The check that an extension's receiver used one choice vector for all 128 columns.

Keller, Orsini and Scholl's check of 2015 came without a valid proof: Roy (SoftSpokenOT,
CRYPTO 2022, ePrint 2022/192, appendix D) refuted its main lemma. What is here is the
check that they adopted in their revision (ePrint 2015/546, version of 2022, section 4):
Roy's, with a linear universal hash over GF(2^64), applied to columns instead of rows.

Columns are cut into blocks of 64 bits, the last of them random choices that serve as a
mask and are thrown away. After the receiver's columns u are fixed, the sender tosses a
coin for factors chi_1..chi_n of GF(2^64); h(x) = sum chi_i x_i + x_(n+1). The receiver
sends h(x) and h(t_c) for each column c; the sender accepts if h(q_c) = h(t_c) +
Delta_c h(x) for all c. (chi x_i and chi x_i' collide with probability 2^-64.)

A receiver that passes with other columns has guessed the bits of Delta at which its
columns differ: each bit that it learns doubles its risk of being caught. What it sends is
masked, for any coin, so the sender may toss it alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.prg.chacha20 import Purpose, bits

BLOCK = 64
_COIN = 4


def double(x: Array) -> Array:
    """x times X in GF(2^64) = F_2[X] / (X^64 + X^4 + X^3 + X + 1)."""
    return (x << np.uint64(1)) ^ ((x >> np.uint64(63)) * np.uint64(0x1B))


@jax.jit
def universal_hash(body: Array, mask: Array, coin: Array) -> Array:
    """h of each row: uint64[c].

    Args:
      body: uint32[c, 2 n], the blocks; zeros behind them change nothing.
      mask: uint32[c, 2], the last block.
      coin: uint32[8].
    """
    c, words = body.shape
    blocks = lax.bitcast_convert_type(body.reshape(c, words // 2, 2), np.uint64)
    factors = bits(coin, (Purpose.RAW, _COIN, 0), (words // 2,), np.uint64)

    def step(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        left, power, total = carry
        taken = (left & np.uint64(1)) * power
        return left >> np.uint64(1), double(power), total ^ taken

    first = (blocks, factors, jnp.zeros_like(blocks))
    total = lax.fori_loop(np.int32(0), np.int32(BLOCK), step, first)[2]
    folded = lax.reduce(total, np.uint64(0), lax.bitwise_xor, (1,))
    return folded ^ lax.bitcast_convert_type(mask, np.uint64)
