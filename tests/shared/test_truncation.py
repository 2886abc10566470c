"""Truncation: unbiased by default; exact on demand, and then free of chance."""

import fast
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import privjax

EXACT = privjax.FixedPoint(truncation="exact")


def fun(x, w):
    return jax.nn.sigmoid(x @ w) * 0.3, x[0] * x[1] * x[2], jnp.sqrt(jnp.abs(w))


@pytest.mark.parametrize("protocol, parties", [("semi2k", 3), ("replicated3", 3)])
def test_exact_equals_the_reference_bit_by_bit(protocol, parties):
    rng = np.random.default_rng(5)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((3, 4), (4,)))
    options = {"protocol": protocol, "parties": parties, "reveal": False}
    shared = fast.secret_shared(fun, fixed_point=EXACT, **options)
    plain = fast.secret_shared(fun, fixed_point=EXACT, protocol="reference")
    for got, want in zip(privjax.reveal(shared(x, w)), plain(x, w), strict=True):
        np.testing.assert_array_equal(got, want)


def test_exact_rounds_to_the_nearest():
    x = (np.arange(-8, 8) * 2.0**-18).astype(np.float32)
    half = fast.secret_shared(lambda x: (x * x + x) * 0.25, fixed_point=EXACT)
    again = [np.asarray(half(x)) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    np.testing.assert_allclose(again[0], (x * x + x) * 0.25, atol=2.0**-19)


def test_probabilistic_is_unbiased():
    """0.25 of the last place is rounded up in a quarter of all cases."""
    n = 4096
    x = np.full(n, 2.0**-18, np.float32)
    scaled = fast.secret_shared(lambda x: (x * 0.25) * np.float32(1.0001))
    mean = np.mean(np.asarray(scaled(x), np.float64)) / 2.0**-18
    assert abs(mean - 0.25) < 5 * np.sqrt(0.25 * 0.75 / n)


def test_unknown_truncation():
    with pytest.raises(privjax.InputError, match="'exact'"):
        privjax.FixedPoint(truncation="local")


def test_report_says_which():
    shared = fast.secret_shared(lambda x: x * x, fixed_point=EXACT)
    assert "to the nearest" in str(privjax.explain(shared, jnp.ones(3)))
