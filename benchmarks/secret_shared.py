"""Secret-shared training, all parties simulated in one process, dealer included.

The workload is an epoch of Boston Housing's size: an MLP 13-32-24-1, 12 steps of batch 32,
as one `lax.scan` inside `secret_shared`. Seconds to trace, to compile, and per epoch
(least of several), rounds per step and megabytes per epoch; the plain epoch beside it.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import privjax
from benchmarks.protocols import apart
from privjax.prg import key_words

SHAPES = {"w1": (13, 32), "b1": (32,), "w2": (32, 24), "b2": (24,), "w3": (24, 1)}
STEPS, BATCH, RUNS = 12, 32, 15
PROTOCOLS = (("semi2k", 2), ("semi2k", 3), ("replicated3", 3), ("spdz2k", 2))


def loss(p: Any, x: Any, y: Any) -> Any:
    h = jax.nn.relu(x @ p["w1"] + p["b1"])
    h = jax.nn.relu(h @ p["w2"] + p["b2"])
    return jnp.mean((h @ p["w3"] - y) ** 2)


def epoch(p: Any, xs: Any, ys: Any) -> Any:
    def step(p: Any, batch: Any) -> Any:
        grads = jax.grad(loss)(p, *batch)
        return jax.tree.map(lambda a, g: a - 0.01 * g, p, grads), None

    return jax.lax.scan(step, p, (xs, ys))[0]


def inputs() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    p = {k: 0.3 * rng.normal(size=s) for k, s in SHAPES.items()}
    xs, ys = rng.normal(size=(STEPS, BATCH, 13)), rng.normal(size=(STEPS, BATCH, 1))
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (p, xs, ys))


def least(fun: Any, *args: Any, runs: int = RUNS) -> float:
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        jax.block_until_ready(fun(*args))
        times.append(time.perf_counter() - begin)
    return min(times)


def rows() -> list[dict[str, Any]]:
    """One row per protocol and number of parties, and one for the plain epoch."""
    args = inputs()
    plain = jax.jit(epoch)
    jax.block_until_ready(plain(*args))
    base = least(plain, *args)
    out = [{"name": "Boston epoch, plain", "seconds": base}]
    for protocol, parties in PROTOCOLS:
        shared = privjax.secret_shared(epoch, parties, protocol)
        begin = time.perf_counter()
        program = shared.compiled(*args)
        traced = time.perf_counter()
        key = privjax.random.key()
        jax.block_until_ready(shared(*args, key=key))
        first = time.perf_counter()
        seconds = least(lambda f=shared: f(*args, key=privjax.random.key()))
        with jax.enable_x64(True):
            flat, words = jax.tree.leaves(args), key_words(key)
            parts = apart(program, parties, words, flat, RUNS)
        out.append(
            {
                "name": f"Boston epoch, {protocol}, {parties} parties",
                "seconds": seconds,
                "ratio to plain": seconds / base,
                "trace seconds": traced - begin,
                "compile and first run seconds": first - traced,
                "rounds per step": program.cost.rounds / STEPS,
                "sent MB": program.cost.sent_megabytes,
                "dealt MB": program.cost.dealt_megabytes,
                **parts,
            }
        )
    return out
