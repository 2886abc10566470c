"""Batches for one epoch: shuffled ones of fixed size, and Poisson samples for DP.

An epoch's batches are one pytree with a leading axis of steps, so that the epoch is one
`lax.scan`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.demo.workloads import Floats
from privjax.errors import PrivacyError


class SampleError(PrivacyError):
    """A Poisson sample does not fit into its batch."""


def owners(rows: int, clients: int) -> list[slice]:
    """Which rows each client owns: consecutive runs of the same length."""
    each = rows // clients
    return [slice(i * each, (i + 1) * each) for i in range(clients)]


def shuffled(
    rng: np.random.Generator, x: Floats, y: Floats, batch: int, clients: int
) -> dict[str, Any]:
    """Every client's rows in a new order, cut into batches; rows left over sit out.

    Returns:
      "x" [steps, clients, batch / clients, features] and "y" likewise: step i of client j
      holds its own rows. `merged` makes them the batches of one owner.
    """
    each = batch // clients
    runs = owners(len(x), clients)
    steps = (len(x) // clients) // each
    rows = np.stack([r.start + rng.permutation(r.stop - r.start) for r in runs])
    rows = rows[:, : steps * each].reshape(clients, steps, each).swapaxes(0, 1)
    return {"x": jnp.asarray(x[rows]), "y": jnp.asarray(y[rows])}


def merged(batches: dict[str, Any]) -> dict[str, Any]:
    """The same batches without the axis of clients: same rows, same steps."""
    return jax.tree.map(lambda a: a.reshape(len(a), -1, *a.shape[3:]), batches)


def poisson(
    key: Any, x: Floats, y: Floats, rate: float, steps: int, capacity: int
) -> dict[str, Any]:
    """Poisson samples: every row is in every batch with probability `rate`, independently.

    The draws come from the privjax key, 32 bits each: rows are taken with probability
    floor(rate 2^32) / 2^32, never more than `rate`, which is what the accountant is told.

    Args:
      capacity: rows that a batch has room for; the rest of it is zeros.

    Returns:
      "x" [steps, capacity, features], "y" and "mask" [steps, capacity]; the mask is 1 for
      rows of data and is as private as they are.

    Raises:
      SampleError: a sample is larger than the capacity. Dropping rows instead would
        not be the mechanism that is accounted for.
    """
    draws = np.asarray(jax.random.bits(key, (steps, len(x)), "uint32"))
    chosen = draws < math.floor(rate * 2**32)
    out = {
        "x": np.zeros((steps, capacity, x.shape[1]), np.float32),
        "y": np.zeros((steps, capacity), np.float32),
        "mask": np.zeros((steps, capacity), np.float32),
    }
    for step in range(steps):
        rows = np.flatnonzero(chosen[step])
        if len(rows) > capacity:
            raise SampleError(
                f"a Poisson sample has {len(rows)} rows and the batch has room for "
                f"{capacity}."
            )
        for name, values in (("x", x[rows]), ("y", y[rows]), ("mask", 1.0)):
            out[name][step, : len(rows)] = values
    return jax.tree.map(jnp.asarray, out)


def capacity(rows: int, rate: float, samples: int, chance: float) -> int:
    """The least room so that one of `samples` Poisson samples overflows it with at most
    this chance (a union bound over the binomial tail).
    """
    tail, size = 0.0, rows
    while size > 0:
        more = math.comb(rows, size) * rate**size * (1 - rate) ** (rows - size)
        if (tail + more) * samples > chance:
            break
        tail, size = tail + more, size - 1
    return max(size, 1)
