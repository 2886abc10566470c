"""Any protocol with exact truncation in the place of the randomly rounded one."""

from typing import Any

import numpy as np

from privjax.protocols import elements, words
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith


class ExactTruncation:
    """`protocol` whose `truncate` rounds to the nearest, ties up.

    A result then depends on the values alone and equals that of `reference` bit by bit.
    The low bits are found by comparison: log2(k) + 3 rounds in the place of one.
    """

    def __init__(self, protocol: Protocol, dtype: Any) -> None:
        self._protocol, self._dtype = protocol, np.dtype(dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def truncate(self, x: Arith, bits: int) -> Arith:
        """[floor(x / 2^bits + 1/2)] for signed |x| < 2^(k-2) - 2^(bits-1)."""
        if bits == 0:
            return x
        p = self._protocol
        raised = p.add_public(x, elements.full(x.shape, 1 << (bits - 1), self._dtype))
        return words.shift_right(p, raised, bits, self._dtype)
