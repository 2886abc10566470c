"""Any function of one variable, octave by octave.

Between 2^e and 2^(e+1) a function is a polynomial in the mantissa. Its coefficients are
public functions of e (and of the sign of x), so that the one-hot vector of e gives them
as local sums. Where values are large the polynomial is multiplied by a power of two,
again a function of e.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.linear import (
    add_real,
    element,
    entries,
    entry,
    largest,
    spread,
    stack,
    subtract,
    threshold,
    working_bits,
)
from privjax.protocols.functions.normalise import Normalised, normalise
from privjax.protocols.functions.polynomial import (
    interpolated,
    interpolation,
    with_secret,
)
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, Bit, moved
from privjax.protocols.tuples import MUL

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Octaves:
    """A function in pieces, each on one octave of |x|.

    Attributes:
      fun: values for positive x: float64 arrays.
      negative: values at -x as a function of x > 0, or None where x < 0 counts as 0.
      at_zero: the value at 0 (and for x < 0 without `negative`).
      at_minus_zero: that where the sign says negative; None for the same (and for
        functions that can be large).
      degree: 3, 5, 7 or 15; 15 in formats that promise more than 18 bits.
      large: octaves where magnitudes reach this have a power of two as a factor, and a
        relative error; the others have an absolute one.
      limit: for |x| above (`falling`: below) this the value saturates, though it does
        not at the other end of the octave.
    """

    fun: Function
    negative: Function | None = None
    at_zero: float = 0.0
    at_minus_zero: float | None = None
    degree: int = 5
    large: float = math.inf
    limit: float | None = None
    falling: bool = False


def odd(fun: Function, **options: Any) -> Octaves:
    """An odd function from its values for x > 0."""
    return Octaves(fun, lambda x: -fun(x), **options)


def even(fun: Function, **options: Any) -> Octaves:
    """An even function from its values for x > 0."""
    return Octaves(fun, fun, **options)


def _degree(spec: Octaves, fp: FixedPoint) -> int:
    return spec.degree if fp.precision <= 18 else 15


@dataclass(frozen=True)
class Term:
    """A function of a number that is normalised already.

    Attributes:
      scale: that of the number.
      sign: what to take for its sign.
      where: the limit matters only where this bit is set; None for everywhere.
    """

    spec: Octaves
    parts: Normalised
    scale: int
    sign: Bit | None
    where: Bit | None = None


def evaluate(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, spec: Octaves
) -> tuple[Arith, int]:
    """The function in 20 rounds, 22 where magnitudes can be large."""
    parts = normalise(p, fp, x, scale, signed=spec.negative is not None)
    return total(p, fp, [Term(spec, parts, scale, parts.sign)])


def total(p: Protocol, fp: FixedPoint, terms: Sequence[Term]) -> tuple[Arith, int]:
    """The sum of functions of one degree; 5 rounds after the mantissas, 7 if large.

    1. [c_0 .. c_n, w, w'] from the one-hot vector, changed by the sign: w = 1 and w' = 0,
       or w = 0 and w' a power of two; beyond the limit both are 0
    2. [y] = [sum_i c_i u^i]
    3. [w] [y] + [w'] truncate [y]
    """
    s, f = working_bits(fp), fp.fractional_bits
    n = _degree(terms[0].spec, fp) + 1
    columns = moved(lambda *v: jnp.stack(v, -2), *(_columns(p, fp, t) for t in terms))
    u = stack([t.parts.mantissa for t in terms])
    y = with_secret(p, fp, u, s, entries(columns, 0, n), 2 * f)
    constants = [_at_zero(p, fp, t) for t in terms]
    if not all(math.isinf(t.spec.large) for t in terms):
        plain, large = entry(columns, n), entry(columns, n + 1)
        rows = []
        for i, t in enumerate(terms):
            row, beyond = _limited(p, fp, t, entry(large, i))
            rows.append(row)
            constants.append(beyond)
        whole = p.product(MUL, stack(rows), p.truncate(y, f))
        if any(t.spec.large > 0 for t in terms):
            whole = p.add(whole, p.product(MUL, plain, y))
        y = whole
    y = p.additive(lambda v: jnp.sum(v, -1, dtype=v.dtype), y)
    y = reduce(p.add, [c for c in constants if c is not None], y)
    return add_real(p, fp, y, sum(t.spec.at_zero for t in terms), 2 * f), 2 * f


def _columns(p: Protocol, fp: FixedPoint, term: Term) -> Arith:
    """Coefficients, w and w' of step 1, along a new last axis."""
    spec, parts, sign = term.spec, term.parts, term.sign
    table, change = _tables(spec, tuple(parts.exponents.tolist()), fp)
    columns = parts.table(p, table)
    at = np.flatnonzero(np.any(change, 0))
    if sign is None or not at.size:
        return columns
    more = p.bit_times(spread(sign, at.size), parts.table(p, change[:, at]))
    return p.additive(lambda c, m: c.at[..., at].add(m), columns, more)


def _at_zero(p: Protocol, fp: FixedPoint, term: Term) -> Arith | None:
    """What is to be added to `spec.at_zero` of every x."""
    spec, scale = term.spec, 2 * fp.fractional_bits
    if not math.isinf(spec.large):  # less it where there is a leading bit
        if spec.at_zero == 0:
            return None
        count = np.full(term.parts.exponents.shape, -spec.at_zero)
        return term.parts.table(p, element(fp, count, scale))
    if term.sign is None or spec.at_minus_zero is None:
        return None
    return _by_sign(p, fp, term.sign, spec.at_minus_zero - spec.at_zero, scale)


def _by_sign(p: Protocol, fp: FixedPoint, sign: Bit, value: float, scale: int) -> Arith:
    """The value where the sign bit is set, else 0."""
    return p.mul_public(p.to_arith(sign, fp.dtype), element(fp, value, scale))


def _limited(
    p: Protocol, fp: FixedPoint, term: Term, large: Arith
) -> tuple[Arith, Arith | None]:
    """The factor w', 0 beyond the limit, and the saturated value there, else 0."""
    spec, magnitude = term.spec, term.parts.magnitude
    if spec.limit is None:
        return large, None
    units = math.ldexp(spec.limit, term.scale)  # rounded so that what counts saturates
    limit = element(fp, math.ceil(units) if spec.falling else math.floor(units))
    if spec.falling:  # 0 is beyond it in any case
        over = p.msb(p.add_public(magnitude, np.negative(limit)))
    else:
        over = p.msb(p.add_public(p.mul_public(magnitude, -1), limit))
    if term.where is not None:
        over = p.and_(over, term.where)
    top = _saturated(p, fp, term)
    if not isinstance(top, Arith):
        large = subtract(p, fp, large, p.bit_times(over, large))
        return large, p.mul_public(p.to_arith(over, fp.dtype), top)
    both = p.bit_times(spread(over, 2), stack([large, top]))
    return subtract(p, fp, large, entry(both, 0)), entry(both, 1)


def _saturated(p: Protocol, fp: FixedPoint, term: Term) -> Any:
    """The saturated value at scale 2f: public, or [it] if it depends on the sign."""
    spec, scale, top = term.spec, 2 * fp.fractional_bits, largest(fp)
    assert spec.limit is not None
    at = np.array([spec.limit])
    high = float(np.sign(spec.fun(at))[0]) * top
    low = high if spec.negative is None else float(np.sign(spec.negative(at))[0]) * top
    if term.sign is None or low == high:
        return element(fp, high, scale)
    return add_real(p, fp, _by_sign(p, fp, term.sign, low - high, scale), high, scale)


def error(spec: Octaves, low: int, high: int) -> float:
    """The largest error of the polynomials on the octaves from 2^low to 2^high."""
    node, inverse = interpolation(spec.degree)
    dense, e = np.linspace(-1, 1, 401), np.arange(low, high)[:, None]
    worst = 0.0
    for fun in filter(None, (spec.fun, spec.negative)):
        c = fun(np.ldexp(1.5 + node / 2, e)) @ inverse.T
        fitted = c @ np.vander(dense, spec.degree + 1, increasing=True).T
        worst = max(
            worst, float(np.max(np.abs(fitted - fun(np.ldexp(1.5 + dense / 2, e)))))
        )
    return worst


def crossing(fun: Function, fp: FixedPoint, low: float, high: float) -> float:
    """Where a monotone function's magnitude comes close to the largest, by bisection."""
    rises = abs(fun(np.array([high]))[0]) > abs(fun(np.array([low]))[0])
    for _ in range(200):
        middle = math.sqrt(low * high)
        beyond = abs(fun(np.array([middle]))[0]) >= threshold(fp)
        if bool(beyond) == bool(rises):
            high = middle
        else:
            low = middle
    return middle


@cache
def _tables(spec: Octaves, exponents: tuple[int, ...], fp: FixedPoint) -> Any:
    """Ring elements [exponents, degree + 3] for x > 0, and what x < 0 adds to them."""
    e = np.array(exponents)
    first = _table(spec, spec.fun, spec.at_zero, e, fp)
    if spec.negative is None:
        return first, np.zeros_like(first)
    zero = spec.at_zero if spec.at_minus_zero is None else spec.at_minus_zero
    return first, _table(spec, spec.negative, zero, e, fp) - first


def _table(
    spec: Octaves, fun: Function, at_zero: float, exponents: Any, fp: FixedPoint
) -> Any:
    """Coefficients in u = m - 3/2 at the working scale; 1 or 0; 0 or a factor."""
    degree = _degree(spec, fp)
    node, _ = interpolation(degree)
    with np.errstate(all="ignore"):  # the ends of the octave first
        at = np.ldexp(1.5 + np.append([-1, 1], node) / 2, exponents[:, None])
        values = np.nan_to_num(fun(at), nan=0.0)
    size, top, near = np.abs(values), largest(fp), threshold(fp)
    most, least = np.max(size, 1), np.min(size[:, 2:], 1)
    values = values[:, 2:]
    if math.isinf(spec.large):
        values = values - at_zero
    large, beyond = most >= spec.large, least >= top
    # An octave that ends at the largest value ends a little below it instead.
    ends = (most > near) & (most < fp.max_value * (1 + 2.0**-10))
    values = values * np.where(ends, near / np.where(ends, most, 1.0), 1.0)[:, None]
    power = np.exp2(np.floor(np.log2(np.where(most > 0, most, 1.0))))
    factor = np.where(beyond, top, np.minimum(power, fp.max_value / 2))
    scaled = np.where(beyond[:, None], np.sign(values), values / factor[:, None])
    values = np.where(large[:, None], scaled, values)
    polynomial = interpolated(values, degree) * 2.0 ** np.arange(degree + 1)
    columns = [
        element(fp, polynomial, working_bits(fp)),
        element(fp, np.where(large, 0.0, 1.0))[:, None],
        element(fp, np.where(large, factor, 0.0), fp.fractional_bits)[:, None],
    ]
    return np.concatenate(columns, 1)
