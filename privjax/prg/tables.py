"""Exact sampling from a table: integers with probabilities that are multiples of 2^-96.

`table_of` turns an integer `Law` into cut points c_i = round(2^96 P(X <= i)), by
integer arithmetic while the program is traced; `draw` samples exactly the law that the
cuts say, P(X = i) = (c_i - c_(i-1)) / 2^96, from 96 random bits. No floating-point
number is involved, so there is nothing that rounding could leak.

Statistical distance. Each cut is rounded by at most half of 2^-96 and the tails that
were left out hold less than 2^-96, so that a draw from n cuts is within (n + 2) 2^-97
of its law in total variation: `Table.distance`, 2^-76 for the largest table. A release
of d numbers is within d times that; the ledger adds it to delta.

Drawing is by aliases (Walker 1977; Vose 1991), in integers: the first k bits choose one
of 2^k columns, the other 96 - k bits decide between the column's own value and another
one. The time of a draw depends on neither the table nor what is drawn.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax._typing import Array, Shape
from privjax.errors import InputError
from privjax.prg import exact
from privjax.prg.chacha20 import Nonce
from privjax.prg.pieces import drawn

WORDS = 3
BITS = 32 * WORDS


@dataclass(frozen=True)
class Table:
    """Cut points of a law on consecutive integers.

    Attributes:
      first: the least integer; the greatest is `first + len(cuts)`.
      cuts: non-decreasing integers; P(X <= first + i) = cuts[i] / 2^96.
    """

    first: int
    cuts: tuple[int, ...]

    @property
    def distance(self) -> float:
        """Total variation distance from the law that the table stands for, at most."""
        return (len(self.cuts) + 2) * 2.0 ** -(BITS + 1)

    @functools.cached_property
    def aliases(self) -> tuple[np.ndarray, np.ndarray]:
        """uint32[3, 2^k] and int32[2^k]: below the limit, a column is its own value.

        Limits are of 96 - k bits, most significant word first; columns are counted from
        `first`. Exact: each value's parts add up to its probability.
        """
        ends = (0, *self.cuts, 1 << BITS)
        bits = max(1, (len(ends) - 2).bit_length())
        # In units of 2^-96 every column holds 2^(96 - k).
        full = 1 << (BITS - bits)
        left = [b - a for a, b in zip(ends[:-1], ends[1:], strict=True)]
        left += [0] * ((1 << bits) - len(left))
        other = list(range(1 << bits))
        poor = [i for i, w in enumerate(left) if w < full]
        rich = [i for i, w in enumerate(left) if w > full]
        while poor:
            column, giver = poor.pop(), rich[-1]
            other[column] = giver
            left[giver] -= full - left[column]
            if left[giver] <= full:
                rich.pop()
                if left[giver] < full:
                    poor.append(giver)
        raw = b"".join(w.to_bytes(4 * WORDS, "big") for w in left)
        limits = np.frombuffer(raw, ">u4").reshape(-1, WORDS).T
        return np.ascontiguousarray(limits.astype(np.uint32)), np.array(other, np.int32)


def table_of(law: exact.Law) -> Table:
    """Cumulative sums of the weights, rounded to multiples of 2^-96.

    Values below the first cut that is not 0, and above the last that is not 1, can not
    be drawn and are left out.
    """
    total = sum(law.weights)
    if total <= 0:
        raise InputError("a law needs a positive weight.")
    top, cuts, running = 1 << BITS, [], 0
    for weight in law.weights:
        running += weight
        cuts.append(((running << (BITS + 1)) // total + 1) >> 1)
    start = next(i for i, c in enumerate(cuts) if c > 0)
    stop = next(i for i, c in enumerate(cuts) if c >= top)
    return Table(law.first + start, tuple(cuts[start:stop]))


@functools.lru_cache(maxsize=64)  # a large table takes a second to compute
def cached_table(law: Callable[..., exact.Law], *parameters: Any) -> Table:
    """`table_of(law(*parameters))`, kept."""
    return table_of(law(*parameters))


def draw(key: Array, nonce: Nonce, shape: Shape, table: Table) -> Array:
    """Independent integers of the table's law.

    Args:
      key, nonce: as in `keystream`; 12 bytes of it are used per number.
      shape: static.

    Returns: int32[shape]
    """
    if not table.cuts:
        return jnp.full(shape, np.int32(table.first))
    return drawn(key, nonce, shape, WORDS, functools.partial(from_words, table=table))


def from_words(words: Array, table: Table) -> Array:
    """Integers of the table's law from uniform words: uint32[WORDS, n] -> int32[n].

    The column of each 96 bits, or its alias.
    """
    if not table.cuts:
        return jnp.full(words.shape[1:], np.int32(table.first))
    limits, other = table.aliases
    rest = np.uint32(32 - (other.size.bit_length() - 1))
    column = (words[0] >> rest).astype(np.int32)
    x, y, z = words[0] & np.uint32((1 << int(rest)) - 1), words[1], words[2]
    a, b, c = (jnp.asarray(limits[i])[column] for i in range(WORDS))
    own = (x < a) | ((x == a) & ((y < b) | ((y == b) & (z < c))))
    return np.int32(table.first) + jnp.where(own, column, jnp.asarray(other)[column])
