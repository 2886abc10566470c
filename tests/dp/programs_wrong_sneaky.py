"""Steps that leak around the outputs; `# LEAK` marks the statement.

Mutable arrays, calls of the host that data decide on, sums used inside of nested control
flow, and units that choose among sums over all of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from dp_models import BATCH, apply
from jax import lax
from programs_wrong import each, good, sgd

SNEAKY: list[Callable[..., Any]] = []

OUTSIDE = jax.new_ref(jnp.zeros(()))


def step(fun: Callable[..., Any]) -> Callable[..., Any]:
    SNEAKY.append(fun)
    return fun


def new(params: Any, batch: Any) -> Any:
    return sgd(params, jax.grad(good)(params, batch))


# -- mutable arrays -----------------------------------------------------------------


@step
def loss_in_a_closed_over_array(params: Any, batch: Any) -> Any:
    OUTSIDE[...] = good(params, batch)  # LEAK
    return new(params, batch)


@step
def loss_through_an_array(params: Any, batch: Any) -> Any:
    kept = jax.new_ref(jnp.zeros(()))
    kept[...] = good(params, batch)  # LEAK
    return new(params, batch), kept[...]


@step
def total_in_an_array(params: Any, batch: Any) -> Any:
    """The batch's features are added to an array that scales the gradient."""
    total = jax.new_ref(jnp.zeros(5))
    total[...] += batch[0].sum(0)  # LEAK
    g = jax.grad(good)(params, batch)
    return {"w": params["w"] - g["w"] * total[...][:, None], "b": params["b"]}


@step
def examples_in_an_array(params: Any, batch: Any) -> Any:
    def one(x: Any) -> Any:
        OUTSIDE[...] = x[0]  # LEAK
        return x

    return new(params, (lax.map(one, batch[0]), batch[1]))


@step
def place_in_an_array(params: Any, batch: Any) -> Any:
    seen = jax.new_ref(jnp.zeros(3))
    seen[batch[1][0]] = 1.0  # LEAK
    return new(params, batch), seen[...]


@step
def branch_that_writes(params: Any, batch: Any) -> Any:
    def write() -> None:
        OUTSIDE[...] = 1.0

    lax.cond(batch[0].sum() > 0, write, lambda: None)  # LEAK
    return new(params, batch)


@step
def gradient_through_an_array(params: Any, batch: Any) -> Any:
    """A second round over the units that no longer looks like one."""
    kept = jax.new_ref(jnp.zeros(()))
    kept[...] = optax.tree.norm(jax.grad(good)(params, batch))  # LEAK
    return new(params, (batch[0] * kept[...], batch[1]))


@step
def branch_of_the_gradient_that_writes(params: Any, batch: Any) -> Any:
    kept = jax.new_ref(jnp.zeros(()))
    g = jax.grad(good)(params, batch)

    def write() -> None:
        kept[...] = 1.0

    lax.cond(g["b"][0] > 0, write, lambda: None)  # LEAK
    return sgd(params, g), new(params, (batch[0] * kept[...], batch[1]))


# -- the host sees whether, or how often, something runs ------------------------------


@step
def print_of_single_examples(params: Any, batch: Any) -> Any:
    def one(x: Any) -> Any:
        lax.cond(x[0] > 0, lambda: jax.debug.print("high"), lambda: None)  # LEAK
        return x

    return new(params, (lax.map(one, batch[0]), batch[1]))


@step
def prints_while_an_example_is_large(params: Any, batch: Any) -> Any:
    def one(x: Any) -> Any:
        def halved(x: Any) -> Any:
            jax.debug.print("large")
            return x / 2

        return lax.while_loop(lambda x: x.max() > 1, halved, x)  # LEAK

    return new(params, (lax.map(one, batch[0]), batch[1]))


@step
def host_called_for_some_examples(params: Any, batch: Any) -> Any:
    """A pure callback has no effect by JAX's account."""
    shape = jax.ShapeDtypeStruct((), jnp.float32)

    def one(x: Any) -> Any:
        call = lambda: jax.pure_callback(lambda: np.float32(2), shape)  # noqa: E731
        return x * lax.cond(x[0] > 0, call, lambda: jnp.float32(1))  # LEAK

    return new(params, (lax.map(one, batch[0]), batch[1]))


@step
def as_many_prints_as_labels(params: Any, batch: Any) -> Any:
    def show(i: Any, c: Any) -> Any:
        jax.debug.print("label")
        return c

    lax.fori_loop(0, batch[1].sum(), show, 0)  # LEAK
    return new(params, batch)


# -- sums over units inside of nested control flow --------------------------------------


@step
def nested_scan(params: Any, batch: Any) -> Any:
    total = batch[0].sum(0)

    def outer(c: Any, _: Any) -> Any:
        squashed = lambda c, _: (jnp.tanh(c), None)  # noqa: E731
        return c + lax.scan(squashed, total, None, length=2)[0], None  # LEAK

    return new(params, batch), lax.scan(outer, jnp.zeros(5), None, length=2)[0]  # LEAK


@step
def nested_branch(params: Any, batch: Any) -> Any:
    def body(c: Any, _: Any) -> Any:
        total = batch[0].sum()
        high = params["b"][0] > 0
        return c + lax.cond(high, lambda: jnp.exp(total), lambda: 2.0), None  # LEAK

    return new(params, batch), lax.scan(body, 0.0, None, length=2)[0]


@step
def nested_loop_in_the_state(params: Any, batch: Any) -> Any:
    def body(c: Any, _: Any) -> Any:
        total = batch[0].sum(0)
        square = lambda s: (s[0] + 1, s[1] ** 2)  # noqa: E731  # LEAK
        return c + lax.while_loop(lambda s: s[0] < 2, square, (0, total))[1], None

    c = lax.scan(body, jnp.zeros(5), None, length=2)[0]  # LEAK
    return {"w": params["w"] - c[:, None], "b": params["b"]}


# -- one unit chooses what becomes of the sum over others ---------------------------------


def over_examples(params: Any, batch: Any, body: Callable[..., Any]) -> Any:
    c, _ = lax.scan(lambda c, x: (body(c, x), None), jnp.zeros(5), batch[0])
    return {"w": params["w"] - c[:, None], "b": params["b"]}


@step
def sum_reset_by_an_example(params: Any, batch: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return lax.cond(x[0] > 0, lambda c: 0 * c, lambda c: c + x, c)  # LEAK

    return over_examples(params, batch, body)


@step
def sum_doubled_by_an_example(params: Any, batch: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return lax.cond(x[0] > 0, lambda c: 2 * c, lambda c: c, c + x)  # LEAK

    return over_examples(params, batch, body)


@step
def sum_doubled_as_often_as_an_example_says(params: Any, batch: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        times = (x[0] > 0).astype(jnp.int32)
        more = lambda s: s[0] < times  # noqa: E731
        twice = lambda s: (s[0] + 1, 2 * s[1])  # noqa: E731
        return lax.while_loop(more, twice, (0, c + x))[1]  # LEAK

    return over_examples(params, batch, body)


@step
def sum_kept_by_an_example(params: Any, batch: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return jnp.where(x[0] > 0, c, x)  # LEAK

    return over_examples(params, batch, body)


@step
def running_sums(params: Any, batch: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return c + x, c

    return new(params, batch), lax.scan(body, jnp.zeros(5), batch[0])[1]  # LEAK


@step
def faded_sum(params: Any, batch: Any) -> Any:
    """All but the last example are gone from it."""
    body = lambda c, x: (1e-6 * c + x, None)  # noqa: E731
    return new(params, batch), lax.scan(body, jnp.zeros(5), batch[0])[0]  # LEAK


# -- others -----------------------------------------------------------------------------


@step
def seen_labels(params: Any, batch: Any) -> Any:
    return new(params, batch), jnp.zeros(3, bool).at[batch[1]].set(True)  # LEAK


@step
def only_touched_rows(params: Any, batch: Any) -> Any:
    g = jax.grad(good)(params, batch)
    seen = jnp.zeros(3, bool).at[batch[1]].set(True)  # LEAK
    return {"w": jnp.where(seen, params["w"] - g["w"], params["w"]), "b": params["b"]}


@step
def memory_of_features(params: Any, batch: Any) -> Any:
    return new(params, batch), jnp.zeros((3, 5)).at[batch[1]].set(batch[0])  # LEAK


@step
def counted_by_the_optimiser(params: Any, batch: Any) -> Any:
    """The loss decides a counter of the optimiser's state."""
    value, g = jax.value_and_grad(good)(params, batch)
    return sgd(params, g), jnp.zeros((), jnp.int32) + (value > 1)  # LEAK


@step
def key_from_the_labels(params: Any, batch: Any) -> Any:
    noise = jax.random.normal(jax.random.key(batch[1].sum()), (5, 3))  # LEAK
    n = new(params, batch)
    return n | {"w": n["w"] + noise}


@step
def natural_gradient_after_the_step(params: Any, batch: Any) -> Any:
    n = new(params, batch)
    curvature = jax.hessian(lambda b: good({"w": n["w"], "b": b}, batch))(n["b"])
    return n | {"b": n["b"] - jnp.linalg.solve(curvature + jnp.eye(3), n["b"])}


natural_gradient_after_the_step.lines = apply  # type: ignore[attr-defined]


@step
def weighted_by_softmax_of_losses(params: Any, batch: Any) -> Any:
    losses, pull = jax.vjp(lambda p: each(p, batch), params)
    return sgd(params, pull(jax.nn.softmax(losses))[0])  # LEAK


@step
def found_by_root_finding(params: Any, batch: Any) -> Any:
    mean = batch[0].mean()
    root = lax.custom_root(  # LEAK, as JAX 0.11 has it
        lambda x: x**3 - mean,  # LEAK
        1.0,
        lambda f, x: x - f(x),
        lambda g, y: y / g(1.0),
    )
    return new(params, batch), root


@step
def halves_of_the_batch(params: Any, batch: Any) -> Any:
    """Mixed-up halves: two examples meet in every row."""
    half = BATCH // 2
    x = batch[0][:half] * batch[0][half:]  # LEAK
    return new(params, (x, batch[1][:half]))
