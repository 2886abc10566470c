"""The parts that functions are made of: polynomials, one-hot vectors, normalisation."""

import math
from typing import Any

import harness
import numpy as np
import pytest
from numpy.polynomial import polynomial

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions import bounded, roots
from privjax.protocols.functions.bits import one_hot
from privjax.protocols.functions.linear import element, working_bits
from privjax.protocols.functions.normalise import normalise
from privjax.protocols.functions.polynomial import chebyshev, evaluate
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
    [(bounded.LOGISTIC, 15.3), (bounded.TANH, 15.4), (bounded.ERF, 17.3)],
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
        return P.open_bits([one_hot(P, P.bits_at(word, np.arange(digits)), bit)])

    x, on = np.broadcast_arrays(numbers, enabled)
    (got,) = harness.opened(program, 2, x.copy(), on.copy())
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


def test_working_bits_leave_room() -> None:
    for bits in (32, 64):
        assert 3 * working_bits(FixedPoint(bits, 4)) + 2 <= bits - 2
        assert math.log2(bits) < working_bits(FixedPoint(bits, 4))
