"""Polynomials with public coefficients of a small secret variable.

p(u) = A(u) + u^4 B(u), A and B cubic (Paterson and Stockmeyer 1973): powers come from
one mask of u and one of u^2, terms are added at three times the scale of u and
truncated together.
"""

from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.linear import (
    concatenate,
    element,
    entry,
    rescale,
    spread,
    stack,
)
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith
from privjax.protocols.tuples import MUL


@cache
def chebyshev(
    fun: Callable[[Any], Any], low: float, high: float, degree: int
) -> tuple[float, ...]:
    """Coefficients in u = x - (low + high)/2 of a polynomial close to `fun`.

    Interpolation in the Chebyshev nodes: within a factor of 2 of the best possible.
    """
    node, inverse = interpolation(degree)
    u = node * (high - low) / 2
    c = inverse @ fun(u + (low + high) / 2)
    return tuple((c * (2 / (high - low)) ** np.arange(degree + 1)).tolist())


@cache
def interpolation(degree: int) -> tuple[Any, Any]:
    """The Chebyshev nodes in (-1, 1), and the matrix from values to coefficients."""
    node = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return node, np.linalg.inv(np.vander(node, increasing=True))


def evaluate(
    p: Protocol,
    fp: FixedPoint,
    u: Arith,
    scale: int,
    coefficients: tuple[float, ...],
    out: int,
) -> Arith:
    """A polynomial of u at scale `out`, for |u| <= 1/2 and values below 4.

    Degrees 1 to 4 take 4 rounds, 5 to 8 take 6 rounds. `scale` is at most
    `linear.working_bits` and `out` at most three times `scale`. Rounding errs by about
    2^-scale and 2^-out.
    """
    square = p.truncate(p.square(u), scale)
    cube, fourth = p.product(MUL, u, square), p.square(square)
    powers = [(u, 2 * scale), (square, 2 * scale), (cube, scale), (fourth, scale)]

    def total(c: tuple[float, ...]) -> Arith:
        """Sum of c_i u^i at 3 * scale, i <= 4."""
        terms = [
            p.mul_public(power, element(fp, c_i, rest))
            for c_i, (power, rest) in zip(c[1:], powers, strict=False)
        ]
        return p.add_public(reduce(p.add, terms), element(fp, c[0], 3 * scale))

    if len(coefficients) <= 5:
        return p.truncate(total(coefficients), 3 * scale - out)
    upper = p.truncate(total(coefficients[4:]), 2 * scale)
    high = p.product(MUL, p.truncate(fourth, scale), upper)
    high = p.mul_public(high, element(fp, 1, scale))
    return p.truncate(p.add(total(coefficients[:4]), high), 3 * scale - out)


def with_secret(
    p: Protocol, fp: FixedPoint, u: Arith, scale: int, c: Arith, out: int
) -> Arith:
    """A polynomial with secret coefficients, in 5 rounds (or 3), for |u| <= 1/2.

    Args:
      u: the variable, and `scale` its scale, at most `linear.working_bits`.
      c: 4, 6 or 8 coefficients on the last axis, lowest first, at that scale, of
        magnitudes below 2^(k - 3 - 2 scale); all but the first below 2^(k/2 - scale).
      out: the scale of the result, even.

    Pairs c_i + c_(i+1) u are combined by u^2 and u^4 (Estrin 1960):

    1. [u^2], [c_i u] for all odd i
    2. truncate
    3. [u^4], [u^2 (c_i + c_(i+1) u)]
    4. truncate
    5. [u^4 (...)]; with 4 coefficients step 3 is the last
    """
    n = c.shape[-1] // 2
    even, odd = c.moved(lambda v: v[..., 0::2]), _every_other(c)
    slopes = p.product(MUL, spread(u, n), odd)
    pairs = p.add(rescale(p, fp, even, 0, scale), slopes)
    half = min(out // 2, scale)
    after = scale if n > 2 else half
    short = concatenate([stack([p.square(u)]), _every_other(pairs)])
    short = p.truncate(short, 2 * scale - after)
    square = entry(short, 0)
    if n == 2:
        last = p.product(MUL, square, entry(short, 1))
        first = rescale(p, fp, entry(pairs, 0), 2 * scale, out)
        return p.add(first, rescale(p, fp, last, 2 * half, out))
    products = p.product(MUL, spread(square, short.shape[-1]), short)
    first = p.add(entry(pairs, 0), entry(products, 1))
    rest = entry(pairs, 2)
    if n == 4:
        rest = p.add(rest, entry(products, 2))
    both = p.truncate(stack([entry(products, 0), rest]), 2 * scale - half)
    last = p.product(MUL, entry(both, 0), entry(both, 1))
    first = rescale(p, fp, first, 2 * scale, out)
    return p.add(first, rescale(p, fp, last, 2 * half, out))


def _every_other(x: Arith) -> Arith:
    return x.moved(lambda v: v[..., 1::2])
