"""Polynomials with public coefficients of a small secret variable.

p(u) = A(u) + u^4 (B(u) + u^4 ...), all cubic (Paterson and Stockmeyer 1973): powers come
from one mask of u and one of u^2, terms are added at three times the scale of u and
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
    entries,
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


def fitted(
    fp: FixedPoint, fun: Callable[[Any], Any], low: float, high: float, degree: int
) -> tuple[float, ...]:
    """`chebyshev`, of a higher degree where the format promises more than 18 bits."""
    if fp.precision <= 18:
        return chebyshev(fun, low, high, degree)
    return _precise(fun, low, high, fp.precision)


@cache
def _precise(
    fun: Callable[[Any], Any], low: float, high: float, bits: int
) -> tuple[float, ...]:
    """The least degree that errs by less than 2^-(bits + 1).

    By a Chebyshev series: the Vandermonde matrix of `interpolation` loses what these
    degrees gain.
    """

    def moved(t: Any) -> Any:
        return fun((t + 1) * (high - low) / 2 + low)

    dense = np.linspace(-1, 1, 1025)
    for degree in range(4, 33):
        series = np.polynomial.chebyshev.chebinterpolate(moved, degree)
        error = np.polynomial.chebyshev.chebval(dense, series) - moved(dense)
        if np.max(np.abs(error)) < 2.0 ** -(bits + 1):
            break
    c = np.polynomial.chebyshev.cheb2poly(series)
    return tuple((c * (2 / (high - low)) ** np.arange(degree + 1)).tolist())


@cache
def interpolation(degree: int) -> tuple[Any, Any]:
    """The Chebyshev nodes in (-1, 1), and the matrix from values to coefficients."""
    node = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    return node, np.linalg.inv(np.vander(node, increasing=True))


def interpolated(values: Any, degree: int) -> Any:
    """Coefficients on the last axis from the values in the nodes of `interpolation`."""
    node, inverse = interpolation(degree)
    if degree <= 7:
        return values @ inverse.T
    # The inverse of the matrix has lost too many bits: by way of a Chebyshev series.
    rows = np.polynomial.chebyshev.chebvander(node, degree)
    series = values @ rows * (2 / (degree + 1))
    series[..., 0] /= 2
    unit = np.eye(degree + 1)
    powers = [np.polynomial.chebyshev.cheb2poly(unit[i]) for i in range(degree + 1)]
    return series @ np.stack([np.pad(c, (0, degree + 1 - c.size)) for c in powers])


def evaluate(
    p: Protocol,
    fp: FixedPoint,
    u: Arith,
    scale: int,
    coefficients: tuple[float, ...],
    out: int,
) -> Arith:
    """A polynomial of u at scale `out`, for |u| <= 1/2 and values below 4.

    Degrees 1 to 4 take 4 rounds, four degrees more two rounds more. `scale` is at most
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

    starts = range(0, max(1, len(coefficients) - 1), 4)
    blocks = [coefficients[i : i + 4] for i in starts[:-1]]
    value, short = total(coefficients[starts[-1] :]), None
    for block in reversed(blocks):
        upper = p.truncate(value, 2 * scale)
        short = p.truncate(fourth, scale) if short is None else short
        high = p.mul_public(p.product(MUL, short, upper), element(fp, 1, scale))
        value = p.add(total(block), high)
    return p.truncate(value, 3 * scale - out)


def with_secret(
    p: Protocol, fp: FixedPoint, u: Arith, scale: int, c: Arith, out: int
) -> Arith:
    """A polynomial with secret coefficients, in 5 rounds (3, 7), for |u| <= 1/2.

    Args:
      u: the variable, and `scale` its scale, at most `linear.working_bits`.
      c: 4, 6, 8 or 16 coefficients on the last axis, lowest first, at that scale, of
        magnitudes below 2^(k - 3 - 2 scale); all but the first below 2^(k/2 - scale).
      out: the scale of the result, even.

    Pairs c_i + c_(i+1) u are combined by u^2 and u^4 (Estrin 1960), of 16 coefficients
    once more by u^8:

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
    power = p.square(u)
    while n > 4:
        short = p.truncate(concatenate([stack([power]), _every_other(pairs)]), scale)
        step, n = entry(short, 0), n // 2
        raised = p.product(MUL, spread(step, n), entries(short, 1, n + 1))
        pairs = p.add(pairs.moved(lambda v: v[..., 0::2]), raised)
        power = p.square(step)
    half = min(out // 2, scale)
    after = scale if n > 2 else half
    short = concatenate([stack([power]), _every_other(pairs)])
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
