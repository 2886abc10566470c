"""Noise is there, of the right scale, on the grid, and never the same twice."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_models import BATCH, mlp, values
from scipy import stats

from privjax.core.markers import noise_p
from privjax.errors import InputError
from privjax.passes.dp import Gaussian
from privjax.prg.keys import insecure_key, key_words
from privjax.transforms.differentially_private import differentially_private

WIDE = 4000


def flat_step(w: Any, batch: Any) -> Any:
    """A gradient of `WIDE` parameters, of norm 1 per example and mean 0 here."""
    return jax.grad(lambda w: jnp.mean(batch @ w))(w)


def wide_inputs() -> tuple[Any, Any]:
    return jnp.zeros(WIDE), jnp.zeros((BATCH, WIDE))


PRIVATE = differentially_private(flat_step, clip_norm=2.0, noise_multiplier=1.5)
SIGMA = 1.5 * 2.0 / BATCH


def test_scale_and_law() -> None:
    """Noise on the mean of B examples has standard deviation noise * clip / B."""
    noise = np.asarray(PRIVATE(*wide_inputs(), key=insecure_key(1)), np.float64)
    assert abs(noise.std() / SIGMA - 1) < 0.04
    assert abs(noise.mean()) < 4 * SIGMA / WIDE**0.5
    assert stats.kstest(noise / SIGMA, "norm").pvalue > 1e-3


def test_values_are_on_the_grid() -> None:
    w, batch = wide_inputs()
    batch = batch + values(BATCH, WIDE)
    mechanism = PRIVATE.releases(w, batch).mechanism
    assert mechanism is not None and np.isclose(mechanism.sigma, SIGMA, rtol=0.01)
    found = np.asarray(PRIVATE(w, batch, key=insecure_key(2)), np.float64)
    steps = found / mechanism.granularity
    assert np.array_equal(steps, np.round(steps))
    # The stated sensitivity covers the rounding of every value.
    rounding = mechanism.granularity * WIDE**0.5
    assert mechanism.sensitivity >= 2.0 / BATCH + rounding


def test_noise_multiplier_changes_nothing_but_noise() -> None:
    w, batch = wide_inputs()
    batch = batch + values(BATCH, WIDE)
    quiet = differentially_private(flat_step, clip_norm=2.0, noise_multiplier=0)
    clean = quiet(w, batch)
    noisy = PRIVATE(w, batch, key=insecure_key(3))
    assert stats.kstest((noisy - clean) / SIGMA, "norm").pvalue > 1e-3


def all_distinct(noises: Any) -> bool:
    """No two of the rows share noise: differences have twice the variance."""
    rows = np.asarray(noises).reshape(-1, WIDE)
    for i, a in enumerate(rows):
        for b in rows[:i]:
            if abs(np.corrcoef(a, b)[0, 1]) > 0.1:
                return False
    return True


def test_calls_without_a_key_differ() -> None:
    w, batch = wide_inputs()
    assert all_distinct([PRIVATE(w, batch), PRIVATE(w, batch)])


def test_a_key_determines_the_noise() -> None:
    w, batch = wide_inputs()
    a, b = (PRIVATE(w, batch, key=insecure_key(s)) for s in (4, 4))
    assert np.array_equal(a, b)
    jitted = jax.jit(lambda w, b, k: PRIVATE(w, b, key=k))(w, batch, insecure_key(4))
    assert np.array_equal(a, jitted)


def test_one_key_for_two_batches() -> None:
    """Reusing a key on other data does not reuse its noise."""
    w, batch = wide_inputs()
    other = batch.at[0, 0].set(1.0)
    key = insecure_key(5)
    assert all_distinct([PRIVATE(w, batch, key=key), PRIVATE(w, other, key=key)])


def test_one_key_for_two_scales() -> None:
    w, batch = wide_inputs()
    louder = differentially_private(flat_step, clip_norm=2.0, noise_multiplier=3.0)
    key = insecure_key(6)
    assert all_distinct([PRIVATE(w, batch, key=key), louder(w, batch, key=key)])


def test_lanes_of_vmap() -> None:
    w, batch = wide_inputs()
    keys = jax.random.split(insecure_key(7), 3)
    mapped = jax.vmap(lambda k: PRIVATE(w, batch, key=k))(keys)
    assert all_distinct(mapped)
    # One key for several models: the sums differ, so does the noise.
    batches = jnp.stack([batch, batch + 0.1, batch + 0.2])
    shared = jax.vmap(lambda b, k: PRIVATE(w, b, key=k), in_axes=(0, None))
    found = shared(batches, insecure_key(8))
    quiet = differentially_private(flat_step, clip_norm=2.0, noise_multiplier=0)
    assert all_distinct(found - jax.vmap(quiet, in_axes=(None, 0))(w, batches))


def test_steps_of_a_scan() -> None:
    w, batch = wide_inputs()

    def steps(w: Any, keys: Any) -> Any:
        def body(w: Any, key: Any) -> Any:
            noise = PRIVATE(w, batch, key=key)
            return w + noise, noise

        return jax.lax.scan(body, w, keys)[1]

    keys = jax.random.split(insecure_key(9), 3)
    assert all_distinct(jax.jit(steps)(w, keys))


def test_leaves_have_noise_of_their_own() -> None:
    def step(params: Any, batch: Any) -> Any:
        return jax.grad(lambda p: jnp.mean(batch @ p["a"] + batch @ p["b"]))(params)

    zeros = {"a": jnp.zeros(WIDE), "b": jnp.zeros(WIDE)}
    private = differentially_private(step)
    out = private(zeros, jnp.zeros((BATCH, WIDE)), key=insecure_key(10))
    assert all_distinct([out["a"], out["b"]])


def test_one_marker_for_all_releases() -> None:
    """The program says where noise is added: outer passes look for this marker."""
    model = mlp()
    private = differentially_private(
        lambda params, batch: jax.grad(model.loss)(params, batch)
    )
    traced = jax.make_jaxpr(lambda p, b, k: private(p, b, key=k))(
        model.params, model.batch, insecure_key(11)
    )
    text = str(traced)
    assert text.count(f"= {noise_p.name}[") == 1
    assert "Gaussian(noise_multiplier=1.1" in text


@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0, 7.0, 100.0])
@pytest.mark.parametrize("count", [1, 1000, 10**6])
def test_mechanism_of(noise: float, count: int) -> None:
    clip = 0.37
    mechanism = Gaussian.of(noise, clip, count)
    assert mechanism.sensitivity >= clip + mechanism.granularity * count**0.5 * 0.999
    assert 2.0**-18 < mechanism.granularity / mechanism.sigma <= 2.0**-16
    assert np.log2(mechanism.granularity) % 1 == 0
    assert mechanism.sensitivity <= 2.1 * clip
    assert hash(mechanism) == hash(Gaussian.of(noise, clip, count))


def test_mechanism_with_too_many_values() -> None:
    with pytest.raises(InputError, match="grid"):
        Gaussian.of(1000.0, 1.0, 10**8)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_types(dtype: Any) -> None:
    mechanism = Gaussian.of(1.0, 1.0, 8)
    xs = [jnp.ones((2, 3), dtype), jnp.zeros((), dtype), jnp.zeros(1, dtype)]
    out = mechanism.apply(key_words(insecure_key(12)), xs)
    assert [(x.shape, x.dtype) for x in out] == [(x.shape, x.dtype) for x in xs]
    assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in out)
