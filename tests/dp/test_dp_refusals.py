"""Programs that would let out more than clipped, noised sums are refused, with a line."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dp_models import BATCH, apply, cross_entropy, dense, labels, values
from jax import lax

from privjax.core.markers import declassify_p
from privjax.errors import InputError, LeakError, PrivacyError, RandomKeyError
from privjax.prg.keys import insecure_key
from privjax.transforms.differentially_private import differentially_private

PARAMS = dense(5, 3)
BATCH_XY = (values(BATCH, 5), labels(3))


def descend(params: Any, loss: Callable[[Any], Any]) -> Any:
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))


def with_loss(loss: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def step(params: Any, batch: Any) -> Any:
        return descend(params, lambda p: loss(p, batch))

    return step


# -- losses in which examples interact ------------------------------------------


def batch_norm(p: Any, batch: Any) -> Any:
    x, y = batch
    h = apply(p, x)
    h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)  # LEAK
    return cross_entropy(h, y)


def centred(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x - x.mean(0)), y)  # LEAK


def in_batch_negatives(p: Any, batch: Any) -> Any:
    x, _ = batch
    h = apply(p, x)
    return cross_entropy(h @ h.T, jnp.arange(len(x)))  # LEAK


def softmax_over_batch(p: Any, batch: Any) -> Any:
    x, _ = batch
    return jnp.sum(jax.nn.log_softmax(apply(p, x), axis=0))  # LEAK


def sorted_losses(p: Any, batch: Any) -> Any:
    x, y = batch
    each = optax.softmax_cross_entropy_with_integer_labels(apply(p, x), y)
    return jnp.sort(each)[:2].mean()  # LEAK


def worst_example(p: Any, batch: Any) -> Any:
    x, y = batch
    each = optax.softmax_cross_entropy_with_integer_labels(apply(p, x), y)
    return jnp.max(each)  # LEAK


def neighbours(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x + jnp.roll(x, 1, axis=0)), y)  # LEAK


def reversed_batch(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x), y[::-1])  # LEAK


def root_of_the_mean(p: Any, batch: Any) -> Any:
    x, y = batch
    return jnp.sqrt(jnp.mean((apply(p, x).sum(1) - y) ** 2))  # LEAK


def masked_mean(p: Any, batch: Any) -> Any:
    x, y = batch
    mask = (y > 0).astype(jnp.float32)
    each = optax.softmax_cross_entropy_with_integer_labels(apply(p, x), y)
    return jnp.sum(mask * each) / jnp.sum(mask)  # LEAK


def running_state(p: Any, batch: Any) -> Any:
    x, y = batch

    def one(carry: Any, xi: Any) -> Any:
        h = jnp.tanh(apply(p, xi) + carry)  # LEAK
        return h, h

    _, h = lax.scan(one, jnp.zeros(3), x)
    return cross_entropy(h, y)


def data_dependent_branch(p: Any, batch: Any) -> Any:
    x, y = batch
    h = lax.cond(x.sum() > 0, lambda: apply(p, x), lambda: -apply(p, x))  # LEAK
    return cross_entropy(h, y)


def outer_products(p: Any, batch: Any) -> Any:
    x, _ = batch
    h = apply(p, x)
    return jnp.mean((h[:, None] - h[None, :]) ** 2)  # LEAK


def attention_across(p: Any, batch: Any) -> Any:
    x, y = batch
    h = apply(p, x)
    a = jax.nn.softmax(jnp.einsum("bi,ci->bc", h, h))  # LEAK
    return cross_entropy(a @ h, y)


def looked_up(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x)[y], y)  # LEAK


LOSSES = [
    batch_norm,
    centred,
    in_batch_negatives,
    softmax_over_batch,
    sorted_losses,
    worst_example,
    neighbours,
    reversed_batch,
    root_of_the_mean,
    masked_mean,
    running_state,
    data_dependent_branch,
    outer_products,
    attention_across,
    looked_up,
]


def line_of(fun: Callable[..., Any], mark: str = "# LEAK") -> str:
    source, first = inspect.getsourcelines(fun)
    offset = next(i for i, text in enumerate(source) if mark in text)
    return f"test_dp_refusals.py:{first + offset}"


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_interacting_examples(loss: Callable[..., Any]) -> None:
    private = differentially_private(with_loss(loss), noise_multiplier=0)
    with pytest.raises(LeakError) as error:
        private(PARAMS, BATCH_XY)
    assert line_of(loss) in str(error.value)
    # Dropping other outputs is no way out: these are the new parameters themselves.
    private = differentially_private(
        with_loss(loss), noise_multiplier=0, outputs_unreleased="drop"
    )
    with pytest.raises(LeakError):
        private(PARAMS, BATCH_XY)


# -- other results --------------------------------------------------------------


def good_loss(p: Any, batch: Any) -> Any:
    return cross_entropy(apply(p, batch[0]), batch[1])


def returned_loss(params: Any, batch: Any) -> Any:
    loss, g = jax.value_and_grad(good_loss)(params, batch)  # LEAK (from good_loss)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, g), loss


def accuracy(params: Any, batch: Any) -> Any:
    new = descend(params, lambda p: good_loss(p, batch))
    hits = jnp.argmax(apply(params, batch[0]), 1) == batch[1]
    return new, jnp.mean(hits)  # LEAK


def predictions(params: Any, batch: Any) -> Any:
    new = descend(params, lambda p: good_loss(p, batch))
    return new, apply(params, batch[0])


def raw_gradient(params: Any, batch: Any) -> Any:
    g = jax.grad(good_loss)(params, batch)
    moments = jax.tree.map(lambda x: x.sum(), g)
    again = jax.grad(lambda p: jnp.sum(apply(p, batch[0])))(params)
    return jax.tree.map(lambda p, g: p - g, params, g), moments, again["w"]


def largest_norm(params: Any, batch: Any) -> Any:
    new = descend(params, lambda p: good_loss(p, batch))
    return new, jnp.max(jnp.linalg.norm(batch[0], axis=1))  # LEAK


def loss_in_the_state(params: Any, batch: Any) -> Any:
    loss, g = jax.value_and_grad(good_loss)(params, batch)
    return jax.tree.map(lambda p, g: p - 0.1 * g * loss, params, g), loss


RESULTS = [returned_loss, accuracy, predictions, raw_gradient, largest_norm]


@pytest.mark.parametrize("step", RESULTS, ids=lambda f: f.__name__)
def test_other_results(step: Callable[..., Any]) -> None:
    with pytest.raises(LeakError, match="test_dp_refusals.py|dp_models.py"):
        differentially_private(step, noise_multiplier=0)(PARAMS, BATCH_XY)
    dropped = differentially_private(
        step, noise_multiplier=0, outputs_unreleased="drop"
    )
    new, *rest = dropped(PARAMS, BATCH_XY)
    alone = differentially_private(
        lambda params, batch: step(params, batch)[0], noise_multiplier=0
    )
    wanted = alone(PARAMS, BATCH_XY)
    assert all(map(np.allclose, jax.tree.leaves(new), jax.tree.leaves(wanted)))
    plain = step(PARAMS, BATCH_XY)
    assert jax.tree.structure((new, *rest)) == jax.tree.structure(plain)
    assert all(np.isnan(x).all() for x in jax.tree.leaves(rest[-1]))


def test_the_line_of_a_returned_loss() -> None:
    with pytest.raises(LeakError) as error:
        differentially_private(accuracy, noise_multiplier=0)(PARAMS, BATCH_XY)
    assert line_of(accuracy) in str(error.value)
    assert "result[1]" in str(error.value)


def test_results_that_follow_from_the_release() -> None:
    """The norm of the noised gradient, a counter, a public input."""

    def step(params: Any, count: Any, batch: Any) -> Any:
        g = jax.grad(good_loss)(params, batch)
        new = jax.tree.map(lambda p, g: p - 0.1 * g, params, g)
        return new, count + 1, optax.tree.norm(g), params["b"].sum()

    private = differentially_private(step, clip_norm=0.1, noise_multiplier=0)
    _, count, norm, total = private(PARAMS, 3, BATCH_XY)
    assert count == 4 and norm <= 0.1 and total == PARAMS["b"].sum()


def test_declassified() -> None:
    def step(params: Any, batch: Any) -> Any:
        loss, g = jax.value_and_grad(good_loss)(params, batch)
        loss = declassify_p.bind(loss, why="the loss is published anyway")
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, g), loss

    private = differentially_private(step, noise_multiplier=0)
    _, loss = private(PARAMS, BATCH_XY)
    assert np.isclose(loss, good_loss(PARAMS, BATCH_XY))
    (mark,) = private.releases(PARAMS, BATCH_XY).declassified
    assert "published anyway" in mark and "test_dp_refusals.py" in mark


@pytest.mark.parametrize(
    "callback",
    [
        lambda x: jax.debug.print("{}", x),
        lambda x: jax.debug.callback(lambda v: None, x),
        lambda x: jax.experimental.io_callback(lambda v: None, None, x),
    ],
    ids=["print", "callback", "io_callback"],
)
def test_private_values_for_the_host(callback: Callable[..., Any]) -> None:
    def step(params: Any, batch: Any) -> Any:
        callback(batch[0].mean())  # LEAK
        return descend(params, lambda p: good_loss(p, batch))

    def public(params: Any, batch: Any) -> Any:
        callback(params["b"].mean())
        return descend(params, lambda p: good_loss(p, batch))

    with pytest.raises(LeakError) as error:
        differentially_private(step, noise_multiplier=0)(PARAMS, BATCH_XY)
    assert "test_dp_refusals.py" in str(error.value)
    differentially_private(public, noise_multiplier=0)(PARAMS, BATCH_XY)


# -- calls that do not fit ------------------------------------------------------


def good_step(params: Any, batch: Any) -> Any:
    return descend(params, lambda p: good_loss(p, batch))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"private": "data"}, "no argument 'data'"),
        ({"private": 5}, "no argument 5"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": float("nan")}, "clip_norm"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"denominator": 0}, "denominator"),
        ({"outputs_unreleased": "ignore"}, "outputs_unreleased"),
    ],
    ids=lambda x: str(x),
)
def test_bad_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        differentially_private(good_step, **options)


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ((values(4, 5), labels(3)[:3]), "different numbers of units"),
        ((values(0, 5), jnp.zeros(0, int)), "no units"),
        ((values(4, 5), jnp.zeros(())), "no axis of units"),
        ((), "no arrays"),
    ],
    ids=["sizes", "empty", "scalar", "nothing"],
)
def test_bad_batches(batch: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        differentially_private(good_step, noise_multiplier=0)(PARAMS, batch)


def test_result_without_state() -> None:
    with pytest.raises(LeakError, match="protected="):
        differentially_private(good_loss, private=1, noise_multiplier=0)(
            PARAMS, BATCH_XY
        )
    for protected in ("all", (0,), 0):
        step = differentially_private(
            lambda p, batch: (good_loss(p, batch),),
            noise_multiplier=0,
            protected=protected,
        )
        (clipped,) = step(PARAMS, BATCH_XY)
        assert clipped < good_loss(PARAMS, BATCH_XY)
    with pytest.raises(InputError, match="no part 'x'"):
        differentially_private(good_step, protected="x", noise_multiplier=0)(
            PARAMS, BATCH_XY
        )


def test_integer_sums() -> None:
    def count(total: Any, batch: Any) -> Any:
        return total + (batch > 0).sum(0)

    with pytest.raises(LeakError, match="int32"):
        differentially_private(count, noise_multiplier=0)(
            jnp.zeros(3, jnp.int32), values(4, 3)
        )


def test_python_branch_on_private_data() -> None:
    def step(params: Any, batch: Any) -> Any:
        if batch[0].sum() > 0:
            return params
        return descend(params, lambda p: good_loss(p, batch))

    with pytest.raises(PrivacyError, match="test_dp_refusals.py"):
        differentially_private(step, noise_multiplier=0)(PARAMS, BATCH_XY)


def test_differentiating_the_result() -> None:
    private = differentially_private(good_step, noise_multiplier=1.0)
    with pytest.raises(PrivacyError):
        jax.grad(lambda p, k: private(p, BATCH_XY, key=k)["b"].sum())(
            PARAMS, insecure_key(0)
        )


def test_missing_keys() -> None:
    private = differentially_private(good_step, noise_multiplier=1.0)
    with pytest.raises(RandomKeyError, match="key="):
        jax.jit(private)(PARAMS, BATCH_XY)
    with pytest.raises(RandomKeyError, match="constant"):
        key = insecure_key(0)
        jax.jit(lambda p, b: private(p, b, key=key))(PARAMS, BATCH_XY)
    with pytest.raises(RandomKeyError):
        private(PARAMS, BATCH_XY, key=jax.random.key(0))
