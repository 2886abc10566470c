"""One round of FedAvg: written by hand as a scan and as a vmap, and by `federated`.

One local epoch of SGD per client, all clients each round, equal weights, everything in
one jit. `ratio` is against the faster of the two rounds written by hand.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privjax.prg.keys import insecure_key
from privjax.transforms.federated import federated

RATE = 0.05


class Workload(NamedTuple):
    name: str
    sizes: tuple[int, ...]
    clients: int
    examples: int
    batch: int
    secure: bool = True


WORKLOADS = (
    Workload("boston 13-32-24-1", (13, 32, 24, 1), 2, 202, 8),
    Workload("digits 784-128-10", (784, 128, 10), 10, 600, 32),
    Workload("digits 784-128-10", (784, 128, 10), 100, 60, 32, secure=False),
)


def parameters(sizes: tuple[int, ...]) -> Any:
    rng = np.random.default_rng(0)
    shapes = zip(sizes[:-1], sizes[1:], strict=True)
    return [
        {"w": jnp.asarray(rng.normal(0, i**-0.5, (i, o)), "f4"), "b": jnp.zeros(o)}
        for i, o in shapes
    ]


def data(work: Workload) -> Any:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(work.clients, work.examples, work.sizes[0]))
    y = rng.integers(0, work.sizes[-1], (work.clients, work.examples))
    return jnp.asarray(x, "f4"), jnp.asarray(y, "i4")


def loss(params: Any, x: Any, y: Any) -> Any:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    out = x @ params[-1]["w"] + params[-1]["b"]
    if out.shape[-1] == 1:
        return jnp.mean(jnp.square(out[:, 0] - y))
    rows = jnp.take_along_axis(out, y[:, None], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(out, axis=1) - rows)


def client_update(batch: int) -> Callable[..., Any]:
    """One epoch of SGD over full batches, then over what is left."""

    def step(params: Any, xy: Any) -> Any:
        grads = jax.grad(loss)(params, *xy)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), None

    def update(params: Any, data: Any) -> Any:
        full = data[0].shape[0] // batch * batch
        batched = jax.tree.map(
            lambda a: a[:full].reshape(-1, batch, *a.shape[1:]), data
        )
        params, _ = jax.lax.scan(step, params, batched)
        if full < data[0].shape[0]:
            params, _ = step(params, jax.tree.map(lambda a: a[full:], data))
        return params

    return update


def by_scan(update: Callable[..., Any], clients: int) -> Callable[..., Any]:
    def round_(params: Any, data: Any) -> Any:
        def body(total: Any, client: Any) -> Any:
            return jax.tree.map(jnp.add, total, update(params, client)), None

        zero = jax.tree.map(jnp.zeros_like, params)
        total, _ = jax.lax.scan(body, zero, data)
        return jax.tree.map(lambda t: t / clients, total)

    return round_


def by_vmap(update: Callable[..., Any]) -> Callable[..., Any]:
    def round_(params: Any, data: Any) -> Any:
        updates = jax.vmap(update, (None, 0))(params, data)
        return jax.tree.map(lambda u: jnp.mean(u, 0), updates)

    return round_


def fastest(rounds: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Least seconds per round; the variants take turns, so that all meet one noise."""
    best = dict.fromkeys(rounds, math.inf)
    for run in rounds.values():
        jax.block_until_ready(run())
    until = time.perf_counter() + 2.0 * len(rounds)
    turns = 0
    while turns < 3 or (time.perf_counter() < until and turns < 500):
        turns += 1
        for name, run in rounds.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def rows() -> list[dict[str, Any]]:
    out = []
    for work in WORKLOADS:
        params, clients = parameters(work.sizes), data(work)
        update = client_update(work.batch)
        variants = {
            "scan by hand": by_scan(update, work.clients),
            "vmap by hand": by_vmap(update),
            "federated": federated(update),
            "federated, scan": federated(update, strategy="scan"),
            "federated, vmap": federated(update, strategy="vmap"),
        }
        rounds = {
            name: partial(jax.jit(f), params, clients) for name, f in variants.items()
        }
        if work.secure:
            secure = jax.jit(federated(update, aggregate="secure"))
            key = insecure_key(0)
            rounds["federated, secure"] = partial(secure, params, clients, key=key)
        seconds = fastest(rounds)
        plain = min(seconds["scan by hand"], seconds["vmap by hand"])
        for name, s in seconds.items():
            out.append(
                {
                    "name": work.name,
                    "clients": work.clients,
                    "examples": work.examples,
                    "round": name,
                    "ms": 1e3 * s,
                    "ratio": s / plain,
                }
            )
    return out
