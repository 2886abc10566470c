"""JAX's functions that get algorithms of our own, against scipy; and what is left alone."""

import fast
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.scipy.linalg import expm, polar
from jax.scipy.special import (
    bessel_jn,
    dawsn,
    erfcx,
    exp1,
    expi,
    expn,
    log_ndtr,
    sici,
)
from jax.scipy.stats import norm
from scipy import special

import privjax
from privjax.passes.decompose import replaced

rng = np.random.default_rng(5)


def matrices(size: float) -> np.ndarray:
    """[4, 3, 3] of 1-norm `size` at most; negative definite beyond 16."""
    a = rng.normal(size=(4, 3, 3))
    a = -a @ a.swapaxes(1, 2) if size > 16 else a
    return (a * size / np.abs(a).sum(-2).max()).astype(np.float32)


@pytest.mark.parametrize("size", [0.0, 0.3, 2, 9, 16, 500])
def test_expm(size):
    a = matrices(size)
    got = np.asarray(fast.secret_shared(expm)(a))
    want = scipy.linalg.expm(a.astype(np.float64))
    most = np.exp(size) if size <= 16 else 1.0
    assert got.dtype == np.float32
    assert np.max(np.abs(got - want)) <= 2.0**-16 * max(1, size) * most


X = np.concatenate([-np.geomspace(12, 8000, 30), np.linspace(-12, 8, 161)])
X = X.astype(np.float32)


@pytest.mark.parametrize("fun", [log_ndtr, norm.logcdf, lambda x: norm.logsf(-x)])
def test_log_ndtr(fun):
    want = special.log_ndtr(X.astype(np.float64))
    got = np.asarray(fast.secret_shared(fun)(X))
    np.testing.assert_allclose(got, want, rtol=2.0**-14, atol=2.0**-14)


def test_gradient_of_log_ndtr():
    x = X[np.abs(X) < 3].astype(np.float64)
    want = np.exp(-(x**2) / 2 - special.log_ndtr(x)) / np.sqrt(2 * np.pi)
    got = fast.secret_shared(jax.grad(lambda x: log_ndtr(x).sum()))(np.float32(x))
    np.testing.assert_allclose(np.asarray(got), want, atol=2e-4)


INTEGRALS = {
    "exp1": (exp1, 1),
    "expn": (lambda x: expn(3, x), 3),
    "derivative": (jax.grad(lambda x: -exp1(x).sum()), 0),
    "expi": (lambda x: -expi(-x), 1),
    "sici": (lambda x: sici(x)[0], 0),
    "erfcx": (erfcx, 0),
    "dawsn": (jax.grad(lambda x: dawsn(x).sum()), 0),
}


@pytest.mark.parametrize("name", ["exp1", "expn"])
def test_exponential_integrals(name):
    fun, n = INTEGRALS[name]
    x = np.concatenate([np.geomspace(2.0**-18, 1, 30), np.linspace(1, 100, 50)])
    x = x.astype(np.float32)
    got = np.asarray(fast.secret_shared(fun)(x))
    want = special.expn(n, x.astype(np.float64))
    np.testing.assert_allclose(got, want, rtol=2.0**-14, atol=2.0**-15)


def test_integrals_of_both_signs():
    """Both sides of where the polynomials change, and far out: saturating."""

    def everything(x):
        return *sici(x), expi(x), erfcx(x), dawsn(x)

    x = np.append(np.linspace(-11.9, 11.9, 94), [3.999, 4.001, 2.499, 2.501, 1e-3])
    x = np.concatenate([x, [-1e4, 1e4, -40, 40]]).astype(np.float32)
    got = fast.secret_shared(everything, protocol="reference")(x)
    wide, most = x.astype(np.float64), privjax.FixedPoint().max_value
    sine, cosine = special.sici(np.abs(wide))
    want = (
        np.sign(wide) * sine,
        cosine,
        special.expi(wide),
        special.erfcx(wide),
        special.dawsn(wide),
    )
    for g, w in zip(got, want, strict=True):
        w = np.clip(w, -most, most)
        np.testing.assert_allclose(g, w, rtol=2.0**-12, atol=2.0**-14)


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_exponential_integrals_of_any_order_in_float64(n):
    x = np.concatenate([np.geomspace(2.0**-18, 1, 99), np.linspace(1, 100, 99)])
    with jax.enable_x64(True):
        got = replaced.expn(jnp.asarray(x), n=n)
    np.testing.assert_allclose(got, special.expn(n, x), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", INTEGRALS)
def test_exponential_integrals_are_recognised(name):
    closed = jax.make_jaxpr(INTEGRALS[name][0])(np.ones(2, np.float32))
    notes: dict[str, None] = {}
    with jax.enable_x64(True):
        out = replaced.recognise(closed, notes)
    assert out is not closed and not notes


@pytest.mark.parametrize("v", [0, 3, 20])
def test_bessel_jn(v):
    z = np.linspace(-80, 80, 33).astype(np.float32)
    got = np.asarray(fast.secret_shared(lambda z: bessel_jn(z, v=v))(z))
    want = special.jv(np.arange(v + 1)[:, None], z.astype(np.float64))
    np.testing.assert_allclose(got, want, atol=2.0**-15)


A = matrices(1.0)[0]
EQUAL = {
    "jit": jax.jit(expm),
    "scan": lambda a: jax.lax.scan(lambda c, _: (expm(c), None), a, length=2)[0],
    "cond": lambda a: jax.lax.cond(a[0, 0] > 9, expm, jnp.asarray, a),
    "vmap": lambda a: jax.vmap(expm)(jnp.stack([a, -a])),
    "batch": lambda a: expm(jnp.stack([a, -a])),
    "vmapped order": lambda a: jax.vmap(lambda z: bessel_jn(z, v=3))(a),
    "vmapped scalars": lambda a: jax.vmap(lambda z: bessel_jn(z, v=2))(a[0]),
    "logcdf": lambda a: jax.vmap(jax.vmap(norm.logcdf))(a),
    "checkpoint": jax.checkpoint(expm),
    "polar factors": lambda a: jnp.stack(polar(a)),
    "polar, tall": lambda a: polar(a[:, :2])[0],
    "polar, wide": lambda a: polar(a[:2], side="left")[1],
    "polar, vmap": lambda a: jax.vmap(polar)(jnp.stack([a, -2 * a]))[1],
}


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", EQUAL)
def test_recognised_under_transformations(name, x64):
    with jax.enable_x64(x64):
        a = jnp.asarray(A, float)
        closed = jax.make_jaxpr(EQUAL[name])(a)
        want = EQUAL[name](a)
    with jax.enable_x64(True):
        notes = {}
        out = replaced.recognise(closed, notes)
        got = jax.extend.core.jaxpr_as_fun(out)(a)[0]
    assert not notes and out is not closed
    assert got.dtype == want.dtype and got.shape == want.shape
    want = np.where(np.isnan(want), got, want)  # JAX's own recurrence in float32
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_sinc():
    x = np.concatenate([np.linspace(-6, 6, 49), [2.0**-18, -1e-3, 0.49, 0.51, 99]])
    x = x.astype(np.float32)
    got = fast.secret_shared(jnp.sinc)(x)
    np.testing.assert_allclose(np.asarray(got), np.sinc(x), atol=2.0**-15)


def test_a_users_function_of_the_same_name_is_left_alone():
    def expm(a):
        return a + 1

    closed = jax.make_jaxpr(jax.jit(expm))(A)
    assert replaced.recognise(closed, {}) is closed
    got = fast.secret_shared(jax.jit(expm))(A)
    np.testing.assert_allclose(np.asarray(got), A + 1, atol=1e-5)


@pytest.mark.parametrize(
    "fun",
    [
        lambda a: expm(a, max_squarings=4),
        lambda a: expm(a, upper_triangular=True),
    ],
)
def test_other_forms_stay_with_a_warning(fun):
    notes: dict[str, None] = {}
    closed = jax.make_jaxpr(fun)(A)
    with pytest.warns(privjax.RangeWarning, match=r"`expm` \(.*test_replaced.py:\d+"):
        replaced.recognise(closed, notes)
    assert "not in its plain form" in next(iter(notes))


def test_the_derivative_of_expm_is_refused():
    closed = jax.make_jaxpr(jax.grad(lambda a: expm(a).sum()))(A)
    with pytest.raises(
        privjax.UnsupportedError, match="test_replaced.*jnp.linalg.eigh"
    ):
        replaced.recognise(closed, {})


def test_the_report_says_so():
    shared = fast.secret_shared(lambda a: expm(a, upper_triangular=True))
    with pytest.warns(privjax.RangeWarning):
        report = privjax.explain(shared, A[:1, :1])
    assert "not in its plain form" in str(report)


def test_a_loop_whose_predicate_is_batched():
    def fun(x):
        def body(v):
            return norm.logcdf(v) / 2

        return jax.lax.while_loop(lambda v: v > -0.5, body, x)

    x = np.array([-1.0, 0.0], np.float32)
    closed = jax.make_jaxpr(jax.vmap(fun))(x)
    out = replaced.recognise(closed, {})
    got = jax.extend.core.jaxpr_as_fun(out)(x)[0]
    np.testing.assert_allclose(got, jax.vmap(fun)(x), rtol=1e-6)


@pytest.mark.parametrize("public", [(), ("i",)], ids=["secret", "public"])
def test_indices_that_jax_fills_with_nan(public):
    def taken(x, i):
        return jnp.take(x, i, mode="fill")

    shared = fast.secret_shared(taken, public=public)
    x, i = np.array([1.0, 2.0], np.float32), np.array([1, 5])
    np.testing.assert_allclose(np.asarray(shared(x, i)), [2.0, 0.0], atol=1e-5)
    assert "out of bounds gives 0" in str(privjax.explain(shared, x, i))
