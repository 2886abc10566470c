"""No unit moves the clipped sums by more than is promised."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_models import BATCH, MODELS, ROUNDED, Model
from hypothesis import given, settings
from hypothesis import strategies as st

from privjax.transforms.differentially_private import differentially_private

CLIP = 0.7
NAMES = ["mlp", "regression", "cnn", "shared_layer", "tied_autoencoder", "recurrent"]
NAMES += ["half_precision"]


@functools.lru_cache
def clipped(name: str) -> tuple[Model, Any]:
    model = (MODELS | ROUNDED)[name]()

    def step(params: Any, batch: Any) -> Any:
        return jax.grad(model.loss)(params, batch)

    private = differentially_private(step, clip_norm=CLIP, noise_multiplier=0)
    return model, jax.jit(private)


def distance(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    squares = [
        np.sum((np.asarray(x, np.float64) - np.asarray(y)) ** 2) for x, y in pairs
    ]
    return float(np.sqrt(sum(squares)))


def changed(batch: Any, unit: int, change: Any) -> Any:
    """The batch with the floating-point values of one unit replaced."""
    return jax.tree.map(
        lambda x: (
            x.at[unit].set(change(x[unit]))
            if jnp.issubdtype(x.dtype, jnp.floating)
            else x
        ),
        batch,
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(
    unit=st.integers(0, BATCH - 1),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4, 1e18, np.inf]),
    seed=st.integers(0, 2**20),
)
def test_sensitivity(name: str, unit: int, scale: float, seed: int) -> None:
    """Adding or removing a unit moves the sum by the bound, replacing by twice that.

    A unit that is not a number counts as none, so it stands for a removed one.
    """
    model, step = clipped(name)
    rng = np.random.default_rng(seed)

    def strange(x: Any) -> Any:
        return jnp.asarray(scale * rng.normal(size=x.shape), x.dtype)

    bound = CLIP / BATCH * (1 + 1e-6)
    without = step(model.params, changed(model.batch, unit, lambda x: x * jnp.nan))
    with_it = step(model.params, model.batch)
    other = step(model.params, changed(model.batch, unit, strange))
    assert distance(with_it, without) <= bound
    assert distance(other, without) <= bound
    assert distance(other, with_it) <= 2 * bound
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(other))


def test_a_removed_unit_is_the_sum_of_the_others() -> None:
    model, step = clipped("mlp")
    parts = []
    for unit in range(BATCH):
        batch = model.batch
        for other in range(BATCH):
            if other != unit:
                batch = changed(batch, other, lambda x: x * jnp.nan)
        parts.append(step(model.params, batch))
    total = jax.tree.map(lambda *xs: sum(xs), *parts)
    assert distance(total, step(model.params, model.batch)) < 1e-6


WIDTH = 32
HUGE = [1e9, 1e6, 1e3]


def cancelling(huge: float, shape: tuple[int, ...], rest: float) -> np.ndarray:
    """[*shape, 2, WIDTH]: pairs that are huge, and all but cancel."""
    rng = np.random.default_rng(0)
    first, other = rng.normal(size=(2, *shape, WIDTH))
    return np.stack([huge * first, rest * other - huge * first], -2).astype(np.float32)


def products(p: Any, x: Any) -> Any:
    return jnp.mean(jnp.sum(x @ p["w"] @ jnp.ones(WIDTH), axis=-1))


def products_and_lookups(p: Any, x: Any) -> Any:
    """A tied table: the same values come back with the other sign."""
    there = jnp.sum(x @ p["w"] @ jnp.ones(WIDTH), axis=-1)
    rows = jnp.argmax(x[:, 0], -1)[:, None]
    return jnp.mean(there - jnp.sum(p["w"][rows] * x[:, :1], (1, 2)))


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("loss", [products, products_and_lookups])
def test_cancelling_positions(loss: Any, huge: float) -> None:
    """Norms from inner products lose what is left where huge positions cancel."""
    private = differentially_private(
        jax.grad(loss), private=1, clip_norm=CLIP, noise_multiplier=0, protected="all"
    )
    p = {"w": jnp.zeros((WIDTH, WIDTH))}
    x = jnp.asarray(cancelling(huge, (BATCH,), huge * 1e-5))
    for unit in range(BATCH):
        alone = private(p, x, mask=np.arange(BATCH) == unit)
        assert distance(alone, p) <= CLIP / BATCH * (1 + 1e-5)


@pytest.mark.parametrize("huge", HUGE)
def test_cancelling_rows_of_one_owner(huge: float) -> None:
    private = differentially_private(
        jax.grad(products), private=1, clip_norm=CLIP, noise_multiplier=0
    )
    p = {"w": jnp.zeros((WIDTH, WIDTH))}
    x = cancelling(huge, (BATCH // 2,), huge * 1e-5).reshape(BATCH, 1, WIDTH)
    for unit in range(BATCH // 2):
        alone = private(p, x, units=np.where(np.arange(BATCH) // 2 == unit, 0, -1))
        assert distance(alone, p) <= CLIP / BATCH * (1 + 1e-5)
