"""Algorithms that correct the drift of clients with unlike data.

`scaffold` (Karimireddy et al. 2020) keeps a control variate at every client, `fednova`
(Wang et al. 2020) undoes that clients take unequal numbers of steps, `mime_lite`
(Karimireddy et al. 2021) gives all clients the server's optimiser statistics.
"""

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from privjax._typing import Array, PyTree
from privjax.errors import InputError
from privjax.fl.common import Options, loss_of, mean, prepared, scaled, stepped
from privjax.fl.local import Loss, count, frozen
from privjax.fl.mapping import Sent
from privjax.fl.rounds import Algorithm
from privjax.fl.states import Client


class Control(NamedTuple):
    """State of SCAFFOLD's server: the optimiser's, and the control variate c."""

    optimiser: PyTree
    c: PyTree


def scaffold(
    loss: Loss,
    *,
    rate: Any,
    clients: int,
    server: Any = None,
    **options: Unpack[Options],
) -> Algorithm:
    """SCAFFOLD with option II of the paper's algorithm 1, clients weighted equally.

    With control variates c at the server and c_i at client i, K local steps:

        y_i = y_i - rate (g(y_i) - c_i + c)      K times, from x
        c_i' = c_i - c + (x - y_i) / (K rate)
        x = x + server's step along mean(y_i - x)
        c = c + sum(c_i' - c_i) / clients

    Args:
      rate: the clients' learning rate.
      clients: how many there are in all, N in the paper.
      server: the server's optimiser; `optax.sgd(1.0)` by default.
    """
    server = optax.sgd(1.0) if server is None else server
    train, around = prepared(loss, **options)
    total = clients

    def update(public: PyTree, own: Client) -> Sent:
        x, c = public
        shift = jax.tree.map(lambda a, b: a - b, c, own.state)
        done = train(
            optax.sgd(rate),
            x,
            own.data,
            mask=own.mask,
            limit=own.steps,
            key=own.key,
            correct=lambda grads: jax.tree.map(jnp.add, grads, shift),
        )
        delta = jax.tree.map(lambda y, x: y - x, done.params, x)
        k = jnp.maximum(done.steps, 1)

        def moved(d: Array, c: Array) -> Array:
            # A client that took no step has nothing to say about its gradient.
            change = -c - d / (k.astype(d.dtype) * rate)
            return jnp.where(done.steps > 0, change, jnp.zeros((), d.dtype))

        change = jax.tree.map(moved, delta, c)
        n = count(own.data, own.mask)
        sums = {
            "weight": jnp.float32(1),
            "examples": n,
            "loss": n * done.loss,
            "delta": delta,
            "control": change,
        }
        return Sent(sums, (), jax.tree.map(jnp.add, own.state, change))

    def finish(
        params: PyTree, state: Control, sums: PyTree
    ) -> tuple[PyTree, Control, dict[str, Array]]:
        delta = mean(sums["delta"], sums["weight"], params)
        new, optimiser = stepped(server, params, state.optimiser, delta)
        c = jax.tree.map(
            lambda c, s: c + (s / total).astype(c.dtype), state.c, sums["control"]
        )
        return new, Control(optimiser, c), loss_of(sums)

    return Algorithm(
        name="scaffold",
        start=lambda p: Control(server.init(p), jax.tree.map(jnp.zeros_like, p)),
        enrol=lambda p: jax.tree.map(jnp.zeros_like, p),
        offer=lambda params, state: (params, state.c),
        client=update,
        finish=finish,
        draws=train.needs_key,
        **around,
    )


def fednova(
    loss: Loss,
    *,
    rate: Any,
    momentum: float = 0.0,
    server: Any = None,
    **options: Unpack[Options],
) -> Algorithm:
    """Normalised averaging: how many steps a client took does not weigh its objective.

    With p_i the client's share of the examples and a_i the weights that its optimiser
    gives to its gradients (Wang et al. 2020, equation 6 and section 5):

        d_i = (y_i - x) / |a_i|_1
        x = x + server's step along (sum p_i |a_i|_1) (sum p_i d_i)

    |a_i|_1 is the number of steps K for SGD; with momentum m it is
    (K - m (1 - m^K) / (1 - m)) / (1 - m).

    Args:
      rate, momentum: of the clients' SGD.
      server: the server's optimiser; `optax.sgd(1.0)` by default.
    """
    if not 0 <= momentum < 1:
        raise InputError(f"momentum={momentum} is not in [0, 1).")
    server = optax.sgd(1.0) if server is None else server
    train, around = prepared(loss, **options)
    client = optax.sgd(rate, momentum=momentum or None)

    def update(public: PyTree, own: Client) -> Sent:
        done = train(
            client, public, own.data, mask=own.mask, limit=own.steps, key=own.key
        )
        k, m = done.steps, momentum
        norm = (k - m * (1 - m**k) / (1 - m)) / (1 - m) if m else k
        n = count(own.data, own.mask)
        w = jnp.where(k > 0, n, 0)
        delta = jax.tree.map(lambda y, x: y - x, done.params, public)
        sums = {
            "weight": w,
            "examples": n,
            "loss": n * done.loss,
            "norm": w * norm,
            "delta": scaled(delta, w / jnp.maximum(norm, 1)),
        }
        return Sent(sums)

    def finish(
        params: PyTree, state: PyTree, sums: PyTree
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        effective = mean(sums["norm"], sums["weight"], sums["norm"])
        direction = mean(sums["delta"], sums["weight"], params)
        new, state = stepped(server, params, state, scaled(direction, effective))
        return new, state, {**loss_of(sums), "effective_steps": effective}

    return Algorithm(
        name="fednova",
        start=server.init,
        enrol=lambda _: (),
        offer=lambda params, _: params,
        client=update,
        finish=finish,
        draws=train.needs_key,
        **around,
    )


def mime_lite(loss: Loss, *, optimiser: Any, **options: Unpack[Options]) -> Algorithm:
    """MIME-lite: local steps of the server's optimiser with its statistics held fixed.

    Clients step by `optimiser` from x with the server's state s (Karimireddy et al.
    2021, algorithm 1 without its control variates); the server averages their models,
    weighted by examples, and updates s with the mean of their full gradients at x.

    Args:
      optimiser: an Optax transformation, such as `optax.sgd(0.1, momentum=0.9)`.
    """
    train, around = prepared(loss, **options)

    def update(public: PyTree, own: Client) -> Sent:
        x, state = public
        full = jax.grad(lambda p: train.mean(p, own.data, own.mask)[0])(x)
        done = train(
            frozen(optimiser, state),
            x,
            own.data,
            mask=own.mask,
            limit=own.steps,
            key=own.key,
        )
        n = count(own.data, own.mask)
        delta = jax.tree.map(lambda y, x: y - x, done.params, x)
        sums = {
            "weight": n,
            "examples": n,
            "loss": n * done.loss,
            "delta": scaled(delta, n),
            "gradient": scaled(full, n),
        }
        return Sent(sums)

    def finish(
        params: PyTree, state: PyTree, sums: PyTree
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        delta = mean(sums["delta"], sums["weight"], params)
        gradient = mean(sums["gradient"], sums["weight"], params)
        _, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, delta), state, loss_of(sums)

    return Algorithm(
        name="mime_lite",
        start=optimiser.init,
        enrol=lambda _: (),
        offer=lambda params, state: (params, state),
        client=update,
        finish=finish,
        draws=train.needs_key,
        **around,
    )
