"""Linear algebra as rules of plain JAX, in float64, against JAX and NumPy."""

import itertools

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxpr_as_fun

from privjax.core.interpret import mentions
from privjax.passes import simplify
from privjax.passes.decompose import decompose
from privjax.passes.decompose.eigen import eigh, svd
from privjax.passes.decompose.linalg import RULES
from privjax.passes.decompose.matrices import ascending, first_largest

rng = np.random.default_rng(5)


def real(*shape):
    return rng.normal(size=shape)


def cplx(*shape):
    return real(*shape) + 1j * real(*shape)


def positive(*shape, kind=real):
    a = kind(*shape)
    return a @ np.conj(np.swapaxes(a, -1, -2)) + np.eye(shape[-1])


def rewritten(fun, *args):
    """Results of the decomposed program, all of whose inputs are secret."""
    closed = jax.make_jaxpr(lambda *xs: jax.tree.leaves(fun(*xs)))(*args)
    plain = simplify.inline(closed, remat=True)
    out = simplify.inline(decompose(plain, [True] * len(args)))
    assert not mentions(out, frozenset(RULES))
    return jax.jit(jaxpr_as_fun(out))(*args)


def solve_options():
    for left, lower, transposed, unit in itertools.product((True, False), repeat=4):
        shape = (4, 2) if left else (2, 4)
        options = dict(left_side=left, lower=lower, transpose_a=transposed)
        options["unit_diagonal"] = unit
        name = " ".join(k for k, v in options.items() if v)
        yield (
            f"triangular_solve {name}",
            lambda a, b, o=options: lax.linalg.triangular_solve(a, b, **o),
            (real(4, 4) + 3 * np.eye(4), real(*shape)),
        )


def shapes(name, fun, sizes, kind=real):
    return [(f"{name} {s}", fun, (kind(*s),)) for s in sizes]


def adjoint_solve(a, b):
    options = dict(left_side=True, lower=True, transpose_a=True, conjugate_a=True)
    return lax.linalg.triangular_solve(a, b, **options)


S, A, T = positive(4, 4), real(4, 4) + 2 * np.eye(4), real(5, 3)
H, Z = positive(4, 4, kind=cplx), cplx(4, 4)
B, V = real(4, 2), real(4)
DIAGONALS = np.append(0, V[1:]), np.abs(V) + 4, np.append(V[:3], 0)
PACKED, TAUS = (np.array(x, float) for x in jnp.linalg.qr(T, mode="raw"))
PACKED = PACKED.T
SIZES = [(1, 1), (4, 4), (5, 3), (3, 5), (2, 3, 3)]

# Equal up to rounding: name, function, arguments.
EXACT = [
    *solve_options(),
    ("triangular_solve batched", adjoint_solve, (real(2, 3, 3) + 9, real(2, 3, 1))),
    ("triangular_solve complex", adjoint_solve, (Z + 3 * np.eye(4), cplx(4, 2))),
    ("cholesky 1", lax.linalg.cholesky, (np.array([[4.0]]),)),
    ("cholesky", jnp.linalg.cholesky, (S,)),
    ("cholesky batched", jnp.linalg.cholesky, (positive(2, 3, 3),)),
    ("cholesky complex", jnp.linalg.cholesky, (H,)),
    *shapes("lu", lax.linalg.lu, SIZES),
    ("lu complex", lax.linalg.lu, (Z,)),
    ("lu ties", lax.linalg.lu, (np.array([[1.0, 2, 3], [-1, 4, 1], [1, 0, 1]]),)),
    ("lu_pivots", lambda a: lax.linalg.lu_pivots_to_permutation(
        lax.linalg.lu(a)[1], 5), (T,)),
    ("hessenberg 1", lax.linalg.hessenberg, (real(1, 1),)),
    ("tridiagonal_solve", lax.linalg.tridiagonal_solve, (*DIAGONALS, B)),
    ("tridiagonal_solve batched", lax.linalg.tridiagonal_solve,
     (*(np.stack([d, d]) for d in DIAGONALS), real(2, 4, 1))),
    ("cholesky_update", lax.linalg.cholesky_update, (np.linalg.cholesky(S).T, V)),
    ("symmetric_product", lambda a, c: lax.linalg.symmetric_product(
        a, c, alpha=0.5, beta=2.0), (B, S)),
    ("householder_product", lax.linalg.householder_product, (PACKED, TAUS)),
    *(
        (f"ormqr {left} {turned}", lambda a, t, c, o=(left, turned): lax.linalg.ormqr(
            a, t, c, left=o[0], transpose=o[1]), (PACKED, TAUS, real(5, 5)))
        for left, turned in itertools.product((True, False), repeat=2)
    ),
    ("solve", jnp.linalg.solve, (A, V)),
    ("solve batched", jnp.linalg.solve, (np.stack([A, S]), np.stack([B, B]))),
    ("solve vmapped", jax.vmap(jnp.linalg.solve), (np.stack([A, S]), real(2, 4))),
    ("solve positive", lambda a, b: jsl.solve(a, b, assume_a="pos"), (S, B)),
    ("inv", jnp.linalg.inv, (A,)),
    ("det", jnp.linalg.det, (A,)),
    ("slogdet", jnp.linalg.slogdet, (A,)),
    ("lu_solve", lambda a, b: jsl.lu_solve(jsl.lu_factor(a), b), (A, V)),
    ("matrix_power", lambda a: jnp.linalg.matrix_power(a, -2), (A,)),
    ("solve gradient", jax.grad(
        lambda a, b: (jnp.linalg.solve(a, b) ** 2).sum(), (0, 1)), (A, V)),
    ("det gradient", jax.grad(jnp.linalg.det), (A,)),
    ("slogdet gradient", jax.grad(lambda a: jnp.linalg.slogdet(a)[1]), (S,)),
    ("cholesky gradient", jax.grad(lambda a: jnp.linalg.cholesky(a).sum()), (S,)),
]  # fmt: skip

# Equal up to the polynomials inside of reflections and rotations (2^-19 of the norm).
CLOSE = [
    *shapes("qr", jnp.linalg.qr, SIZES),
    *shapes("qr full", lambda a: lax.linalg.qr(a, full_matrices=True), SIZES[2:4]),
    *shapes("qr pivoting", lambda a: lax.linalg.qr(a, pivoting=True), SIZES),
    ("qr complex", jnp.linalg.qr, (cplx(4, 3),)),
    ("qr of the identity", jnp.linalg.qr, (np.eye(3),)),
    *shapes("geqrf", lambda a: jnp.linalg.qr(a, mode="raw"), SIZES[1:4]),
    ("hessenberg", lax.linalg.hessenberg, (A,)),
    ("hessenberg complex", lax.linalg.hessenberg, (Z,)),
    ("tridiagonal", lambda a: lax.linalg.tridiagonal(a)[1:], (S,)),
    ("tridiagonal upper", lambda a: lax.linalg.tridiagonal(a, lower=False)[1:], (S,)),
    ("eigvalsh", jnp.linalg.eigvalsh, (S,)),
    ("eigvalsh complex", jnp.linalg.eigvalsh, (H,)),
    ("singular values", lambda a: jnp.linalg.svd(a, compute_uv=False), (T,)),
    ("pinv", jnp.linalg.pinv, (T,)),
    ("lstsq", lambda a, b: jnp.linalg.lstsq(a, b)[0], (T, real(5))),
    ("norm 2", lambda a: jnp.linalg.norm(a, 2), (A,)),
    ("qr gradient", jax.grad(
        lambda a: (jnp.linalg.qr(a)[0] * jnp.arange(3.0)).sum()), (T,)),
    ("eigh gradient", jax.grad(
        lambda a: (jnp.linalg.eigh(a)[1][:, 0] ** 2 * jnp.arange(4.0)).sum()), (S,)),
    ("svd gradient", jax.grad(
        lambda a: jnp.linalg.svd(a, compute_uv=False).sum()), (T,)),
]  # fmt: skip


def check(fun, args, tolerance):
    with jax.enable_x64(True):
        want = [np.asarray(w) for w in jax.tree.leaves(fun(*args))]
        got = [np.asarray(g) for g in rewritten(fun, *args)]
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape and g.dtype == w.dtype
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name, fun, args", EXACT, ids=[c[0] for c in EXACT])
def test_equals_jax(name, fun, args):
    check(fun, args, 1e-9)


@pytest.mark.parametrize("name, fun, args", CLOSE, ids=[c[0] for c in CLOSE])
def test_equals_jax_up_to_polynomials(name, fun, args):
    check(fun, args, 3e-5)


def test_only_the_asked_triangle_is_read():
    lower = np.where(np.tri(4, dtype=bool), S, 1e3)
    with jax.enable_x64(True):
        options = dict(lower=True, sort_eigenvalues=True)
        got = np.asarray(eigh(jnp.asarray(lower), **options)[1])
    np.testing.assert_allclose(got, np.linalg.eigvalsh(S), rtol=1e-5)


@jax.jit
def _decomposition(a):
    return eigh(a, lower=True, sort_eigenvalues=True)


@jax.jit
def _singular(a):
    return svd(a, full_matrices=True, compute_uv=True)


@settings(max_examples=25)
@given(st.lists(st.sampled_from([-3.0, 0.0, 1e-3, 1.0, 1.001, 2.0]), min_size=5,
                max_size=5), st.integers(0, 999))  # fmt: skip
def test_eigh_of_clustered_and_repeated_eigenvalues(values, seed):
    """Odd size; the error is relative to the scale of the matrix."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]
    a = (q * values) @ q.T
    with jax.enable_x64(True):
        v, w = (np.asarray(x) for x in _decomposition(a))
    np.testing.assert_allclose(w, np.sort(values), atol=1e-4)
    np.testing.assert_allclose(a @ v, v * w, atol=2e-4)
    np.testing.assert_allclose(v.T @ v, np.eye(5), atol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 3), st.integers(0, 999))
def test_svd_of_any_rank_has_orthonormal_factors(rank, seed):
    r = np.random.default_rng(seed)
    a = r.normal(size=(5, 3))[:, :rank] @ r.normal(size=(3, 3))[:rank]
    with jax.enable_x64(True):
        s, u, vh = (np.asarray(x) for x in _singular(a))
    scale = max(np.linalg.norm(a), 1.0)
    np.testing.assert_allclose(s, np.linalg.svd(a)[1], atol=1e-4 * scale)
    np.testing.assert_allclose((u[:, :3] * s) @ vh, a, atol=1e-4 * scale)
    np.testing.assert_allclose(u.T @ u, np.eye(5), atol=2e-5)
    np.testing.assert_allclose(vh @ vh.T, np.eye(3), atol=2e-5)


def test_svd_of_wide_and_complex_matrices():
    with jax.enable_x64(True):
        for a in (T.T, cplx(3, 4)):
            u, s, vh = rewritten(lambda x: jnp.linalg.svd(x, full_matrices=False), a)
            np.testing.assert_allclose((u * s) @ vh, a, atol=3e-5)
            np.testing.assert_allclose(s, np.linalg.svd(a)[1], atol=3e-5)


@settings(max_examples=30)
@given(st.lists(st.integers(-2, 2), min_size=7, max_size=7))
def test_order_is_stable_and_ties_go_to_the_first(entries):
    v = np.array(entries, np.float32)
    hot = np.asarray(first_largest(v))
    assert hot.sum() == 1 and hot.argmax() == v.argmax()
    order = np.asarray(ascending(v))
    np.testing.assert_array_equal(order.argmax(-1), np.argsort(v, kind="stable"))


def test_the_largest_of_many_is_found_in_groups():
    v = rng.integers(0, 5, (3, 40)).astype(np.float32)
    hot = np.asarray(first_largest(v))
    np.testing.assert_array_equal(hot.sum(-1), 1)
    np.testing.assert_array_equal(hot.argmax(-1), v.argmax(-1))


def test_loops_are_rolled():
    """Programs do not grow with the matrix, but for trees of log2(n) levels."""

    def length(fun, n):
        closed = simplify.inline(jax.make_jaxpr(fun)(np.eye(n)))
        return len(simplify.inline(decompose(closed, [True])).eqns)

    for fun in (lax.linalg.cholesky, jnp.linalg.qr):
        assert length(fun, 12) == length(fun, 6)
    # One more level of pairs for twice the size, and the same again for the next one.
    first, second, third = (length(jnp.linalg.inv, n) for n in (4, 8, 16))
    assert third - second <= second - first <= 8
