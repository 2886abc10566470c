"""Additions, products and truncation on additive shares. [x] is one party's share."""

from collections.abc import Callable
from typing import Any

from privjax.protocols import elements, requests
from privjax.protocols.party import first_party
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import Bilinear, Product, Square, Truncation


def add(x: Arith, y: Arith) -> Arith:
    """Local."""
    return Arith(x.value + y.value)


def add_public(x: Arith, v: Any) -> Arith:
    """Local: P_0 adds."""
    return Arith(x.value + first_party(elements.spread(v, x.shape, x.value.dtype)))


def mul_public(x: Arith, v: Any) -> Arith:
    """Local: a product with a public ring array or integer."""
    return Arith(elements.times_public(x.value, v))


def additive(fun: Callable[..., Any], *xs: Arith) -> Arith:
    """Local."""
    return Arith(elements.additive(fun, *(x.value for x in xs)))


def product_public(op: Bilinear, x: Any, y: Any) -> Arith:
    """Local: a contraction or convolution with a public ring array."""
    share = x if isinstance(x, Arith) else y
    factors = (
        v.value if isinstance(v, Arith) else elements.public(v, share.value.dtype)
        for v in (x, y)
    )
    return Arith(op(*factors))


def product(op: Bilinear, x: Arith, y: Arith) -> Arith:
    """[x * y] by a Beaver triple of that shape; one round, none if masks are open.

    1. dealer: [a], [b], [c] with c = a * b
    2. open d = x - a, e = y - b
    3. [z] = [c] + d * [b] + [a] * e + d * e, the last term folded into P_0's [b]
    """
    a, d = x.masked(fresh_mask)
    b, e = y.masked(fresh_mask)
    (c,) = requests.dealt([a, b], Product(op))
    return Arith(c + op(d, b + first_party(e)) + op(a, e))


def square(x: Arith) -> Arith:
    """[x^2]; one round.

    1. dealer: [a], [a^2]
    2. open d = x - a
    3. [z] = [a^2] + 2 d [a] + d^2
    """
    a, d = x.masked(fresh_mask)
    (aa,) = requests.dealt([a], Square())
    two = elements.constant(2, d.dtype)
    return Arith(aa + d * (a * two + first_party(d)))


def fresh_mask(value: Any) -> tuple[Any, Any]:
    """A uniform [a], and the opened value - a."""
    a = requests.uniform(value.shape, value.dtype, "sum")
    bits = value.dtype.itemsize * 8
    (d,) = requests.open_values([value - a], ("sum",), (bits,))
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
        return elements.constant(v, dtype)

    r = requests.uniform(x.shape, dtype, "sum")
    r_h, r_m = requests.dealt([r], Truncation(bits))
    shifted = x.value + r + first_party(elements.full(x.shape, 2 ** (k - 2), dtype))
    (c,) = requests.open_values([shifted], ("sum",), (k,))
    top = c >> const(k - 1)
    low = (c & const(2 ** (k - 1) - 1)) >> const(bits)
    weight = const(2 ** (k - 1 - bits))
    constant = low - const(2 ** (k - 2 - bits)) + top * weight
    sign = weight - top * (const(2) * weight)
    return Arith(first_party(constant) - r_h + sign * r_m)
