"""Additions, products and truncation on additive shares. [x] is one party's share."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.protocols.party import first_party
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import Bilinear, Product, Square, Truncation


def add(x: Arith, y: Arith) -> Arith:
    """Local."""
    return Arith(x.value + y.value)


def add_public(x: Arith, v: Any) -> Arith:
    """Local: P_0 adds."""
    return Arith(x.value + first_party(jnp.broadcast_to(v, x.shape)))


def mul_public(x: Arith, v: Any) -> Arith:
    """Local: a product with a public ring array or integer."""
    dtype = x.value.dtype
    if isinstance(v, int):  # negative ones too
        v = np.array(v % (1 << (8 * dtype.itemsize)), dtype)
    return Arith(x.value * jnp.asarray(v, dtype))


def additive(fun: Callable[..., Any], *xs: Arith) -> Arith:
    """Local."""
    return Arith(fun(*(x.value for x in xs)))


def product_public(op: Bilinear, x: Any, y: Any) -> Arith:
    """Local: a contraction or convolution with a public ring array."""
    return Arith(op(*(v.value if isinstance(v, Arith) else v for v in (x, y))))


def product(op: Bilinear, x: Arith, y: Arith) -> Arith:
    """[x * y] by a Beaver triple of that shape; one round, none if masks are open.

    1. dealer: [a], [b], [c] with c = a * b
    2. open d = x - a, e = y - b
    3. [z] = [c] + d * [b] + [a] * e + d * e, the last term folded into P_0's [b]
    """
    a, d = x.masked(fresh_mask)
    b, e = y.masked(fresh_mask)
    (c,) = markers.dealt([a, b], Product(op))
    return Arith(c + op(d, b + first_party(e)) + op(a, e))


def square(x: Arith) -> Arith:
    """[x^2]; one round.

    1. dealer: [a], [a^2]
    2. open d = x - a
    3. [z] = [a^2] + 2 d [a] + d^2
    """
    a, d = x.masked(fresh_mask)
    (aa,) = markers.dealt([a], Square())
    two = jnp.asarray(2, d.dtype)
    return Arith(aa + d * (two * a + first_party(d)))


def fresh_mask(value: Any) -> tuple[Any, Any]:
    """A uniform [a], and the opened value - a."""
    a = markers.uniform(value.shape, value.dtype, "sum")
    bits = value.dtype.itemsize * 8
    (d,) = markers.open_values([value - a], ("sum",), (bits,))
    return a, d


def truncate(x: Arith, bits: int) -> Arith:
    """[floor(x / 2^bits) + w] for signed |x| < 2^(k-2); one round.

    w is 1 with probability (x mod 2^bits) / 2^bits: rounding is unbiased, the error
    below one unit, and there is no large-error case. w depends on the opened value.

    1. dealer: [r], [r_h], [r_m]: r_h = (r mod 2^(k-1)) >> bits, r_m = top bit of r
    2. open c = x + 2^(k-2) + r;  c' = c mod 2^(k-1)
    3. [b] = top bit of c XOR [r_m]   (the carry into the top bit)
    4. [y] = (c' >> bits) - [r_h] + 2^(k-1-bits) [b] - 2^(k-2-bits)
    """
    dtype = x.value.dtype
    k = dtype.itemsize * 8

    def const(v: int) -> Any:
        return jnp.asarray(v, dtype)

    r = markers.uniform(x.shape, dtype, "sum")
    r_h, r_m = markers.dealt([r], Truncation(bits))
    shifted = x.value + r + first_party(jnp.full(x.shape, 2 ** (k - 2), dtype))
    (c,) = markers.open_values([shifted], ("sum",), (k,))
    top = c >> const(k - 1)
    low = (c & const(2 ** (k - 1) - 1)) >> const(bits)
    weight = const(2 ** (k - 1 - bits))
    constant = low - const(2 ** (k - 2 - bits)) + weight * top
    sign = weight - const(2) * weight * top
    return Arith(first_party(constant) - r_h + sign * r_m)
