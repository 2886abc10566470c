"""Additions, products and truncation on authenticated shares.

Each step is semi2k's, done on share and MAC alike. An opened value enters products with
its low k bits only: the rest would change the result by a multiple of 2^k.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.protocols.party import first_party
from privjax.protocols.shares import Arith
from privjax.protocols.spdz2k import tuples
from privjax.protocols.spdz2k.authenticated import Keys, Sum
from privjax.protocols.tuples import MUL, Bilinear, Truncation


def add(keys: Keys, x: Arith, y: Arith) -> Arith:
    """Local."""
    return Arith(x.value + y.value)


def add_public(keys: Keys, x: Arith, v: Any) -> Arith:
    """Local."""
    return Arith(keys.add_public(x.value, jnp.asarray(v, keys.ring.dtype)))


def mul_public(keys: Keys, x: Arith, v: Any) -> Arith:
    """Local: a product with a public ring array or integer."""
    if isinstance(v, int) and v == -1:
        return Arith(Sum(-x.value.share, -x.value.mac))
    if isinstance(v, int):
        v = np.array(v % (1 << keys.ring.k), keys.ring.dtype)
    return Arith(x.value.times(keys.ring.factor(jnp.asarray(v, keys.ring.dtype))))


def additive(keys: Keys, fun: Callable[..., Any], *xs: Arith) -> Arith:
    """Local."""
    r = keys.ring
    return Arith(
        Sum(
            r.additive(fun, *(x.value.share for x in xs)),
            r.additive(fun, *(x.value.mac for x in xs)),
        )
    )


def product_public(keys: Keys, op: Bilinear, x: Any, y: Any) -> Arith:
    """Local: a contraction or convolution with a public ring array."""

    def part(pick: Callable[[Sum], Any]) -> Any:
        factors = [
            pick(v.value)
            if isinstance(v, Arith)
            else keys.ring.factor(jnp.asarray(v, keys.ring.dtype))
            for v in (x, y)
        ]
        return keys.ring.times(op, *factors)

    return Arith(Sum(part(lambda s: s.share), part(lambda s: s.mac)))


def product(keys: Keys, op: Bilinear, x: Arith, y: Arith) -> Arith:
    """[[x * y]] by an authenticated Beaver triple; one round, none if masks are open.

    1. dealer: [[a]], [[b]], [[c]] with c = a * b
    2. open d = x - a, e = y - b
    3. [z] = [c] + d * [b] + [a] * e + d * e, the last term folded into P_0's [b];
       on MAC shares alike, d * e times alpha_i folded into the MAC of b
    """
    r = keys.ring
    mask = _masker(keys)
    a, d = x.masked(mask)
    b, e = y.masked(mask)
    operands = [r.to_marker(a.share), r.to_marker(b.share)]
    (c,) = keys.dealt(operands, tuples.Product(r, op))
    d, e = r.factor(d), r.factor(e)
    times = lambda u, v: r.times(op, u, v)  # noqa: E731
    share = c.share + times(d, b.share + first_party(e)) + times(a.share, e)
    mac = c.mac + times(d, b.mac + keys.times_key(e)) + times(a.mac, e)
    return Arith(Sum(share, mac))


def square(keys: Keys, x: Arith) -> Arith:
    """[[x^2]]; one round.

    1. dealer: [[a]], [[a^2]]
    2. open d = x - a
    3. [z] = [a^2] + 2 d [a] + d^2
    """
    r = keys.ring
    a, d = x.masked(_masker(keys))
    (aa,) = keys.dealt([r.to_marker(a.share)], tuples.Square(r))
    d = r.factor(d)
    twice = a + a
    share = aa.share + r.times(MUL, d, twice.share + first_party(d))
    mac = aa.mac + r.times(MUL, d, twice.mac + keys.times_key(d))
    return Arith(Sum(share, mac))


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
    r_h, r_m = keys.dealt([ring.to_marker(r.share)], fun)
    (c,) = keys.open_sums([keys.add_public(x.value + r, const(2 ** (k - 2)))])
    top = c >> const(k - 1)
    low = (c & const(2 ** (k - 1) - 1)) >> const(bits)
    weight = const(2 ** (k - 1 - bits))
    constant = low - const(2 ** (k - 2 - bits)) + weight * top
    sign = weight - const(2) * weight * top
    return Arith(keys.add_public(r_m.times(ring.factor(sign)) - r_h, constant))
