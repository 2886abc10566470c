"""Clipped sums equal explicit per-example clipping, for models, optimisers, loops."""

import jax
import jax.numpy as jnp
import optax
import pytest
from dp_models import (
    MODELS,
    Model,
    assert_close,
    clipped_gradient,
    middle_norm,
    mlp,
)

from privjax.transforms.differentially_private import differentially_private


def gradient_step(model: Model):
    def step(params, batch):
        return jax.grad(model.loss)(params, batch)

    return step


@pytest.mark.parametrize("name", MODELS)
def test_clipped_gradient(name):
    model = MODELS[name]()
    clip = middle_norm(model)
    private = differentially_private(
        gradient_step(model), clip_norm=clip, noise_multiplier=0
    )
    found = private(model.params, model.batch)
    assert_close(found, clipped_gradient(model, clip))
    assert jax.tree.structure(found) == jax.tree.structure(model.params)
