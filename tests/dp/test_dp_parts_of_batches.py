"""Steps that work on a batch part by part: slices, micro-batches, one example at a time.

The clipped sums are those of explicit per-example clipping, whatever the order of work.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_models import (
    BATCH,
    MODELS,
    Model,
    assert_close,
    clipped_gradient,
    middle_norm,
    values,
)
from jax import lax

from privjax.errors import LeakError
from privjax.transforms.differentially_private import differentially_private

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
HALF = BATCH // 2

# From (gradient of a mean loss, parameters, batch) to the gradient over the batch.
Way = Callable[[Any, Any, Any], Any]
WAYS: dict[str, Way] = {}
# Those in which some examples do not count, and which ones do.
CHOOSING: dict[str, Way] = {}


def way(fun: Way) -> Way:
    WAYS[fun.__name__] = fun
    return fun


def choosing(fun: Way) -> Way:
    CHOOSING[fun.__name__] = fun
    return fun


def cut(batch: Any, start: int, stop: int, step: int = 1) -> Any:
    return jax.tree.map(lambda x: x[start:stop:step], batch)


def folded(batch: Any, *sizes: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(*sizes, *x.shape[1:]), batch)


def plus(*trees: Any) -> Any:
    return jax.tree.map(lambda *xs: sum(xs[1:], xs[0]), *trees)


def times(factor: float, tree: Any) -> Any:
    return jax.tree.map(lambda x: factor * x, tree)


def over(count: int, tree: Any) -> Any:
    return jax.tree.map(lambda x: x / count, tree)


def alone(example: Any) -> Any:
    """An example as a batch of one."""
    return jax.tree.map(lambda x: x[None], example)


def nothing(params: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, params)


# -- slices ---------------------------------------------------------------------------


@way
def two_halves(grad: Any, p: Any, batch: Any) -> Any:
    return over(2, plus(grad(p, cut(batch, 0, HALF)), grad(p, cut(batch, HALF, BATCH))))


@way
def slices_of_different_sizes(grad: Any, p: Any, batch: Any) -> Any:
    first, last = grad(p, cut(batch, 0, 3)), grad(p, cut(batch, 3, BATCH))
    return plus(times(3 / BATCH, first), times((BATCH - 3) / BATCH, last))


@way
def every_second_example(grad: Any, p: Any, batch: Any) -> Any:
    return over(2, plus(*(grad(p, cut(batch, k, BATCH, 2)) for k in range(2))))


@way
def split_in_reverse(grad: Any, p: Any, batch: Any) -> Any:
    leaves, tree = jax.tree.flatten(batch)
    pieces = zip(*(jnp.split(x, 2) for x in leaves), strict=True)
    found = [grad(p, jax.tree.unflatten(tree, piece)) for piece in pieces]
    return over(2, plus(*found[::-1]))


@way
def slices_at_known_places(grad: Any, p: Any, batch: Any) -> Any:
    take = lambda k: jax.tree.map(  # noqa: E731
        lambda x: lax.dynamic_slice_in_dim(x, k * HALF, HALF), batch
    )
    return over(2, plus(grad(p, take(0)), grad(p, take(1))))


@way
def unrolled_examples(grad: Any, p: Any, batch: Any) -> Any:
    one = lambda k: jax.tree.map(lambda x: x[k][None], batch)  # noqa: E731
    return over(BATCH, plus(*(grad(p, one(k)) for k in range(BATCH))))


@way
def two_examples_a_step(grad: Any, p: Any, batch: Any) -> Any:
    """A scan over pairs from both halves."""

    def add(total: Any, pair: Any) -> Any:
        return plus(total, *(grad(p, alone(x)) for x in pair)), None

    pairs = (cut(batch, 0, HALF), cut(batch, HALF, BATCH))
    return over(BATCH, lax.scan(add, nothing(p), pairs)[0])


# -- micro-batches ---------------------------------------------------------------------


@way
def side_by_side(grad: Any, p: Any, batch: Any) -> Any:
    found = jax.vmap(lambda b: grad(p, b))(folded(batch, 2, HALF))
    return jax.tree.map(lambda g: g.mean(0), found)


@way
def side_by_side_weighted(grad: Any, p: Any, batch: Any) -> Any:
    found = jax.vmap(lambda b: grad(p, b))(folded(batch, 2, HALF))
    return jax.tree.map(lambda g: jnp.tensordot(jnp.full(2, 0.5), g, 1), found)


@way
def one_after_the_other(grad: Any, p: Any, batch: Any) -> Any:
    found = lax.map(lambda b: grad(p, b), folded(batch, 2, HALF))
    return jax.tree.map(lambda g: g.mean(0), found)


# -- loops that count through the batch --------------------------------------------------


def piece(batch: Any, start: Any, size: int) -> Any:
    take = lambda x: lax.dynamic_slice_in_dim(x, start, size)  # noqa: E731
    return jax.tree.map(take, batch)


@way
def counted_pairs(grad: Any, p: Any, batch: Any) -> Any:
    add = lambda k, c: plus(c, grad(p, piece(batch, 2 * k, 2)))  # noqa: E731
    return over(HALF, lax.fori_loop(0, HALF, add, nothing(p)))


@way
def counted_examples(grad: Any, p: Any, batch: Any) -> Any:
    def add(k: Any, c: Any) -> Any:
        return plus(c, grad(p, alone(jax.tree.map(lambda x: x[k], batch))))

    return over(BATCH, lax.fori_loop(0, BATCH, add, nothing(p)))


@way
def scan_over_numbers(grad: Any, p: Any, batch: Any) -> Any:
    add = lambda c, k: (plus(c, grad(p, piece(batch, k * 2, 2))), None)  # noqa: E731
    return over(HALF, lax.scan(add, nothing(p), jnp.arange(HALF))[0])


# -- examples that choose whether they count -------------------------------------------


def counts(batch: Any) -> Any:
    """Whether an example counts, by a value of its own."""
    x = jax.tree.leaves(batch)[0]
    return jnp.sin(9 * jnp.sum(x.reshape(x.shape[0], -1), 1)) > 0


def over_examples(p: Any, batch: Any, body: Callable[[Any, Any], Any]) -> Any:
    one = lambda c, e: (body(c, alone(e)), None)  # noqa: E731
    return over(BATCH, lax.scan(one, nothing(p), batch)[0])


@choosing
def where_it_counts(grad: Any, p: Any, batch: Any) -> Any:
    def body(c: Any, e: Any) -> Any:
        keep = lambda new, old: jnp.where(counts(e)[0], new, old)  # noqa: E731
        return jax.tree.map(keep, plus(c, grad(p, e)), c)

    return over_examples(p, batch, body)


@choosing
def branch_if_it_counts(grad: Any, p: Any, batch: Any) -> Any:
    def body(c: Any, e: Any) -> Any:
        add = lambda c: plus(c, grad(p, e))  # noqa: E731
        return lax.cond(counts(e)[0], add, lambda c: c, c)

    return over_examples(p, batch, body)


@choosing
def branch_of_a_branch(grad: Any, p: Any, batch: Any) -> Any:
    def body(c: Any, e: Any) -> Any:
        def add(c: Any) -> Any:
            small = jnp.sum(jax.tree.leaves(e)[0]) < 1
            half = lambda c: plus(c, times(0.5, grad(p, e)))  # noqa: E731
            return lax.cond(small, lambda c: half(half(c)), lambda c: half(half(c)), c)

        return lax.cond(counts(e)[0], add, lambda c: c, c)

    return over_examples(p, batch, body)


# ---------------------------------------------------------------------------------------


def found(model: Model, work: Way, clip: float, **options: Any) -> Any:
    grad = jax.grad(model.loss)
    private = differentially_private(
        lambda p, batch: work(grad, p, batch),
        private=1,
        clip_norm=clip,
        noise_multiplier=0,
        protected="all",
    )
    run = jax.jit(lambda p, b: private(p, b, **options), compiler_options=QUICK)
    return run(model.params, model.batch)


SOME = ["indexed_labels", "tied_autoencoder", "sequence_gram", "recurrent"]
CASES = [
    *((name, "mlp") for name in WAYS),
    *(("two_halves", model) for model in [*SOME, "cnn"]),
    *(("side_by_side", model) for model in SOME),
]


@pytest.mark.parametrize(("name", "model"), CASES)
def test_equal_to_explicit_clipping(name: str, model: str) -> None:
    case = MODELS[model]()
    clip = middle_norm(case)
    assert_close(found(case, WAYS[name], clip), clipped_gradient(case, clip), 2e-5)


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("model", ["mlp", "sequence_gram"])
def test_examples_that_choose(name: str, model: str) -> None:
    case = MODELS[model]()
    clip, kept = middle_norm(case), np.flatnonzero(counts(case.batch))
    assert 0 < len(kept) < BATCH
    chosen = jax.tree.map(lambda x: x[kept], case.batch)
    wanted = times(len(kept) / BATCH, clipped_gradient(case, clip, chosen))
    assert_close(found(case, CHOOSING[name], clip), wanted, 2e-5)


@pytest.mark.parametrize("name", ["two_halves", "side_by_side", "unrolled_examples"])
def test_units_with_rows_in_several_parts(name: str) -> None:
    case = MODELS["mlp"]()
    clip, units = middle_norm(case), np.array([0, 1, 0, -1])

    def of_one(rows: list[int]) -> Any:
        grads = [
            jax.grad(case.loss)(case.params, cut(case.batch, k, k + 1)) for k in rows
        ]
        g = over(BATCH, plus(*grads))
        norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(g)))
        return times(min(1, clip / BATCH / norm), g)

    wanted = plus(of_one([0, 2]), of_one([1]))
    assert_close(found(case, WAYS[name], clip, units=units), wanted, 2e-5)


@pytest.mark.parametrize("name", ["two_halves", "side_by_side", "where_it_counts"])
def test_a_unit_moves_the_sum_by_its_bound(name: str) -> None:
    case, work = MODELS["mlp"](), (WAYS | CHOOSING)[name]
    x, y = case.batch
    for unit in range(BATCH):
        odd = Model(
            case.params, (x.at[unit].set(1e3 * values(5, seed=9)), y), case.loss
        )
        gone = Model(case.params, (x.at[unit].set(jnp.nan), y), case.loss)
        a, b = (found(m, work, 0.3) for m in (odd, gone))
        moved = [
            np.sum(np.square(u - v))
            for u, v in zip(*map(jax.tree.leaves, (a, b)), strict=True)
        ]
        assert np.sqrt(sum(moved)) <= 0.3 / BATCH * (1 + 1e-6)


# -- their neighbours that are not private ---------------------------------------------

WRONG: dict[str, Way] = {}


def wrong(fun: Way) -> Way:
    WRONG[fun.__name__] = fun
    return fun


@wrong
def second_half_after_the_first(grad: Any, p: Any, batch: Any) -> Any:
    new = plus(p, times(-0.1, grad(p, cut(batch, 0, HALF))))
    return grad(new, cut(batch, HALF, BATCH))  # LEAK


@wrong
def example_after_example(grad: Any, p: Any, batch: Any) -> Any:
    for k in range(BATCH):
        p = plus(p, times(-0.1, grad(p, cut(batch, k, k + 1))))  # LEAK
    return p


@wrong
def slices_multiplied(grad: Any, p: Any, batch: Any) -> Any:
    x, y = batch
    return grad(p, (x[:HALF] * x[HALF:], y[:HALF]))  # LEAK


@wrong
def slices_that_overlap(grad: Any, p: Any, batch: Any) -> Any:
    x, y = batch
    return grad(p, (x[:-1] + x[1:], y[1:]))  # LEAK


@wrong
def labels_of_the_other_half(grad: Any, p: Any, batch: Any) -> Any:
    x, y = batch
    turned = jnp.concatenate([y[HALF:], y[:HALF]])  # LEAK
    return grad(p, (x, turned))


@wrong
def relative_to_the_first(grad: Any, p: Any, batch: Any) -> Any:
    x, y = batch
    return grad(p, (x - x[0], y))  # LEAK


@wrong
def counted_neighbours(grad: Any, p: Any, batch: Any) -> Any:
    """Windows that overlap."""
    x, y = batch

    def add(k: Any, c: Any) -> Any:
        x2, y2 = piece((x, y), k, 2)  # LEAK
        return plus(c, grad(p, (x2.sum(0)[None], y2[:1])))

    return over(BATCH, lax.fori_loop(0, BATCH - 1, add, nothing(p)))


@wrong
def counted_with_labels_of_others(grad: Any, p: Any, batch: Any) -> Any:
    x, y = batch

    def add(k: Any, c: Any) -> Any:
        return plus(c, grad(p, (x[k][None], y[k + 1][None])))  # LEAK

    return over(BATCH, lax.fori_loop(0, BATCH - 1, add, nothing(p)))


@wrong
def counted_with_what_came_before(grad: Any, p: Any, batch: Any) -> Any:
    def add(k: Any, c: Any) -> Any:
        moved = jax.tree.map(lambda p, c: p - 0.1 * c, p, c)  # LEAK
        return plus(c, grad(moved, piece(batch, k, 1)))

    return over(BATCH, lax.fori_loop(0, BATCH, add, nothing(p)))


@wrong
def ghost_statistics(grad: Any, p: Any, batch: Any) -> Any:
    x, y = folded(batch, 2, HALF)
    x = x - x.mean(1, keepdims=True)  # LEAK
    return grad(p, (x.reshape(BATCH, -1), y.reshape(BATCH)))


@wrong
def scaled_by_the_other_half(grad: Any, p: Any, batch: Any) -> Any:
    x, y = batch
    return grad(p, (x[:HALF] / x[HALF:].max(), y[:HALF]))  # LEAK


@wrong
def an_example_forgets_the_others(grad: Any, p: Any, batch: Any) -> Any:
    def body(c: Any, e: Any) -> Any:
        keep = lambda new, old: jnp.where(counts(e)[0], new, old)  # noqa: E731  # LEAK
        return jax.tree.map(keep, grad(p, e), c)

    return over_examples(p, batch, body)


@wrong
def an_example_doubles_the_others(grad: Any, p: Any, batch: Any) -> Any:
    def body(c: Any, e: Any) -> Any:
        twice = lambda c: plus(c, c)  # noqa: E731
        return lax.cond(counts(e)[0], twice, lambda c: plus(c, grad(p, e)), c)  # LEAK

    return over_examples(p, batch, body)


@wrong
def an_example_swaps_the_sums(grad: Any, p: Any, batch: Any) -> Any:
    def body(c: Any, e: Any) -> Any:
        a, b = c
        a = plus(a, grad(p, alone(e)))
        swap = lambda a, b: (b, a)  # noqa: E731
        mine = counts(alone(e))[0]
        a, b = lax.cond(mine, swap, lambda a, b: (a, b), a, b)  # LEAK
        return (a, b), None

    return lax.scan(body, (nothing(p), nothing(p)), batch)[0][0]


@wrong
def the_last_example_decides_for_all(grad: Any, p: Any, batch: Any) -> Any:
    last = counts(batch)[-1]

    def body(c: Any, e: Any) -> Any:
        keep = lambda new, old: jnp.where(last, new, old)  # noqa: E731  # LEAK
        return jax.tree.map(keep, plus(c, grad(p, alone(e))), c)

    return over_examples(p, batch, body)


@wrong
def examples_decide_for_the_last(grad: Any, p: Any, batch: Any) -> Any:
    last = grad(p, cut(batch, BATCH - 1, BATCH))

    def body(c: Any, e: Any) -> Any:
        keep = lambda new, old: jnp.where(counts(alone(e))[0], new, old)  # noqa: E731  # LEAK
        return jax.tree.map(keep, plus(c, last), c)

    return over_examples(p, batch, body)


@wrong
def an_example_picks_one_of_two_sums(grad: Any, p: Any, batch: Any) -> Any:
    def body(c: Any, e: Any) -> Any:
        a, b = c
        keep = lambda x, y: jnp.where(counts(alone(e))[0], x, y)  # noqa: E731  # LEAK
        return (jax.tree.map(keep, a, b), plus(b, grad(p, alone(e)))), None

    return lax.scan(body, (nothing(p), nothing(p)), batch)[0][0]


@wrong
def the_sum_decides(grad: Any, p: Any, batch: Any) -> Any:
    def body(c: Any, e: Any) -> Any:
        small = jnp.sum(c[0]["b"]) < 1  # LEAK
        return lax.cond(small, lambda c: plus(c, grad(p, e)), lambda c: c, c)  # LEAK

    return over_examples(p, batch, body)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_neighbours(name: str) -> None:

    case, work = MODELS["mlp"](), WRONG[name]
    with pytest.raises(LeakError) as error:
        found(case, work, 1.0)
    source, first = inspect.getsourcelines(work)
    lines = [first + k for k, text in enumerate(source) if "# LEAK" in text]
    text = str(error.value)
    own = [f"test_dp_parts_of_batches.py:{k}:" in text for k in lines]
    # Where the loss meets what it must not, the line is that of the model.
    assert any(own) or "dp_models.py:" in text, text
