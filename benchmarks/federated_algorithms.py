"""Rounds of `privjax.fl` against rounds written by hand, and what algorithms cost.

`rows()` has four kinds of rows:

- a round of FedAvg, 784-128-10, by clients x examples, against the faster of a scan and a
  vmap over clients written by hand in the same run;
- memory that the compiled round needs besides its arguments, by clients;
- every algorithm's round against FedAvg's;
- a round of 1,000 out of 100,000 clients on the bundled digits, sampling and gathering
  included.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.federated import (
    RATE,
    Workload,
    by_scan,
    by_vmap,
    client_update,
    data,
    fastest,
    parameters,
)
from privjax import fl
from privjax.datasets import digits
from privjax.prg.keys import insecure_key

SIZES = (784, 128, 10)
WORKLOADS = tuple(
    Workload(f"{clients} x {examples}", SIZES, clients, examples, 32)
    for clients, examples in ((10, 600), (100, 60), (1000, 20))
)
# A vmap of so many clients of this size takes minutes and loses by far on a CPU.
WIDEST = 100
SGD = optax.sgd(RATE)
Row = dict[str, Any]


def losses(params: Any, batch: Any) -> Any:
    x, y = batch
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    out = x @ params[-1]["w"] + params[-1]["b"]
    rows = jnp.take_along_axis(out, y[:, None], 1)[:, 0]
    return jax.nn.logsumexp(out, axis=1) - rows


def against_hand_written() -> Iterator[Row]:
    for work in WORKLOADS:
        params, clients = parameters(work.sizes), data(work)
        update = client_update(work.batch)
        algorithm = fl.fedavg(losses, client=SGD, batch_size=work.batch)
        state = algorithm.init(params)
        rounds: dict[str, Callable[[], Any]] = {
            "scan by hand": partial(
                jax.jit(by_scan(update, work.clients)), params, clients
            ),
            "fedavg": partial(algorithm.round, state, clients),
        }
        if work.clients <= WIDEST or jax.default_backend() != "cpu":
            rounds["vmap by hand"] = partial(jax.jit(by_vmap(update)), params, clients)
        seconds = fastest(rounds)
        best = min(s for name, s in seconds.items() if name != "fedavg")
        for name, s in seconds.items():
            yield {"name": work.name, "round": name, "ms": 1e3 * s, "ratio": s / best}


def memory() -> Iterator[Row]:
    for runtime in ("scan", fl.Chunks(8), "vmap"):
        algorithm = fl.fedavg(losses, client=SGD, runtime=runtime)
        state = jax.eval_shape(algorithm.init, parameters(SIZES))
        row: Row = {"name": "memory", "round": f"runtime={runtime}"}
        for clients in (16, 64, 256):
            x = jax.ShapeDtypeStruct((clients, 20, SIZES[0]), jnp.float32)
            y = jax.ShapeDtypeStruct((clients, 20), jnp.int32)
            lowered = jax.jit(lambda s, d, a=algorithm: a.round(s, d)).lower(
                state, (x, y)
            )
            found = lowered.compile().memory_analysis().temp_size_in_bytes
            row[f"MB of {clients}"] = found / 1e6
        yield row


def algorithms(clients: int) -> dict[str, fl.Algorithm]:
    """One of each kind, with local epochs of batches of 32."""
    local: dict[str, Any] = {"batch_size": 32}
    sgd: dict[str, Any] = {"client": SGD, **local}
    return {
        "fedavg": fl.fedavg(losses, **sgd),
        "fedavg, shuffled": fl.fedavg(losses, shuffle=True, **sgd),
        "fedprox": fl.fedprox(losses, mu=0.1, **sgd),
        "fedadam": fl.fedadam(losses, rate=0.01, **sgd),
        "scaffold": fl.scaffold(losses, rate=RATE, clients=clients, **local),
        "fednova": fl.fednova(losses, rate=RATE, **local),
        "mime_lite": fl.mime_lite(losses, optimiser=SGD, **local),
        "qfedavg": fl.qfedavg(losses, rate=RATE, q=1.0, **local),
        "median": fl.fedavg(losses, robust=fl.coordinate_median(), **sgd),
        "geometric median": fl.fedavg(losses, robust=fl.geometric_median(), **sgd),
        "secure": fl.fedavg(losses, aggregate="secure", **sgd),
    }


def costs() -> Iterator[Row]:
    work = WORKLOADS[0]
    params, clients = parameters(work.sizes), data(work)
    rounds = {}
    for name, algorithm in algorithms(work.clients).items():
        state = algorithm.init(params, work.clients)
        key = {"key": insecure_key(0)} if algorithm.round.needs_key else {}
        rounds[name] = partial(algorithm.round, state, clients, **key)
    seconds = fastest(rounds)
    for name, s in seconds.items():
        ratio = s / seconds["fedavg"]
        yield {"name": work.name, "round": name, "ms": 1e3 * s, "to fedavg": ratio}


def population() -> Iterator[Row]:
    found = digits()
    rows = fl.partition.population(found.y_train, 100_000, 10, alpha=0.3)
    clients = fl.ClientData(
        (jnp.asarray(found.x_train), jnp.asarray(found.y_train)), rows
    )
    algorithm = fl.fedavg(losses, client=optax.sgd(0.5))
    state = algorithm.init(parameters((64, 64, 10)))
    sampler = fl.FixedSize(100_000, 1000)
    run = partial(
        fl.fit,
        algorithm,
        state,
        clients,
        sampler=sampler,
        faults=fl.Faults(0.1),
        progress=False,
        key=insecure_key(0),
    )
    run(rounds=2)
    start = time.perf_counter()
    trained = run(rounds=20)
    ms = 1e3 * (time.perf_counter() - start) / 20
    x, layers = found.x_test, trained.state.params
    hidden = np.maximum(x @ layers[0]["w"] + layers[0]["b"], 0)
    guess = np.argmax(hidden @ layers[1]["w"] + layers[1]["b"], axis=1)
    yield {
        "name": "1,000 of 100,000",
        "round": "fedavg, 20 rounds",
        "ms": ms,
        "accuracy": float(np.mean(guess == found.y_test)),
    }


def rows() -> list[Row]:
    return [*against_hand_written(), *memory(), *costs(), *population()]
