"""Constants that fixed point does not hold: masks, large factors, tiny first values."""

import warnings
from typing import Any

import fast
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import privjax
from privjax.errors import RangeWarning, UnsupportedError

LOGITS = np.float32([[0.5, 1.0, -1.0, 2.0], [3.0, -2.0, 0.25, 0.0]])
KEEP = np.array([[True, True, False, True], [False, True, True, False]])
OTHER = np.array([[True, False, False, True], [True, True, True, False]])
SMALL = np.float32([0.001, -0.25, 1e-5, 0.0])
FACTORS = np.float32([1e9, 0.5, 3e8, -1e9])


def masked(value: float) -> Any:
    return lambda x, m, n: jax.nn.softmax(jnp.where(m, x, value))


def added(value: float) -> Any:
    def bias(m: Any) -> Any:
        return jnp.where(m, 0.0, value)

    return lambda x, m, n: jax.nn.softmax(x + bias(m) + bias(n))


def scaled(value: float) -> Any:
    def bias(m: Any) -> Any:
        return (1 - m.astype(np.float32)) * value

    return lambda x, m, n: jax.nn.softmax(x + bias(m) + bias(n))


VALUES = {
    "-1e9": -1e9,
    "-1e4": -1e4,
    "-1e30": -1e30,
    "finfo": float(np.finfo(np.float32).min),
    "0.7 of it": -0.7 * float(np.finfo(np.float32).max),
    "-inf": -np.inf,
}
WAYS = {"where": masked, "added": added, "scaled": scaled}
# 0 * inf is NaN in plain JAX, and twice the largest number overflows there.
_ONCE = [("scaled", "-inf"), ("added", "finfo"), ("scaled", "finfo")]
CASES = [(w, v) for w in WAYS for v in VALUES if (w, v) not in _ONCE]


def _masks(x: Any, m: Any, n: Any) -> list[Any]:
    return [WAYS[way](VALUES[value])(x, m, n) for way, value in CASES]


@pytest.mark.parametrize("public", [(), ("m", "n")], ids=["secret", "public"])
def test_masks_of_every_size(public: tuple[str, ...]) -> None:
    """As ones of booleans, and of reals, which are multiplied."""
    shared = fast.secret_shared(_masks, protocol="reference", public=public)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        got = shared(LOGITS, KEEP, OTHER)
    want = jax.jit(_masks)(LOGITS, KEEP, OTHER)
    for case, a, b in zip(CASES, got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2.0**-14, err_msg=str(case))


def test_a_mask_of_reals() -> None:
    """Given as zeros and ones, of which the compiler does not know that they are."""

    def fun(x: Any, m: Any) -> Any:
        return jax.nn.softmax(x - 1e9 * (1 - m)), jax.nn.softmax(x + (1 - m) * -1e30)

    args = LOGITS, KEEP.astype(np.float32)
    for a, b in zip(fast.secret_shared(fun)(*args), fun(*args), strict=True):
        np.testing.assert_allclose(a, b, atol=2.0**-14)


def test_large_factors_of_small_numbers() -> None:
    """What fits is right though the factor does not; the rest saturates."""

    def fun(x: Any) -> list[Any]:
        return [x * 1e9, x * FACTORS, x / 1e-9, x * jnp.float32(2**33)]

    top = privjax.FixedPoint().max_value / 4
    got = fast.secret_shared(fun, protocol="reference")(SMALL)
    for a, b in zip(got, fun(SMALL), strict=True):
        error = np.abs(np.asarray(a) - np.clip(b, -top, top))
        assert np.all(error <= 2.0**-12 * np.abs(b) + 2.0**-36 * 2.0**33)


def test_every_entry_of_a_constant_has_its_precision() -> None:
    x = np.float32([0.5, -1.25, 3.0, 2.0])
    c = np.float32([1e4, 0.0123, -20.5, 3e-4])
    got = fast.secret_shared(lambda x: [x * c, x / (1 / c)], protocol="reference")(x)
    for a in got:
        np.testing.assert_allclose(a, x * c, rtol=2.0**-16, atol=2.0**-17)


LARGE = np.float32([1e6, 3000.0, 1.0, -7.5, 0.01, 6e7])
MIXED = np.float32([3000.0, 0.03, 7.0, 1e-3, 2.5e-4, 1e5])


def _public_numbers(x: Any, n: Any, rate: Any, each: Any) -> dict[str, Any]:
    return {
        "quotient": x / n,
        "inverse": x * (1 / n),
        "rate": x * rate,
        "rate of a product": (x[:5] * 1e-3) * (x[:5] * 1e-3) * rate,
        "flags": (x > 0) * rate,
        "flags by a constant": (x > 0) * 3e-5,
        "count": (x > 0).astype(jnp.int32).sum() * rate,
        "entries": x / each * 1e-3,
        "constants": x / MIXED * 1e-3,
        "weights": x[:5] @ np.full(5, 1e-4 / 3, np.float32),
        "remainder": x % n,
        "floor": x // n,
        "remainder by a constant": x % np.float32(6.2831855),
        "whole factor": jnp.floor(x[1:3]) * (x[4] / 3),
    }


@pytest.mark.parametrize("protocol", ["reference", "semi2k"])
def test_public_numbers_have_their_precision(protocol: str) -> None:
    """1 / n for a large n, and rates far below 1, known when called only."""
    args = LARGE, np.int32(3000), np.float32(3e-4), MIXED
    public = ("n", "rate", "each")
    shared = fast.secret_shared(_public_numbers, protocol=protocol, public=public)
    got = shared(*args)
    with jax.enable_x64(True):
        exact = (np.float64(a) if a.dtype == np.float32 else a for a in args)
        want = _public_numbers(*exact)
    for name, value in want.items():
        a = np.asarray(got[name], np.float64)
        np.testing.assert_allclose(a, value, rtol=2.0**-12, atol=2.0**-15, err_msg=name)


@pytest.mark.parametrize(
    "ring, bits, size",
    [(32, 8, 2.0**13), (32, 13, 8.0), (64, 10, 2.0**40), (64, 28, 16.0)],
)
def test_constants_of_other_formats(ring: int, bits: int, size: float) -> None:
    """Products by constants hold what the format holds."""

    def fun(x: Any) -> list[Any]:
        roots = jnp.abs(x / size) ** 1.5
        return [x * 0.1, x / 3, x * 1.1, x / 7.3, jnp.mean(x), x * FACTORS[1], roots]

    x = np.float32([1, -0.7, 0.31, 2.0**-6, -0.001]) * np.float32(size)
    fp = privjax.FixedPoint(ring, bits)
    got = fast.secret_shared(fun, protocol="reference", fixed_point=fp)(x)
    for a, b in zip(got, fun(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=2.0**-10, atol=2.0 ** (2 - bits))


@pytest.mark.parametrize(
    "fun, silent",
    [
        (lambda x: x + 1e8, False),
        (lambda x: jnp.where(x > 0, x, -1e10), False),
        (lambda x: jnp.where(x > 0, x, -jnp.inf), True),
        (lambda x: jnp.where(x > 0, x, -1e30), True),
        (lambda x: jax.nn.dot_product_attention(x, x, x, is_causal=True), True),
        (lambda x: lax.scan(lambda c, t: (c + t, c), 1e9, x[0, 0, 0])[0], False),
    ],
)
def test_warns_of_what_does_not_fit_but_not_of_infinities(
    fun: Any, silent: bool
) -> None:
    x = np.ones((1, 2, 1, 2), np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast.secret_shared(fun, protocol="reference").compiled(x)
    said = [str(w.message) for w in caught if w.category is RangeWarning]
    assert bool(said) != silent
    assert all("test_constants.py" in text for text in said)


# -- loops that begin with a constant below resolution --------------------------------


def _scan(step: Any, *init: float) -> Any:
    return lambda x: lax.scan(step, tuple(map(jnp.float32, init)), x)[0]


LOST = {
    "multiple": _scan(lambda c, t: ((c[0] * t,), None), 1e-12),
    "recurrence": _scan(lambda c, t: ((c[1], 2 * t * c[1] - c[0]), None), 0.0, 1e-16),
    "by select": _scan(
        lambda c, t: ((jnp.where(t > 1, c[0] * 2, c[0] / t),), None), 1e-13
    ),
    "by cond": _scan(
        lambda c, t: ((lax.cond(t > 1, lambda v: v * t, lambda v: -v, c[0]),), None),
        1e-13,
    ),
    "while": lambda x: lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x[0]), (0, jnp.float32(1e-14))
    )[1],
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, c: c * x, jnp.full(4, 1e-14)),
}
KEPT = {
    "average of squares": _scan(lambda c, t: ((0.5 * c[0] + t * t,), None), 1e-12),
    "nothing changes": _scan(lambda c, t: ((c[0], c[1] + t), None), 1e-12, 0.0),
    "zero": _scan(lambda c, t: ((c[0] * t,), None), 0.0),
    "one": _scan(lambda c, t: ((c[0] * t,), None), 1.0),
    "resolved": _scan(lambda c, t: ((c[0] * t,), None), 2.0**-18),
}
POSITIVE = np.float32([1.5, 0.5, 2.0, 1.25])


@pytest.mark.parametrize("name", LOST)
def test_refuses_a_loop_that_would_only_compute_zeros(name: str) -> None:
    shared = fast.secret_shared(LOST[name], protocol="reference")
    with pytest.raises(UnsupportedError, match=r"test_constants.py.*below the resol"):
        shared(POSITIVE)


def test_other_loops_that_begin_below_resolution_run() -> None:
    def fun(x: Any) -> list[Any]:
        return [f(x) for f in KEPT.values()]

    shared = fast.secret_shared(fun, protocol="reference")
    got = jax.tree.leaves(shared(POSITIVE))
    for a, b in zip(got, jax.tree.leaves(fun(POSITIVE)), strict=True):
        np.testing.assert_allclose(a, b, atol=2.0**-16)
    assert "1e-12 (" in str(privjax.explain(shared, POSITIVE))


def test_a_carry_whose_scale_grows_in_every_step() -> None:
    """Bisection: the middle of two numbers has one more bit than they have."""

    def halve(a: Any, ends: Any) -> Any:
        middle = (ends[0] + ends[1]) / 2
        low = middle * middle < a
        return jnp.where(low, middle, ends[0]), jnp.where(low, ends[1], middle)

    def root(a: Any) -> Any:
        first = jnp.zeros_like(a), jnp.full_like(a, 4.0)
        return lax.fori_loop(0, 14, lambda i, ends: halve(a, ends), first)[0]

    got = fast.secret_shared(root, protocol="reference")(POSITIVE)
    np.testing.assert_allclose(got, np.sqrt(POSITIVE), atol=4 * 2.0**-14)


def test_nan_constants_are_noted() -> None:
    def fun(x: Any) -> Any:
        return jnp.where(x > 1, x, jnp.nan)

    shared = fast.secret_shared(fun, protocol="reference")
    np.testing.assert_array_equal(shared(POSITIVE), [1.5, 0.0, 2.0, 1.25])
    report = str(privjax.explain(shared, POSITIVE))
    assert "the constant NaN (" in report and "counts as 0" in report
