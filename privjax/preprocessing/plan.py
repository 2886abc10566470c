"""How much of everything an spdz2k program takes, from its `structure`."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from privjax.preprocessing import bit_tuples
from privjax.preprocessing.structure import Structure, kind

Entries = np.ndarray
_DECOMPOSED = ("Truncation", "EdaBits", "Comparison")


@dataclass(frozen=True)
class Plan:
    """How much of everything a program takes; the same for both parties.

    Attributes:
      numbers: entries (see `Structure`) that are decomposed into bits, each once.
      cut: for each truncated element (number, bits).
      flags: entries of the row of bits that are wanted as numbers, each once.
      masks, ands: uniform planes, and ANDs, of each request of `bit_tuples`.
    """

    numbers: Entries
    cut: tuple[tuple[int, int], ...]
    flags: Entries
    products: int
    times: int
    masks: dict[int, int]
    ands: dict[int, int]
    bits: int

    @classmethod
    def of(cls, s: Structure) -> "Plan":
        kinds = {i: kind(w.fun) for i, w in enumerate(s.wanted)}
        decomposed = {
            i: s.operands[i, int(name != "Truncation")]
            for i, name in kinds.items()
            if name in _DECOMPOSED
        }
        numbers = _unique(decomposed.values())
        cut = tuple(
            (int(n), s.wanted[i].fun.bits)
            for i, e in decomposed.items()
            if kinds[i] == "Truncation"
            for n in np.searchsorted(numbers, e)
        )
        flags = _unique(
            s.operands[i, 0] for i, n in kinds.items() if n in ("BitToSum", "BitTimes")
        )
        masks, ands = {}, {}
        for i, want in enumerate(s.wanted):
            if isinstance(want.fun, bit_tuples.KINDS):
                n = s.sizes[i]
                masks[i] = bit_tuples.masks(want.fun, s.k) * n
                ands[i] = bit_tuples.ands(want.fun, s.k) * n
        return cls(
            numbers,
            cut,
            flags,
            sum(left.size for left, _ in s.products.values()),
            sum(s.operands[i, 1].size for i, n in kinds.items() if n == "BitTimes"),
            masks,
            ands,
            sum(s.sizes[i] for i, n in kinds.items() if n == "BitMacs"),
        )

    @property
    def dabits(self) -> int:
        return 3 * len(self.cut) + self.flags.size


def _unique(rows: Iterable[Entries]) -> Entries:
    return np.unique(np.concatenate([np.zeros((0,), np.int64), *rows]))
