"""Linear algebra, Fourier transforms and complex numbers on shares, end to end.

Errors are relative to the norm of the plain result in float64.
"""

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import pytest
from fast import secret_shared
from jax import lax

rng = np.random.default_rng(11)


def real(*shape):
    return rng.normal(size=shape).astype(np.float32)


def close(got, want, bound):
    """Every result within `bound` times its norm."""
    for g, w in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        w = np.asarray(w)
        assert g.shape == w.shape
        error = np.linalg.norm(np.asarray(g, w.dtype) - w)
        assert error <= bound * max(np.linalg.norm(w), 1e-9)


def plain(fun, args):
    """In double precision."""
    with jax.enable_x64(True):
        kinds = {"f": np.float64, "c": np.complex128}
        wide = [np.asarray(a, kinds[a.dtype.kind]) for a in args]
        return jax.tree.map(np.asarray, fun(*wide))


def check(fun, *args, bound, protocol="reference"):
    close(secret_shared(fun, protocol=protocol)(*args), plain(fun, args), bound)


A = real(4, 4) + 2 * np.eye(4, dtype=np.float32)
S = (A @ A.T / 4 + np.eye(4)).astype(np.float32)
V, T = real(4), real(8, 3)


def gaussian_process(x, y, at):
    def kernel(a, b):
        return jnp.exp(-0.5 * (a[:, None] - b[None]) ** 2)

    factor = jsl.cho_factor(kernel(x, x) + 0.1 * jnp.eye(len(x)))
    cross = kernel(at, x)
    variance = 1 - jnp.sum(cross.T * jsl.cho_solve(factor, cross.T), 0)
    return cross @ jsl.cho_solve(factor, y), variance


def ridge(x, y):
    return jnp.linalg.solve(x.T @ x + 0.5 * jnp.eye(x.shape[1]), x.T @ y)


def kalman(mean, cov, z):
    f = jnp.array([[1.0, 0.1], [0.0, 1.0]])
    h = jnp.array([[1.0, 0.0]])
    mean, cov = f @ mean, f @ cov @ f.T + 0.01 * jnp.eye(2)
    gain = jnp.linalg.solve(h @ cov @ h.T + 0.1 * jnp.eye(1), h @ cov).T
    return mean + gain @ (z - h @ mean), (jnp.eye(2) - gain @ h) @ cov


def power_iteration(x):
    x = x - x.mean(0)
    c = x.T @ x / len(x)

    def step(_, v):
        v = c @ v
        return v * lax.rsqrt(v @ v)

    return lax.fori_loop(0, 20, step, jnp.ones(x.shape[1]) / x.shape[1] ** 0.5)


def explained(x):
    """Principal components by svd: variances and the projector on the first."""
    _, s, vh = jnp.linalg.svd(x - x.mean(0), full_matrices=False)
    return s**2 / (len(x) - 1), jnp.outer(vh[0], vh[0])


STRETCHED = T * np.array([3, 1, 0.3], np.float32)

PROGRAMS = {
    "inv": (jnp.linalg.inv, (A,), 1e-4),
    "det": (jnp.linalg.det, (A,), 1e-4),
    "gradient of solve": (
        jax.grad(lambda a, b: (jnp.linalg.solve(a, b) ** 2).sum()),
        (A, V),
        1e-4,
    ),
    "gaussian process": (
        gaussian_process,
        (np.linspace(-2, 2, 5, dtype=np.float32), real(5), real(2)),
        1e-3,
    ),
    "ridge regression": (ridge, (T, real(8)), 1e-4),
    "kalman step": (kalman, (real(2), S[:2, :2], real(1)), 1e-4),
    "pca by power iteration": (power_iteration, (STRETCHED,), 1e-3),
    "pca by svd": (explained, (STRETCHED,), 1e-3),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name):
    fun, args, bound = PROGRAMS[name]
    check(fun, *args, bound=bound)


# Large and small entries: the matrices of grams of many rows, and of daily returns.
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_factorisations_over_the_stated_range(scale):
    def both(s, a):
        return jnp.linalg.cholesky(s), lax.linalg.lu(a)

    x = real(8, 18)
    check(both, x @ x.T / 18 * scale, real(8, 8) * scale, bound=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_inverses_of_large_and_small_matrices(scale):
    check(jnp.linalg.inv, S * scale, bound=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_eigenvectors_over_the_stated_range(scale):
    x = real(5, 5)
    a = (x + x.T) * np.float32(scale)
    w, v = map(np.asarray, secret_shared(jnp.linalg.eigh, protocol="reference")(a))
    size = np.abs(a).sum() / 5
    np.testing.assert_allclose(w, np.linalg.eigvalsh(a), atol=1e-4 * size)
    np.testing.assert_allclose(a @ v, v * w, atol=1e-4 * size)
    np.testing.assert_allclose(v.T @ v, np.eye(5), atol=1e-4)


def test_qr_is_orthogonal_on_shares():
    q, r = map(
        np.asarray, secret_shared(jnp.linalg.qr, protocol="reference")(real(8, 8))
    )
    np.testing.assert_allclose(q.T @ q, np.eye(8), atol=1e-4)
    np.testing.assert_array_equal(r, np.triu(r))


def test_cholesky_between_two_parties():
    check(jnp.linalg.cholesky, S, bound=1e-4, protocol="semi2k")


def test_unit_triangular_system_between_two_parties():
    def solve(a, b):
        options = dict(left_side=True, lower=True, unit_diagonal=True)
        return lax.linalg.triangular_solve(a, b, **options)

    check(solve, A, real(4, 2), bound=1e-4, protocol="semi2k")


# -- complex numbers ----------------------------------------------------------------------


def cplx(*shape):
    return (real(*shape) + 1j * real(*shape)).astype(np.complex64)


@pytest.mark.parametrize("protocol", ["reference", "semi2k", "spdz2k"])
def test_complex_product(protocol):
    check(lambda z, w: z * w, cplx(3), cplx(3), bound=1e-4, protocol=protocol)


@pytest.mark.parametrize("protocol", ["reference", "semi2k"])
def test_fourier_round_trip(protocol):
    def fun(x):
        return jnp.fft.irfft(jnp.fft.rfft(x))

    check(fun, real(2, 8), bound=1e-4, protocol=protocol)


def test_power_spectrum():
    def fun(x):
        return jnp.abs(jnp.fft.rfft(x)) ** 2

    check(fun, real(2, 8), bound=1e-3, protocol="reference")


def test_quotient_and_root_of_complex_numbers():
    check(lambda z, w: z / w, cplx(3), cplx(3), bound=1e-4, protocol="reference")
    check(jnp.sqrt, cplx(3), bound=1e-3, protocol="reference")
