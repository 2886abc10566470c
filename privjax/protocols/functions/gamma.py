"""The logarithm of the gamma function, its derivatives, and the zeta function.

For positive x octave by octave; for negative x by reflection (DLMF 5.5.3, 5.5.4):
what is left then is a function of the distance of x to the nearest integer, whose low
bits are those of x.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from scipy import special  # type: ignore[import-untyped]

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.linear import (
    add_real,
    element,
    entry,
    largest,
    rescale,
    spread,
    stack,
)
from privjax.protocols.functions.normalise import Normalised, normalise
from privjax.protocols.functions.octaves import (
    Octaves,
    Term,
    crossing,
    evaluate,
    odd,
    total,
)
from privjax.protocols.functions.power import integer_power
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith

# Octaves that reach this have a relative error; below it, sums may cancel.
_LARGE = 4.0


def lgamma(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """log |Gamma(x)| in 29 rounds, relative error 2^-14 or absolute 2^-17; saturates.

    For x < 0 the error is relative to log |Gamma(1 - x)|. At a pole, 0, -1, -2, ..., the
    value is that at a distance of 2^-(2f + 1).
    """
    return _reflected(p, fp, x, scale, *_lgamma(fp))


def digamma(p: Protocol, fp: FixedPoint, x: Arith, scale: int) -> tuple[Arith, int]:
    """The derivative of lgamma in 29 rounds, relative error 2^-14 or absolute 2^-17.

    For x < 0 the error is relative to the larger of digamma(1 - x) and pi |cot(pi x)|.
    It saturates; at a pole to -M.
    """
    return _reflected(p, fp, x, scale, *_digamma(fp))


def hurwitz(
    p: Protocol, fp: FixedPoint, q: Arith, scale: int, s: float, factor: float = 1.0
) -> tuple[Arith, int]:
    """factor zeta(s, q) for a public s > 1 and q > 0; saturates, also for q <= 0.

    22 rounds, relative error 2^-12 or an ulp. polygamma(n, q) is
    (-1)^(n+1) n! zeta(n + 1, q). Where s is above 3 a root of it is smooth enough, and
    its power takes 10 to 20 rounds more.
    """
    degree = 1 if s <= 3 else math.ceil(s / 2)
    sign = math.copysign(1.0, factor)
    size = abs(factor) ** (1 / degree)
    if degree == 1:
        return evaluate(p, fp, q, scale, _hurwitz(fp, s, sign * size, 1))
    root, out = evaluate(p, fp, q, scale, _hurwitz(fp, s, size, degree))
    power, out = integer_power(p, fp, root, out, degree)
    return p.mul_public(power, int(sign)), out


def zeta(
    p: Protocol, fp: FixedPoint, s: Arith, scale: int, q: float
) -> tuple[Arith, int]:
    """zeta(s, q) for s > 1 and a public q > 0, in 22 rounds; s <= 1 saturates."""
    low = max(scale, fp.fractional_bits)
    t = add_real(p, fp, rescale(p, fp, s, scale, low), -1.0, low)
    return evaluate(p, fp, t, low, _zeta(fp, q))


@cache
def _lgamma(fp: FixedPoint) -> tuple[Octaves, Octaves]:
    """Of z = x, or 1 - x for x < 0; and of the distance to the nearest integer."""
    last = _closest(fp)
    whole = Octaves(
        special.gammaln,
        lambda z: -special.gammaln(z),
        at_zero=float(special.gammaln(last)),
        degree=7,
        large=_LARGE,
        limit=crossing(special.gammaln, fp, 3.0, 2 * fp.max_value),
    )
    rest = Octaves(
        lambda d: np.log(np.pi / np.sin(np.pi * np.clip(d, last, 0.5))), degree=7
    )
    return whole, replace(rest, negative=rest.fun)


@cache
def _digamma(fp: FixedPoint) -> tuple[Octaves, Octaves]:
    whole = Octaves(
        special.digamma,
        lambda z: special.digamma(z),
        at_zero=-largest(fp),
        degree=7,
        large=_LARGE,
    )

    def rest(d: Any) -> Any:
        return -np.pi / np.tan(np.pi * np.clip(d, 2.0**-99, 0.5))

    limit = crossing(rest, fp, 2.0**-99, 0.25)
    return whole, odd(rest, degree=7, large=_LARGE, limit=limit, falling=True)


def _closest(fp: FixedPoint) -> float:
    """Half the distance between numbers at scale 2f."""
    return 2.0 ** -(2 * fp.fractional_bits + 1)


@cache
def _hurwitz(fp: FixedPoint, s: float, factor: float, degree: int) -> Octaves:
    """factor zeta(s, q)^(1 / degree)."""
    return _falling(lambda q: factor * special.zeta(s, q) ** (1 / degree), fp)


@cache
def _zeta(fp: FixedPoint, q: float) -> Octaves:
    return _falling(lambda t: special.zeta(1 + t, q), fp)


def _falling(fun: Callable[[Any], Any], fp: FixedPoint) -> Octaves:
    """A function of x > 0 that saturates towards 0."""
    limit = crossing(fun, fp, _closest(fp), fp.max_value)
    return Octaves(fun, degree=7, large=_LARGE, limit=limit, falling=True)


def _reflected(
    p: Protocol, fp: FixedPoint, x: Arith, scale: int, whole: Octaves, rest: Octaves
) -> tuple[Arith, int]:
    """A function of z with the sign of x, plus one of x mod 1 where x is negative.

    1. <n> = <x < 0>; [z] = [x + n (1 - 2 x)]; [d] = [n (x mod 1)], a k-bit number made
       odd, as `normalise` wants it; z is not negative
    2. both normalised together
    """
    k = fp.ring_bits
    low = max(scale, fp.fractional_bits)
    x = rescale(p, fp, x, scale, low)
    negative = p.msb(x)
    change = add_real(p, fp, p.mul_public(x, -2), 1.0, low)
    part = p.add_public(p.mul_public(x, 1 << (k - low)), element(fp, 1))
    masked = p.bit_times(spread(negative, 2), stack([change, part]))
    z, d = p.add(x, entry(masked, 0)), entry(masked, 1)
    both = normalise(p, fp, stack([z, d]), k, signed=True, odd=True)
    parts = [_half(both, i, k - s) for i, s in enumerate((low, k))]
    sign = parts[1].sign
    return total(
        p,
        fp,
        [Term(whole, parts[0], low, negative), Term(rest, parts[1], k, sign, negative)],
    )


def _half(both: Normalised, i: int, shift: int) -> Normalised:
    """One of two numbers that were normalised together, at a scale less by `shift`."""
    assert both.sign is not None
    return Normalised(
        entry(both.magnitude, i),
        entry(both.sign, i),
        both.leading.moved(lambda v: v[..., i, :]),
        both.exponents + shift,
        entry(both.mantissa, i),
    )
