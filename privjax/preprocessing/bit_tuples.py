"""What spdz2k deals as bits with MACs, computed on words: its ANDs in one round.

Each function takes planes of the operand, uint64[k, n], and uniform ones, and returns the
factors of all its ANDs and a function from their products to the planes of the results
(`protocols.spdz2k.tuples`, `protocols.spdz2k.comparison`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.protocols.spdz2k import gf4
from privjax.protocols.spdz2k.comparison import Comparison
from privjax.protocols.spdz2k.tuples import AndMacs, EdaBits

Planes = list[Array]
Gates = tuple[Array, Array, Callable[[Array], Planes]]


def masks(fun: Any, k: int) -> int:
    """Uniform planes that a function takes."""
    if isinstance(fun, AndMacs):
        return (1 + fun.others) * fun.width
    return 7 * fun.pairs - 4 if isinstance(fun, Comparison) else 0


def ands(fun: Any, k: int) -> int:
    """ANDs per element."""
    if isinstance(fun, AndMacs):
        return fun.others * fun.width
    if isinstance(fun, EdaBits):
        return k if fun.order == "prefix" else k // 2
    return k // 2 + 2 * fun.pairs + 2 * (fun.pairs - 2) + 1


def _ordered(r: Array, order: str) -> Array:
    """Planes in `tuples.tree_order`, if this is wanted."""
    if order != "tree":
        return r
    k = r.shape[0]
    digits = k.bit_length() - 1
    # Its own inverse.
    return r[np.array([int(f"{j:0{digits}b}"[::-1], 2) for j in range(k)])]


def and_macs(fun: AndMacs, _: Array, uniform: Array) -> Gates:
    w = fun.width
    a, others = uniform[:w], uniform[w:]
    left = jnp.concatenate([a] * fun.others)
    return left, others, lambda c: [jnp.concatenate([uniform, c])]


def edabits(fun: EdaBits, r: Array, _: Array) -> Gates:
    r = _ordered(r, fun.order)
    k = r.shape[0]
    if fun.order == "prefix":
        high, low = r, jnp.concatenate([jnp.zeros_like(r[:1]), r[:-1]])
    else:
        high, low = r[k // 2 :], r[: k // 2]
    return high, low, lambda c: [jnp.concatenate([r, c])]


def comparison(fun: Comparison, r: Array, uniform: Array) -> Gates:
    """As `Comparison.packed`, with products of shared bits by triples."""
    r = _ordered(r, "tree")
    half = fun.k // 2
    low, top = r[:half], r[-1:]
    high = jnp.concatenate([r[half:-1], jnp.zeros_like(top)])
    take, n = _taker(uniform), fun.pairs
    a, b, m = take(n), (take(n), take(n)), (take(n), take(n))
    left, right = [low, a, a], [high, *b]
    levels = []
    while n > 2:
        n //= 2
        upper, below = [v[n:] for v in m], [v[:n] for v in m]
        new = take(n), take(n)
        levels.append((upper, below, new))
        left += [upper[1]] * 2
        right += below
        m = new
    last = [v[1:] for v in m], [v[:1] for v in m]
    left.append(last[0][1])
    right.append(last[1][0])

    def finish(c: Array) -> Planes:
        product = _taker(c)
        both = product(half)
        bits = [a]
        first = [product(fun.pairs) ^ v for v in (m0, m1)]
        elements = [_element(*b), _element(*first)]
        for (g, p), lower, (new0, new1) in levels:
            size = p.shape[0]
            bits.append(p)
            elements.append(_element(*lower))
            elements.append(_element(g ^ product(size) ^ new0, product(size) ^ new1))
        (g, p), lower = last
        bits += [p, lower[0]]
        elements.append(g ^ product(1) ^ top)
        return [
            low ^ high ^ both,
            high,
            both,
            jnp.concatenate(bits),
            jnp.concatenate(elements),
        ]

    m0, m1 = (uniform[i * fun.pairs : (i + 1) * fun.pairs] for i in (3, 4))
    return jnp.concatenate(left), jnp.concatenate(right), finish


def _element(one: Array, omega: Array) -> Array:
    """Words of one + w omega."""
    return one ^ gf4.omega(omega)


def _taker(planes: Array) -> Callable[[int], Array]:
    at = 0

    def take(n: int) -> Array:
        nonlocal at
        at += n
        return planes[at - n : at]

    return take


_GATES: dict[type, Callable[..., Gates]] = {
    AndMacs: and_macs,
    EdaBits: edabits,
    Comparison: comparison,
}
KINDS = tuple(_GATES)


@partial(jax.jit, static_argnames="fun")
def factors(r: Array | None, uniform: Array, *, fun: Any) -> tuple[Array, Array]:
    """Of all ANDs, uint64[ands, n] each."""
    left, right, _ = _GATES[type(fun)](fun, r, uniform)
    return left, right


@partial(jax.jit, static_argnames="fun")
def results(r: Array | None, uniform: Array, products: Array, *, fun: Any) -> Planes:
    """Planes of each result, uint64[planes, n]."""
    return _GATES[type(fun)](fun, r, uniform)[2](products)
