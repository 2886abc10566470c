"""Every function against NumPy in float64: dense points, edges, costs, discharges.

One table; each row is one compiled program per configuration.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import harness
import jax
import numpy as np
import pytest

from privjax.errors import RangeError
from privjax.protocols import functions
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.logarithm import log_of_zero
from privjax.protocols.semi2k import Semi2k
from privjax.protocols.shares import Arith

# (parties, ring bits, fractional bits, whether x comes as an untruncated product)
CONFIGURATIONS = ((2, 64, 18, False), (3, 64, 18, True), (2, 32, 8, False))
POINTS = 2000


def powers(low: float, high: float) -> np.ndarray:
    """Positive reals of all magnitudes, powers of two and their neighbours."""
    rng = np.random.default_rng(0)
    edges = np.exp2(np.arange(math.ceil(low), math.ceil(high)))
    near = [edges * (1 + s * 2.0**-b) for b in (8, 20) for s in (-1, 1)]
    drawn = np.exp2(rng.uniform(low, high, POINTS))
    both = np.concatenate([drawn, edges, *near])
    return both[(both >= 2.0**low) & (both < 2.0**high)]


def both_signs(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, -x, [0.0]])


def around(limit: float, *more: float) -> np.ndarray:
    grid = np.linspace(-limit, limit, POINTS)
    return np.concatenate([grid, np.linspace(-1, 1, POINTS // 4), [0.0, *more]])


@dataclass(frozen=True)
class Format:
    """A configuration as the table below sees it."""

    fp: FixedPoint
    scale: int

    @property
    def least(self) -> int:
        return -self.scale

    @property
    def most(self) -> int:
        return self.fp.ring_bits - 2 - 2 * self.fp.fractional_bits

    @property
    def relative(self) -> float:
        """The relative error that the functions state."""
        return max(2.0**-15, 2.0 ** (3 - self.fp.fractional_bits))


@dataclass(frozen=True)
class Case:
    """`fun` at `points`, against `oracle`.

    The error is at most `relative` times the value, or `ulps`, or `absolute`.
    """

    fun: Callable[..., Any]
    points: Callable[[Format], Sequence[np.ndarray]]
    oracle: Callable[..., np.ndarray]
    rounds: int
    relative: bool = True
    ulps: float = 2.0
    absolute: float = 0.0


def quotients(form: Format) -> list[np.ndarray]:
    """Numerators and divisors of all magnitudes whose quotients fit."""
    rng = np.random.default_rng(1)
    low, high = -form.fp.fractional_bits, form.most
    d = np.exp2(rng.uniform(low, high, 2 * POINTS))
    n = d * np.exp2(rng.uniform(low, high - 0.1, 2 * POINTS))
    ok = n < 2.0 ** (high - 0.1)
    n, d = n[ok] * rng.choice([-1, 1], ok.sum()), d[ok] * rng.choice([-1, 1], ok.sum())
    return [np.append(n, [0.0, 0.0, 1.0]), np.append(d, [0.0, 2.0, 0.0])]


def divided(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.where(d == 0, 0.0, n / np.where(d == 0, 1.0, d))


def positive(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`fun` of positive numbers, else 0."""
    return lambda x: np.where(x > 0, fun(np.where(x > 0, x, 1.0)), 0.0)


def logistic(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2  # does not overflow


BOUNDED = {"relative": False, "ulps": 3.0, "absolute": 2.0**-15}
CASES: dict[str, Case] = {
    "reciprocal": Case(
        functions.reciprocal,
        # Up to where 1/x saturates.
        lambda form: [both_signs(powers(max(form.least, 0.1 - form.most), form.most))],
        lambda x: divided(np.ones_like(x), x),
        22,
    ),
    "divide": Case(
        lambda p, fp, n, d, scale: functions.divide(p, fp, n, scale, d, scale),
        quotients,
        divided,
        22,
    ),
    "sqrt": Case(
        functions.sqrt,
        lambda form: [both_signs(powers(form.least, form.most))],
        positive(np.sqrt),
        20,
    ),
    "rsqrt": Case(
        functions.rsqrt,
        lambda form: [both_signs(powers(max(form.least, -2 * form.most), form.most))],
        positive(lambda x: 1 / np.sqrt(x)),
        22,
    ),
    "log": Case(
        functions.log,
        lambda form: [powers(form.least, form.most)],
        np.log,
        21,
        relative=False,
    ),
    "exp": Case(
        functions.exp,
        lambda form: [
            np.linspace(-form.most, form.most * math.log(2) - 2.0**-6, 2 * POINTS)
        ],
        np.exp,
        13,
    ),
    "exp2": Case(
        functions.exp2,
        lambda form: [
            np.append(
                np.linspace(-1.2 * form.most, form.most, 2 * POINTS)[:-8],
                np.arange(-form.most, form.most),
            )
        ],
        np.exp2,
        12,
    ),
    "logistic": Case(
        functions.logistic,
        lambda form: [around(14.0, 2.0**form.most - 1, 1 - 2.0**form.most)],
        logistic,
        13,
        **BOUNDED,
    ),
    "tanh": Case(
        functions.tanh,
        lambda form: [around(7.0, 2.0**form.most - 1, 1 - 2.0**form.most)],
        np.tanh,
        13,
        **BOUNDED,
    ),
    "erf": Case(
        functions.erf,
        lambda form: [around(4.0, 2.0**form.most - 1, 1 - 2.0**form.most)],
        np.vectorize(math.erf),
        13,
        **BOUNDED,
    ),
}


def encode(fp: FixedPoint, x: np.ndarray, scale: int) -> np.ndarray:
    return np.rint(np.ldexp(x, scale)).astype(fp.signed).astype(fp.dtype)


def decode(fp: FixedPoint, v: np.ndarray, scale: int) -> np.ndarray:
    return np.ldexp(v.astype(fp.signed).astype(np.float64), -scale)


def program_of(fun: Callable[..., Any], p: Any, fp: FixedPoint, scale: int) -> Any:
    """Share, compute, open; and the scale of the result (filled in by tracing)."""
    out: list[int] = []

    def program(*args: Any) -> list[Any]:
        shares = [p.share_input(x, 0) for x in args]
        result, result_scale = fun(p, fp, *shares, scale)
        out.append(result_scale)
        return p.open_arith([result])

    return program, out


def values(
    fun: Callable[..., Any], fp: FixedPoint, scale: int, parties: int, *xs: Any
) -> np.ndarray:
    program, out = program_of(fun, Semi2k(parties), fp, scale)
    args = [encode(fp, np.asarray(x, np.float64), scale) for x in xs]
    (got,) = harness.opened(program, parties, *args)
    assert out[0] <= 2 * fp.fractional_bits
    return decode(fp, got, out[0])


@pytest.mark.parametrize("parties,bits,f,product", CONFIGURATIONS)
@pytest.mark.parametrize("name", CASES)
def test_accuracy(name: str, parties: int, bits: int, f: int, product: bool) -> None:
    case, fp = CASES[name], FixedPoint(bits, f)
    form = Format(fp, 2 * f if product else f)
    xs = case.points(form)
    # The oracle sees what the parties see.
    exact = [decode(fp, encode(fp, x, form.scale), form.scale) for x in xs]
    expected = case.oracle(*exact)
    got = values(case.fun, fp, form.scale, parties, *xs)
    allowed = np.maximum(case.ulps * fp.resolution, case.absolute)
    if case.relative:
        allowed = np.maximum(allowed, form.relative * np.abs(expected))
    excess = np.abs(got - expected) - allowed
    worst = int(np.argmax(excess))
    assert excess[worst] <= 0, (
        f"{[x[worst] for x in exact]}: {got[worst]} instead of {expected[worst]}"
    )


def test_outside_of_the_domain() -> None:
    """What the docstrings say of zero, of negative numbers and of overflow."""
    fp = FixedPoint()
    x = np.array([0.0, -(2.0**-18), -1.0, -3e5])
    logs = values(functions.log, fp, 36, 2, x)
    np.testing.assert_allclose(logs, log_of_zero(fp), atol=2.0**-18)
    np.testing.assert_array_equal(values(functions.rsqrt, fp, 18, 2, x), 0)
    large = np.array([18.03, 40.0, 1e4, 6e7, -20.0, -1e4, -6e7])
    exps = values(functions.exp, fp, 36, 2, large)
    np.testing.assert_array_equal(exps[:4], fp.max_value * (1 - 2.0**-12))
    np.testing.assert_array_equal(exps[4:], 0)


def test_reciprocal_saturates() -> None:
    fp = FixedPoint()
    x = np.array([2.0**-36, 2.0**-30, -(2.0**-36), -(2.0**-28), 2.0**-27])
    got = values(functions.reciprocal, fp, 36, 2, x)
    np.testing.assert_array_equal(np.sign(got), np.sign(x))
    assert np.all((np.abs(got) > 0.49 * fp.max_value) & (np.abs(got) < fp.max_value))


def test_quotient_of_a_division_with_a_huge_reciprocal() -> None:
    """As in Adam: m / (sqrt(v) + eps) with both near the resolution."""
    fp = FixedPoint()
    root = np.arange(1, 200) * fp.resolution
    n = root * np.linspace(-3, 3, root.size)
    n = np.rint(n * 2**18) / 2**18
    got = values(CASES["divide"].fun, fp, 18, 2, n, root)
    np.testing.assert_allclose(got, n / root, rtol=2.0**-14, atol=2.0**-17)


@pytest.mark.parametrize("shape", [(), (2, 0, 3)])
@pytest.mark.parametrize("name", ["divide", "exp", "tanh"])
def test_shapes(name: str, shape: tuple[int, ...]) -> None:
    case, fp = CASES[name], FixedPoint()
    xs = [np.full(shape, 0.75) for _ in case.points(Format(fp, 18))]
    got = values(case.fun, fp, 18, 2, *xs)
    assert got.shape == shape
    np.testing.assert_allclose(got, case.oracle(*xs), atol=2.0**-14)


# -- costs ---------------------------------------------------------------------------------

# Bytes per element that a party opens and that the dealer sends, at 64 and 18 bits.
TRAFFIC = {
    "reciprocal": (390, 672),
    "divide": (454, 736),
    "sqrt": (342, 600),
    "rsqrt": (374, 640),
    "log": (358, 632),
    "exp": (384, 358),
    "exp2": (376, 342),
    "logistic": (264, 533),
    "tanh": (264, 533),
    "erf": (264, 533),
}


@cache
def traced(name: str, scale: int) -> Any:
    fp, case, p = FixedPoint(), CASES[name], Semi2k(2)

    def program(*args: Any) -> list[Any]:
        return [case.fun(p, fp, *map(Arith, args), scale)[0].value]

    args = [np.zeros(8, fp.dtype) for _ in case.points(Format(fp, scale))]
    with jax.enable_x64(True):
        return harness.trace(program, 2, args)


@pytest.mark.parametrize("name", CASES)
def test_rounds(name: str) -> None:
    """One round more where x must be truncated first."""
    assert harness.rounds(traced(name, 18)) == CASES[name].rounds
    truncated = name in ("exp", "exp2", "logistic", "tanh", "erf")
    assert harness.rounds(traced(name, 36)) == CASES[name].rounds + truncated


@pytest.mark.parametrize("name", CASES)
def test_traffic(name: str) -> None:
    opened, dealt = harness.traffic(traced(name, 18))
    most_opened, most_dealt = TRAFFIC[name]
    assert opened / 8 <= most_opened and dealt / 8 <= most_dealt


@pytest.mark.parametrize("name", ["divide", "exp", "logistic"])
def test_offline_and_online_equal_simulation(name: str) -> None:
    fp, case, p = FixedPoint(), CASES[name], Semi2k(2)
    program, _ = program_of(case.fun, p, fp, 18)
    count = len(case.points(Format(fp, 18)))
    args = [encode(fp, np.array([0.5, -2.0, 0.0]) + i, 18) for i in range(count)]
    with jax.enable_x64(True):
        closed = harness.trace(program, 2, args)
        material = harness.ahead(closed, 2)
        apart = harness.online(closed, 2, args, material)
        together = harness.simulate(closed, 2, args)
        for a, b in zip(apart, together, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_too_few_fractional_bits_for_a_spline() -> None:
    with pytest.raises(RangeError, match="fractional_bits=2"):
        values(functions.tanh, FixedPoint(64, 2), 2, 2, np.zeros(1))
