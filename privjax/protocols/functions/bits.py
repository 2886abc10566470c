"""Single bits and one-hot vectors."""

from collections.abc import Sequence

import numpy as np
from jax import lax

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.linear import element
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, Bit, moved


def joined(bits: Sequence[Bit]) -> Bit:
    """Bits behind each other along the last axis; bits without that axis get one."""
    ndim = max(len(b.shape) for b in bits)
    wide = [b if len(b.shape) == ndim else _with_axis(b, ndim - 1) for b in bits]
    return moved(lambda *v: lax.concatenate(v, ndim - 1), *wide)


def one_hot(p: Protocol, digits: Bit, enabled: Bit | None = None) -> Bit:
    """One-hot vectors of numbers given by their binary digits, zero where not enabled.

    Args:
      digits: m bits on the last axis, lowest first.
      enabled: a bit without that axis, or None for all.

    Returns:
      2^m bits on the last axis. Rounds: log2 of m (m + 1 with `enabled`), rounded up.
    """
    m = digits.shape[-1]
    both = joined([p.xor_public(digits, np.uint8(1)), digits])
    # [not b, b] of each digit, highest first; then outer products of neighbours.
    pair = lambda i: both.moved(lambda v: v[..., np.array([i, m + i])])  # noqa: E731
    groups = [pair(i) for i in reversed(range(m))]
    if enabled is not None:
        groups.append(_with_axis(enabled, len(enabled.shape)))
    while len(groups) > 1:
        pairs = zip(groups[0::2], groups[1::2], strict=False)
        merged = [_outer(p, high, low) for high, low in pairs]
        groups = merged + groups[2 * len(merged) :]
    return groups[0]


def _with_axis(bit: Bit, axis: int) -> Bit:
    return bit.moved(lambda v: lax.expand_dims(v, (axis,)))


def _outer(p: Protocol, high: Bit, low: Bit) -> Bit:
    n = len(high.shape)
    a, b = high.shape[-1], low.shape[-1]
    both = p.and_(_with_axis(high, n), _with_axis(low, n - 1))
    return both.moved(lambda v: v.reshape(*high.shape[:-1], a * b))


def negated_if(p: Protocol, fp: FixedPoint, sign: Bit, x: Arith) -> Arith:
    """-x where the sign bit is set, else x; one round."""
    return p.add(x, p.mul_public(p.bit_times(sign, x), element(fp, -2)))
