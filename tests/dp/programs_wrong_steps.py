"""Whole steps that let out more than new parameters; `# LEAK` marks the statement."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from dp_models import apply
from jax import lax
from programs_wrong import each, good, sgd

STEPS: list[Callable[..., Any]] = []


def step(fun: Callable[..., Any]) -> Callable[..., Any]:
    STEPS.append(fun)
    return fun


@step
def returned_loss(params: Any, batch: Any) -> Any:
    value, g = jax.value_and_grad(good)(params, batch)
    return sgd(params, g), value


returned_loss.lines = good  # type: ignore[attr-defined]


@step
def accuracy(params: Any, batch: Any) -> Any:
    hits = jnp.argmax(apply(params, batch[0]), 1) == batch[1]
    return sgd(params, jax.grad(good)(params, batch)), jnp.mean(hits)  # LEAK


@step
def auxiliary_output(params: Any, batch: Any) -> Any:
    def with_logits(p: Any) -> Any:
        logits = apply(p, batch[0])
        return good(p, batch), logits

    g, logits = jax.grad(with_logits, has_aux=True)(params)
    return sgd(params, g), jnp.exp(logits)  # LEAK


@step
def predictions(params: Any, batch: Any) -> Any:
    new = sgd(params, jax.grad(good)(params, batch))
    return new, jax.nn.softmax(apply(params, batch[0]))  # LEAK


@step
def losses_of_examples(params: Any, batch: Any) -> Any:
    new = sgd(params, jax.grad(good)(params, batch))
    return new, jnp.square(each(params, batch))  # LEAK


@step
def mean_gradient_besides(params: Any, batch: Any) -> Any:
    """A second gradient that is not part of the new state."""
    g = jax.grad(good)(params, batch)
    h = jax.grad(lambda p: jnp.mean(jnp.sin(apply(p, batch[0]))))(params)
    return sgd(params, g), jnp.sum(h["w"])  # LEAK


@step
def logged_norms(params: Any, batch: Any) -> Any:
    """Norms of the examples' gradients."""
    one = lambda x, y: optax.tree.norm(jax.grad(good)(params, (x[None], y[None])))  # noqa: E731
    norms = jax.vmap(one)(*batch)
    return sgd(params, jax.grad(good)(params, batch)), jnp.max(norms)  # LEAK


@step
def clipped_fraction(params: Any, batch: Any) -> Any:
    one = lambda x, y: optax.tree.norm(jax.grad(good)(params, (x[None], y[None])))  # noqa: E731
    clipped = jax.vmap(one)(*batch) > 1
    return sgd(params, jax.grad(good)(params, batch)), jnp.mean(clipped)  # LEAK


@step
def early_stopping(params: Any, batch: Any) -> Any:
    """Steps until the raw loss is low."""

    def body(p: Any) -> Any:
        return sgd(p, jax.grad(good)(p, batch))

    return lax.while_loop(lambda p: good(p, batch) > 0.5, body, params)  # LEAK


@step
def kept_if_better(params: Any, batch: Any) -> Any:
    new = sgd(params, jax.grad(good)(params, batch))
    better = good(new, batch) < good(params, batch)
    return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, params)


kept_if_better.lines = apply  # type: ignore[attr-defined]


@step
def line_search(params: Any, batch: Any) -> Any:
    g = jax.grad(good)(params, batch)
    rates = jnp.array([0.1, 1.0])
    tries = jax.vmap(
        lambda r: good(jax.tree.map(lambda p, g: p - r * g, params, g), batch)
    )
    best = rates[jnp.argmin(tries(rates))]
    return jax.tree.map(lambda p, g: p - best * g, params, g)


line_search.lines = apply  # type: ignore[attr-defined]


@step
def rate_from_the_loss(params: Any, batch: Any) -> Any:
    """A step size that follows the loss of the same batch."""
    value, g = jax.value_and_grad(good)(params, batch)
    scale = jnp.where(value > 1, 0.1, 0.01)  # LEAK
    g = jax.grad(lambda p: scale * good(p, batch))(params)
    return sgd(params, g)


@step
def two_passes(params: Any, batch: Any) -> Any:
    """A second gradient at the parameters that the first one gave."""
    middle = sgd(params, jax.grad(good)(params, batch))
    return sgd(middle, jax.grad(good)(middle, batch))  # LEAK (from apply)


two_passes.lines = apply  # type: ignore[attr-defined]


@step
def sharpness_aware(params: Any, batch: Any) -> Any:
    g = jax.grad(good)(params, batch)
    norm = optax.tree.norm(g)
    there = jax.tree.map(lambda p, g: p + 0.05 * g / norm, params, g)
    return sgd(params, jax.grad(good)(there, batch))


sharpness_aware.lines = apply  # type: ignore[attr-defined]


@step
def epochs_in_a_scan(params: Any, batch: Any) -> Any:
    """Several steps on one batch, as one call."""

    def body(p: Any, _: Any) -> Any:
        return sgd(p, jax.grad(good)(p, batch)), None

    return lax.scan(body, params, None, length=3)[0]  # LEAK


@step
def example_by_example(params: Any, batch: Any) -> Any:
    """Plain online learning: each example sees what earlier ones did."""

    def body(p: Any, example: Any) -> Any:
        alone = jax.tree.map(lambda v: v[None], example)
        return sgd(p, jax.grad(good)(p, alone)), None

    return lax.scan(body, params, batch)[0]  # LEAK


@step
def divided_by_a_private_count(params: Any, batch: Any) -> Any:
    mask = (batch[1] > 0).astype(jnp.float32)
    g = jax.grad(lambda p: jnp.sum(mask * each(p, batch)))(params)
    g = jax.tree.map(lambda g: g / jnp.sum(mask), g)  # LEAK
    return sgd(params, g)


@step
def largest_feature(params: Any, batch: Any) -> Any:
    new = sgd(params, jax.grad(good)(params, batch))
    return new, jnp.max(jnp.linalg.norm(batch[0], axis=1))  # LEAK


@step
def raw_sum_in_the_state(params: Any, batch: Any) -> Any:
    """The batch's first example becomes part of the parameters."""
    g = jax.grad(good)(params, batch)
    return {
        "w": params["w"] - g["w"],
        "b": params["b"] - g["b"] * batch[0][0, 0],  # LEAK
    }


@step
def sign_of_every_gradient(params: Any, batch: Any) -> Any:
    """A vote of the examples, decided by the middle one."""
    one = lambda x, y: jax.grad(good)(params, (x[None], y[None]))  # noqa: E731
    g = jax.vmap(one)(*batch)
    g = jax.tree.map(lambda v: jnp.median(v, axis=0), g)  # LEAK
    return sgd(params, g)


@step
def printed(params: Any, batch: Any) -> Any:
    value, g = jax.value_and_grad(good)(params, batch)
    jax.debug.print("loss {}", value)  # LEAK
    return sgd(params, g)


@step
def printed_in_a_loop(params: Any, batch: Any) -> Any:
    def show(x: Any) -> Any:
        jax.debug.callback(lambda v: None, x)  # LEAK
        return x

    x = lax.map(show, batch[0])
    return sgd(params, jax.grad(good)(params, (x, batch[1])))


@step
def sent_to_the_host(params: Any, batch: Any) -> Any:
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    value = jax.pure_callback(lambda v: v, shape, batch[0].mean())  # LEAK
    return sgd(params, jax.grad(lambda p: value * good(p, batch))(params))


@step
def checked(params: Any, batch: Any) -> Any:
    """A counter of what the data look like, which no noise is added to."""
    new = sgd(params, jax.grad(good)(params, batch))
    return new, jnp.sum(jnp.isnan(batch[0]))  # LEAK


@step
def one_example_in_a_loop(params: Any, batch: Any) -> Any:
    """The carry keeps the last example that it has seen."""
    last, _ = lax.scan(lambda c, x: (x, None), jnp.zeros(5), batch[0])
    new = sgd(params, jax.grad(good)(params, batch))
    return new, jnp.tanh(last)  # LEAK


@step
def branch_with_a_print(params: Any, batch: Any) -> Any:
    g = jax.grad(good)(params, batch)
    say = lambda: jax.debug.print("high")  # noqa: E731
    lax.cond(batch[0].sum() > 0, say, lambda: None)  # LEAK
    return sgd(params, g)
