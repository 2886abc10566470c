"""Boolean circuits on words of shared bits, for any protocol that has the gates.

`g` offers, on its own kind of shared words: `xor`, `xor_public`, `and_public` (local),
`and_words(x, [y, ...], bits)` (one round), `shift_left`, `shift_right`, and
`halves(x, width)`, the upper and lower `width` bits of words of twice that width.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.protocols.elements import constant, full
from privjax.protocols.tuples import halves


def less_than_tree(g: Any, c: Any, r: Any, pairs: Any) -> Any:
    """<[c mod 2^(k-1) < r mod 2^(k-1)]> for public c and shared bits <r>.

    Both words come in `tuples.tree_order`. Bit j generates where r_j AND NOT c_j and
    propagates where they are equal. Each level combines neighbours,
    (g, p) o (g', p') = (g XOR p AND g', p AND p'): in tree order these are the two halves
    of the word, so that words shrink by half at every level. The first level is local,
    because c is public and the dealer gave `pairs`, the products of both halves of <r>:
    log2(k) - 1 rounds.
    """
    width = c.dtype.itemsize * 4
    (n, n_low), (high, low) = halves(~c, width), g.halves(r, width)
    top = np.array(
        1 << (width - 1), n.dtype
    )  # the top bit does not count: it propagates
    rest = ~top
    generate = g.xor(
        g.xor(g.and_public(high, n & rest), g.and_public(pairs, n_low & rest)),
        g.and_public(low, n_low & (n | top)),
    )
    propagate = g.xor(
        g.xor(
            g.and_public(high, n_low & rest),
            g.and_public(pairs, jnp.full_like(n, rest)),
        ),
        g.and_public(low, n | top),
    )
    propagate = g.xor_public(propagate, n_low & (n | top))
    while width > 1:
        width //= 2
        g_high, g_low = g.halves(generate, width)
        p_high, p_low = g.halves(propagate, width)
        if width == 1:  # nobody needs the last propagate
            (carried,) = g.and_words(p_high, [g_low], width)
        else:
            carried, propagate = g.and_words(p_high, [g_low, p_low], width)
        generate = g.xor(g_high, carried)
    return generate


def less_than_prefix(g: Any, c: Any, r: Any, pairs: Any) -> Any:
    """All borrows of c - r at once: bit j is <[c mod 2^(j+1) < r mod 2^(j+1)]>.

    A parallel prefix (Kogge and Stone 1973) on whole words in natural bit order; each
    level is one round of two ANDs that share an operand. The first one is local as in
    `less_than_tree`, with `pairs` the products of neighbouring bits: log2(k) - 1 rounds.
    """
    k = c.dtype.itemsize * 8
    one = constant(1, c.dtype)
    n, below, r_below = ~c, ~c << one, g.shift_left(r, 1)
    generate = g.xor(
        g.xor(g.and_public(r, n), g.and_public(pairs, below)),
        g.and_public(r_below, n & below),
    )
    propagate = g.xor(
        g.xor(g.and_public(r, below | one), pairs), g.and_public(r_below, n)
    )
    propagate = g.xor_public(propagate, n & (below | one))
    step = 2
    while step < k:
        identity = full(c.shape, (1 << step) - 1, c.dtype)
        g_low = g.shift_left(generate, step)
        p_low = g.xor_public(g.shift_left(propagate, step), identity)
        if 2 * step == k:  # nobody needs the last propagate
            (carried,) = g.and_words(propagate, [g_low], k)
        else:
            carried, propagate = g.and_words(propagate, [g_low, p_low], k)
        generate = g.xor(generate, carried)
        step *= 2
    return generate


def prefix_or(g: Any, x: Any, k: int) -> Any:
    """Bit j of the result is the OR of bits j and above; log2(k) rounds."""
    step = 1
    while step < k:
        shifted = g.shift_right(x, step)
        (both,) = g.and_words(x, [shifted], k)
        x = g.xor(g.xor(x, shifted), both)
        step *= 2
    return x


def all_equal(g: Any, c: Any, r: Any, pairs: Any) -> Any:
    """<[all bits of c and r agree]>; the first level is local: log2(k) - 1 rounds."""
    width = c.dtype.itemsize * 4
    (n, n_low), (high, low) = halves(~c, width), g.halves(r, width)
    same = g.xor(
        g.xor(g.and_public(high, n_low), pairs),
        g.and_public(low, n),
    )
    same = g.xor_public(same, n & n_low)
    while width > 1:
        width //= 2
        high, low = g.halves(same, width)
        (same,) = g.and_words(high, [low], width)
    return same
