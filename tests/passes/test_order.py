"""Sorting, the largest k, extrema and cumulative operations equal JAX's own, exactly."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxpr_as_fun
from plain import agrees, count, decomposed

from privjax.errors import UnsupportedError
from privjax.passes.decompose import order, reductions

rng = np.random.default_rng(5)
DTYPES = [np.float32, np.int32, np.int8, np.uint8, np.bool_]


def tied(dtype, *shape):
    """Few different values, so that most of them occur several times."""
    values = rng.integers(0, 4, shape)
    if np.dtype(dtype).kind == "f":
        return np.where(values == 3, -0.0, values - 1.5 * (values > 1)).astype(dtype)
    if np.dtype(dtype) == bool:
        return values > 1
    info = np.iinfo(dtype)  # the ends of the range among them
    return np.array([info.min, 0, 1, info.max], dtype)[values]


def everything(keys, second, payload):
    """One compiled program of all that sorts."""
    k = keys.shape[-1]
    # Of 0 and -0 JAX's top_k ranks 0 higher; fixed point has one of them only.
    positive = jnp.where(keys == 0, jnp.zeros_like(keys), keys)
    return [
        jnp.sort(keys, 0),
        jnp.sort(keys, -1, descending=True),
        jnp.argsort(keys, -1),
        lax.sort((keys, payload), num_keys=1),
        lax.sort((keys, second, payload), num_keys=2),
        lax.sort((second, keys, payload), dimension=0, num_keys=3),
        lax.sort_key_val(second, payload, is_stable=False)[0],
        jnp.lexsort((keys, second)),
        lax.top_k(positive, k),
        lax.top_k(positive, k // 2),
        lax.top_k(positive, min(k, 1)),
    ]


def operands(dtype, n):
    payload = rng.normal(size=(2, n)).astype(np.float32)
    return tied(dtype, 2, n), tied(np.int32, 2, n), payload


SIZES = [(np.float32, n) for n in (0, 1, 2, 7)]
SIZES += [(np.int32, 12), (np.int8, 3), (np.uint8, 5), (np.bool_, 6)]


@pytest.mark.parametrize("dtype, n", SIZES)
def test_by_rank(dtype, n):
    agrees(everything, *operands(dtype, n))


@pytest.mark.parametrize("dtype, n", [(np.float32, 9), (np.bool_, 5)])
def test_through_the_network(dtype, n, monkeypatch):
    monkeypatch.setattr(order, "by_rank", lambda *_: np.inf)
    order.block.cache_clear()
    agrees(everything, *operands(dtype, n))
    order.block.cache_clear()


@pytest.mark.parametrize("n", range(2, 11))
def test_the_network_sorts(n):
    """A network that sorts all sequences of 0 and 1 sorts all others (Knuth 5.3.4)."""
    x = np.array(list(itertools.product([False, True], repeat=n))).T
    (out,) = order.through_network([jnp.asarray(x)], 1, ties=False)
    np.testing.assert_array_equal(out, np.sort(x, 0))


def test_methods_are_chosen_by_size():
    def program(n, lanes=1):
        x = jax.ShapeDtypeStruct((lanes, n), np.float32)
        return decomposed(lambda x: lax.sort((x, -x), num_keys=1), x)

    small, batch, large, larger = (
        program(64),
        program(64, 500),
        program(700),
        program(900),
    )
    assert count(small, "scan") == 0 and count(small, "lt") <= 2
    assert count(batch, "scan") == count(large, "scan") == 1
    # What is compiled does not grow with the number of entries.
    sizes = [sum(1 for _ in plain.eqns) for plain in (large.jaxpr, larger.jaxpr)]
    assert sizes[0] == sizes[1] and count(large, "lt") == count(larger, "lt") == 3


def test_the_largest_few_of_many_come_from_blocks():
    x = jax.ShapeDtypeStruct((3000,), np.float32)
    plain = decomposed(lambda x: lax.top_k(x, 3), x)
    assert count(plain, "scan") == 0
    x = rng.permutation(3000).astype(np.float32) // 2
    agrees(lambda x: lax.top_k(x, 3), x)


def test_approximate_top_k_is_exact():
    x = tied(np.float32, 3, 11) + rng.normal(size=(3, 11)).astype(np.float32)
    agrees(lambda x: [lax.approx_max_k(x, 4), lax.approx_min_k(x, 2, 0)], x)
    with pytest.raises(UnsupportedError, match="aggregate_to_topk"):
        decomposed(lambda x: lax.approx_max_k(x, 4, aggregate_to_topk=False), x)


def statistics(x, v):
    real = x.astype(np.float32)
    return [
        jnp.median(real),
        jnp.quantile(real, jnp.array([0.0, 0.3, 1.0])),
        jnp.percentile(real, 75, method="nearest"),
        jnp.unique(x, size=3, fill_value=9),
        jnp.searchsorted(jnp.sort(x), v),
        jnp.searchsorted(jnp.sort(real), v.astype(np.float32), side="right"),
        jnp.searchsorted(jnp.sort(x), v, method="compare_all"),
        jnp.partition(x, 4)[4],
    ]


@pytest.fixture(scope="module")
def both_statistics():
    """JAX's own and the decomposed program, each compiled once."""
    x, v = np.zeros(9, np.int32), np.zeros(4, np.int32)
    plain = decomposed(statistics, x, v)
    return jax.jit(statistics), jax.jit(jaxpr_as_fun(plain))


@given(
    st.lists(st.integers(-3, 3), min_size=9, max_size=9),
    st.lists(st.integers(-5, 5), min_size=4, max_size=4),
)
def test_programs_that_sort(both_statistics, values, queries):
    x, v = np.array(values, np.int32), np.array(queries, np.int32)
    jaxs, ours = both_statistics
    with jax.enable_x64(True):
        got = ours(x, v)
    for a, b in zip(got, jaxs(x, v), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def extrema(x):
    axes = range(x.ndim)
    found = [f(x, a) for f in (jnp.argmax, jnp.argmin, jnp.max, jnp.min) for a in axes]
    return [*found, jnp.max(x), jnp.argmin(x), lax.argmax(x, 0, np.uint8)]


EXTREMA = [(np.float32, (2, 3)), (np.float32, (33, 1)), (np.int32, (5, 4))]
EXTREMA += [(d, (9, 2)) for d in (np.int8, np.uint8, np.bool_)]


@pytest.mark.parametrize("dtype, shape", EXTREMA)
def test_extrema(dtype, shape):
    agrees(extrema, tied(dtype, *shape))


def test_extrema_of_nothing():
    def program(x, i):
        return [
            f(v[:0], (0,))
            for v in (x, i)
            for f in (lax.reduce_max, lax.reduce_min, lax.reduce_prod)
        ]

    agrees(program, tied(np.float32, 2, 3), tied(np.int32, 2, 3))


def test_groups_of_a_tournament():
    """Few entries are compared at once, many lanes two at a time."""
    assert reductions.group_size(10, 1, False) == 10
    assert reductions.group_size(10, 10**6, False) == 2
    assert reductions.group_size(5, 1, True) == 5
    for n, lanes in itertools.product([2, 3, 64, 1000], [1, 50, 10**4]):
        assert 2 <= reductions.group_size(n, lanes, False) <= n


@pytest.mark.parametrize("n", [3, 8, 13])
@pytest.mark.parametrize("lanes", [1, 3000])
def test_flags_mark_the_first_of_the_best(n, lanes):
    v = rng.integers(0, 3, (n, lanes))
    valid = rng.integers(0, 2, (n, 1)).astype(bool)
    valid[n // 2] = True
    better = reductions.greater
    best, (at,), flags = reductions.first_best(
        jnp.asarray(v),
        better,
        [jnp.broadcast_to(jnp.arange(n)[:, None], v.shape)],
        jnp.asarray(valid),
        flagged=True,
    )
    seen = np.where(valid, v, -1)
    np.testing.assert_array_equal(best, seen.max(0))
    np.testing.assert_array_equal(at, seen.argmax(0))
    np.testing.assert_array_equal(np.argmax(flags, 0), seen.argmax(0))
    np.testing.assert_array_equal(flags.sum(0), 1)


CUMULATIVE = (lax.cummax, lax.cummin, lax.cumprod)


@pytest.mark.parametrize("n", [0, 1, 2, 11])
def test_cumulative(n):
    x, i = tied(np.float32, n, 2), tied(np.int32, n, 2)

    def program(x, i):
        cases = itertools.product(CUMULATIVE, (x, i), (False, True))
        return [f(v, 0, r) for f, v, r in cases] + [lax.cummax(i, 1)]

    agrees(program, x, i)
    sums = lambda x: [lax.cumlogsumexp(x, 0, r) for r in (False, True)]  # noqa: E731
    agrees(sums, 9 * x, rtol=1e-6)


def affine(a, b):  # associative, but the order matters
    return a[0] * b[0], a[1] * b[0] + b[1]


def test_reductions():
    x, i, b = tied(np.float32, 5, 3), tied(np.int32, 5, 3), tied(np.bool_, 5, 3)

    def program(x, i, b):
        one, zero = np.int32(1), np.int32(0)
        largest = jnp.float32(-7), zero
        later = lambda p, q: (  # noqa: E731
            lax.select(q[0] > p[0], q[0], p[0]),
            lax.select(q[0] > p[0], q[1], p[1]),
        )
        return [
            lax.reduce((i, i + 1), (one, zero), affine, (0,)),
            lax.reduce((i[:0], i[:0]), (one, zero), affine, (0,)),
            lax.reduce((x, i), largest, later, (0,)),
            lax.reduce_xor(i, (0,)),
            lax.reduce_xor(b, (0, 1)),
            lax.reduce_or(i, (1,)),
            lax.reduce_and(i, (1,)),
            lax.reduce_and(b[:0], (0,)),
            lax.reduce_prod(i, (0, 1)),
            jnp.all(b, 0),
            jnp.any(b),
        ]

    agrees(program, x, i, b)


def test_reduction_of_two_axes_is_in_the_order_of_memory():
    # XLA's own order over several axes depends on its optimisations.
    i = tied(np.int8, 5, 3)
    one, zero = np.int8(1), np.int8(0)

    def program(i):
        return lax.reduce((i, i + 1), (one, zero), affine, (1, 0))

    with jax.enable_x64(True):
        got = jaxpr_as_fun(decomposed(program, i))(i)
    pairs = np.stack([i.ravel(), i.ravel() + 1], axis=1)
    with np.errstate(over="ignore"):
        want = functools.reduce(affine, pairs, (one, zero))
    np.testing.assert_array_equal(np.array(got), np.array(want))


def test_choices():
    x, which = tied(np.float32, 4, 3), np.array([2, 0, 1, 3], np.int32)

    def program(x, which):
        conditions = [x > 0, x < 0, x == 0]
        return [
            jnp.select(conditions, [x, 2 * x, x + 5], 7.0),
            jnp.choose(which, [x[0, 0], x[1, 1], x[2, 2]], mode="clip"),
            jnp.choose(which[:3], [x[0], x[1], x[2]], mode="wrap"),
            lax.select_n(which[0] % 3, x > 0, x < 0, x == 0),
            lax.switch(which[1], [lambda: x, lambda: -x, lambda: x * x]),
            jnp.piecewise(x, conditions[:2], [lambda v: v + 1, lambda v: -v, 3.0]),
        ]

    agrees(program, x, which)
