"""Powers: x^n by products, and |x|^y as 2^(y log2 |x|) for any secret or public y.

y log2 |x| must have a small absolute error though y may be large, so that log2 |x| must
have a small relative one, also near |x| = 1: from 1/2 on it is computed as a function of
t = |x| - 1, below as one of |x|, both as a polynomial times a power of two.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import negated_if
from privjax.protocols.functions.exponential import power_of_two
from privjax.protocols.functions.linear import (
    add_real,
    element,
    entries,
    entry,
    integer_bits,
    rescale,
    spread,
    stack,
    subtract,
    weighted,
    working_bits,
)
from privjax.protocols.functions.normalise import Normalised, normalise
from privjax.protocols.functions.polynomial import interpolation, with_secret
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, Bit, moved
from privjax.protocols.tuples import MUL

_DEGREE = 7
_EXACT, _SHORT, _LIMIT, _SMALL = range(_DEGREE + 1, _DEGREE + 5)  # columns of tables


@dataclass(frozen=True)
class _Format:
    """Scales of a power.

    Attributes:
      fp: the fixed-point format.
      x, y: scales of the base and of the exponent.
      most: results are 0 or saturate where |y w| is at least 2^most.
      sum: the scale of y w.
      short: the scale of y where it meets a w so small that 2^sum y w is no multiple
        of w.
    """

    fp: FixedPoint
    x: int
    y: int

    @property
    def most(self) -> int:
        return (
            max(self.fp.fractional_bits, integer_bits(self.fp)) + 2
        ).bit_length() + 1

    @property
    def sum(self) -> int:
        return self.fp.ring_bits - 3 - self.most

    @property
    def short(self) -> int:
        return min(self.y, self.sum - self.x)


def integer_power(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, n: int
) -> tuple[Arith, int]:
    """x^n for n >= 2 in at most 8 + 4 log2 n rounds, relative error n 2^-17 or an ulp.

    x is cut off where its power does not fit, then multiplied with itself.
    """
    f = fp.fractional_bits
    x = rescale(p, fp, x, scale, f)
    most = (fp.max_value * (1 - 2.0 ** (5 - fp.precision))) ** (1 / n)
    root = np.ldexp(np.floor(np.ldexp(most, f)), -f)
    room = [add_real(p, fp, p.mul_public(x, s), root, f) for s in (-1, 1)]
    both = stack(room)  # [root - x], [root + x]
    change = p.bit_times(p.msb(both), both)
    x = p.add(x, subtract(p, fp, entry(change, 0), entry(change, 1)))

    Real = tuple[Arith, int]  # a number with its scale

    def short(a: Real) -> Real:
        return rescale(p, fp, a[0], a[1], f), f

    def times(a: Real, b: Real) -> Real:
        if a is b:
            return p.square(short(a)[0]), 2 * f
        return p.product(MUL, short(a)[0], short(b)[0]), 2 * f

    base: Real = (x, f)
    result: Real | None = None
    while True:
        if n & 1:
            result = base if result is None else times(result, base)
        n >>= 1
        if not n:
            assert result is not None
            return result
        base = times(base, base)
        base = short(base) if n > 1 else base


def power(
    p: Protocol,
    fp: FixedPoint,
    x: Arith,
    x_scale: int,
    y: Arith,
    y_scale: int,
    odd: Bit | Any | None = None,
) -> tuple[Arith, int]:
    """x^y (shapes equal), relative error 2^-13 or absolute two ulps; saturates.

    Without `odd` a negative x counts as 0: 36 rounds. With it, the lowest bit of y
    (secret, or a public uint8), the base may be negative: 43 rounds. 0^0 is 1.

    1. log2 |x| = w P (`_columns`), and a limit on |y| beyond which 2^(y w P) is 0 or
       saturates
    2. [y w], 0 beyond the limit; [z] = [y w] [P], far outside beyond it
    3. 2^z
    """
    f, s = fp.fractional_bits, working_bits(fp)
    sign = None
    if odd is not None:
        negative = p.msb(x)
        x = negated_if(p, fp, negative, x)
        if isinstance(odd, Bit):
            sign = p.and_(negative, odd)
        else:
            sign = p.and_public(negative, odd)
    scale = max(x_scale, f)
    x = rescale(p, fp, x, x_scale, scale)
    less = add_real(p, fp, x, -1.0, scale)
    parts = normalise(p, fp, stack([x, less]), scale, signed=True)
    assert parts.sign is not None
    form = _Format(fp, scale, y_scale)
    columns = _columns(p, fp, parts, form)
    weights, limit = entries(columns, _EXACT, _LIMIT), entry(columns, _LIMIT)

    limbs = stack([y, rescale(p, fp, y, y_scale, form.short)])
    product = p.product(MUL, limbs, weights)
    scaled = p.additive(lambda v: jnp.sum(v, -1, dtype=v.dtype), product)
    scaled = p.truncate(scaled, form.sum - s)
    minus = p.mul_public(y, -1)
    below = p.msb(stack([subtract(p, fp, v, limit) for v in (y, minus)]))
    outside = p.xor(entry(below, 0), entry(below, 1))
    scaled = p.bit_times(p.xor_public(outside, np.uint8(1)), scaled)

    first, second = (entry(parts.mantissa, i) for i in (0, 1))
    u = p.product(MUL, entry(columns, _SMALL), subtract(p, fp, first, second))
    u = p.add(second, u)
    c = entries(columns, 0, _EXACT)
    logarithm = p.truncate(with_secret(p, fp, u, s, c, 2 * s), s)
    z = p.product(MUL, scaled, logarithm)
    # y < -limit: below = (1, 0); log2 |x| < 0 where |x| - 1 is.
    falls = p.xor(entry(below, 0), entry(parts.sign, 1))
    both = p.to_arith(stack([outside, p.and_(outside, falls)]), fp.dtype)
    far = 2.0 ** (form.most + 1)
    z = p.add(z, weighted(p, both, element(fp, [far, -2 * far], 2 * s)))
    t = p.truncate(z, 2 * s - f - 1)
    return power_of_two(p, fp, z, 2 * s, t, 1.0, 4, sign)


def _columns(p: Protocol, fp: FixedPoint, parts: Normalised, form: _Format) -> Arith:
    """Coefficients of P, w for both limbs of y, the limit on |y|, <|x| < 1/2>.

    `parts` are those of |x| and of |x| - 1 on the last axis. With the one-hot vectors
    come a limit of one unit for x <= 0, which they do not show, and of the whole ring
    for |x| = 1.
    """
    tables, changes = _tables(form, tuple(parts.exponents.tolist()))
    own = [
        parts.leading.moved(lambda v: v[..., 0, :]),
        parts.leading.moved(lambda v: v[..., 1, :]),
    ]
    columns = [weighted(p, o, t) for o, t in zip(own, tables, strict=True)]
    more = [weighted(p, o, t) for o, t in zip(own, changes, strict=True)]
    wide = spread(parts.sign, more[0].shape[-1])
    lines = moved(lambda *v: jnp.stack(v, -2), *more)
    lines = p.bit_times(wide, lines)
    lines = p.additive(lambda v: jnp.sum(v, -2, dtype=v.dtype), lines)
    total = p.add(p.add(*columns), lines)
    constant = element(fp, np.zeros(_SMALL + 1))
    constant[_LIMIT] = 1 + element(fp, 1.0, fp.ring_bits - 2)
    return p.add_public(total, constant)


@cache
def _tables(form: _Format, exponents: tuple[int, ...]) -> tuple[Any, Any]:
    """For |x| and |x| - 1: columns for positive ones, and what negative ones add."""
    e = np.array(exponents)
    below, above = e <= -2, e > -np.inf
    first = _table(form, np.log2, e, below, 1)
    first[:, _SMALL] = below
    whole = element(form.fp, 1.0, form.fp.ring_bits - 2)
    second = [
        _table(form, lambda t: np.log1p(t) / math.log(2), e, above, whole),
        _table(form, lambda t: np.log1p(-t) / math.log(2), e, below, whole),
    ]
    return (first, second[0]), (-first, second[1] - second[0])


def _table(form: _Format, log2: Any, exponents: Any, where: Any, limit: Any) -> Any:
    """Columns for a logarithm on each octave; zero but for the limit not `where`."""
    fp, (node, inverse) = form.fp, interpolation(_DEGREE)
    x = np.ldexp(1.5 + node / 2, np.where(where, exponents, -2)[:, None])
    values = log2(x)
    power = np.floor(np.log2(np.max(np.abs(values), 1)))
    polynomial = (values * np.exp2(-power)[:, None]) @ inverse.T
    polynomial *= 2.0 ** np.arange(_DEGREE + 1)
    exact = power >= form.y - form.sum
    w = np.exp2(power)
    most = np.minimum(form.most - power + form.y, fp.ring_bits - 2)
    columns = [
        *element(fp, polynomial, working_bits(fp)).T,
        element(fp, np.where(exact, w, 0.0), form.sum - form.y),
        element(fp, np.where(exact, 0.0, w), form.sum - form.short),
        element(fp, np.exp2(most)),
        element(fp, np.zeros(exponents.shape)),
    ]
    table = np.stack(columns, 1) * where[:, None]
    table[:, _LIMIT] -= limit
    return table
