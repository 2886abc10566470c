"""A `privjax.federated` round as an algorithm: the mean it returns is the next model.

What a client update written for `privjax.federated` does in one program it then does with
`fit` over sampled cohorts, and with `participant` and `serve` on real clients.
"""

from typing import Any

import jax
import jax.numpy as jnp

from privjax._typing import Array, PyTree
from privjax.errors import InputError
from privjax.fl.common import mean
from privjax.fl.mapping import Sent
from privjax.fl.rounds import Algorithm
from privjax.fl.states import Client
from privjax.transforms.federated import Federated


def repeated(round_: Any) -> Algorithm:
    """`params = round_(params, data)` in every round, over those who answer.

    Args:
      round_: `privjax.federated(update)` of a function `update(params, data)`, of one
        client, that returns what is like `params`; its aggregation method is kept.

    Raises: InputError for another one, or a method whose clip norm adapts.
    """
    if not isinstance(round_, Federated):
        raise InputError("repeated takes a round made by privjax.federated.")
    names = list(round_.signature.parameters)
    if round_.level != "client" or len(names) != 2 or list(round_.clients) != names[1:]:
        raise InputError(
            f"{round_.__name__}: repeated takes a round of a function (params, data) of "
            f"one client, whose data are the clients'; its arguments are {names}, the "
            f"clients' {list(round_.clients)}."
        )
    if round_.adaptive is not None:
        raise InputError(f"{round_.method}: take fl.fedavg, which keeps the clip norm.")
    if round_.weights is not None:
        raise InputError("clients count equally here; take fl.fedavg for weights.")
    update, method = round_.fun, round_.method

    def client(public: PyTree, own: Client, clients: int | None = None) -> Sent:
        if own.mask is not None or own.steps is not None:
            raise InputError(
                f"{round_.__name__} knows nothing of padded examples or of limits of "
                "steps: give it clients with equally many examples, or take fl.fedavg."
            )
        parts = jax.tree.leaves(update(public, own.data))
        wanted = [(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(public)]
        found = [(jnp.shape(x), jnp.result_type(x)) for x in parts]
        if found != wanted:
            raise InputError(
                f"{round_.__name__} returns {found[:3]}, and its params are {wanted[:3]}."
            )
        if clients is not None:
            wide = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in parts]
            parts = method.contribution(wide, None, None, clients)
        return Sent({"parts": parts})

    def finish(
        params: PyTree, state: PyTree, sums: PyTree, clients: int | None = None
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        total = jax.tree.unflatten(jax.tree.structure(params), sums["parts"])
        return mean(total, sums["clients"], params), state, {}

    def event(clients: int, params: PyTree) -> dict[str, Any] | None:
        if getattr(method, "noise", None) is None:
            return None
        return dict(method.event(clients, sum(x.size for x in jax.tree.leaves(params))))

    return Algorithm(
        name=round_.__name__,
        start=lambda _: (),
        enrol=lambda _: (),
        offer=lambda params, _: params,
        client=client,
        finish=finish,
        clips=getattr(method, "clip", None) is not None,
        event=event,
        aggregate=method,
    )
