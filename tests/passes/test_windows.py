"""Reductions over windows, pooling and its derivatives equal JAX's own, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxpr_as_fun
from plain import agrees, count, decomposed

from privjax.errors import UnsupportedError
from privjax.passes import simplify
from privjax.passes.decompose import decompose, windows

rng = np.random.default_rng(7)
LEAST, MOST = np.iinfo(np.int32).min, np.iinfo(np.int32).max


def affine(a, b):
    """Composition of affine maps: associative, but the order matters."""
    return a[0] * b[0], a[1] * b[0] + b[1]


def pairs(x, *window):
    init = np.int32(1), np.int32(0)
    return lax.reduce_window((x, x + 1), init, affine, *window)


def by(function, init):
    return lambda x, *window: lax.reduce_window(
        x, np.asarray(init, x.dtype), function, *window
    )


FUNCTIONS = {
    "max": by(lax.max, LEAST),
    "min": by(lax.min, MOST),
    "product": by(lax.mul, 1),
    "and": by(lax.bitwise_and, -1),
    "or": by(lax.bitwise_or, 0),
    "sum, from 5": by(lambda a, b: a + b, 5),
    "pairs": pairs,
}


@st.composite
def layouts(draw):
    """(shape, window, strides, padding, dilation of the array, of the window)"""
    rank = draw(st.integers(1, 2))
    each = lambda low, high: st.lists(  # noqa: E731
        st.integers(low, high), min_size=rank, max_size=rank
    )
    padding = zip(draw(each(0, 4)), draw(each(0, 4)), strict=True)
    return (
        draw(each(0, 7)),
        draw(each(1, 4)),
        draw(each(1, 4)),
        tuple(padding),
        draw(each(1, 2)),
        draw(each(1, 2)),
    )


@settings(max_examples=25)
@given(layouts(), st.sampled_from(list(FUNCTIONS)), st.booleans())
def test_any_window(layout, name, wide):
    """Entries beyond the edge count for nothing, whatever the values are."""
    shape, *window = layout
    x = rng.integers(-3, 4, shape).astype(np.int32)
    x = rng.choice(np.array([LEAST, -1, 0, MOST], np.int32), shape) if wide else x
    agrees(lambda x: FUNCTIONS[name](x, *window), x)


LONG = {
    "max": ("max", 60, 16, 1, (3, 5)),
    "max, dilated": ("max", 120, 21, 2, (7, 9)),
    "product": ("product", 90, 21, 1, (0, 0)),
    "pairs": ("pairs", 90, 21, 1, (6, 4)),
    "pairs, dilated": ("pairs", 160, 24, 3, (1, 9)),
}


@pytest.mark.parametrize("case", LONG)
def test_long_windows_share_their_parts(case):
    name, n, size, apart, padding = LONG[case]
    assert windows.doubling_pays(windows.Windows(n, size, 1, *padding, 1, apart))
    x = rng.integers(-2, 3, n).astype(np.int32)
    agrees(lambda x: FUNCTIONS[name](x, (size,), (1,), (padding,), (1,), (apart,)), x)


def test_other_types():
    x = rng.normal(size=(5, 6)).astype(np.float32)

    def program(x, b, u):
        window = (2, 3), (1, 2), "SAME"
        return [
            by(lax.max, -np.inf)(x, *window),
            by(lax.min, np.inf)(x, (2, 2), (2, 2), ((1, 3), (4, 0))),
            by(lax.max, 0)(u, *window),
            by(lax.bitwise_or, False)(b, *window),
            by(lax.bitwise_and, True)(b, *window),
            by(lax.max, False)(b, *window),
            by(lax.max, -np.inf)(x, (9, 1), (1, 1), "VALID"),
            by(lax.max, -np.inf)(x[:0], (1, 2), (1, 1), ((1, 1), (0, 0))),
            by(lax.add, 0.0)(x, *window),
        ]

    agrees(program, x, x > 0, (x * 99).astype(np.uint8), rtol=1e-6)


# -- pooling -------------------------------------------------------------------------------

POOLS = {
    "2x2": ((2, 2), (2, 2), "VALID"),
    "3x2, overlapping": ((3, 2), (2, 1), "SAME"),
    "apart": ((1, 2), (2, 3), "VALID"),
    "wide padding": ((2, 3), (1, 2), ((3, 1), (0, 4))),
    "whole": ((5, 6), (1, 1), "VALID"),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("largest", [True, False])
def test_gradients(name, largest):
    """Many ties: the first of equal entries in row-major order takes the gradient."""
    x = rng.integers(-1, 2, (5, 6)).astype(np.float32)
    pool = by(lax.max, -np.inf) if largest else by(lax.min, np.inf)
    # Forwards JAX's own choice among equal entries is another one than backwards.
    distinct = rng.permutation(30).astype(np.float32).reshape(5, 6)

    def program(x, distinct):
        fun = lambda x: pool(x, *POOLS[name])  # noqa: E731
        out, pull = jax.vjp(fun, x)
        g = jnp.arange(1.0, out.size + 1, dtype=np.float32).reshape(out.shape)
        return out, pull(g), jax.jvp(fun, (distinct,), (x,))

    agrees(program, x, distinct)


def test_dilated_pooling():
    x = rng.permutation(30).astype(np.float32).reshape(5, 6)

    def program(x, t):
        fun = lambda x: by(lax.max, -np.inf)(  # noqa: E731
            x, (2, 3), (1, 2), ((3, 0), (1, 1)), (1, 1), (2, 2)
        )
        base = lambda x: by(lax.max, -np.inf)(  # noqa: E731
            x, (3, 2), (2, 1), ((0, 0), (0, 0)), (2, 1), (1, 1)
        )
        return jax.jvp(fun, (x,), (t,)), jax.grad(lambda x: base(x).sum())(x)

    agrees(program, x, 2 * x + 1)


def test_integers_and_vmap():
    x = rng.integers(-2, 3, (3, 9)).astype(np.int32)
    source = rng.integers(1, 9, (3, 6)).astype(np.int32)
    ge = decomposed_parameter(lax.max)

    def one(source, x):
        return lax.select_and_scatter_add_p.bind(
            source,
            x,
            select_prim=ge,
            window_dimensions=(2,),
            window_strides=(2,),
            padding=((1, 2),),
        )

    agrees(jax.vmap(one), source, x)


def decomposed_parameter(function):
    """The primitive by which the gradient of a pool selects."""
    pool = lambda x: by(function, -np.inf)(x, (2,), (2,), "VALID").sum()  # noqa: E731
    jaxpr = jax.make_jaxpr(jax.grad(pool))(np.ones(4, np.float32))
    (eqn,) = [e for e in jaxpr.eqns if "select_prim" in e.params]
    return eqn.params["select_prim"]


def test_another_selection_is_refused():
    x = np.ones(4, np.float32)

    def program(x):
        return lax.select_and_scatter_add_p.bind(
            x[:2],
            x,
            select_prim=lax.gt_p,
            window_dimensions=(2,),
            window_strides=(2,),
            padding=((0, 0),),
        )

    with pytest.raises(UnsupportedError, match="select by `gt`"):
        decomposed(program, x)


@pytest.mark.parametrize("shape", [(2, 4, 4, 1), (2, 5, 5, 2), (8, 12, 12, 4)])
def test_a_pool_and_its_gradient_share_their_comparisons(shape):
    def program(x):
        pool = lambda x: by(lax.max, -np.inf)(  # noqa: E731
            x, (1, 2, 2, 1), (1, 2, 2, 1), "SAME"
        )
        return jax.value_and_grad(lambda x: jnp.sum(pool(x) ** 2))(x)

    closed = simplify.inline(jax.make_jaxpr(program)(np.ones(shape, np.float32)))
    plain = simplify.cse(decompose(closed, [True]))
    assert count(simplify.inline(plain), "gt") == 2  # one along each axis


def test_select_and_scatter_by_any_functions():
    """The last of the largest, and what meets in one place is multiplied."""
    x = rng.integers(0, 3, (5, 5)).astype(np.int32)
    source = rng.integers(1, 5, (4, 3)).astype(np.int32)
    scalars = np.int32(1), np.int32(1)
    jaxprs = [jax.make_jaxpr(f)(*scalars) for f in (lax.gt, lax.mul)]

    def program(x, source):
        select, scatter = (getattr(j, "jaxpr", j) for j in jaxprs)
        return lax.select_and_scatter_p.bind(
            x,
            source,
            np.int32(1),
            select_jaxpr=select,
            select_consts=(),
            scatter_jaxpr=scatter,
            scatter_consts=(),
            window_dimensions=(2, 3),
            window_strides=(1, 2),
            padding=((0, 0), (1, 1)),
        )

    want = np.ones_like(x)
    padded = np.pad(x, ((0, 0), (1, 1)), constant_values=-1)
    for i, j in np.ndindex(4, 3):
        window = padded[i : i + 2, 2 * j : 2 * j + 3].ravel()
        at = len(window) - 1 - np.argmax(window[::-1])
        want[i + at // 3, 2 * j + at % 3 - 1] *= source[i, j]
    got = jax.jit(jaxpr_as_fun(decomposed(program, x, source)))(x, source)[0]
    np.testing.assert_array_equal(got, want)
