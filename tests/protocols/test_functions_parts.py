"""The parts of functions: polynomials, one-hot vectors, normalisation, tables."""

import math
from typing import Any

import harness
import numpy as np
import pytest
from numpy.polynomial import polynomial

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions import angles, bounded, gamma, inverse, octaves, roots
from privjax.protocols.functions.bits import one_hot
from privjax.protocols.functions.linear import element, largest, working_bits
from privjax.protocols.functions.normalise import normalise
from privjax.protocols.functions.polynomial import (
    chebyshev,
    evaluate,
    interpolation,
    with_secret,
)
from privjax.protocols.functions.spline import SEGMENTS, Spline, _coefficients
from privjax.protocols.semi2k import Semi2k

P, FP = Semi2k(2), FixedPoint()


@pytest.mark.parametrize(
    "fun,low,high,degree,bits",
    [
        (np.reciprocal, 1.0, 2.0, 7, 19.3),
        (np.sqrt, 1.0, 2.0, 4, 16.2),
        (roots._inverse_root, 1.0, 2.0, 6, 18.8),
        (np.log, 1.0, 2.0, 7, 21.9),
        (np.exp2, 0.0, 1.0, 4, 17.9),
    ],
)
def test_chebyshev(fun: Any, low: float, high: float, degree: int, bits: float) -> None:
    u = np.linspace((low - high) / 2, (high - low) / 2, 5001)
    values = polynomial.polyval(u, chebyshev(fun, low, high, degree))
    exact = fun(u + (low + high) / 2)
    assert np.max(np.abs(values - exact)) < 2.0**-bits


@pytest.mark.parametrize(
    "spline,bits",
    [(bounded.LOGISTIC, 18.3), (bounded.TANH, 18.1), (bounded.ERF, 20.9)],
)
def test_spline_in_exact_arithmetic(spline: Spline, bits: float) -> None:
    x = np.linspace(-2 * spline.limit, 2 * spline.limit, 40001)
    y = x * spline.factor / 2**spline.shift + SEGMENTS // 2
    segment = np.clip(np.floor(y).astype(int), 0, SEGMENTS - 1)
    inside = polynomial.polyval(
        y - segment - 0.5, _coefficients(spline)[segment].T, tensor=False
    )
    outside = np.where(x < 0, spline.left, spline.right)
    value = np.where((y >= 0) & (y < SEGMENTS), inside, outside)
    assert np.max(np.abs(value - spline.fun(x))) < 2.0**-bits


@pytest.mark.parametrize("bits", [32, 64])
def test_polynomials_of_every_degree(bits: int) -> None:
    fp = FixedPoint(bits, 9)
    scale = working_bits(fp)
    rng = np.random.default_rng(3)
    rows = [tuple(rng.uniform(-0.4, 0.4, d + 1).tolist()) for d in range(1, 9)]
    u = np.linspace(-0.5, 0.5, 513)
    u = np.rint(np.ldexp(u, scale)) / 2**scale
    body = harness.on_shares(
        P, lambda p, x: [evaluate(p, fp, x, scale, c, scale) for c in rows]
    )
    got = harness.opened(body, 2, element(fp, u, scale))
    for c, g in zip(rows, got, strict=True):
        value = np.ldexp(g.astype(fp.signed).astype(np.float64), -scale)
        assert np.max(np.abs(value - polynomial.polyval(u, c))) < 3 * 2.0**-scale


@pytest.mark.parametrize("bits,f", [(64, 18), (64, 24), (32, 9)])
def test_polynomials_with_secret_coefficients(bits: int, f: int) -> None:
    """3, 5 and 7 are the degrees; another polynomial for each u."""
    fp = FixedPoint(bits, f)
    scale, out = working_bits(fp), 2 * f
    rng = np.random.default_rng(4)
    u = np.rint(np.ldexp(np.linspace(-0.5, 0.5, 301), scale)) / 2**scale
    rows = [rng.uniform(-0.9, 0.9, (u.size, n)) for n in (4, 6, 8)]
    body = harness.on_shares(
        P, lambda p, x, *cs: [with_secret(p, fp, x, scale, c, out) for c in cs]
    )
    args = [element(fp, v, scale) for v in (u, *rows)]
    got = harness.opened(body, 2, *args)
    for c, g in zip(rows, got, strict=True):
        value = np.ldexp(g.astype(fp.signed).astype(np.float64), -out)
        exact = polynomial.polyval(u, c.T, tensor=False)
        step = max(2.0**-scale, 2.0**-f)
        assert np.max(np.abs(value - exact)) < 3 * step


# Octaves that matter: of |x|, of 1 - |x|, of the distance to a pole in half turns.
ALL, TO_ONE = np.arange(-36, 26), np.arange(-36, 0)
TABLES = {
    "atan": (inverse.ATAN, ALL, 16.6),
    "asinh": (inverse.ASINH, ALL, 16.3),
    "acosh": (inverse.ACOSH, ALL, 16.3),
    "acos": (inverse.ACOS, TO_ONE, 19.0),
    "erf_inv": (inverse._erf_inv_until(18), TO_ONE, 17.9),
    "i0e": (bounded.I0E, ALL, 17.7),
    "i1e": (bounded.I1E, ALL, 18.2),
    "lgamma": (gamma._lgamma(FP)[0], ALL, 19.0),
    "log pi / sin": (gamma._lgamma(FP)[1], TO_ONE, 19.0),
    "digamma": (gamma._digamma(FP)[0], ALL, 17.8),
    "cot": (gamma._digamma(FP)[1], TO_ONE, 18.1),
    "trigamma": (gamma._hurwitz(FP, 2.0, 1.0, 1), np.arange(-13, 26), 15.5),
    "zeta": (gamma._zeta(FP, 1.0), np.arange(-26, 26), 18.5),
    "tan": (angles._tangent(26), np.arange(-27, -1), 18.9),
}


@pytest.mark.parametrize("name", TABLES)
def test_octaves_in_exact_arithmetic(name: str) -> None:
    """Polynomials of both signs, relative to the value where that is large."""
    spec, exponents, bits = TABLES[name]
    node, inverse_matrix = interpolation(spec.degree)
    t = np.linspace(-1, 1, 201)
    for fun in filter(None, (spec.fun, spec.negative)):
        values = fun(np.ldexp(1.5 + node / 2, exponents[:, None]))
        c = values @ inverse_matrix.T
        x = np.ldexp(1.5 + t / 2, exponents[:, None])
        exact = fun(x)
        fits = np.abs(exact) < FP.max_value  # the rest saturates
        error = np.abs(polynomial.polyval(t, c.T) - exact) / np.maximum(
            1.0 if math.isinf(spec.large) else np.abs(exact), 1.0
        )
        assert np.max(error[fits]) < 2.0**-bits


def test_octaves_saturate_where_no_value_fits() -> None:
    spec = octaves.Octaves(lambda x: 1 / x**2, large=4.0)
    table = octaves._table(spec, spec.fun, 0.0, np.array([-20, -14, 0]), FP)
    *c, plain, factor = table.T
    assert list(plain) == [0, 0, 1] and factor[2] == 0
    assert factor[0] == element(FP, largest(FP), 18)  # times the constant 1
    assert c[0][0] == element(FP, 1.0, working_bits(FP)) and c[1][0] == 0


@pytest.mark.parametrize(
    "values,bits", [([3, -2, 0, 4.5], 0), ([2.0**63, -(2.0**63)], 0)]
)
def test_elements(values: list[float], bits: int) -> None:
    got = element(FP, values, bits)
    expected = [round(v) % 2**64 for v in values]
    assert got.dtype == np.uint64 and [int(v) for v in got] == expected


@pytest.mark.parametrize("digits", [1, 2, 3, 5])
def test_one_hot(digits: int) -> None:
    numbers = np.arange(2**digits, dtype=np.uint64)
    enabled = np.array([1, 0], np.uint64)[:, None]

    def program(x: Any, on: Any) -> list[Any]:
        word = P.bits_of(P.share_input(x, 0))
        bit = P.share_bits(on.astype(np.uint8), 1)
        numbers = P.bits_at(word, np.arange(digits))
        return P.open_bits([one_hot(P, numbers, bit), one_hot(P, numbers)])

    x, on = np.broadcast_arrays(numbers, enabled)
    got, always = harness.opened(program, 2, x.copy(), on.copy())
    np.testing.assert_array_equal(always[1], np.eye(2**digits, dtype=np.uint8))
    np.testing.assert_array_equal(got[0], np.eye(2**digits, dtype=np.uint8))
    np.testing.assert_array_equal(got[1], 0)


@pytest.mark.parametrize("bits,f", [(64, 18), (32, 8)])
@pytest.mark.parametrize("signed", [False, True])
def test_normalise(bits: int, f: int, signed: bool) -> None:
    """x = +-m 2^e exactly, but for the rounding of m, at all edges of all octaves."""
    fp, scale = FixedPoint(bits, f), 2 * f
    powers = [1 << j for j in range(bits - 2)]
    x = sorted(
        {v + d for v in powers for d in (-1, 0, 1) if 0 < v + d < 2 ** (bits - 2)}
    )
    x = np.array(x + [-v for v in x] + [0], fp.signed)
    exponents = None

    def program(v: Any) -> list[Any]:
        nonlocal exponents
        parts = normalise(P, fp, P.share_input(v, 0), scale, signed=signed)
        exponents = parts.exponents
        sign = [] if parts.sign is None else P.open_bits([parts.sign])
        return [*P.open_arith([parts.leading, parts.mantissa]), *sign]

    leading, mantissa, *sign = harness.opened(program, 2, x.astype(fp.dtype))
    u = np.ldexp(mantissa.astype(fp.signed).astype(np.float64), -working_bits(fp))
    taken = x != 0 if signed else x > 0
    np.testing.assert_array_equal(leading.sum(-1), taken)
    np.testing.assert_array_equal(u[~taken], 0)
    assert set(np.unique(leading)) <= {0, 1} and np.all(np.abs(u) <= 0.5)
    e = exponents[np.argmax(leading, -1)]
    value = np.ldexp((u + 1.5), e) * np.where(x < 0, -1, 1)
    exact = np.ldexp(x.astype(np.float64), -scale)
    error = np.abs(value - exact)[taken] / np.abs(exact)[taken]
    assert np.max(error) <= 2.0 ** -working_bits(fp)
    if signed:
        np.testing.assert_array_equal(sign[0], x < 0)


def test_normalise_odd_numbers_of_all_bits() -> None:
    """Fractions of a turn take the whole ring; all octaves, both signs."""
    odd = np.array([(1 << j) + 1 for j in range(1, 63)] + [1, 2**63 - 1], np.int64)
    x = np.concatenate([odd, -odd])

    def program(v: Any) -> list[Any]:
        parts = normalise(P, FP, P.share_input(v, 0), 64, signed=True, odd=True)
        assert parts.sign is not None and list(parts.exponents[:2]) == [-64, -63]
        opened = P.open_arith([parts.leading, parts.mantissa, parts.magnitude])
        return [*opened, *P.open_bits([parts.sign])]

    leading, mantissa, size, sign = harness.opened(program, 2, x.astype(np.uint64))
    np.testing.assert_array_equal(size, np.abs(x).astype(np.uint64))
    np.testing.assert_array_equal(sign, x < 0)
    found = x != -1  # one's complement of -1 has no bits
    np.testing.assert_array_equal(leading.sum(-1), found)
    u = np.ldexp(mantissa.astype(np.int64).astype(np.float64), -working_bits(FP))
    value = np.ldexp(u + 1.5, np.argmax(leading, -1))
    error = np.abs(value - np.abs(x.astype(np.float64))) / np.abs(x)
    assert np.max(error[found]) < 2.0 ** -working_bits(FP)


def test_working_bits_leave_room() -> None:
    for bits in (32, 64):
        assert 3 * working_bits(FixedPoint(bits, 4)) + 2 <= bits - 2
        assert math.log2(bits) < working_bits(FixedPoint(bits, 4))
