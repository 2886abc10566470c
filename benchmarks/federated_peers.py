"""A round of FedAvg beside other systems': DrJAX, FedJAX and Flower's simulation.

MLP 784-128-10, one local epoch of SGD in batches of 32, all clients, equal weights, no
shuffling; 10 clients x 600 examples, 100 x 60 and 1000 x 20. Every system runs the same
`client_update` (or the same loss, where it has its own loop over batches), and `check` is
the norm of the parameters after one round from one start: equal, but for FedJAX, which
fills a client's short last batch with its first examples.

Rows with "2 devices" divide the clients over two devices; on a CPU these are two of the
host's, which the row's own process asks for before JAX starts.

Peers are optional: a row says "not installed" where one is not. Each has its own needs
(FedJAX an old JAX, Flower a pin or two, see below), so that they are best run from their
own environments: with

    PEERS="drjax=/path/to/python,fedjax=/path/to/python,flwr=/path/to/python"

every system is run by its own Python (see `peers`), with nothing of this package but this
folder.

    pip install drjax==0.2.1 jax==0.10.2
    pip install "flwr[simulation]==1.41.0" jax==0.10.2
    pip install fedjax==0.0.17 jax==0.4.25 jaxlib==0.4.25 "numpy<2" "scipy<1.13" \\
        dm-haiku==0.0.12 flax==0.8.2 optax==0.2.2 chex==0.1.86
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import peers
from benchmarks.peers import Row

# Clients, and the examples of each.
WORKLOADS = {10: 600, 100: 60, 1000: 20}
SIZES, BATCH, RATE = (784, 128, 10), 32, 0.1
DEVICES = 2
Params = list[tuple[Any, Any]]


@functools.cache
def data(clients: int) -> tuple[np.ndarray, np.ndarray]:
    """float32[clients, examples, 784] and int32[clients, examples], labels skewed."""
    examples = WORKLOADS[clients]
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, SIZES[0]), dtype=np.float32)
    first = np.arange(clients)[:, None] + rng.integers(0, 4, (clients, examples))
    y = (first % 10).astype(np.int32)
    x = rng.standard_normal((clients, examples, SIZES[0]), dtype=np.float32)
    return x / 2 + centres[y] / 10, y


def start() -> Params:
    """Parameters: (weights, biases) of each layer."""
    rng = np.random.default_rng(1)
    return [
        (
            rng.standard_normal((i, o), dtype=np.float32) / np.float32(i**0.5),
            np.zeros(o, np.float32),
        )
        for i, o in zip(SIZES[:-1], SIZES[1:], strict=True)
    ]


def losses(params: Params, batch: Any) -> Any:
    """Cross entropy of each example."""
    x, y = batch
    (w1, b1), (w2, b2) = params
    logits = jax.nn.relu(x @ w1 + b1) @ w2 + b2
    found = jnp.take_along_axis(logits, y[:, None], 1)[:, 0]
    return jax.nn.logsumexp(logits, axis=1) - found


def client_update(params: Params, x: Any, y: Any) -> Params:
    """One epoch: full batches in a scan, then what is left."""

    def step(params: Params, batch: Any) -> Any:
        grads = jax.grad(lambda p: jnp.mean(losses(p, batch)))(params)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), None

    full = len(x) // BATCH * BATCH
    if full:
        batches = x[:full].reshape(-1, BATCH, SIZES[0]), y[:full].reshape(-1, BATCH)
        params, _ = jax.lax.scan(step, params, batches)
    if full < len(x):
        params, _ = step(params, (x[full:], y[full:]))
    return params


def timed(round_: Callable[[Params], Params]) -> Row:
    """Least and median milliseconds, and what tells that the round is the same."""
    on_device: Params = jax.tree.map(jnp.asarray, start())
    params = jax.block_until_ready(round_(on_device))
    check = norm(params)

    def again() -> None:
        nonlocal params
        params = jax.block_until_ready(round_(params))

    return {**peers.repeated(again), "check": check}


def norm(params: Any) -> float:
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(params)]
    return float(np.sqrt(sum((x**2).sum() for x in leaves)))


# -- systems ---------------------------------------------------------------------------


def by_scan(clients: int) -> Row:
    x, y = map(jnp.asarray, data(clients))

    def round_(params: Params) -> Params:
        def body(total: Params, own: Any) -> Any:
            return jax.tree.map(jnp.add, total, client_update(params, *own)), None

        total, _ = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), (x, y))
        return jax.tree.map(lambda t: t / clients, total)

    return timed(jax.jit(round_))


def by_scan_over_devices(clients: int) -> Row:
    """Each device scans its own clients; their sums meet in one psum."""
    mesh = jax.make_mesh((DEVICES,), ("clients",))
    everywhere, mine = PartitionSpec(), PartitionSpec("clients")
    x, y = jax.device_put(data(clients), NamedSharding(mesh, mine))

    def part(params: Params, x: Any, y: Any) -> Params:
        def body(total: Params, own: Any) -> Any:
            return jax.tree.map(jnp.add, total, client_update(params, *own)), None

        total, _ = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), (x, y))
        return jax.tree.map(lambda t: jax.lax.psum(t, "clients") / clients, total)

    specs = (everywhere, mine, mine)
    round_ = jax.shard_map(
        part, mesh=mesh, in_specs=specs, out_specs=everywhere, check_vma=False
    )
    compiled = jax.jit(round_)
    return timed(lambda params: compiled(params, x, y))


def by_vmap(clients: int) -> Row:
    x, y = map(jnp.asarray, data(clients))

    def round_(params: Params) -> Params:
        updates = jax.vmap(client_update, (None, 0, 0))(params, x, y)
        return jax.tree.map(lambda u: jnp.mean(u, 0), updates)

    return timed(jax.jit(round_))


def federated(clients: int) -> Row:
    import privjax

    x, y = map(jnp.asarray, data(clients))
    round_ = jax.jit(privjax.federated(client_update, ("x", "y")))
    return timed(lambda params: round_(params, x, y))


def algorithm(clients: int) -> Row:
    return fedavg("auto", tuple(map(jnp.asarray, data(clients))))


def algorithm_over_devices(clients: int) -> Row:
    from privjax import fl

    there = fl.Sharded(jax.make_mesh((DEVICES,), ("clients",)))
    return fedavg(there, there.place(data(clients)))


def fedavg(runtime: Any, own: Any) -> Row:
    import optax

    from privjax import fl

    algorithm = fl.fedavg(
        losses,
        client=optax.sgd(RATE),
        batch_size=BATCH,
        weigh="clients",
        runtime=runtime,
    )
    first = algorithm.init(start())
    return timed(
        lambda params: algorithm.round(first._replace(params=params), own)[0].params
    )


def drjax(clients: int) -> Row:
    import drjax as peer

    x, y = map(jnp.asarray, data(clients))

    @peer.program(placements={"clients": clients})
    def round_(params: Params, x: Any, y: Any) -> Params:
        sent = peer.broadcast(params)
        return peer.reduce_mean(peer.map_fn(client_update, (sent, x, y)))

    compiled = jax.jit(round_)
    return timed(lambda params: compiled(params, x, y))


def fedjax(clients: int) -> Row:
    import fedjax as peer
    from fedjax.algorithms import fed_avg

    x, y = data(clients)
    own = [peer.ClientDataset({"x": x[i], "y": y[i]}) for i in range(clients)]
    keys = jax.random.split(jax.random.PRNGKey(0), clients)
    sample = [(str(i).encode(), own[i], keys[i]) for i in range(clients)]
    epoch = peer.ShuffleRepeatBatchHParams(
        batch_size=BATCH, num_epochs=1, skip_shuffle=True
    )
    mean = lambda p, b: jnp.mean(losses(p, (b["x"], b["y"])))  # noqa: E731
    averaging = fed_avg.federated_averaging(
        lambda p, b, _: jax.grad(mean)(p, b),
        peer.optimizers.sgd(RATE),
        peer.optimizers.sgd(1.0),
        epoch,
    )
    state = averaging.init(jax.tree.map(jnp.asarray, start()))

    def round_(params: Params) -> Params:
        before = fed_avg.ServerState(params, state.opt_state)
        return averaging.apply(before, sample)[0].params

    return timed(round_)


def flower(clients: int) -> Row:
    """Time between two rounds of the strategy; the first two are left out."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    client, server = ClientApp(), ServerApp()
    marks: list[float] = []
    checks: list[float] = []

    @client.train()
    def train(message: Any, context: Any) -> Any:
        import federated_peers as itself  # in the actor, which keeps what it compiled

        arrays = message.content["arrays"].to_numpy_ndarrays()
        x, y = itself.data(clients)
        i = int(context.node_config["partition-id"])
        params = [tuple(arrays[:2]), tuple(arrays[2:])]
        out = [
            np.asarray(a)
            for a in jax.tree.leaves(itself.compiled()(params, x[i], y[i]))
        ]
        metrics = MetricRecord({"num-examples": len(x[i])})
        content = RecordDict({"arrays": ArrayRecord(out), "metrics": metrics})
        return Message(content=content, reply_to=message)

    class Timed(FedAvg):
        def configure_train(self, *args: Any) -> Any:
            marks.append(time.perf_counter())
            return super().configure_train(*args)

        def aggregate_train(self, number: int, replies: Any) -> Any:
            out = super().aggregate_train(number, replies)
            if number == 1:
                checks.append(norm(out[0].to_numpy_ndarrays()))
            return out

    @server.main()
    def main(grid: Any, context: Any) -> None:
        strategy = Timed(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=clients,
        )
        first = ArrayRecord([np.asarray(x) for x in jax.tree.leaves(start())])
        strategy.start(grid=grid, initial_arrays=first, num_rounds=6)

    resources = {"client_resources": {"num_cpus": 1.0, "num_gpus": 0.0}}
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=clients,
        backend_config=resources,
    )
    return {**peers.summary(list(np.diff(marks[2:]))), "check": checks[0]}


@functools.cache
def compiled() -> Any:
    """The client's update, compiled once in a process."""
    return jax.jit(client_update)


# System -> what it is called, the distribution it needs, its round. A vmap over 1000 of
# these clients takes minutes on a CPU.
SYSTEMS: dict[str, tuple[str, str | None, Callable[[int], Row]]] = {
    "scan": ("scan by hand", None, by_scan),
    "vmap": ("vmap by hand", None, by_vmap),
    "federated": ("privjax.federated", "privjax", federated),
    "fedavg": ("privjax.fl.fedavg", "privjax", algorithm),
    "scan over devices": (
        f"scan by hand, {DEVICES} devices",
        None,
        by_scan_over_devices,
    ),
    "fedavg over devices": (
        f"privjax.fl.fedavg, {DEVICES} devices",
        "privjax",
        algorithm_over_devices,
    ),
    "drjax": ("DrJAX", "drjax", drjax),
    "fedjax": ("FedJAX", "fedjax", fedjax),
    "flower": ("Flower, simulation", "flwr", flower),
}
SLOW = {("vmap", 1000), ("drjax", 1000)}
DIVIDED = ("scan over devices", "fedavg over devices")


def too_few_devices() -> bool:
    """A CPU is as many devices as a process asks for."""
    return jax.default_backend() != "cpu" and jax.device_count() < DEVICES


def rows() -> list[Row]:
    out: list[Row] = []
    for clients, examples in WORKLOADS.items():
        notes: dict[str, str] = {}
        for system in SYSTEMS:
            if (system, clients) in SLOW and jax.default_backend() == "cpu":
                notes[system] = "left out: minutes on a CPU"
            elif system in DIVIDED and too_few_devices():
                notes[system] = f"left out: fewer than {DEVICES} devices"
        timed = {s: needs for s, (_, needs, _) in SYSTEMS.items() if s not in notes}
        measured = peers.in_turns(__file__, timed, str(clients))
        found: dict[str, Row] = {
            system: {
                "name": f"{clients} x {examples}",
                "round": name,
                **measured.get(system, {"note": notes.get(system)}),
            }
            for system, (name, *_) in SYSTEMS.items()
        }
        out += peers.beside(found, "fedavg")
    return out


if __name__ == "__main__":
    _, needs, round_ = SYSTEMS[sys.argv[1]]
    if sys.argv[1] in DIVIDED:
        jax.config.update("jax_num_cpu_devices", DEVICES)
    row = peers.one(needs, lambda: round_(int(sys.argv[2])))
    print(json.dumps({**row, "jax": jax.__version__}))
