"""Algorithms for clients that are not all to be served alike: q-FedAvg and IFCA."""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]
from jax import lax

from privjax._typing import Array, PyTree
from privjax.errors import InputError
from privjax.fl.common import Options, loss_of, mean, prepared, scaled
from privjax.fl.local import Loss, count
from privjax.fl.mapping import Sent
from privjax.fl.rounds import Algorithm
from privjax.fl.states import Client


def qfedavg(loss: Loss, *, rate: Any, q: Any, **options: Unpack[Options]) -> Algorithm:
    """q-FedAvg: clients with a larger loss count for more (Li et al. 2020, algorithm 2).

    With F_i the client's mean loss at x, L = 1 / rate, and D_i = L (x - y_i):

        x = x - sum(F_i^q D_i) / sum(q F_i^(q-1) |D_i|^2 + L F_i^q)

    Args:
      rate: the clients' learning rate; 1 / rate stands for the Lipschitz constant.
      q: 0 is FedAvg with equal weights; the larger, the more even the clients' losses.
    """
    train, around = prepared(loss, **options)

    def update(public: PyTree, own: Client) -> Sent:
        done = train(
            optax.sgd(rate),
            public,
            own.data,
            mask=own.mask,
            limit=own.steps,
            key=own.key,
        )
        f = train.mean(public, own.data, own.mask)[0].astype(jnp.float32) + 1e-10
        move = jax.tree.map(
            lambda x, y: (x - y) / jnp.asarray(rate, x.dtype), public, done.params
        )
        square = sum(
            jnp.sum(jnp.square(d.astype(jnp.float32))) for d in jax.tree.leaves(move)
        )
        n = count(own.data, own.mask)
        sums = {
            "examples": n,
            "loss": n * done.loss,
            "move": scaled(move, f**q),
            "weight": q * f ** (q - 1) * square + f**q / rate,
        }
        return Sent(sums)

    def finish(
        params: PyTree, state: PyTree, sums: PyTree
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        move = mean(sums["move"], sums["weight"], params)
        new = jax.tree.map(lambda p, m: p - m, params, move)
        return new, state, loss_of(sums)

    return Algorithm(
        name="qfedavg",
        start=lambda _: (),
        enrol=lambda _: (),
        offer=lambda params, _: params,
        client=update,
        finish=finish,
        draws=train.needs_key,
        **around,
    )


def ifca(
    loss: Loss, *, client: Any, clusters: int, **options: Unpack[Options]
) -> Algorithm:
    """Iterative federated clustering: each client trains the model that suits it best.

    `params` are those of all models, with a leading axis of `clusters`, begun unlike one
    another. A client evaluates all of them on its examples and trains the one of least
    loss; every model is the mean, by examples, of the clients that chose it (Ghosh et
    al. 2020, algorithm 1, model averaging). A client sends zeros for the other models,
    so that a secure sum hides which it chose.

    Args:
      client: the clients' Optax transformation.
      clusters: how many models.
    """
    if clusters < 1:
        raise InputError(f"clusters={clusters} is not at least 1.")
    train, around = prepared(loss, **options)

    def update(public: PyTree, own: Client) -> Sent:
        losses = lax.map(lambda p: train.mean(p, own.data, own.mask)[0], public)
        best = jnp.argmin(losses)
        begin = jax.tree.map(lambda p: p[best], public)
        done = train(
            client, begin, own.data, mask=own.mask, limit=own.steps, key=own.key
        )
        n = count(own.data, own.mask)
        mine = jax.nn.one_hot(best, clusters) * n

        def placed(y: Array, x: Array) -> Array:
            wide = mine.reshape(-1, *[1] * x.ndim).astype(x.dtype)
            return wide * (y - x)

        sums = {
            "weight": mine,
            "examples": n,
            "loss": n * done.loss,
            "members": jax.nn.one_hot(best, clusters),
            "delta": jax.tree.map(placed, done.params, begin),
        }
        return Sent(sums)

    def finish(
        params: PyTree, state: PyTree, sums: PyTree
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        delta = jax.vmap(mean)(sums["delta"], sums["weight"], params)
        metrics = {**loss_of(sums), "members": sums["members"]}
        return optax.apply_updates(params, delta), state, metrics

    def start(params: PyTree) -> PyTree:
        for x in jax.tree.leaves(params):
            if x.ndim == 0 or x.shape[0] != clusters:
                raise InputError(
                    f"ifca(clusters={clusters}) takes the parameters of all models, "
                    f"with a leading axis of {clusters}; a leaf has shape {x.shape}."
                )
        return ()

    return Algorithm(
        name="ifca",
        start=start,
        enrol=lambda _: (),
        offer=lambda params, _: params,
        client=update,
        finish=finish,
        draws=train.needs_key,
        **around,
    )
