"""Federated averaging where a client's part of the sum is bounded, and may be hidden.

The aggregation method scales each client's change of the model to a norm, bounds its
weight, and adds noise to the sum; with `AdaptiveClip` the norm follows a quantile of the
clients' norms and is a part of the server's state (`privjax.aggregation.clipping`).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from privjax._typing import Array, PyTree
from privjax.aggregation.sparse import RandomK
from privjax.fl.common import mean, stepped
from privjax.fl.compressed import Counted, decoded, encoded, places_key
from privjax.fl.local import Trained, Trainer, count
from privjax.fl.mapping import Sent
from privjax.fl.rounds import Algorithm
from privjax.fl.states import Client, RoundOptions


class Change(NamedTuple):
    """A client's training: (public, own) -> what it sends of its change, what it keeps.

    With `compress` clients have a memory beside their own parameters, and what they
    send is in the form of `privjax.fl.compressed`.
    """

    train: Trainer
    optimiser: Any
    part: Any
    compress: Any = None

    def __call__(
        self, public: PyTree, own: Client, words: Any
    ) -> tuple[PyTree, PyTree, Trained]:
        state, memory = own.state if self.compress else (own.state, None)
        begin = self.part.merge(public, state)
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
        delta = jax.tree.map(change, shared, self.part.shared(begin))
        if self.compress is None:
            return delta, kept, done
        sent, memory = encoded(self.compress, delta, memory, words)
        return sent, (kept, memory), done

    def enrol(self, params: PyTree) -> PyTree:
        """What a client keeps before its first round."""
        kept = self.part.kept(params)
        if self.compress is None:
            return kept
        return kept, self.compress.init(self.part.shared(params))

    def form(self, shared: PyTree) -> PyTree:
        """What clients send of a change of parameters like these; zeros."""
        if isinstance(self.compress, RandomK):
            size = self.compress.count(shared)
            return jnp.zeros(size, ravel_pytree(shared)[0].dtype)
        return shared

    def change(self, total: PyTree, shared: PyTree, words: Any) -> PyTree:
        """The change of the model that a mean of what clients sent stands for."""
        if self.compress is None:
            return total
        return decoded(self.compress, total, shared, words)

    # What the server keeps: the optimiser's state and, where places follow from it, the
    # number of the round.

    def counted(self, inner: PyTree) -> PyTree:
        if not isinstance(self.compress, RandomK):
            return inner
        return Counted(inner, jnp.uint32(0))

    def inner(self, state: PyTree) -> tuple[PyTree, Any]:
        """What is inside, and uint32[8] of this round's places or None."""
        if not isinstance(self.compress, RandomK):
            return state, None
        return state.inner, places_key(state.rounds)

    def following(self, state: PyTree, inner: PyTree) -> PyTree:
        if not isinstance(self.compress, RandomK):
            return inner
        return Counted(inner, state.rounds + 1)


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
        shared, clip, words = public
        delta, kept, _ = trained(shared, own, words)
        weight = count(own.data, own.mask) if weighted else None
        return Sent({"parts": sent(delta, weight, clip, clients)}, (), kept)

    def finish(
        params: PyTree, counted: PyTree, sums: PyTree, clients: int
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        state, words = trained.inner(counted)
        totals, weight, clip = method.conclude(
            sums["parts"], weighted, state.clip, sums["clients"], clients
        )
        shared = part.shared(params)
        weight = jnp.float32(expected if expected is not None else weight)
        form = trained.form(shared)
        total = jax.tree.unflatten(jax.tree.structure(form), totals)
        delta = trained.change(mean(total, weight, form), shared, words)
        new, optimiser = stepped(server, shared, state.optimiser, delta)
        metrics = {} if adaptive is None else {"clip_norm": state.clip}
        after = trained.following(counted, ClippedServer(optimiser, clip))
        return part.restore(params, new), after, metrics

    def start(params: PyTree) -> PyTree:
        clip = None if adaptive is None else jnp.float32(adaptive.initial)
        return trained.counted(ClippedServer(server.init(part.shared(params)), clip))

    def offer(params: PyTree, counted: PyTree) -> PyTree:
        state, words = trained.inner(counted)
        return part.shared(params), state.clip, words

    def event(clients: int, params: PyTree) -> dict[str, Any] | None:
        if getattr(method, "noise", None) is None:
            return None
        weight = jnp.float32(1) if weighted else None
        shapes = jax.eval_shape(
            lambda p: sent(
                trained.form(part.shared(p)),
                weight,
                trained.inner(start(p))[0].clip,
                clients,
            ),
            params,
        )
        return method.event(clients, sum(math.prod(x.shape) for x in shapes))

    return Algorithm(
        name=name,
        start=start,
        enrol=trained.enrol,
        offer=offer,
        client=update,
        finish=finish,
        clips=True,
        sparse=trained.compress,
        event=event,
        draws=trained.train.needs_key,
        **around,
    )
