"""Additions, products and truncation on authenticated shares.

Each step is semi2k's, done on shares and MAC shares alike. Of an opened value only the
low k bits enter a product: the rest would change it by a multiple of 2^k.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.protocols.shares import Arith
from privjax.protocols.spdz2k import tuples
from privjax.protocols.spdz2k.authenticated import Keys, Sum
from privjax.protocols.tuples import Bilinear, Truncation


def add(keys: Keys, x: Arith, y: Arith) -> Arith:
    """Local."""
    return Arith(x.value + y.value)


def add_public(keys: Keys, x: Arith, v: Any) -> Arith:
    """Local."""
    return Arith(keys.add_public(x.value, _ring(keys, v)))


def mul_public(keys: Keys, x: Arith, v: Any) -> Arith:
    """Local: a product with a public ring array or integer."""
    if isinstance(v, int) and v == -1:
        return Arith(-x.value)
    if isinstance(v, int):
        v = np.array(v % (1 << keys.ring.k), keys.ring.dtype)
    return Arith(x.value.times(keys.ring.factor(jnp.asarray(v, keys.ring.dtype))))


def additive(keys: Keys, fun: Callable[..., Any], *xs: Arith) -> Arith:
    """Local."""
    parts = (x.value.both for x in xs)
    return Arith(Sum(keys.ring.additive(jax.vmap(fun), *parts)))


def product_public(keys: Keys, op: Bilinear, x: Any, y: Any) -> Arith:
    """Local: a contraction or convolution with a public ring array."""

    factors = [
        v.value.both if isinstance(v, Arith) else keys.ring.factor(_ring(keys, v))
        for v in (x, y)
    ]
    axes = [0 if isinstance(v, Arith) else None for v in (x, y)]
    return Arith(Sum(_times(keys, op, factors[0], factors[1], axes)))


def product(keys: Keys, op: Bilinear, x: Arith, y: Arith) -> Arith:
    """[[x * y]] by an authenticated Beaver triple; one round, none if masks are open.

    1. dealer: [[a]], [[b]], [[c]] with c = a * b
    2. open d = x - a, e = y - b
    3. [[z]] = [[c]] + d * ([[b]] + e) + [[a]] * e
    """
    r = keys.ring
    mask = _masker(keys)
    a, d = x.masked(mask)
    b, e = y.masked(mask)
    operands = [a.known(r), b.known(r)]
    (c,) = keys.dealt(operands, tuples.Product(r, op))
    b = keys.add_public(b, e)
    d, e = r.factor(d), r.factor(e)
    left = _times(keys, op, d, b.both, (None, 0))
    return Arith(Sum(c.both + left + _times(keys, op, a.both, e, (0, None))))


def _times(keys: Keys, op: Bilinear, x: Any, y: Any, axes: Sequence[Any]) -> Any:
    """A product with shares and MAC shares on a first axis of one operand."""
    return jax.vmap(lambda u, v: keys.ring.times(op, u, v), tuple(axes))(x, y)


def _ring(keys: Keys, v: Any) -> Any:
    return jnp.asarray(v, keys.ring.dtype)


def square(keys: Keys, x: Arith) -> Arith:
    """[[x^2]]; one round.

    1. dealer: [[a]], [[a^2]]
    2. open d = x - a
    3. [[z]] = [[a^2]] + d (2 [[a]] + d)
    """
    r = keys.ring
    a, d = x.masked(_masker(keys))
    (aa,) = keys.dealt([a.known(r)], tuples.Square(r))
    return Arith(aa + keys.add_public(a + a, d).times(r.factor(d)))


def _masker(keys: Keys) -> Callable[[Sum], tuple[Sum, Any]]:
    def fresh(value: Sum) -> tuple[Sum, Any]:
        """A uniform [[a]], and value - a mod 2^k, opened."""
        a = keys.uniform(value.shape)
        (d,) = keys.open_sums([value - a])
        return a, d

    return fresh


def truncate(keys: Keys, x: Arith, bits: int) -> Arith:
    """[[floor(x / 2^bits) + w]] for signed |x| < 2^(k-2); one round.

    As in semi2k: w is 1 with probability (x mod 2^bits) / 2^bits, the error is below
    one unit, and there is no large-error case.

    1. dealer: [[r]], [[r_h]], [[r_m]] of r mod 2^k
    2. open c = x + 2^(k-2) + r;  c' = c mod 2^(k-1)
    3. [[b]] = top bit of c XOR [[r_m]]
    4. [[y]] = (c' >> bits) - [[r_h]] + 2^(k-1-bits) [[b]] - 2^(k-2-bits)
    """
    ring, k = keys.ring, keys.ring.k

    def const(v: int) -> Any:
        return jnp.asarray(v, ring.dtype)

    r = keys.uniform(x.shape)
    fun = tuples.Lifted(ring, Truncation(bits))
    r_h, r_m = keys.dealt([r.known(ring)], fun)
    (c,) = keys.open_sums([keys.add_public(x.value + r, const(2 ** (k - 2)))])
    top = c >> const(k - 1)
    low = (c & const(2 ** (k - 1) - 1)) >> const(bits)
    weight = const(2 ** (k - 1 - bits))
    constant = low - const(2 ** (k - 2 - bits)) + weight * top
    sign = weight - const(2) * weight * top
    return Arith(keys.add_public(r_m.times(ring.factor(sign)) - r_h, constant))
