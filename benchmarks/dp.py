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


def cnn(batch: int = 128) -> tuple[Any, Any, Any]:
    """Two convolutions and two dense layers on 28 x 28 pixels."""
    rng = np.random.default_rng(1)
    shapes = {"c1": (5, 5, 1, 16), "c2": (3, 3, 16, 32)}
    params: dict[str, Any] = {
        k: jnp.asarray(rng.normal(size=s) / np.prod(s[:3]) ** 0.5, jnp.float32)
        for k, s in shapes.items()
    }
    params["dense"] = layers(32 * 7 * 7, 64, 10)

    def conv(x: Any, kernel: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=numbers
        )

    def loss(p: Any, batch: Any) -> Any:
        x, y = batch
        x = jax.nn.relu(conv(jax.nn.relu(conv(x, p["c1"])), p["c2"]))
        return cross_entropy(p["dense"], (x.reshape(x.shape[0], -1), y))

    x = jnp.asarray(rng.normal(size=(batch, 28, 28, 1)), jnp.float32)
    return params, (x, jnp.asarray(rng.integers(0, 10, batch), jnp.int32)), sgd(loss)


def transformer(batch: int = 32, length: int = 64) -> tuple[Any, Any, Any]:
    """Two layers of width 64 over 256 kinds of tokens, embeddings tied."""
    rng = np.random.default_rng(1)
    width, heads = 64, 4

    def matrix(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32)

    def block() -> dict[str, Any]:
        return {
            "qkv": matrix(width, 3, heads, width // heads),
            "out": matrix(width, width),
            "up": matrix(width, 4 * width),
            "down": matrix(4 * width, width),
        }

    params = {
        "tokens": matrix(256, width),
        "places": matrix(length, width),
        "blocks": [block(), block()],
    }

    def norm(x: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)

    def loss(p: Any, tokens: Any) -> Any:
        h = p["tokens"][tokens[:, :-1]] + p["places"]
        mask = jnp.tril(jnp.ones((length, length), bool))
        for b in p["blocks"]:
            q, k, v = jnp.einsum("btd,dche->cbhte", norm(h), b["qkv"])
            scores = jnp.einsum("bhte,bhse->bhts", q, k) / (width // heads) ** 0.5
            attention = jax.nn.softmax(jnp.where(mask, scores, -1e9))
            mixed = jnp.einsum("bhts,bhse->bthe", attention, v)
            h = h + mixed.reshape(h.shape) @ b["out"]
            h = h + jax.nn.gelu(norm(h) @ b["up"]) @ b["down"]
        losses = optax.softmax_cross_entropy_with_integer_labels(
            h @ p["tokens"].T, tokens[:, 1:]
        )
        return jnp.mean(losses)

    tokens = jnp.asarray(rng.integers(0, 256, (batch, length + 1)), jnp.int32)
    return params, tokens, sgd(loss)


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


def seconds(
    funs: dict[str, Any], *args: Any, rounds: int, calls: int
) -> dict[str, float]:
    """Least time of one call of each function.

    The functions take turns, so that a busy machine slows all of them down alike.
    """
    jitted = {name: jax.jit(fun) for name, fun in funs.items()}
    best = dict.fromkeys(funs, float("inf"))
    for fun in jitted.values():
        jax.block_until_ready(fun(*args))
    for _ in range(rounds):
        for name, fun in jitted.items():
            start = time.perf_counter()
            for _ in range(calls):
                out = fun(*args)
            jax.block_until_ready(out)
            best[name] = min(best[name], (time.perf_counter() - start) / calls)
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
    params, batch, step = boston()
    steps, length = private_steps(step), 200
    keys = jax.random.split(fresh_key(), length)
    batches = jax.tree.map(lambda x: jnp.broadcast_to(x, (length, *x.shape)), batch)
    epochs = {name: epoch(step) for name, step in steps.items()}
    whole = seconds(epochs, params, batches, keys, rounds=60, calls=1)
    small = seconds(steps, params, batch, keys[0], rounds=40, calls=20)
    larger = {
        "MLP 784-512-256-10, batch 256": mnist(),
        "MLP 784-512-256-10, batch 2048": mnist(2048),
        "CNN 28 x 28, batch 128": cnn(),
        "transformer, 2 layers, 32 x 64 tokens": transformer(),
    }
    return [
        row(
            "MLP 13-32-24-1, batch 32, step in a scan",
            {name: time / length for name, time in whole.items()},
        ),
        row("MLP 13-32-24-1, batch 32, jitted step", small),
        *(
            row(
                name,
                seconds(
                    private_steps(step), params, batch, keys[0], rounds=25, calls=1
                ),
            )
            for name, (params, batch, step) in larger.items()
        ),
    ]
