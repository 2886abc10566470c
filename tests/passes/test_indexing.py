"""Gathers, scatters and slices at secret indices equal JAX's own, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from plain import agrees, count, decomposed

from privjax.passes.decompose import order

rng = np.random.default_rng(6)
MODES = ["clip", "fill", "promise_in_bounds"]
SCATTERS = {
    "set": lax.scatter,
    "add": lax.scatter_add,
    "sub": lax.scatter_sub,
    "mul": lax.scatter_mul,
    "min": lax.scatter_min,
    "max": lax.scatter_max,
}


# -- one-hot vectors -----------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 8, 21])
@pytest.mark.parametrize("by_thresholds", [True, False])
@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint32])
def test_one_hot(n, by_thresholds, dtype, monkeypatch):
    monkeypatch.setattr(order, "by_thresholds", lambda *_: by_thresholds)
    info = np.iinfo(dtype)
    i = np.array([*range(n), n, n + 1, info.min, info.max]).astype(dtype)
    if info.min < 0:
        i = np.append(i, np.array([-1, -n], dtype))
    places, eye = np.arange(n), np.eye(n, dtype=bool)
    exact = i.astype(np.int64)[:, None] == places
    np.testing.assert_array_equal(order.one_hot(i, n, order.DROP), exact)
    clipped = eye[np.clip(i.astype(np.int64), 0, n - 1)]
    np.testing.assert_array_equal(order.one_hot(i, n, order.CLIP), clipped)
    inside = i[:n]
    np.testing.assert_array_equal(
        order.one_hot(inside, n, order.INSIDE), exact[: len(inside)]
    )


@pytest.mark.parametrize("n, low", [(6, 1), (13, 2), (16, 2), (31, 3), (33, 5)])
@pytest.mark.parametrize("outside", [order.DROP, order.CLIP])
def test_digits(n, low, outside):
    i = np.arange(-3, n + 3, dtype=np.int32)
    high, small = order.digits(i, n, outside, low)
    both = np.einsum("ia,ib->iab", high, small).reshape(len(i), -1)
    np.testing.assert_array_equal(both[:, :n], order.one_hot(i, n, outside))
    assert small.shape[-1] == 1 << low and not both[:, n:].any()


# -- any dimension numbers -----------------------------------------------------------------


@st.composite
def accesses(draw):
    """(operand's shape, dimension numbers of a gather, window, shape of the indices)"""
    rank = draw(st.integers(1, 3))
    shape = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    axes = draw(st.permutations(range(rank)))
    n_batch = draw(st.integers(0, min(1, rank - 1)))
    batch = sorted(axes[:n_batch])
    indexed = axes[n_batch : draw(st.integers(n_batch + 1, rank))]
    sizes = [1 if a in batch else draw(st.integers(1, shape[a])) for a in range(rank)]
    narrow = [a for a in range(rank) if a not in batch and sizes[a] == 1]
    collapsed = sorted(a for a in narrow if draw(st.booleans()))
    outer = draw(st.lists(st.integers(1, 3), max_size=2))
    index_batch = []
    for a in batch:
        at = draw(st.integers(0, len(outer)))
        outer.insert(at, shape[a])
        index_batch = [at]
    windows = rank - len(batch) - len(collapsed)
    places = draw(st.permutations(range(windows + len(outer))))
    dims = lax.GatherDimensionNumbers(
        offset_dims=tuple(sorted(places[:windows])),
        collapsed_slice_dims=tuple(collapsed),
        start_index_map=tuple(indexed),
        operand_batching_dims=tuple(batch),
        start_indices_batching_dims=tuple(index_batch),
    )
    return tuple(shape), dims, tuple(sizes), (*outer, len(indexed))


def of_scatter(dims):
    return lax.ScatterDimensionNumbers(
        update_window_dims=dims.offset_dims,
        inserted_window_dims=dims.collapsed_slice_dims,
        scatter_dims_to_operand_dims=dims.start_index_map,
        operand_batching_dims=dims.operand_batching_dims,
        scatter_indices_batching_dims=dims.start_indices_batching_dims,
    )


@settings(max_examples=20)
@given(accesses(), st.sampled_from(MODES), st.sampled_from(["f", "i", "b"]), st.data())
def test_any_gather_and_its_gradient(access, mode, kind, data):
    shape, dims, sizes, index_shape = access
    x = rng.integers(-9, 9, shape)
    x = x > 0 if kind == "b" else x.astype({"f": np.float32, "i": np.int32}[kind])
    i = rng.integers(-2, 5, index_shape).astype(np.int32)

    fill = data.draw(st.sampled_from([None, 3])) if kind != "b" else None

    def program(x, i):
        get = lambda x: lax.gather(  # noqa: E731
            x, i, dims, sizes, mode=mode, fill_value=fill
        )
        if kind != "f":
            return get(x)
        out, pull = jax.vjp(get, x)
        return out, pull(jnp.arange(out.size, dtype=out.dtype).reshape(out.shape))

    agrees(program, x, i, secret=data.draw(st.sampled_from([(1, 1), (0, 1)])))


@settings(max_examples=20)
@given(accesses(), st.sampled_from(MODES), st.sampled_from(list(SCATTERS)), st.data())
def test_any_scatter(access, mode, how, data):
    shape, dims, sizes, index_shape = access
    kind = data.draw(st.sampled_from([np.float32, np.int32]))
    x = rng.integers(-9, 9, shape).astype(kind)
    i = rng.integers(-2, 5, index_shape).astype(np.int32)
    get = lambda x: lax.gather(x, i, dims, sizes, mode="clip")  # noqa: E731
    u = rng.integers(-3, 4, jax.eval_shape(get, x).shape).astype(kind)
    secret = data.draw(st.sampled_from([(1, 1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 1)]))
    agrees(
        lambda x, i, u: SCATTERS[how](x, i, u, of_scatter(dims), mode=mode),
        x,
        i,
        u,
        secret=secret,
    )


# -- programs ------------------------------------------------------------------------------

X = rng.normal(size=(5, 4)).astype(np.float32)
N = rng.integers(-9, 9, (5, 4)).astype(np.int32)
U = rng.normal(size=(6, 4)).astype(np.float32)
I = np.array([3, 0, -1, 7, 3, 1], np.int32)  # noqa: E741
L = np.array([0, 3, 2, -1, 9], np.int32)
TABLE = rng.integers(-99, 99, (70, 3)).astype(np.int32)
FAR = np.array([69, 70, -1, 33, -80, 12], np.int32)

PROGRAMS = {
    "take": (lambda x, i: jnp.take(x, i, axis=0), X, I),
    "take, clip": (lambda x, i: jnp.take(x, i, axis=1, mode="clip"), N, I),
    "take, wrap": (lambda x, i: jnp.take(x, i, axis=0, mode="wrap"), X, I),
    "take, integers": (lambda x, i: jnp.take(x, i, axis=0), N, I),
    "take, booleans": (lambda x, i: jnp.take(x > 0, i, axis=0), N, I),
    "many rows": (lambda x, i: x[i], TABLE, FAR),
    "along an axis": (lambda x, i: jnp.take_along_axis(x, i[:, None], 1), X, L),
    "a row": (lambda x, i: x[i[0]], X, I),
    "an entry": (lambda x, i: x[i[0], i[1]], X, I),
    "pairs": (lambda x, i: x[i[:5], i[1:]], X, I),
    "own column": (lambda x, i: x[jnp.arange(5), i], X, L),
    "own column, fill": (
        lambda x, i: x.at[jnp.arange(5), i].get(mode="fill", fill_value=3),
        X,
        L,
    ),
    "own column, vmap": (lambda x, i: jax.vmap(lambda r, i: r[i])(x, i), X, L),
    "slice": (lambda x, i: lax.dynamic_slice(x, (i[0], i[1]), (2, 3)), X, I),
    "slice, vmap": (
        lambda x, i: jax.vmap(lambda s: lax.dynamic_slice(x, (s, 0), (2, 2)))(i),
        X,
        I,
    ),
    "slice in one axis": (
        lambda x, i: lax.dynamic_slice_in_dim(x, i[0], 2, 1),
        X,
        I,
    ),
    "update": (
        lambda x, i: lax.dynamic_update_slice(x, x[:2, :3] * 2, (i[0], i[1])),
        X,
        I,
    ),
    "update, vmap": (
        lambda x, i: jax.vmap(lambda s: lax.dynamic_update_slice(x, x[:2], (s, 0)))(i),
        N,
        I,
    ),
    "set": (lambda x, i, u: x.at[i].set(u), X, I, U),
    "set, clip": (lambda x, i, u: x.at[i].set(u, mode="clip"), X, I, U),
    "set, booleans": (lambda x, i, u: (x > 0).at[i].set(u > 0), X, I, U),
    "set, a row": (lambda x, i, u: x.at[i[1]].set(u[0]), X, I, U),
    "set, pairs": (lambda x, i, u: x.at[i, i].set(u[:5, 0]), X, L, U),
    "set, own column": (lambda x, i: x.at[jnp.arange(5), i].set(7), N, L),
    "add, own column": (lambda x, i: x.at[jnp.arange(5), i].add(1), N, L),
    "add, public rows": (lambda x, i: x.at[jnp.array([1, 1]), i[:2]].add(9), N, L),
    "subtract": (lambda x, i: x.at[:, i[:3]].subtract(2), N, I),
    "multiply": (lambda x, i: x.at[i].multiply(2), N, I),
    "divide": (lambda x, i: x.at[i].divide(2), X, I),
    "max": (lambda x, i, u: x.at[i].max(u), X, I, U),
    "min, unique": (
        lambda x, i, u: x.at[i[:3]].min(u[:3], unique_indices=True),
        X,
        I,
        U,
    ),
    "max, an entry": (lambda x, i: x.at[i[4], i[5]].max(7), N, I),
    "apply": (lambda x, i: x.at[i].apply(lambda v: 2 * v + 1), N, I),
    "apply, a row": (lambda x, i: x.at[i[0]].apply(jnp.negative), N, I),
    "segment_sum": (lambda x, i: jax.ops.segment_sum(x, i, 4), N, L),
    "segment_max": (lambda x, i: jax.ops.segment_max(x, i, 4), N, L),
    "segment_prod": (lambda x, i: jax.ops.segment_prod(x, i, 4), N, L),
    "bincount": (lambda i: jnp.bincount(i, length=5), I),
    "histogram": (lambda x: jnp.histogram(x, 3, (-1.0, 1.0))[0], X),
    "nonzero": (lambda i: jnp.nonzero(i > 0, size=4, fill_value=-1), I),
    "nothing": (lambda x, i: (x[i[:0]], x.at[i[:0]].set(0), x[:, :0][i]), X, I),
    "narrow index": (lambda x, i: x[i.astype(np.uint8)], TABLE, np.abs(FAR)),
}


# Where only the values are secret another rule is at work.
COMBINED = ("multiply", "divide", "max", "min", "apply", "segment", "subtract")


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name):
    agrees(PROGRAMS[name][0], *PROGRAMS[name][1:])


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n.startswith(COMBINED)])
def test_public_indices(name):
    fun, *args = PROGRAMS[name]
    agrees(fun, *args, secret=[a.ndim > 1 for a in args])


@pytest.mark.parametrize("name", ["take", "many rows", "segment_sum", "max", "set"])
def test_public_tables(name):
    fun, *args = PROGRAMS[name]
    agrees(fun, *args, secret=[a.ndim == 1 for a in args])


def test_public_rows_cost_nothing():
    """x[arange(n), labels]: rows are picked, only the columns are hidden."""
    x = jax.ShapeDtypeStruct((1000, 10), np.float32)
    i = jax.ShapeDtypeStruct((1000,), np.int32)
    plain = decomposed(lambda x, i: x[jnp.arange(1000), i], x, i)
    largest = max(v.aval.size for e in plain.jaxpr.eqns for v in e.outvars)
    assert largest <= 1000 * 11  # thresholds: one more than there are columns


def test_a_large_table_is_read_by_digits():
    table = jax.ShapeDtypeStruct((5000, 4), np.float32)
    i = jax.ShapeDtypeStruct((64,), np.int32)
    plain = decomposed(lambda t, i: t[i], table, i)
    assert count(plain, "dot_general") == 2
    bits = [
        v.aval for e in plain.jaxpr.eqns for v in e.outvars if e.primitive.name == "lt"
    ]
    assert max(a.size for a in bits) <= 64 * 13
    few = jax.ShapeDtypeStruct((7, 4), np.float32)
    assert count(decomposed(lambda t, i: t[i], few, i), "dot_general") == 1


def test_gradients_through_an_access():
    ids = np.array([4, 0, 4, 2], np.int32)

    def program(x, ids):
        loss = lambda x: jnp.sum(x[ids] ** 2 * 2) + jnp.max(x[:, ids[0] % 4])  # noqa: E731
        return jax.value_and_grad(loss)(x)

    agrees(program, X, ids, rtol=1e-6)
