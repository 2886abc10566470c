"""Between shared words, single bits and one-hot vectors."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.linear import element
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, Bit


def bits_at(word: Any, positions: Any) -> Bit:
    """The bits of a word at `positions`, along a new last axis (no axis for one)."""
    at = np.asarray(positions, word.dtype)
    if at.ndim:
        word = lax.expand_dims(word, (word.ndim,))
    return Bit((word >> at).astype(np.uint8))


def spread(bit: Bit, dtype: Any) -> Any:
    """The word that is all ones where the bit is set; local."""
    low = (bit.value & np.uint8(1)).astype(dtype)
    return jnp.zeros_like(low) - low


def joined(bits: Sequence[Bit]) -> Bit:
    """Bits behind each other along the last axis; bits without that axis get one."""
    ndim = max(b.value.ndim for b in bits)
    wide = [
        b.value if b.value.ndim == ndim else lax.expand_dims(b.value, (ndim - 1,))
        for b in bits
    ]
    return Bit(lax.concatenate(wide, ndim - 1))


def one_hot(p: Protocol, digits: Bit, enabled: Bit) -> Bit:
    """One-hot vectors of numbers given by their binary digits, zero where not enabled.

    Args:
      digits: m bits on the last axis, lowest first.
      enabled: a bit without that axis.

    Returns:
      2^m bits on the last axis. Rounds: log2(m + 1), rounded up.
    """
    m = digits.shape[-1]
    both = joined([p.xor_public(digits, np.uint8(1)), digits])
    # [not b, b] of each digit, highest first; then outer products of neighbours.
    groups = [Bit(both.value[..., np.array([i, m + i])]) for i in reversed(range(m))]
    groups.append(Bit(lax.expand_dims(enabled.value, (enabled.value.ndim,))))
    while len(groups) > 1:
        pairs = zip(groups[0::2], groups[1::2], strict=False)
        merged = [_outer(p, high, low) for high, low in pairs]
        groups = merged + groups[2 * len(merged) :]
    return groups[0]


def _outer(p: Protocol, high: Bit, low: Bit) -> Bit:
    n = high.value.ndim
    both = p.and_(
        Bit(lax.expand_dims(high.value, (n,))),
        Bit(lax.expand_dims(low.value, (n - 1,))),
    )
    shape = (*high.shape[:-1], high.shape[-1] * low.shape[-1])
    return Bit(both.value.reshape(shape))


def negated_if(p: Protocol, fp: FixedPoint, sign: Bit, x: Arith) -> Arith:
    """-x where the sign bit is set, else x; one round."""
    return p.add(x, p.mul_public(p.bit_times(sign, x), element(fp, -2)))
