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
from privjax.protocols.functions.linear import element
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
    node = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    u = node * (high - low) / 2
    values = fun(u + (low + high) / 2)
    return tuple(np.linalg.solve(np.vander(u, increasing=True), values).tolist())


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
