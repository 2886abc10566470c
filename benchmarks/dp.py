"""A differentially private step against the plain one: seconds, least of several runs."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from privjax.prg.keys import key as fresh_key
from privjax.transforms.differentially_private import differentially_private

Row = dict[str, Any]


def layers(*widths: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "w": jnp.asarray(rng.normal(size=(m, n)) / m**0.5, jnp.float32),
            "b": jnp.zeros(n),
        }
        for m, n in zip(widths[:-1], widths[1:], strict=True)
    ]


def forward(params: Any, x: Any) -> Any:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def squared_error(params: Any, batch: Any) -> Any:
    x, y = batch
    return jnp.mean((forward(params, x)[:, 0] - y) ** 2)


def cross_entropy(params: Any, batch: Any) -> Any:
    x, y = batch
    losses = optax.softmax_cross_entropy_with_integer_labels(forward(params, x), y)
    return jnp.mean(losses)


def sgd(loss: Callable[..., Any], rate: float = 0.01) -> Callable[..., Any]:
    def step(params: Any, batch: Any) -> Any:
        gradient = jax.grad(loss)(params, batch)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    return step


def boston(batch: int = 32) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(batch, 13)), jnp.float32)
    y = jnp.asarray(rng.normal(size=batch), jnp.float32)
    return layers(13, 32, 24, 1), (x, y), sgd(squared_error)


def mnist(batch: int = 256) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(batch, 784)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 10, batch), jnp.int32)
    return layers(784, 512, 256, 10), (x, y), sgd(cross_entropy)


def private_steps(step: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The plain step and two private ones, all called as `step(params, batch, key)`."""
    clipped = differentially_private(step, noise_multiplier=0)
    noisy = differentially_private(step, noise_multiplier=1.1)
    return {
        "plain": lambda params, batch, key: step(params, batch),
        "clipped": lambda params, batch, key: clipped(params, batch),
        "noisy": lambda params, batch, key: noisy(params, batch, key=key),
    }


def epoch(step: Callable[..., Any]) -> Callable[..., Any]:
    """Many steps in one compiled loop, each with its own key."""

    def run(params: Any, batches: Any, keys: Any) -> Any:
        body = lambda p, xs: (step(p, *xs), None)  # noqa: E731
        return lax.scan(body, params, (batches, keys))[0]

    return run


def seconds(fun: Callable[..., Any], *args: Any, repeats: int, calls: int) -> float:
    """Least time of one call, over `repeats` rounds of `calls` calls."""
    jax.block_until_ready(fun(*args))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            out = fun(*args)
        jax.block_until_ready(out)
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def row(name: str, found: dict[str, float]) -> Row:
    return {
        "name": name,
        "seconds_plain": found["plain"],
        "seconds_clipped": found["clipped"],
        "seconds_noisy": found["noisy"],
        "ratio_clipped": found["clipped"] / found["plain"],
        "ratio_noisy": found["noisy"] / found["plain"],
    }


def rows() -> list[Row]:
    result = []
    params, batch, step = boston()
    steps, length = private_steps(step), 200
    keys = jax.random.split(fresh_key(), length)
    batches = jax.tree.map(lambda x: jnp.broadcast_to(x, (length, *x.shape)), batch)
    found = {
        k: seconds(jax.jit(epoch(f)), params, batches, keys, repeats=7, calls=2)
        / length
        for k, f in steps.items()
    }
    result.append(row("MLP 13-32-24-1, batch 32, step in a scan", found))
    found = {
        k: seconds(jax.jit(f), params, batch, keys[0], repeats=7, calls=100)
        for k, f in steps.items()
    }
    result.append(row("MLP 13-32-24-1, batch 32, jitted step", found))
    params, batch, step = mnist()
    found = {
        k: seconds(jax.jit(f), params, batch, keys[0], repeats=9, calls=3)
        for k, f in private_steps(step).items()
    }
    result.append(row("MLP 784-512-256-10, batch 256, jitted step", found))
    return result
