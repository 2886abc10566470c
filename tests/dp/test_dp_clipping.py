"""Clipped sums equal explicit per-example clipping, for models, optimisers, loops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dp_models import (
    BATCH,
    MODELS,
    Model,
    assert_close,
    clipped_gradient,
    cnn,
    middle_norm,
    mlp,
    regression,
    values,
)

from privjax.transforms.differentially_private import differentially_private


def gradient_step(model: Model) -> Callable[..., Any]:
    def step(params: Any, batch: Any) -> Any:
        return jax.grad(model.loss)(params, batch)

    return step


@pytest.mark.parametrize("name", MODELS)
def test_clipped_gradient(name: str) -> None:
    model = MODELS[name]()
    clip = middle_norm(model)
    private = differentially_private(
        gradient_step(model), clip_norm=clip, noise_multiplier=0
    )
    found = private(model.params, model.batch)
    assert_close(found, clipped_gradient(model, clip))
    assert jax.tree.structure(found) == jax.tree.structure(model.params)


OPTIMISERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1, weight_decay=0.01),
    "rmsprop": optax.rmsprop(0.1),
    "clipped_again": optax.chain(optax.clip_by_global_norm(0.01), optax.adam(0.1)),
    "schedule": optax.sgd(optax.exponential_decay(0.1, 10, 0.5)),
    "only_if_finite": optax.apply_if_finite(optax.sgd(0.1), 3),
    "every_second": optax.MultiSteps(optax.sgd(0.1), 2),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser_steps(name: str) -> None:
    """The gradients are released once, whatever the optimiser makes of them."""
    model, optimiser = mlp(), OPTIMISERS[name]
    clip = middle_norm(model)

    def update(params: Any, state: Any, gradient: Any) -> Any:
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def step(params: Any, state: Any, batch: Any) -> Any:
        return update(params, state, jax.grad(model.loss)(params, batch))

    private = differentially_private(step, clip_norm=clip, noise_multiplier=0)
    found = wanted = (model.params, optimiser.init(model.params))
    for _ in range(2):
        found = private(*found, model.batch)
        here = Model(wanted[0], model.batch, model.loss)
        wanted = jax.jit(update)(*wanted, clipped_gradient(here, clip))
    assert_close(found, wanted, 1e-4)  # Adam divides by small moments
    releases = private.releases(*found, model.batch)
    assert len(releases.protected) == len(jax.tree.leaves(model.params))


def test_penalty_on_the_weights_is_public() -> None:
    model = mlp()

    def penalty(params: Any) -> Any:
        return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))

    def step(params: Any, batch: Any) -> Any:
        loss = lambda p: model.loss(p, batch) + 0.5 * penalty(p)  # noqa: E731
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    private = differentially_private(step, clip_norm=0.3, noise_multiplier=0)
    wanted = jax.tree.map(
        lambda p, g: p - 0.1 * (g + p), model.params, clipped_gradient(model, 0.3)
    )
    assert_close(private(model.params, model.batch), wanted)


def accumulate(parts: int) -> Callable[[Model], Callable[..., Any]]:
    """Gradients of micro-batches, added up in a scan that starts with zeros."""

    def make(model: Model) -> Callable[..., Any]:
        def step(params: Any, batch: Any) -> Any:
            pieces = jax.tree.map(
                lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch
            )

            def add(total: Any, piece: Any) -> Any:
                gradient = jax.grad(model.loss)(params, piece)
                return jax.tree.map(jnp.add, total, gradient), None

            zeros = jax.tree.map(jnp.zeros_like, params)
            total, _ = jax.lax.scan(add, zeros, pieces)
            return jax.tree.map(lambda g: g / parts, total)

        return step

    return make


def one_by_one(model: Model) -> Callable[..., Any]:
    """A scan over single examples."""

    def step(params: Any, batch: Any) -> Any:
        def add(total: Any, example: Any) -> Any:
            alone = jax.tree.map(lambda x: x[None], example)
            gradient = jax.grad(model.loss)(params, alone)
            return jax.tree.map(jnp.add, total, gradient), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        total, _ = jax.lax.scan(add, zeros, batch)
        return jax.tree.map(lambda g: g / BATCH, total)

    return step


def explicit_gradients(model: Model) -> Callable[..., Any]:
    """Per-example gradients, made by the user and then averaged."""

    def step(params: Any, batch: Any) -> Any:
        def one(example: Any) -> Any:
            return jax.grad(model.loss)(
                params, jax.tree.map(lambda x: x[None], example)
            )

        return jax.tree.map(lambda g: g.mean(0), jax.vmap(one)(batch))

    return step


def branching(model: Model) -> Callable[..., Any]:
    """A public choice between the gradient and nothing."""

    def step(params: Any, batch: Any, on: Any = True) -> Any:
        gradient = jax.grad(model.loss)(params, batch)
        return jax.lax.cond(
            on, lambda g: g, lambda g: jax.tree.map(jnp.zeros_like, g), gradient
        )

    return step


def decaying(model: Model) -> Callable[..., Any]:
    """A sum that a loop scales: it carries the contributions."""

    def step(params: Any, batch: Any) -> Any:
        gradient = jax.grad(model.loss)(params, batch)
        halve = lambda i, g: jax.tree.map(lambda x: 0.5 * x, g)  # noqa: E731
        return jax.lax.fori_loop(0, 3, halve, jax.tree.map(lambda x: 8 * x, gradient))

    return step


PROGRAMS = {
    "accumulate_2": accumulate(2),
    "accumulate_4": accumulate(4),
    "one_by_one": one_by_one,
    "explicit_gradients": explicit_gradients,
    "branching": branching,
    "decaying": decaying,
    "jitted": lambda model: jax.jit(gradient_step(model)),
    "rematerialised": lambda model: gradient_step(
        model._replace(loss=jax.checkpoint(model.loss))
    ),
}


@pytest.mark.parametrize("make", [mlp, cnn], ids=["mlp", "cnn"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_ways_to_write_the_gradient(name: str, make: Callable[[], Model]) -> None:
    model = make()
    clip = middle_norm(model)
    private = differentially_private(
        PROGRAMS[name](model), clip_norm=clip, noise_multiplier=0
    )
    assert_close(private(model.params, model.batch), clipped_gradient(model, clip))


def test_denominator() -> None:
    """A loss that is a sum is clipped at the clip norm itself."""
    model = regression()
    clip = middle_norm(model)

    def step(params: Any, batch: Any) -> Any:
        return jax.grad(lambda p: BATCH * model.loss(p, batch))(params)

    private = differentially_private(
        step, clip_norm=clip, noise_multiplier=0, denominator=1
    )
    wanted = jax.tree.map(lambda g: BATCH * g, clipped_gradient(model, clip))
    assert_close(private(model.params, model.batch), wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_unit_that_is_not_finite_counts_as_none(bad: float) -> None:
    model = mlp()
    x, y = model.batch
    private = differentially_private(
        gradient_step(model), clip_norm=0.5, noise_multiplier=0
    )
    found = private(model.params, (x.at[1].set(bad), y))
    kept = np.array([0, 2, 3])
    wanted = clipped_gradient(model, 0.5, (x[kept], y[kept]))
    assert_close(found, jax.tree.map(lambda g: g * 3 / 4, wanted))


@pytest.mark.parametrize("private", ["data", 1, ("x", "y"), -1])
def test_private_arguments(private: Any) -> None:
    """By name, by position, several; the other ones are public."""
    model = regression()

    def by_name(params: Any, data: Any, scale: Any = 1.0) -> Any:
        return jax.grad(lambda p: scale * model.loss(p, data))(params)

    def by_parts(params: Any, x: Any, y: Any) -> Any:
        return by_name(params, {"x": x, "y": y})

    def last(scale: Any, params: Any, data: Any) -> Any:
        return by_name(params, data, scale)

    x, y = model.batch["x"], model.batch["y"]
    calls = {
        "data": (by_name, (model.params, model.batch)),
        1: (by_name, (model.params, model.batch)),
        ("x", "y"): (by_parts, (model.params, x, y)),
        -1: (last, (1.0, model.params, model.batch)),
    }
    fun, args = calls[private]
    clipped = differentially_private(
        fun, private=private, clip_norm=0.5, noise_multiplier=0
    )
    assert_close(clipped(*args), clipped_gradient(model, 0.5))


def test_nothing_is_clipped_below_the_norm() -> None:
    model = mlp()
    private = differentially_private(
        gradient_step(model), clip_norm=1e6, noise_multiplier=0
    )
    plain = jax.grad(model.loss)(model.params, model.batch)
    assert_close(private(model.params, model.batch), plain)


def test_under_transformations() -> None:
    model = regression()
    private = differentially_private(
        gradient_step(model), clip_norm=0.5, noise_multiplier=0
    )
    wanted = clipped_gradient(model, 0.5)
    assert_close(jax.jit(private)(model.params, model.batch), wanted)
    models = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), model.params)
    mapped = jax.vmap(private, in_axes=(0, None))(models, model.batch)
    assert_close(jax.tree.map(lambda g: g[0], mapped), wanted)
    batches = jax.tree.map(lambda x: jnp.stack([x, x]), model.batch)
    _, scanned = jax.lax.scan(lambda p, b: (p, private(p, b)), model.params, batches)
    assert_close(jax.tree.map(lambda g: g[1], scanned), wanted)


def test_in_double_precision() -> None:
    model = mlp()
    with jax.enable_x64(True):
        wide = model._replace(
            params=jax.tree.map(lambda x: x.astype(jnp.float64), model.params),
            batch=(model.batch[0].astype(jnp.float64), model.batch[1]),
        )
        clip = middle_norm(wide)
        private = differentially_private(
            gradient_step(wide), clip_norm=clip, noise_multiplier=0
        )
        assert_close(
            private(wide.params, wide.batch), clipped_gradient(wide, clip), 1e-12
        )


def test_eager_calls_are_compiled_once() -> None:
    traces = 0

    def step(params: Any, batch: Any) -> Any:
        nonlocal traces
        traces += 1
        return params - jax.grad(lambda p: jnp.mean((batch @ p) ** 2))(params)

    private = differentially_private(step, noise_multiplier=0)
    for seed in range(3):
        private(values(3), values(BATCH, 3, seed=seed))
    assert traces == 1
    private(values(3), values(BATCH + 1, 3))
    assert traces == 2
