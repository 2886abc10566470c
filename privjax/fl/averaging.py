"""Algorithms that average the clients' changes of the model.

A client begins at the server's parameters x, trains to y_i and sends w_i (y_i - x), where
w_i is its number of examples or 1. The mean change, negated, is the gradient of an
Optax optimiser at the server. Those with an adaptive one are in `adaptive.py`.

==============  ==========================  ====================  ====================
algorithm       client                      server                paper
==============  ==========================  ====================  ====================
`fedavg`        SGD                         sgd(1)                McMahan et al. 2017
`fedprox`       SGD and `proximal(mu)`      sgd(1)                Li et al. 2020
`fedavgm`       SGD                         sgd with momentum     Hsu et al. 2019
==============  ==========================  ====================  ====================
"""

from collections.abc import Callable
from typing import Any, Unpack

import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from privjax._typing import Array, PyTree
from privjax.aggregation.methods import Plain, resolve
from privjax.errors import InputError, LeakError
from privjax.fl.clipped import Change, clipped
from privjax.fl.common import (
    WEIGHTS,
    Options,
    loss_of,
    mean,
    prepared,
    scaled,
    stepped,
)
from privjax.fl.compressed import check_compress
from privjax.fl.local import Loss, count, proximal
from privjax.fl.mapping import Sent
from privjax.fl.personal import Local, everything_shared
from privjax.fl.rounds import Algorithm
from privjax.fl.states import Client


def fedavg(
    loss: Loss,
    *,
    client: Any,
    server: Any = None,
    weigh: str | None = None,
    local: Callable[[str], bool] | None = None,
    robust: Any = None,
    expected: float | None = None,
    compress: Any = None,
    name: str = "fedavg",
    **options: Unpack[Options],
) -> Algorithm:
    """Federated averaging with any optimisers (McMahan et al. 2017, Reddi et al. 2021).

    Args:
      loss: (params, batch) -> losses; see `privjax.fl.local`.
      client: the clients' Optax transformation; it starts anew in every round.
      server: the server's, for the mean change as a gradient; `optax.sgd(1.0)` by
        default, which is plain averaging.
      weigh: "examples" weighs clients by their examples, "clients" equally. The default
        is the first, or the second where updates are clipped or statistics robust.
      local: which parameters never leave their client, by path (`privjax.fl.named`):
        FedBN for normalisation layers, FedPer for the last ones. They are states of the
        clients, and `init` needs the number of clients.
      robust: a robust statistic in place of the mean, such as
        `privjax.fl.coordinate_median()`. The server sees single updates for most of
        them.
      expected: a fixed number of clients to divide a clipped sum by, such as
        `sampler.expected`; needed where the sum carries noise for privacy and clients
        count equally, as who takes part may be secret. By default those who answer.
      compress: `TopK` or `RandomK` of `privjax.aggregation`: clients send a share of the
        entries and remember the rest, see `privjax.fl.compressed`.
      epochs, batch_size, shuffle: how a client goes through its examples, see
        `privjax.fl.Options`; once and all at once by default.
      aggregate: how sums over clients are formed, as for `privjax.federated`.
      runtime: where clients run: "scan", "vmap", `Chunks`, `Sharded` or "auto".

    With an `aggregate=` that clips, a client's clipped change is all that leaves it: the
    metrics have no loss and no number of examples. A clip norm that adapts is a part of
    the server's state.

    Raises:
      InputError: an option out of its range.
      LeakError: robust statistics of updates that a secure sum is to hide.
    """
    server = optax.sgd(1.0) if server is None else server
    train, around = prepared(loss, **options)
    method = resolve(around.get("aggregate", "plain"))
    clips = getattr(method, "clip", None) is not None
    if weigh is None:
        weigh = "clients" if clips or robust is not None else "examples"
    _check_weights(weigh, robust, method, expected)
    if robust is not None:
        check_robust(robust, method)
    check_compress(compress, method, robust)
    part = Local(local) if local is not None else everything_shared
    trained = Change(train, client, part, compress)
    if clips:
        return clipped(trained, server, method, weigh, expected, name, around)

    def update(public: PyTree, own: Client) -> Sent:
        shared, words = public
        delta, kept, done = trained(shared, own, words)
        n = count(own.data, own.mask)
        w = n if weigh == "examples" else jnp.float32(1)
        sums = {"weight": w, "examples": n, "loss": n * done.loss}
        if robust is not None:
            return Sent(sums, delta, kept)
        return Sent({**sums, "delta": scaled(delta, w)}, (), kept)

    def finish(
        params: PyTree, state: PyTree, sums: PyTree, statistic: PyTree | None = None
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        inner, words = trained.inner(state)
        shared = part.shared(params)
        delta = statistic
        if robust is None:
            total = mean(sums["delta"], sums["weight"], trained.form(shared))
            delta = trained.change(total, shared, words)
        new, inner = stepped(server, shared, inner, delta)
        return part.restore(params, new), trained.following(state, inner), loss_of(sums)

    return Algorithm(
        name=name,
        start=lambda params: trained.counted(server.init(part.shared(params))),
        enrol=trained.enrol,
        offer=lambda params, state: (part.shared(params), trained.inner(state)[1]),
        client=update,
        finish=finish,
        robust=robust,
        sparse=compress,
        draws=train.needs_key,
        **around,
    )


def fedprox(
    loss: Loss, *, client: Any, mu: Any, server: Any = None, **options: Any
) -> Algorithm:
    """FedAvg whose clients are pulled back to where they began (Li et al. 2020).

    Args:
      mu: weight of mu / 2 |params - start|^2 in every client's loss.
      client, server, **options: as for `fedavg`. Stragglers' partial work, the other half
        of the paper, is `Cohort(steps=)`.
    """
    pulled = optax.chain(proximal(mu), client)
    options = {"name": "fedprox", **options}
    return fedavg(loss, client=pulled, server=server, **options)


def fedavgm(
    loss: Loss, *, client: Any, rate: Any = 1.0, momentum: Any = 0.9, **options: Any
) -> Algorithm:
    """FedAvg with momentum at the server (Hsu, Qi and Brown 2019)."""
    server = optax.sgd(rate, momentum=momentum)
    options = {"name": "fedavgm", **options}
    return fedavg(loss, client=client, server=server, **options)


# -- what does not go together ---------------------------------------------------------


def _check_weights(weigh: str, robust: Any, method: Any, expected: Any) -> None:
    if weigh not in WEIGHTS:
        raise InputError(f"weigh={weigh!r}: choose one of {WEIGHTS}.")
    if robust is not None and weigh != "clients":
        raise InputError(
            "weigh='examples': clients count equally in a robust statistic."
        )
    clips = getattr(method, "clip", None) is not None
    if clips and weigh == "examples" and getattr(method, "max_weight", None) is None:
        raise InputError(
            f"weigh='examples' and {method}: a client's part of the sum is bounded only "
            "if its weight is; give max_weight=, or weigh='clients'."
        )
    if expected is not None and not (expected > 0 and clips):
        raise InputError(
            f"expected={expected}: a positive number, where aggregate= clips updates."
        )
    if (
        getattr(method, "noise", None) is not None
        and expected is None
        and weigh == "clients"
    ):
        raise InputError(
            f"{method} adds noise for privacy: give expected=, the fixed number of "
            "clients to divide the sum by, such as sampler.expected."
        )


def check_robust(robust: Any, method: Any) -> None:
    """Raises LeakError where a secure sum would be asked to show single updates."""
    if getattr(method, "clip", None) is not None:
        raise InputError(f"{robust} and clipping by {method}: choose one of them.")
    if robust.sums is None and not isinstance(method, Plain):
        raise LeakError(
            f"{robust} is no function of sums: the server would have to see every single "
            f"client's update, which aggregate={method} hides. Use "
            "privjax.fl.geometric_median(), which needs sums only; or bound what a "
            "client can do with secure_sum(clip=...); or compute the statistic on "
            f"secret shares: privjax.secret_shared(lambda rows: {robust.name}(...)(rows))."
        )
