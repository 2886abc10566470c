"""Pieces that all algorithms are made of: options, and the server's arithmetic on sums."""

from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from privjax._typing import Array, PyTree
from privjax.fl.local import LocalOptions, Loss, Trainer
from privjax.fl.states import RoundOptions

WEIGHTS = ("examples", "clients")


class Options(LocalOptions, RoundOptions, total=False):
    """What every algorithm takes: see `LocalOptions` and `RoundOptions`."""


def prepared(loss: Loss, **options: Unpack[Options]) -> tuple[Trainer, RoundOptions]:
    """Local training by the options, and those that are about the round."""
    given: dict[str, Any] = dict(options)
    names = RoundOptions.__optional_keys__
    around = {k: given.pop(k) for k in names if k in given}
    return Trainer(loss, **given), cast(RoundOptions, around)


def scaled(tree: PyTree, w: Array) -> PyTree:
    """Every leaf times a weight."""
    return jax.tree.map(lambda x: x * w.astype(x.dtype), tree)


def mean(sums: PyTree, weight: Array, like: PyTree) -> PyTree:
    """Sums over their weight; zeros where nobody answered; in the types of `like`."""
    some = weight > 0

    def one(total: Array, x: Array) -> Array:
        quotient = total / jnp.where(some, weight, 1).astype(total.dtype)
        return jnp.where(some, quotient, 0).astype(x.dtype)

    return jax.tree.map(one, sums, like)


def stepped(
    server: Any, params: PyTree, state: PyTree, delta: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of the server's optimiser along the mean change."""
    grads = jax.tree.map(jnp.negative, delta)
    updates, state = server.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def loss_of(sums: PyTree) -> dict[str, Array]:
    """Metrics: the mean over examples of the clients' training losses."""
    n = sums["examples"]
    return {"examples": n, "loss": sums["loss"] / jnp.maximum(n, 1)}
