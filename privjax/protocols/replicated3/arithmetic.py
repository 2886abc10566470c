"""Additions, products and truncation on replicated shares (x_i, x_{i+1})."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.protocols.replicated3.io import at, component, tell
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import MUL, Bilinear

# Each party tells the one before it: what P_i computes as z_i, P_{i-1} holds as well.
BACKWARD = "send:1>0,2>1,0>2"


def add(x: Arith, y: Arith) -> Arith:
    """Local."""
    return Arith((x.value[0] + y.value[0], x.value[1] + y.value[1]))


def add_public(x: Arith, v: Any) -> Arith:
    """Local: the holders of x_0 add."""
    return add(x, Arith(component(jnp.broadcast_to(v, x.shape), 0)))


def mul_public(x: Arith, v: Any) -> Arith:
    """Local: a product with a public ring array or integer."""
    dtype = x.value[0].dtype
    if isinstance(v, int):  # negative ones too
        v = np.array(v % (1 << (8 * dtype.itemsize)), dtype)
    v = jnp.asarray(v, dtype)
    return Arith((x.value[0] * v, x.value[1] * v))


def additive(fun: Callable[..., Any], *xs: Arith) -> Arith:
    """Local."""
    return Arith(tuple(fun(*(x.value[j] for x in xs)) for j in (0, 1)))


def product_public(op: Bilinear, x: Any, y: Any) -> Arith:
    """Local: a contraction or convolution with a public ring array."""

    def part(v: Any, j: int) -> Any:
        return v.value[j] if isinstance(v, Arith) else v

    return Arith((op(part(x, 0), part(y, 0)), op(part(x, 1), part(y, 1))))


def product(op: Bilinear, x: Arith, y: Arith) -> Arith:
    """[x * y] for any bilinear product; one round, one element per party and result.

    1. z_i = x_i * y_i + x_i * y_{i+1} + x_{i+1} * y_i, plus a share of zero
    2. P_i sends z_i to P_{i-1}
    """
    (x0, x1), (y0, y1) = x.value, y.value
    return reshared(op(x0, y0 + y1) + op(x1, y0))


def square(x: Arith) -> Arith:
    """[x^2]; one round, as `product`."""
    x0, x1 = x.value
    return reshared(x0 * (x0 + x1 + x1))


def reshared(z: Any) -> Arith:
    """A replicated share of sum z_i, from what each party has alone; one round."""
    mine, theirs = markers.pairwise(z.shape, z.dtype)
    z = z + mine - theirs
    bits = 8 * z.dtype.itemsize
    (z,), (told,) = tell([z], (BACKWARD,), (bits,))
    return Arith((z, told))


def truncate(x: Arith, bits: int) -> Arith:
    """[floor(x / 2^f) + w] for f = `bits` and signed |x| < 2^(k-2); two rounds.

    w is 1 with probability (x mod 2^f) / 2^f: rounding is unbiased, the error below one
    unit, and there is no large-error case. w depends on c, which P_0 and P_1 see. P_2,
    who knows r and not c, plays the dealer for the other two.

    1. r = r_0 + r_1 with r_0 from F_0, r_1 from F_2. P_0 and P_1 tell each other
       x_0 + r_0 and x_1 + x_2 + 2^(k-2) + r_1: they know c = x + 2^(k-2) + r
    2. P_2 tells P_1 shares of what it knows of r, with masks that P_0 knows:
       m_1 = r_m - m_0 mod 2^(f+1) and a = W g - r_h - y_0 - y_2, where r_m is the top
       bit of r, r_h = (r mod 2^(k-1)) >> f and W = 2^(k-1-f)
    3. P_0 tells P_1 n = s m_0 - g mod 2^(f+1), P_1 tells P_0 a' = a + W s m_1, where
       s = 1 - 2 t and t is the top bit of c
    4. y_1 = ((c mod 2^(k-1)) >> f) - 2^(k-2-f) + W t + a' + W n, known to both

    Then y_0 + y_1 + y_2 is what `semi2k.truncate` computes: (c' >> f) - r_h + W (t XOR
    r_m) - 2^(k-2-f). All that is sent is masked by a value that its receiver lacks.
    """
    x0, x1 = x.value
    dtype = x0.dtype
    k = 8 * dtype.itemsize

    def const(v: int) -> Any:
        return jnp.asarray(v, dtype)

    narrow, weight = const(2 ** (bits + 1) - 1), const(2 ** (k - 1 - bits))
    packs = 2 * (bits + 1) <= k  # m_0 and g fit into one word
    mine, theirs = markers.pairwise((3 if packs else 4, *x.shape), dtype)
    # F_0 is P_0's first and P_2's second; F_2 is P_2's first and P_1's second.
    r_0, y_0, m_0 = at({2: theirs}, mine)[:3]
    g = m_0 >> const(k - bits - 1) if packs else at({2: theirs}, mine)[3] & narrow
    m_0 = m_0 & narrow
    r_1, y_2 = at({1: theirs}, mine)[:2]

    half = at({1: x0 + x1 + r_1 + const(2 ** (k - 2))}, x0 + r_0)
    r = r_0 + r_1  # as P_2 knows it
    m_1 = ((r >> const(k - 1)) - m_0) & narrow
    r_h = (r & const(2 ** (k - 1) - 1)) >> const(bits)
    (half, *_), (told, m_1, a) = tell(
        [half, m_1, weight * g - r_h - y_0 - y_2],
        ("send:0>1,1>0", "send:2>1", "send:2>1"),
        (k, bits + 1, k),
    )
    c = half + told
    top = c >> const(k - 1)
    sign = const(1) - top - top
    a, n = a + weight * sign * m_1, (sign * m_0 - g) & narrow
    (a, n), (a_told, n_told) = tell([a, n], ("send:1>0", "send:0>1"), (k, bits + 1))
    low = (c & const(2 ** (k - 1) - 1)) >> const(bits)
    both = at({1: a + weight * n_told}, a_told + weight * n)
    y_1 = low - const(2 ** (k - 2 - bits)) + weight * top + both
    return Arith((at({1: y_1, 2: y_2}, y_0), at({1: y_2, 2: y_0}, y_1)))


def scaled(b: Arith, x: Arith) -> Arith:
    """[b x], elementwise."""
    return product(MUL, b, x)
