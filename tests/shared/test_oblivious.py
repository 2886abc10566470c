"""Order, secret indices and windows on shares: what users write with them."""

import fast
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from privjax.prg.keys import insecure_key

rng = np.random.default_rng(8)
X = rng.normal(size=(6, 4)).astype(np.float32)
V = rng.normal(size=7).astype(np.float32)
IDS = np.array([3, 0, 2, 3, 1, 1], np.int32)
KEYS = np.array([5, 2, 9, 2], np.int32), np.array([2, 9, 7], np.int32)


def nearest_neighbours(points, labels, query):
    distances = jnp.sum((points - query) ** 2, -1)
    _, near = lax.top_k(-distances, 3)
    return jnp.argmax(jnp.bincount(labels[near], length=4))


def histogram(labels, weights):
    return jnp.bincount(labels, length=4), jax.ops.segment_sum(weights, labels, 4)


def equality_join(left, a, right, b):
    """The rows of `left` with the value of the row of `right` that has the same key."""
    match = left[:, None] == right[None]
    row = jnp.argmax(match, 1)
    return jnp.where(match.any(1), a * b[row], 0.0)


def tree(features):
    feature, threshold = jnp.array([0, 1, 2]), jnp.array([0.0, 0.5, -0.5])
    leaves = jnp.array([1.0, 2.0, 3.0, 4.0])
    node = jnp.argmax(features[:1])  # 0, and secret to the compiler
    for _ in range(2):
        right = features[feature[node]] > threshold[node]
        node = 2 * node + 1 + right.astype(np.int32)
    return leaves[node - 3]


def beam_step(log_probabilities, beams, scores):
    total = (scores[:, None] + log_probabilities).reshape(-1)
    best, flat = lax.top_k(total, 2)
    n = log_probabilities.shape[1]
    beam = (flat >= n).astype(np.int32)
    return best, jnp.concatenate([beams[beam], (flat - n * beam)[:, None]], 1)


def embedding(table, tokens):
    return jax.value_and_grad(lambda t: jnp.sum(t[tokens] ** 2))(table)


def pooling(x):
    def loss(x):
        pool = lax.reduce_window(x, -np.inf, lax.max, (2, 3), (1, 2), "SAME")
        return jnp.sum(pool**2)

    return jax.value_and_grad(loss)(x)


PROGRAMS = {
    "sort": (lambda v: lax.sort((v, -v), num_keys=1), V),
    "median": (jnp.median, V),
    "neighbours": (nearest_neighbours, X, IDS, X[1] + 0.01),
    "histogram": (histogram, IDS, X[:, 0]),
    "join": (equality_join, KEYS[0], V[:4], KEYS[1], V[4:]),
    "tree": (tree, X[2]),
    "beam": (beam_step, X[:2], IDS[:4].reshape(2, 2), V[:2]),
    "embedding": (embedding, X, IDS),
    "set": (lambda x, i, u: x.at[i, i].set(u), X, IDS, V[:6]),
    "largest of a segment": (
        lambda x, i: jax.ops.segment_max(x, i, 4),
        X,
        IDS,
    ),
    "public segments": (
        lambda x: jnp.zeros(3).at[jnp.array([0, 2, 0, 0])].max(x),
        V[:4],
    ),
    "slices": (
        lambda x, i: lax.dynamic_update_slice(
            x, lax.dynamic_slice(x, (i[0], i[1]), (2, 3)), (i[2], i[3])
        ),
        X,
        IDS,
    ),
    "pooling": (pooling, X),
    "windows": (
        lambda i: lax.reduce_window(i, np.int32(1), lax.mul, (3,), (2,), "SAME"),
        IDS + 1,
    ),
}
# One compiles many comparisons: the others run on the reference protocol only.
SHARED = ("sort", "neighbours", "embedding", "set", "pooling")


def close(shared, plain):
    for a, b in zip(*map(jax.tree.leaves, (shared, plain)), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize("name", PROGRAMS)
def test_reference(name):
    fun, *args = PROGRAMS[name]
    plain = fun(*map(jnp.asarray, args))
    close(fast.secret_shared(fun, protocol="reference")(*args), plain)


@pytest.mark.parametrize("name", SHARED)
def test_semi2k_under_jit(name):
    fun, *args = PROGRAMS[name]
    shared = fast.secret_shared(fun)
    key = insecure_key(4)
    plain = fun(*map(jnp.asarray, args))
    close(jax.jit(lambda k, *a: shared(*a, key=k))(key, *args), plain)


def positions(x, i):
    """Where indices are public: beyond the ends, and after JAX has made them positive."""
    words, flags = (4 * x).astype(np.int8), x > 0
    slices = [(-11, 2), (5, -3), (-2, -9)]
    return (
        x.at[i].get(mode="fill", fill_value=2.5),
        x.at[i].get(mode="drop"),
        jnp.take(words, i, axis=0),
        words.at[:, i].get(mode="fill", fill_value=-3),
        flags.at[i].get(mode="fill", fill_value=False),
        jnp.take(flags, i, axis=0) & flags[0],
        jnp.take(words, i, axis=0) < 3,
        [lax.dynamic_slice(x, s, (2, 3)) for s in slices],
        [lax.dynamic_update_slice(x, x[:2, :2], s) for s in slices],
        [lax.dynamic_slice(x, (i[k], s[1]), (2, 3)) for k, s in enumerate(slices)],
    )


POSITIONS = np.array([-9, 7, 5, -6, 2, -1], np.int32)


@pytest.mark.parametrize("protocol", ["reference", "semi2k"])
@pytest.mark.parametrize("known", [True, False])
def test_public_positions(protocol, known):
    """Known when compiled, or when called. NaN is 0."""
    fun = (lambda x, i: positions(x, POSITIONS)) if known else positions
    shared = fast.secret_shared(fun, protocol=protocol, public=("i",))
    want = jax.tree.map(jnp.nan_to_num, jax.jit(positions)(X, POSITIONS))
    close(shared(X, POSITIONS), want)


def test_vmap():
    """Two lanes of rows that are looked up in one table."""
    fun = lambda table, i: table[i] + lax.cummax(table[:3], 0)[-1]  # noqa: E731
    shared = fast.secret_shared(fun)
    lanes = np.stack([IDS[:3], IDS[3:]])
    keys = jax.random.split(insecure_key(5), 2)
    out = jax.vmap(lambda k, i: shared(X, i, key=k))(keys, lanes)
    for got, i in zip(out, lanes, strict=True):
        close(got, fun(jnp.asarray(X), i))


@pytest.mark.parametrize("protocol, parties", [("spdz2k", 2), ("replicated3", 3)])
def test_other_protocols(protocol, parties):
    def fun(v, i):
        return lax.top_k(v, 2)[0], v[i]

    shared = fast.secret_shared(fun, protocol=protocol, parties=parties)
    close(shared(V[:4], IDS[:2]), fun(jnp.asarray(V[:4]), IDS[:2]))


def test_rounds_do_not_grow_with_the_number_of_entries():
    """All pairs at once: what is sent grows, what is waited for hardly does."""
    shared = fast.secret_shared(jnp.sort)
    few, more = (shared.cost(np.zeros(n, np.float32)) for n in (8, 64))
    # A rank of 64 has 6 bits: each is tested (a round more), then a tree of 3 levels.
    assert more.rounds <= few.rounds + 4
    assert more.sent_bits > 16 * few.sent_bits


def test_a_larger_table_costs_little_more():
    """Digits: twice the root of the rows, and no comparison per row."""
    shared = fast.secret_shared(lambda t, i: t[i], public=["t"])
    i = np.zeros(50, np.int32)
    small, large = (shared.cost(np.zeros((n, 1), np.float32), i) for n in (300, 3000))
    assert large.sent_bits < 3 * small.sent_bits
    assert large.rounds <= small.rounds + 2
