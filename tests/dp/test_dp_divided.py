"""Noise of parameters that are divided over devices, in a process that has four."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import privjax
from privjax.prg import insecure_key

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found() -> Any:
    script = str(HERE / "divided_process.py")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_clipped_sums_are_those_of_one_device(found: Any) -> None:
    assert found["error"] < 1e-6


def test_nothing_of_the_parameters_size_is_exchanged(found: Any) -> None:
    """Weights have 30,720 and 25,600 elements, of which the hash is an eighth."""
    assert 8 * 256 < found["exchanged"] <= 4096


def test_law(found: Any) -> None:
    assert abs(found["deviation"] - 1) < 0.02
    assert found["p"] > 1e-3


def test_parts_draw_independent_noise(found: Any) -> None:
    """Four parts of 7,680 values: a correlation has a deviation of 0.0114."""
    assert found["between parts"] < 0.05


def test_values_do_not_depend_on_the_division(found: Any) -> None:
    assert found["same"] == [True, True, True]
    assert found["distinct"]


def _step(w: Any, batch: Any) -> Any:
    gradient = jax.grad(lambda v: jnp.mean((batch @ v) ** 2))(w)
    return w - gradient


def test_one_key_never_draws_the_same_noise_twice() -> None:
    """In lanes with equal values, and in a loop with a key from outside of it."""
    noisy = privjax.differentially_private(_step, noise_multiplier=1.0, divided=True)
    clean = privjax.differentially_private(_step, noise_multiplier=0.0, divided=True)
    batch = np.random.default_rng(0).normal(size=(4, 70)).astype(np.float32)
    w, key = jnp.ones((70, 3)), insecure_key(8)
    ws = jnp.stack([w, w, w])
    lanes = jax.jit(jax.vmap(lambda v, k: noisy(v, batch, key=k), (0, None)))(ws, key)

    def steps(v: Any, key: Any) -> Any:
        def body(v: Any, _: Any) -> Any:
            new = noisy(v, batch, key=key)
            return new, new - clean(v, batch)

        return jax.lax.scan(body, v, None, length=3)[1]

    drawn = jax.jit(steps)(w, key)
    for noises in (np.asarray(lanes - clean(w, batch)), np.asarray(drawn)):
        different = np.abs(noises[:, None] - noises[None]).max((2, 3)) + np.eye(3)
        assert different.min() > 1e-3
