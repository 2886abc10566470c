"""Units that are left out of large sums, which are not masked unless they have to be."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_models import (
    Model,
    apply,
    assert_close,
    clipped_gradient,
    cross_entropy,
    dense,
    labels,
    middle_norm,
    values,
)

import privjax
from privjax import differentially_private
from privjax.passes.dp import left_out

_WIDE = (
    20001  # for four examples more than `left_out._LARGE`, and no multiple of pieces
)


def _inputs() -> Model:
    loss = lambda p, batch: cross_entropy(apply(p, batch[0]), batch[1])  # noqa: E731
    return Model(dense(_WIDE, 3), (values(4, _WIDE), labels(3)), loss)


def _outputs() -> Model:
    def loss(p: Any, batch: Any) -> Any:
        return jnp.mean(jnp.sum(jnp.sin(apply(p, batch[0])) ** 2, axis=1))

    return Model(dense(3, _WIDE), (values(4, 3), labels(3)), loss)


def _groups() -> Model:
    def loss(p: Any, batch: Any) -> Any:
        h = jnp.einsum("bgi,gij->bgj", batch[0], p)
        return jnp.mean(jnp.sum(jnp.sin(h) ** 2, axis=(1, 2)))

    params = values(2, _WIDE, 3, scale=_WIDE**-0.5)
    return Model(params, (values(4, 2, _WIDE), labels(3)), loss)


def _positions() -> Model:
    def loss(p: Any, batch: Any) -> Any:
        return jnp.mean(jnp.sum(jnp.sin(apply(p, batch[0])) ** 2, axis=(1, 2)))

    return Model(dense(_WIDE, 3), (values(4, 2, _WIDE), labels(3)), loss)


MODELS: dict[str, Callable[[], Model]] = {
    "inputs": _inputs,
    "outputs": _outputs,
    "groups": _groups,
    "positions": _positions,
}


def _private(model: Model, clip: float) -> Callable[..., Any]:
    return differentially_private(
        lambda params, batch: jax.grad(model.loss)(params, batch),
        clip_norm=clip,
        noise_multiplier=0,
    )


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf, 1e30])
@pytest.mark.parametrize("name", MODELS)
def test_units_that_are_not_finite_count_as_none(name: str, bad: float) -> None:
    model = MODELS[name]()
    x, y = model.batch
    assert x.size > left_out._LARGE or name == "outputs"
    clip = middle_norm(model)
    private = _private(model, clip)
    found = private(model.params, (x.at[1].set(bad), y))
    finite = name == "outputs" and bad == 1e30  # whose sine and cosine are
    kept = np.array([0, 1, 2, 3] if bad == 0.5 or finite else [0, 2, 3])
    batch = (x.at[1].set(bad)[kept], y[kept])
    wanted = clipped_gradient(model, clip, batch)
    assert_close(found, jax.tree.map(lambda g: g * len(kept) / 4, wanted))


def test_lanes_of_which_one_has_such_a_unit() -> None:
    model = _inputs()
    x, y = model.batch
    private = _private(model, 0.5)
    lanes = jnp.stack([x, x.at[2].set(jnp.inf)])
    found = jax.vmap(lambda x: private(model.params, (x, y)))(lanes)
    for lane in range(2):
        alone = private(model.params, (lanes[lane], y))
        assert_close(jax.tree.map(lambda g, lane=lane: g[lane], found), alone)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_temporary_memory(noise: float) -> None:
    """At most 1.5 times plain SGD's, on MLP 784-512-256-10 at a batch of 256."""
    widths = (784, 512, 256, 10)
    params = [dense(m, n) for m, n in zip(widths[:-1], widths[1:], strict=True)]
    batch = values(256, 784), labels(10, 256)

    def step(params: Any, batch: Any) -> Any:
        def loss(p: Any) -> Any:
            x, y = batch
            for layer in p[:-1]:
                x = jax.nn.relu(apply(layer, x))
            return cross_entropy(apply(p[-1], x), y)

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    private = differentially_private(step, noise_multiplier=noise)

    def temporary(fun: Callable[..., Any], *key: Any) -> int:
        lowered = jax.jit(fun, donate_argnums=0).lower(params, batch, *key)
        found = lowered.compile().memory_analysis()
        assert found is not None
        return int(found.temp_size_in_bytes)

    if noise:
        keyed = lambda params, batch, key: private(params, batch, key=key)  # noqa: E731
        ours = temporary(keyed, privjax.random.key())
    else:
        ours = temporary(private)
    assert ours <= 1.5 * temporary(step)
