"""GF(2^32): polynomials over GF(2) modulo x^32 + x^7 + x^3 + x^2 + 1, one to a word.

A key of 256 bits is eight elements, a uniform word is a uniform element, and a share is
as long as what it is a share of: nothing is rejected, reduced or padded. All operations
take the same time whatever the values are.

Products without carries by ordinary ones: operands are cut into four parts with three
zeros between their bits, so that up to eight coinciding bits cannot reach the next one
(Pornin, BearSSL, `ghash_ctmul64`). The functions take NumPy and JAX arrays alike; with
JAX the 64-bit scope must be open.
"""

from typing import Any

import numpy as np

# The modulus without its leading term.
_LOW_TERMS = (7, 3, 2)
_EVERY_FOURTH = 0x1111111111111111
# Elements but the zero: the order of the multiplicative group.
ORDER = 2**32 - 1


def _reduced(x: Any) -> Any:
    """Fold the bits from 32 on: x^32 = x^7 + x^3 + x^2 + 1."""
    high = x >> np.uint64(32)
    low = x & np.uint64(0xFFFFFFFF)
    for term in _LOW_TERMS:
        low = low ^ (high << np.uint64(term))
    return low ^ high


def multiply(a: Any, b: Any) -> Any:
    """Elementwise product of uint32 arrays, with broadcasting."""
    masks = [np.uint64(_EVERY_FOURTH << i & 2**64 - 1) for i in range(4)]
    x, y = a.astype(np.uint64), b.astype(np.uint64)
    xs, ys = [x & m for m in masks], [y & m for m in masks]
    total = None
    for k in range(4):
        column = xs[0] * ys[k]
        for i in range(1, 4):
            column = column ^ (xs[i] * ys[(k - i) % 4])
        column = column & masks[k]
        total = column if total is None else total ^ column
    # 63 bits become 39, then 32.
    return _reduced(_reduced(total)).astype(np.uint32)


def inverse(a: Any) -> Any:
    """a^(2^32 - 2), which is 1/a, and 0 for 0."""
    power = a
    out = None
    for _ in range(31):
        power = multiply(power, power)
        out = power if out is None else multiply(out, power)
    return out
