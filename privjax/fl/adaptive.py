"""Adaptive optimisers at the server (Reddi et al. 2021, "Adaptive Federated Optimization").

`fedadagrad`, `fedadam` and `fedyogi` are `fedavg` with `adaptive` as the server's
optimiser.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from privjax._typing import PyTree
from privjax.fl.averaging import fedavg
from privjax.fl.local import Loss
from privjax.fl.rounds import Algorithm


class SecondMoment(NamedTuple):
    """State of `adaptive`: the first and second moments."""

    m: PyTree
    v: PyTree


def adaptive(
    kind: str, rate: Any, b1: Any, b2: Any, tau: Any
) -> optax.GradientTransformation:
    """The server's step of Reddi et al. 2021, algorithm 2, as an Optax transformation.

    With the mean change d (the negated gradient), all per coordinate:

        m = b1 m + (1 - b1) d
        v = v + d^2                                   adagrad
        v = v - (1 - b2) d^2 sign(v - d^2)            yogi
        v = b2 v + (1 - b2) d^2                       adam
        x = x + rate m / (sqrt(v) + tau)

    m begins at 0 and v at tau^2, without corrections of their bias; Optax's Adam, with
    them, may be used as a server's optimiser as well.
    """
    second = {
        "adagrad": lambda v, d: v + d**2,
        "yogi": lambda v, d: v - (1 - b2) * d**2 * jnp.sign(v - d**2),
        "adam": lambda v, d: b2 * v + (1 - b2) * d**2,
    }[kind]

    def init(params: PyTree) -> SecondMoment:
        return SecondMoment(
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(lambda p: jnp.zeros_like(p) + tau**2, params),
        )

    def update(
        grads: PyTree, state: SecondMoment, params: PyTree | None = None
    ) -> tuple[PyTree, SecondMoment]:
        m = jax.tree.map(lambda m, g: b1 * m - (1 - b1) * g, state.m, grads)
        v = jax.tree.map(second, state.v, grads)
        step = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + tau), m, v)
        return step, SecondMoment(m, v)

    return optax.GradientTransformation(init, update)


def fedadagrad(
    loss: Loss,
    *,
    client: Any,
    rate: Any,
    b1: Any = 0.0,
    tau: Any = 1e-3,
    **options: Any,
) -> Algorithm:
    """FedAvg with Adagrad at the server (Reddi et al. 2021)."""
    server = adaptive("adagrad", rate, b1, 0.0, tau)
    return fedavg(
        loss, client=client, server=server, **{"name": "fedadagrad", **options}
    )


def fedadam(
    loss: Loss,
    *,
    client: Any,
    rate: Any,
    b1: Any = 0.9,
    b2: Any = 0.99,
    tau: Any = 1e-3,
    **options: Any,
) -> Algorithm:
    """FedAvg with Adam at the server (Reddi et al. 2021)."""
    server = adaptive("adam", rate, b1, b2, tau)
    return fedavg(loss, client=client, server=server, **{"name": "fedadam", **options})


def fedyogi(
    loss: Loss,
    *,
    client: Any,
    rate: Any,
    b1: Any = 0.9,
    b2: Any = 0.99,
    tau: Any = 1e-3,
    **options: Any,
) -> Algorithm:
    """FedAvg with Yogi at the server (Reddi et al. 2021)."""
    server = adaptive("yogi", rate, b1, b2, tau)
    return fedavg(loss, client=client, server=server, **{"name": "fedyogi", **options})
