"""Fourier transforms as products with public matrices, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxpr_as_fun

from privjax.core.interpret import mentions
from privjax.passes import simplify
from privjax.passes.decompose import decompose
from privjax.passes.decompose.fourier import fft_pairs

rng = np.random.default_rng(2)
HALF = ("rfft", "rfft2", "rfftn")


def transformed(name, x, **options):
    """jnp.fft's function by the rule, which leaves no `fft`."""
    with jax.enable_x64(True):
        fun = getattr(jnp.fft, name)
        closed = simplify.inline(jax.make_jaxpr(lambda v: fun(v, **options))(x))
        out = simplify.inline(decompose(closed, [True]))
        assert not mentions(out, frozenset({"fft"}))
        return np.asarray(jaxpr_as_fun(out)(x)[0])


def values(name, *shape):
    x = rng.normal(size=shape)
    return x if name in HALF else x + 1j * rng.normal(size=shape)


def compare(name, x, **options):
    got, want = transformed(name, x, **options), getattr(np.fft, name)(x, **options)
    assert got.shape == want.shape and got.dtype == want.dtype
    # Roots of unity for more than 64 squared of them are computed in single precision.
    bound = 1e-12 if max(x.shape) <= 64 else 1e-6
    np.testing.assert_allclose(got, want, atol=bound * np.abs(want).max())


# One, even, odd, prime, the longest that is one product, and split ones.
@pytest.mark.parametrize("n", [1, 2, 7, 64, 67, 96, 130])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft"])
def test_lengths(name, n):
    compare(name, values(name, 2, n))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 65, 96])
def test_real_inverse(n):
    compare("irfft", values("irfft", 2, n // 2 + 1), n=n)


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn", "fft2", "rfft2"])
def test_several_axes(name):
    compare(name, values(name, 2, 3, 4))


def test_another_axis_and_length():
    compare("fft", values("fft", 5, 3), axis=0, n=8)


@settings(max_examples=25)
@given(st.integers(1, 24), st.integers(0, 99))
def test_round_trip_and_energy(n, seed):
    """The inverse transform inverts, and Parseval's identity holds."""
    r = np.random.default_rng(seed)
    re, im = r.normal(size=(2, n)).astype(np.float32)
    there = fft_pairs((re, im), fft_type=0, fft_lengths=(n,))
    back = fft_pairs(there, fft_type=1, fft_lengths=(n,))
    np.testing.assert_allclose(back, (re, im), atol=1e-5)
    energy = sum((np.asarray(v, float) ** 2).sum() for v in there)
    np.testing.assert_allclose(energy, n * (re**2 + im**2).sum(), rtol=1e-4)
