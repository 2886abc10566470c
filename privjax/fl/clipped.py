"""Federated averaging where a client's part of the sum is bounded, and may be hidden.

The aggregation method scales each client's change of the model to a norm, bounds its
weight, and adds noise to the sum; with `AdaptiveClip` the norm follows a quantile of the
clients' norms and is a part of the server's state (`privjax.aggregation.clipping`).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from privjax._typing import Array, PyTree
from privjax.fl.common import mean, stepped
from privjax.fl.local import Trained, Trainer, count
from privjax.fl.mapping import Sent
from privjax.fl.rounds import Algorithm, Client, RoundOptions


class Change(NamedTuple):
    """A client's training: (public, own) -> its change of the model, what it keeps."""

    train: Trainer
    optimiser: Any
    part: Any

    def __call__(self, public: PyTree, own: Client) -> tuple[PyTree, PyTree, Trained]:
        begin = self.part.merge(public, own.state)
        done = self.train(
            self.optimiser,
            begin,
            own.data,
            mask=own.mask,
            limit=own.steps,
            key=own.key,
        )
        shared, kept = self.part.split(done.params)
        change = lambda y, x: y - x  # noqa: E731
        return jax.tree.map(change, shared, self.part.shared(begin)), kept, done


class ClippedServer(NamedTuple):
    """The server's state where updates are clipped: its optimiser's, and the clip norm.

    The norm is None where it does not adapt.
    """

    optimiser: PyTree
    clip: Any


def clipped(
    trained: Change,
    server: Any,
    method: Any,
    weigh: str,
    expected: float | None,
    name: str,
    around: RoundOptions,
) -> Algorithm:
    """FedAvg where the method bounds, and may hide, each client's part of the sum."""
    part, weighted = trained.part, weigh == "examples"
    adaptive = getattr(method, "adaptive", None)

    def sent(delta: PyTree, weight: Any, clip: Any, clients: int) -> list[Array]:
        wide = [
            x.astype(jnp.promote_types(x.dtype, jnp.float32))
            for x in jax.tree.leaves(delta)
        ]
        return method.contribution(wide, weight, clip, clients)

    def update(public: PyTree, own: Client, clients: int) -> Sent:
        shared, clip = public
        delta, kept, _ = trained(shared, own)
        weight = count(own.data, own.mask) if weighted else None
        return Sent({"parts": sent(delta, weight, clip, clients)}, (), kept)

    def finish(
        params: PyTree, state: ClippedServer, sums: PyTree, clients: int
    ) -> tuple[PyTree, ClippedServer, dict[str, Array]]:
        totals, weight, clip = method.conclude(
            sums["parts"], weighted, state.clip, sums["clients"], clients
        )
        shared = part.shared(params)
        weight = jnp.float32(expected if expected is not None else weight)
        delta = mean(
            jax.tree.unflatten(jax.tree.structure(shared), totals), weight, shared
        )
        new, optimiser = stepped(server, shared, state.optimiser, delta)
        metrics = {} if adaptive is None else {"clip_norm": state.clip}
        return part.restore(params, new), ClippedServer(optimiser, clip), metrics

    def start(params: PyTree) -> ClippedServer:
        clip = None if adaptive is None else jnp.float32(adaptive.initial)
        return ClippedServer(server.init(part.shared(params)), clip)

    def event(clients: int, params: PyTree) -> dict[str, Any] | None:
        if getattr(method, "noise", None) is None:
            return None
        weight = jnp.float32(1) if weighted else None
        shapes = jax.eval_shape(
            lambda p: sent(part.shared(p), weight, start(p).clip, clients), params
        )
        return method.event(clients, sum(math.prod(x.shape) for x in shapes))

    return Algorithm(
        name=name,
        start=start,
        enrol=part.kept,
        offer=lambda params, state: (part.shared(params), state.clip),
        client=update,
        finish=finish,
        clips=True,
        event=event,
        draws=trained.train.needs_key,
        **around,
    )
