"""Least squares with unequal clients, and local SGD by hand in NumPy's float64."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from privjax import fl
from privjax.fl.cohorts import Cohort

SIZES = (5, 2, 6, 4)
ROOM, FEATURES = 6, 3
RATE, BATCH, EPOCHS = 0.05, 2, 2
THERE = (True, True, False, True)


def clients(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each client's examples, float64, rounded to float32."""
    rng = np.random.default_rng(seed)
    out = []
    for n in SIZES:
        x = rng.normal(size=(n, FEATURES)) + rng.normal(size=FEATURES)
        y = x @ rng.normal(size=FEATURES)
        out.append((x.astype("f4").astype("f8"), y.astype("f4").astype("f8")))
    return out


def cohort(data: Any, survivors: Any = THERE, **fields: Any) -> Cohort:
    """The same as padded arrays."""
    x = np.full((len(data), ROOM, FEATURES), 7.0, "f4")
    y = np.full((len(data), ROOM), -7.0, "f4")
    mask = np.zeros((len(data), ROOM), bool)
    for i, (a, b) in enumerate(data):
        x[i, : len(a)], y[i, : len(a)], mask[i, : len(a)] = a, b, True
    there = None if survivors is None else np.array(survivors)
    return Cohort((x, y), mask=mask, survivors=there, **fields)


def losses(params: Any, batch: Any) -> Any:
    x, y = batch
    return jnp.square(x @ params - y)


def value(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean((x @ w - y) ** 2))


def gradient(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 2 * x.T @ (x @ w - y) / len(y)


def sgd(
    start: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    shift: Any = 0.0,
    pull: float = 0.0,
    momentum: float = 0.0,
    trace: Any = None,
    limit: int = 10**6,
) -> tuple[np.ndarray, int]:
    """Local SGD: the model, and the number of steps.

    With `trace`, momentum's state is that, and does not change.
    """
    w, m, steps = start.copy(), np.zeros_like(start), 0
    for _ in range(EPOCHS):
        for k in range(0, len(y), BATCH):
            if steps == limit:
                break
            g = gradient(w, x[k : k + BATCH], y[k : k + BATCH]) + shift
            g = g + pull * (w - start)
            if trace is not None:
                step = g + momentum * trace
            else:
                m = step = g + momentum * m
            w, steps = w - RATE * step, steps + 1
    return w, steps


def averaging(**options: Any) -> fl.Algorithm:
    """FedAvg in batches of two."""
    return fl.fedavg(losses, client=optax.sgd(RATE), batch_size=2, **options)
