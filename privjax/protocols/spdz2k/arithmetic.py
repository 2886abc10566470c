"""Additions, products and truncation on authenticated shares.

Each step is semi2k's, done on shares and MAC shares alike. Of an opened value only the
low k bits enter a product: the rest would change it by a multiple of 2^k. What is dealt
is right mod 2^k, which is all that a share means; its MAC is that of the shares' sum.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.protocols.shares import Arith
from privjax.protocols.spdz2k.authenticated import Keys, Sum
from privjax.protocols.spdz2k.tuples import WholeProduct
from privjax.protocols.tuples import MUL, Bilinear, Product, Square, Truncation


def add(keys: Keys, x: Arith, y: Arith) -> Arith:
    """Local."""
    return Arith(x.value + y.value)


def add_public(keys: Keys, x: Arith, v: Any) -> Arith:
    """Local."""
    return Arith(x.value.add_public(_ring(keys, v)))


def mul_public(keys: Keys, x: Arith, v: Any) -> Arith:
    """Local: a product with a public ring array or integer."""
    if isinstance(v, int) and v == -1:
        return Arith(-x.value)
    if isinstance(v, int):
        v = np.array(v % (1 << keys.ring.k), keys.ring.dtype)
    return Arith(x.value.times(keys.ring.factor(jnp.asarray(v, keys.ring.dtype))))


def additive(keys: Keys, fun: Callable[..., Any], *xs: Arith) -> Arith:
    """Local."""
    values = [x.value for x in xs]
    both = keys.ring.additive(jax.vmap(fun), *(v.both for v in values))
    return Arith(Sum(both, Sum.public(fun, *values)))


def product_public(keys: Keys, op: Bilinear, x: Any, y: Any) -> Arith:
    """Local: a contraction or convolution with a public ring array."""

    factors = [
        v.value if isinstance(v, Arith) else keys.ring.factor(_ring(keys, v))
        for v in (x, y)
    ]
    return Arith(_times(keys, op, *factors))


def product(keys: Keys, op: Bilinear, x: Arith, y: Arith) -> Arith:
    """[[x * y]] by an authenticated Beaver triple; one round, none if masks are open.

    1. dealer: [[a]], [[b]], [[c]] with c = a * b mod 2^k
    2. open d = x - a, e = y - b
    3. [[z]] = [[c]] + d * [[b]] + [[a]] * e + (d * e mod 2^k)
    """
    r = keys.ring
    a, d = x.masked(masker(keys))
    b, e = y.masked(masker(keys))
    if keys.coin is None:
        (c,) = keys.dealt([keys.known(a), keys.known(b)], Product(op))
    else:
        c = _sacrificed(keys, op, a, b)
    left, right = _times(keys, op, r.factor(d), b), _times(keys, op, a, r.factor(e))
    return Arith((c + left + right).add_public(op(d, e)))


def _sacrificed(keys: Keys, op: Bilinear, a: Sum, b: Sum) -> Sum:
    """[[c]] of a triple, checked by another one that is not used again; one round.

    Keller, Orsini, Scholl 2016 (MASCOT), section 6, mod 2^(k+s) as in Cramer et al. 2018:

    1. dealer: [[c]] = a * b, [[a']], [[c']] = a' * b
    2. for the coin t, open rho = t a - a'
    3. sigma = t c - c' - rho * b has to be 0

    Errors e of c and e' of c' have t e = e' for one t of 2^s at the most, if e is not 0
    mod 2^k.
    """
    r, fun = keys.ring, WholeProduct(keys.ring, op)
    other = keys.whole(a.shape)
    factors = [r.to_marker(v.share) for v in (a, other, b)]
    c, spare = (
        keys.whole_authenticated(markers.dealt([v, factors[2]], fun)[0])
        for v in factors[:2]
    )
    rho = keys.open_whole(Sum(keys.times_coin(a) - other.both))
    both = jax.vmap(lambda v: r.times(op, rho, v))(b.both)
    sigma = Sum(keys.times_coin(c) - spare.both - both)
    return c.add_public(keys.zero(sigma))


def _times(keys: Keys, op: Bilinear, x: Any, y: Any) -> Sum:
    """A product of a share and a public factor."""
    factors = [v.both if isinstance(v, Sum) else v for v in (x, y)]
    axes = tuple(0 if isinstance(v, Sum) else None for v in (x, y))
    both = jax.vmap(lambda u, v: keys.ring.times(op, u, v), axes)(*factors)
    ring = keys.ring.dtype

    def publicly(v: Any) -> Any:
        if isinstance(x, Sum):
            return op(v, y.astype(ring))
        return op(x.astype(ring), v)

    return Sum(both, Sum.public(publicly, x if isinstance(x, Sum) else y))


def _ring(keys: Keys, v: Any) -> Any:
    return jnp.asarray(v, keys.ring.dtype)


def square(keys: Keys, x: Arith) -> Arith:
    """[[x^2]]; one round.

    1. dealer: [[a]], [[a^2]]
    2. open d = x - a
    3. [[z]] = [[a^2]] + d (2 [[a]] + d)
    """
    if keys.coin is not None:
        return product(keys, MUL, x, x)
    a, d = x.masked(masker(keys))
    (aa,) = keys.dealt([keys.known(a)], Square())
    return Arith(aa + (a + a).add_public(d).times(keys.ring.factor(d)))


def masker(keys: Keys) -> Callable[[Sum], tuple[Sum, Any]]:
    def fresh(value: Sum) -> tuple[Sum, Any]:
        """A uniform [[a]], and value - a mod 2^k, opened."""
        a = keys.whole(value.shape)
        (d,) = keys.open_sums([value - a])
        return a, d

    return fresh


def truncate(keys: Keys, x: Arith, bits: int) -> Arith:
    """[[floor(x / 2^bits) + w]] for signed |x| < 2^(k-2); one round.

    As in semi2k: w is 1 with probability (x mod 2^bits) / 2^bits, the error is below
    one unit, and there is no large-error case.

    1. dealer: [[a]], and [[r_h]], [[r_m]] of r = -a
    2. open d = x - a;  c = d + 2^(k-2) = x + r + 2^(k-2), c' = c mod 2^(k-1)
    3. [[b]] = top bit of c XOR [[r_m]]
    4. [[y]] = (c' >> bits) - [[r_h]] + 2^(k-1-bits) [[b]] - 2^(k-2-bits)
    """
    ring, k = keys.ring, keys.ring.k

    def const(v: int) -> Any:
        return jnp.asarray(v, ring.dtype)

    a, d = x.masked(masker(keys))
    r_h, r_m = keys.dealt([const(0) - keys.known(a)], Truncation(bits))
    c = d + const(2 ** (k - 2))
    top = c >> const(k - 1)
    low = (c & const(2 ** (k - 1) - 1)) >> const(bits)
    weight = const(2 ** (k - 1 - bits))
    constant = low - const(2 ** (k - 2 - bits)) + weight * top
    sign = weight - const(2) * weight * top
    return Arith((r_m.times(ring.factor(sign)) - r_h).add_public(constant))
