"""Functions of secret reals as programs call them: decomposition, gradients, refusals.

`tests/protocols/test_functions.py` sweeps what has a protocol of its own; here is what
is written in terms of it, over the whole domain as well, against float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fast
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import special

import privjax
from privjax.errors import RangeError, UnsupportedError
from privjax.passes import simplify
from privjax.passes.decompose.gates import gates
from privjax.passes.decompose.special import RULES as special_rules
from privjax.passes.merge import ROUNDS
from privjax.passes.shared.interpreter import Shared
from privjax.passes.shared.nonlinear import UNARY
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions import BOUNDS

FP = FixedPoint()
rng = np.random.default_rng(11)

# Numbers of float32 that fixed point holds exactly, of all magnitudes.
_drawn = np.exp2(rng.uniform(-18, 26, 400))
_edges = np.exp2(np.arange(-18.0, 26.0))
_all = np.concatenate([_drawn, _edges, rng.uniform(0, 20, 400), [0.0, 2.0**26 - 8]])
_all = (np.rint(_all * 2.0**18) / 2.0**18).astype(np.float32)
_all = _all[_all < 2.0**26]
EVERY = np.concatenate([_all, -_all])
POSITIVE = _all[_all > 0]
_t = np.exp2(rng.uniform(-18, -1, 200))
UNIT = np.concatenate([1 - _t, _t - 1, rng.uniform(-1, 1, 200)]).astype(np.float32)
UNIT = UNIT[np.abs(UNIT) < 1]
# Parameters and arguments of distribution functions, all pairs of them.
_sizes = np.concatenate([np.geomspace(0.01, 1, 8), np.linspace(1.5, 20, 12)])
_tails = np.concatenate([[0, 6e7], np.geomspace(2.0**-18, 90, 30)])
SHAPE, TAIL = (v.ravel().astype(np.float32) for v in np.meshgrid(_sizes, _tails))
_ends = np.concatenate([[0, 1], np.geomspace(2.0**-18, 0.5, 9)])
_ends = np.concatenate([_ends, 1 - _ends[2:]])
LEFT, RIGHT, SHARE = (
    v.ravel().astype(np.float32) for v in np.meshgrid(_sizes[::3], _sizes[::4], _ends)
)
ORDER, START = (
    v.ravel().astype(np.float32)
    for v in np.meshgrid([1.125, 2, 5.5, 30], np.geomspace(0.01, 4000, 25))
)
MILD = rng.uniform(-6, 6, 64).astype(np.float32)
WHOLE = rng.integers(-12, 13, EVERY.size).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """Functions of the same arguments, their values in float64, and what they promise.

    `bound` is a name in `BOUNDS`, or (relative, absolute) errors.
    """

    fun: Callable[..., Any]
    oracle: Callable[..., Any]
    bound: Any


def power(x: Any, y: Any) -> Any:
    size = np.abs(np.where(x == 0, 1.0, x)) ** y
    sign = np.where((x < 0) & (np.abs(y) % 2 == 1), -1.0, 1.0)
    at_zero = np.where(y > 0, 0.0, np.where(y < 0, np.inf, 1.0))
    return np.where(x == 0, at_zero, sign * size)


def reciprocal_power(x: Any, n: int) -> Any:
    """1/0 is 0."""
    return np.where(x == 0, 0.0, np.where(x == 0, 1.0, x) ** float(n))


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ULP = 2.0**-FP.fractional_bits
STRICT = (2.0**-12, 2 * ULP)

GROUPS: dict[str, tuple[tuple[Any, ...], dict[str, Case]]] = {
    "every x": (
        (EVERY,),
        {
            "sin": Case(jnp.sin, np.sin, "sin"),
            "cos": Case(jnp.cos, np.cos, "cos"),
            "sinh": Case(jnp.sinh, np.sinh, "sinh"),
            "cosh": Case(jnp.cosh, np.cosh, "cosh"),
            "erfc": Case(lax.erfc, special.erfc, "erfc"),
            "gelu, exact": Case(
                lambda x: jax.nn.gelu(x, approximate=False),
                lambda x: 0.5 * x * special.erfc(-x / np.sqrt(2)),
                STRICT,
            ),
            "gelu by tanh": Case(jax.nn.gelu, gelu, STRICT),
            "gelu by hand": Case(
                lambda x: x / 2 * (1 + lax.erf(x / np.sqrt(2))),
                lambda x: 0.5 * x * special.erfc(-x / np.sqrt(2)),
                STRICT,
            ),
            # Its gate is 0 from 12.8 on, where that is 12 / 16 of an ulp.
            "silu": Case(
                jax.nn.silu, lambda x: x * special.expit(x), (2.0**-12, 10 * ULP)
            ),
            "a gate open to the left": Case(
                lambda x: (1 - jax.nn.sigmoid(2 * x)) * -x,
                lambda x: -x * special.expit(-2 * x),
                (2.0**-12, 10 * ULP),
            ),
            "an upside-down gate": Case(
                lambda x: 0.5 * x * (lax.erf(-x) - 1),
                lambda x: -0.5 * x * special.erfc(-x),
                STRICT,
            ),
            "softplus": Case(jax.nn.softplus, lambda x: np.logaddexp(x, 0), STRICT),
            "reduce_precision": Case(
                lambda x: lax.reduce_precision(x, 8, 23), lambda x: x, (0, 0)
            ),
        },
    ),
    "powers": (
        (EVERY,),
        {
            "x^3": Case(lambda x: x**3, lambda x: x**3, "pow"),
            "x^2.0": Case(lambda x: x**2.0, lambda x: x**2, "pow"),
            "x^-1": Case(lambda x: x**-1, lambda x: reciprocal_power(x, -1), "pow"),
            "x^-4": Case(lambda x: x**-4, lambda x: reciprocal_power(x, -4), "pow"),
            "x^21": Case(lambda x: x**21, lambda x: x**21, "pow"),
            "x^0": Case(lambda x: lax.integer_pow(x, 0), np.ones_like, (0, 0)),
            "x^n, n public": Case(
                lambda x: x ** jnp.asarray(WHOLE), lambda x: power(x, WHOLE), "pow"
            ),
            "2^x": Case(lambda x: 2.0**x, lambda x: 2.0**x, "exp"),
            "0.99^x": Case(
                lambda x: jnp.power(0.99, x),
                lambda x: np.float64(np.float32(0.99)) ** x,
                "exp",
            ),
        },
    ),
    "positive x": (
        (POSITIVE,),
        {
            "log1p": Case(jnp.log1p, np.log1p, "log1p"),
            "log2": Case(jnp.log2, np.log2, STRICT),
            "x^2.5": Case(lambda x: x**2.5, lambda x: x**2.5, "pow"),
            "x^0.5": Case(lambda x: x**0.5, np.sqrt, "sqrt"),
            "polygamma": Case(
                lambda x: jax.scipy.special.polygamma(2, x),
                lambda x: special.polygamma(2, x),
                "polygamma",
            ),
            "zeta": Case(
                lambda x: jax.scipy.special.zeta(1.5, x),
                lambda x: special.zeta(1.5, x),
                "zeta",
            ),
            "igamma": Case(
                lambda x: jax.scipy.special.gammainc(3.0, x),
                lambda x: special.gammainc(3.0, x),
                "igamma",
            ),
        },
    ),
    "the largest x": (
        (np.float32([2.0**26 - 4, 5.0]),),
        {
            "log1p": Case(
                lambda x: jnp.log1p(x + 3.5), lambda x: np.log(x + 4.5), STRICT
            )
        },
    ),
    "|x| < 1": (
        (UNIT,),
        {
            "atanh": Case(jnp.arctanh, np.arctanh, "atanh"),
            "log1p": Case(jnp.log1p, np.log1p, "log1p"),
            "expm1": Case(jnp.expm1, np.expm1, "expm1"),
            "betainc": Case(
                lambda x: jax.scipy.special.betainc(2.0, 3.0, x),
                lambda x: special.betainc(2.0, 3.0, np.clip(x, 0, 1)),
                "regularized_incomplete_beta",
            ),
        },
    ),
    "two secrets": (
        (EVERY, WHOLE),
        {
            "x^n": Case(lambda x, n: x**n, power, "pow"),
            "atan2": Case(jnp.arctan2, np.arctan2, "atan2"),
            "logaddexp": Case(jnp.logaddexp, np.logaddexp, STRICT),
            "div": Case(
                lambda x, n: x / n,
                lambda x, n: np.where(n == 0, 0.0, x / np.where(n == 0, 1.0, n)),
                "div",
            ),
            "nextafter": Case(
                lax.nextafter, lambda x, n: x + np.sign(n - x) * 2.0**-18, (0, 0)
            ),
        },
    ),
    "secret a and x": (
        (SHAPE, TAIL),
        {
            "igamma": Case(jax.scipy.special.gammainc, special.gammainc, (0, 2.0**-12)),
            "igammac": Case(lax.igammac, special.gammaincc, (0, 2.0**-12)),
            "several a": Case(
                lambda a, x: lax.igamma(jnp.asarray(SHAPE), x),
                special.gammainc,
                (0, 2.0**-12),
            ),
        },
    ),
    "secret a, b and x": (
        (LEFT, RIGHT, SHARE),
        {
            "betainc": Case(jax.scipy.special.betainc, special.betainc, (0, 2.0**-12)),
            "betainc, b = 2": Case(
                lambda a, b, x: jax.scipy.special.betainc(a, 2.0, x),
                lambda a, b, x: special.betainc(a, 2.0, x),
                (0, 2.0**-12),
            ),
        },
    ),
    "secret s and q": (
        (ORDER, START),
        {"zeta": Case(lax.zeta, special.zeta, (2.0**-12, 2.0**-14))},
    ),
    "moderate x": (
        (MILD,),
        {
            "gelu by powers": Case(
                lambda x: (
                    0.5
                    * x
                    * (1 + jnp.tanh(math.sqrt(2 / np.pi) * x * (1 + 0.044715 * x * x)))
                ),
                gelu,
                STRICT,
            ),
        },
    ),
    "gradients": (
        (MILD,),
        {
            "sin": Case(jax.grad(lambda x: jnp.sin(x).sum()), np.cos, STRICT),
            "asinh": Case(
                jax.grad(lambda x: jnp.arcsinh(x).sum()),
                lambda x: 1 / np.sqrt(1 + x * x),
                STRICT,
            ),
            "atan": Case(
                jax.grad(lambda x: jnp.arctan(x).sum()),
                lambda x: 1 / (1 + x * x),
                STRICT,
            ),
            "i0e": Case(
                jax.grad(lambda x: lax.bessel_i0e(x).sum()),
                lambda x: special.i1e(x) - np.sign(x) * special.i0e(x),
                STRICT,
            ),
            "erf_inv": Case(
                jax.grad(lambda x: lax.erf_inv(x * 0.15).sum()),
                lambda x: (
                    0.15 * (np.sqrt(np.pi) / 2) * np.exp(special.erfinv(0.15 * x) ** 2)
                ),
                (2.0**-12, 2.0**-15),
            ),
            "lgamma": Case(
                jax.grad(lambda x: lax.lgamma(x * x + 0.5).sum()),
                lambda x: 2 * x * special.digamma(x * x + 0.5),
                (2.0**-11, 2.0**-13),
            ),
            "x^2.5": Case(
                jax.grad(lambda x: ((x * x + 0.5) ** 1.5).sum()),
                lambda x: 3 * x * np.sqrt(x * x + 0.5),
                (2.0**-11, 2.0**-13),
            ),
        },
    ),
}


@pytest.mark.parametrize("group", GROUPS)
def test_against_float64(group: str) -> None:
    """All functions of a group in one program, on the reference protocol."""
    args, cases = GROUPS[group]
    together = lambda *xs: [case.fun(*xs) for case in cases.values()]  # noqa: E731
    results = fast.secret_shared(together, protocol="reference")(*args)
    wide = [np.asarray(a, np.float64) for a in args]
    for (name, case), result in zip(cases.items(), results, strict=True):
        got = np.asarray(result, np.float64)
        with np.errstate(all="ignore"):
            exact = np.clip(case.oracle(*wide), -FP.max_value, FP.max_value)
        if isinstance(case.bound, str):
            allowed = BOUNDS[case.bound].allowed(FP, exact)
        else:
            relative, absolute = case.bound
            allowed = np.maximum(relative * np.abs(exact), absolute)
        allowed = allowed + 2.0**-23 * np.abs(exact)  # results are float32
        excess = np.abs(got - exact) - allowed
        worst = int(np.argmax(excess))
        assert excess[worst] <= 0, (
            f"{name} at {[a[worst] for a in args]}: {got[worst]}, {exact[worst]}"
        )


NOT_GATES = {
    "another value": lambda x, y: x * jax.nn.sigmoid(y),
    "open on both sides": lambda x, y: x * (0.5 + jax.nn.sigmoid(x)),
    "closed in the middle": lambda x, y: x * jnp.tanh(x),
    "of an even function": lambda x, y: x * jax.nn.sigmoid(x * x),
    "of a shifted value": lambda x, y: (x + 1) * jax.nn.sigmoid(x),
    "flat": lambda x, y: x * jax.nn.sigmoid(x / 100),
    "public": lambda x, y: x + jax.nn.gelu(jnp.float32(0.5)),
}


@pytest.mark.parametrize("name", NOT_GATES)
def test_other_products_are_left_alone(name: str) -> None:
    fun = NOT_GATES[name]
    x, y = MILD, rng.permutation(MILD)
    before = jax.make_jaxpr(fun)(x, y)
    inlined = simplify.inline(before)
    after = gates(inlined, [True, True], FP.max_value)
    assert [e.primitive.name for e in inlined.eqns] == [
        e.primitive.name for e in after.eqns
    ]
    got = fast.secret_shared(fun, protocol="reference")(x, y)
    np.testing.assert_allclose(got, fun(x, y), rtol=2.0**-12, atol=2.0**-14)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_gates_in_a_small_ring(bits: int) -> None:
    """Numbers up to 64, 1,024 and 16,384: what is multiplied has to fit."""
    fp = FixedPoint(32, bits)
    x = (np.rint(MILD * 2.0**bits) / 2.0**bits).astype(np.float32)
    wide = x.astype(np.float64)
    cases = {
        jax.nn.gelu: gelu(wide),
        jax.nn.silu: wide * special.expit(wide),
        lambda x: x * jax.nn.sigmoid(x / 8): wide * special.expit(wide / 8),
    }
    together = lambda x: [fun(x) for fun in cases]  # noqa: E731
    got = fast.secret_shared(together, protocol="reference", fixed_point=fp)(x)
    for value, exact in zip(got, cases.values(), strict=True):
        np.testing.assert_allclose(value, exact, atol=4 * 2.0**-bits)


def test_a_gate_and_its_gradient_share_the_function() -> None:
    def both(x: Any) -> Any:
        return jax.value_and_grad(lambda x: jax.nn.gelu(x).sum())(x)

    inlined = simplify.inline(jax.make_jaxpr(both)(MILD))
    after = simplify.cse(gates(inlined, [True], FP.max_value))
    names = [e.primitive.name for e in after.eqns]
    assert names.count("tanh") == 1 and names.count("select_n") == 2
    value, slope = fast.secret_shared(both, protocol="reference")(MILD)
    wide = MILD.astype(np.float64)
    np.testing.assert_allclose(value, gelu(wide).sum(), atol=64 * 2.0**-17)
    exact = (gelu(wide + 1e-5) - gelu(wide - 1e-5)) / 2e-5
    # An ulp of tanh times x (1 + 3 * 0.045 x^2) for the largest x.
    np.testing.assert_allclose(slope, exact, atol=2.0**-13)


def test_under_jit_and_vmap_of_a_protocol() -> None:
    """Octaves and turns, with two parties and two lanes."""

    def fun(x: Any) -> Any:
        return jnp.stack([jnp.arcsinh(x), jnp.sin(x)])

    shared = fast.secret_shared(fun)
    x = np.array([[0.5, -1.25], [3.0, 0.0]], np.float32)
    keys = jax.random.split(privjax.random.insecure_key(5), 2)
    got = jax.jit(jax.vmap(lambda k, v: shared(v, key=k)))(keys, x)
    want = jax.vmap(fun)(x)
    np.testing.assert_allclose(got, want, rtol=2.0**-11, atol=2.0**-14)


def test_adam_with_an_eps_below_resolution() -> None:
    """eps = 1e-8 counts as 0; 0/0 is 0, and a step is never large."""

    def step(m: Any, v: Any) -> Any:
        return m / (jnp.sqrt(v) + 1e-8)

    m = np.array([0.0, 2.0**-18, 0.01, 3.0, 0.0], np.float32)
    v = np.array([0.0, 0.0, 0.0001, 9.0, 1.0], np.float32)
    got = fast.secret_shared(step, protocol="reference")(m, v)
    np.testing.assert_allclose(got, [0.0, 0.0, 1.0, 1.0, 0.0], atol=2.0**-10)


def test_division_by_a_public_zero_is_zero() -> None:
    shared = fast.secret_shared(
        lambda x, y: (x / 0.0, x / y), public=("y",), protocol="reference"
    )
    for got in shared(np.float32([1.5, -2.0]), np.float32([0.0, 4.0])):
        assert np.asarray(got)[0] == 0 and np.all(np.isfinite(got))


REFUSED = {
    "secret order": (
        lambda x: lax.polygamma(jnp.floor(x), x),
        UnsupportedError,
        r"polygamma.*test_special.py.*known when the program is compiled",
    ),
    "two orders": (
        lambda x: lax.polygamma(jnp.arange(2.0), x),
        UnsupportedError,
        "one public number",
    ),
    "order 1/2": (lambda x: lax.polygamma(0.5, x), UnsupportedError, "orders are"),
    "zeta below 1": (lambda x: lax.zeta(1.0, x), UnsupportedError, "s > 1"),
    "zeta at 0": (lambda x: lax.zeta(x, 0.0), UnsupportedError, "q > 0"),
    "secret steps": (
        lambda x: jax.random.gamma(jax.random.key(0), x),
        UnsupportedError,
        "by rejection.*test_special.py|test_special.py.*by rejection",
    ),
    "derivative by a": (
        lambda x: lax.igamma_grad_a(x, x),
        UnsupportedError,
        "series without a known number",
    ),
    "loop that begins with 1e-16": (
        lambda x: lax.fori_loop(0, 9, lambda i, c: c * x, jnp.full(2, 1e-16)),
        UnsupportedError,
        r"test_special.py.*begins with 1e-16.*all of it would be 0",
    ),
    "too steep": (lambda x: lax.igamma(500.0, x), RangeError, "too steep"),
}


def test_continued_fractions_that_overflow_are_refused() -> None:
    """Also with a bound on their steps."""
    fun = lambda x: lax.random_gamma_grad(x, x)  # noqa: E731
    shared = fast.secret_shared(fun, protocol="reference", max_steps=20)
    with pytest.raises(UnsupportedError, match="range of floating-point numbers"):
        shared(np.float32([0.5, 2.5]))


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why(name: str) -> None:
    fun, error, match = REFUSED[name]
    with pytest.raises(error, match=match):
        fast.secret_shared(fun, protocol="reference")(np.float32([1.5, 2.5]))


def test_tables_agree() -> None:
    """Whatever has a protocol states its bound, and its rounds where they are merged."""
    assert set(UNARY) <= set(BOUNDS) <= set(ROUNDS)
    assert all(ROUNDS[name] == bound.rounds for name, bound in BOUNDS.items())
    assert set(BOUNDS) <= set(Shared.rules) | set(special_rules)
    for bound in BOUNDS.values():
        assert bound.kind in str(bound) or bound.kind == "absolute"
        assert 0 < bound.bound <= (2.0**-12 if bound.kind == "relative" else 2.0**-14)
