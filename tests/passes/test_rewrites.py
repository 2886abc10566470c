"""Passes that keep a program's meaning: their results equal JAX's own, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from jax.extend.core import jaxpr_as_fun as as_fun

from privjax.passes import simplify
from privjax.passes.decompose import RULES, decompose
from privjax.passes.merge import ROUNDS, merge

REALS = [c for c in CASES if all(a.dtype.kind in "fib" for a in c.args)]


def wide(case):
    return [np.asarray(a, np.float64) if a.dtype.kind == "f" else a for a in case.args]


def flat(fun):
    return lambda *xs: jax.tree.leaves(fun(*xs))


@pytest.mark.parametrize("case", REALS, ids=lambda c: c.name)
def test_simplified_programs_compute_the_same(case):
    with jax.enable_x64(True):
        args = wide(case)
        closed = jax.make_jaxpr(flat(case.fun))(*args)
        secret = [True] * len(args)
        plain = simplify.dce(simplify.inline(closed, remat=True))
        plain = simplify.cse(decompose(plain, secret))
        plain = simplify.inline(merge(simplify.inline(plain), secret))
        for got, want in zip(as_fun(plain)(*args), flat(case.fun)(*args), strict=True):
            assert got.dtype == want.dtype and got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def names(closed):
    return [e.primitive.name for e in closed.eqns]


def test_relu_and_its_gradient_share_one_comparison():
    fun = jax.grad(lambda x: (jax.nn.relu(x) * x).sum())
    closed = simplify.inline(jax.make_jaxpr(fun)(np.ones(3, np.float32)))
    once = simplify.cse(decompose(simplify.dce(closed), [True]))
    assert names(simplify.inline(once)).count("gt") == 1


def test_decomposed_primitives_are_gone():
    x = np.linspace(-2, 2, 6, dtype=np.float32)
    for fun in (jnp.abs, lambda x: jnp.clip(x, 0, 1), lambda x: x.max(), jnp.sign):
        closed = simplify.inline(jax.make_jaxpr(fun)(x))
        out = simplify.inline(decompose(closed, [True]))
        assert not set(names(out)) & set(RULES)


def test_like_operations_of_several_parameters_become_one():
    def update(ps, gs):
        return [
            p - 0.01 * jnp.sqrt(g) / (jnp.exp(g) + 1)
            for p, g in zip(ps, gs, strict=True)
        ]

    shapes = [(3, 2), (2,), (), (4, 1)]
    ps = [np.full(s, 2.0, np.float32) for s in shapes]
    closed = jax.make_jaxpr(flat(update))(ps, ps)
    merged = merge(closed, [True] * 8)
    for name in ("sqrt", "exp", "div"):
        assert names(closed).count(name) == 4 and names(merged).count(name) == 1
    for a, b in zip(as_fun(merged)(*ps, *ps), update(ps, ps), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_public_and_secret_operations_are_not_merged():
    closed = jax.make_jaxpr(lambda x, y: (jnp.exp(x), jnp.exp(y)))(1.0, 2.0)
    assert names(merge(closed, [True, False])).count("exp") == 2


def test_only_elementwise_operations_are_merged():
    assert not {"dot_general", "reduce_sum", "sort", "cumsum"} & set(ROUNDS)


def test_dead_code_goes_inside_of_loops_too():
    def fun(x):
        def body(c, _):
            return (c[0] * 2.0, jnp.sin(c[1])), jnp.cos(c[0])

        return jax.lax.scan(body, (x, x), None, length=3)[0][0]

    out = simplify.dce(jax.make_jaxpr(fun)(1.0))
    (scan,) = [e for e in out.eqns if e.primitive.name == "scan"]
    assert names(scan.params["jaxpr"]) == ["mul"]
