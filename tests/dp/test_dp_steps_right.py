"""Whole steps are accepted and, unclipped, do what they do without privacy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dp_models import BATCH
from jax import lax
from programs_wrong import BATCH_XY, PARAMS, each, good, sgd

from privjax.transforms.differentially_private import differentially_private

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

OPTIMISERS = {
    "weight decay": optax.adamw(1e-2, weight_decay=0.1),
    "signs": optax.lion(1e-2),
    "schedule": optax.sgd(optax.warmup_cosine_decay_schedule(0, 1, 2, 9), momentum=0.9),
    "clipped again": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-2)),
    "trust ratio": optax.lamb(1e-2),
    "factored": optax.adafactor(1e-2),
    "every second step": optax.MultiSteps(optax.adam(1e-2), 2),
    "only if finite": optax.apply_if_finite(optax.sgd(0.1), 3),
    "partitioned": optax.partition(
        {"x": optax.adam(0.1), "y": optax.set_to_zero()}, {"w": "x", "b": "y"}
    ),
    "orthogonal": optax.contrib.muon(1e-2),
    "free of a rate": optax.contrib.prodigy(1.0),
}

STEPS: dict[str, tuple[Callable[..., Any], Any]] = {}


def optimised(optimiser: Any) -> Callable[..., Any]:
    def step(state: Any, batch: Any) -> Any:
        params, memory = state
        updates, memory = optimiser.update(
            jax.grad(good)(params, batch), memory, params
        )
        return optax.apply_updates(params, updates), memory

    return step


for name, optimiser in OPTIMISERS.items():
    STEPS[name] = (optimised(optimiser), (PARAMS, optimiser.init(PARAMS)))


def step(state: Any = PARAMS) -> Callable[..., Any]:
    def add(fun: Callable[..., Any]) -> Callable[..., Any]:
        STEPS[fun.__name__] = (fun, state)
        return fun

    return add


@step((PARAMS, PARAMS))
def averaged_parameters(state: Any, batch: Any) -> Any:
    new = sgd(state[0], jax.grad(good)(state[0], batch))
    return new, jax.tree.map(lambda m, p: 0.9 * m + 0.1 * p, state[1], new)


@step((PARAMS, jnp.zeros(5)))
def average_of_the_inputs(state: Any, batch: Any) -> Any:
    """A statistic that nothing else uses: one more sum, clipped with the others."""
    new = sgd(state[0], jax.grad(good)(state[0], batch))
    return new, 0.9 * state[1] + 0.1 * batch[0].mean(0)


@step()
def accumulated(state: Any, batch: Any) -> Any:
    def add(total: Any, piece: Any) -> Any:
        return jax.tree.map(jnp.add, total, jax.grad(good)(state, piece)), None

    pieces = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
    total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, state), pieces)
    return sgd(state, jax.tree.map(lambda g: g / 2, total))


@step()
def pieces_side_by_side(state: Any, batch: Any) -> Any:
    pieces = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
    g = lax.map(lambda piece: jax.grad(good)(state, piece), pieces)
    return sgd(state, jax.tree.map(lambda g: g.mean(0), g))


@step()
def gradients_of_examples(state: Any, batch: Any) -> Any:
    """Clipped by the user already, one example at a time."""

    def add(total: Any, example: Any) -> Any:
        alone = jax.tree.map(lambda x: x[None], example)
        g = jax.grad(good)(state, alone)
        factor = jnp.minimum(1, 0.3 / optax.tree.norm(g))
        return jax.tree.map(lambda t, g: t + factor * g, total, g), None

    total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, state), batch)
    return sgd(state, jax.tree.map(lambda g: g / BATCH, total))


@step()
def curvature(state: Any, batch: Any) -> Any:
    """A Gauss-Newton matrix of the inputs is one more sum."""
    g = jax.grad(good)(state, batch)
    metric = batch[0].T @ batch[0] / BATCH + jnp.eye(5)
    return g | {"w": state["w"] - jnp.linalg.solve(metric, g["w"])}


@step()
def clusters(state: Any, batch: Any) -> Any:
    """A step of k-means: counts and sums of the clusters."""
    x, centres = batch[0], state["w"].T
    near = jnp.argmin(jnp.sum((x[:, None] - centres) ** 2, -1), 1)
    total = jax.ops.segment_sum(x, near, 3)
    count = jax.ops.segment_sum(jnp.ones(BATCH), near, 3)
    return {"w": (total / (1 + jnp.abs(count))[:, None]).T, "b": state["b"]}


@step()
def parts_of_parameters(state: Any, batch: Any) -> Any:
    """A slice from position 0 of something public is not zero."""
    g = jax.grad(good)(state, batch)
    first = lambda x: lax.dynamic_slice(x, (0,), (2,))  # noqa: E731
    b = jnp.concatenate([first(state["b"]) - first(g["b"]), state["b"][2:]])
    return {"w": state["w"] - g["w"], "b": b}


@step()
def weights_of_each_example(state: Any, batch: Any) -> Any:
    """An example's weight follows from its own loss."""

    def loss(p: Any) -> Any:
        losses = each(p, batch)
        return jnp.mean(lax.stop_gradient(1 - jnp.exp(-losses)) * losses)

    return sgd(state, jax.grad(loss)(state))


@pytest.mark.parametrize("name", STEPS)
def test_the_same_without_clipping(name: str) -> None:
    fun, state = STEPS[name]
    private = differentially_private(
        fun, private="batch", clip_norm=1e6, noise_multiplier=0
    )
    found = jax.jit(private, compiler_options=QUICK)(state, BATCH_XY)
    wanted = jax.jit(fun, compiler_options=QUICK)(state, BATCH_XY)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
