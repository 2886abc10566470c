"""Questions to all clients that change no model: federated evaluation and fine-tuning."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from privjax._typing import Array, PyTree
from privjax.errors import InputError
from privjax.fl.common import Options, loss_of, prepared, scaled
from privjax.fl.local import Loss, count
from privjax.fl.mapping import Sent
from privjax.fl.personal import Local, everything_shared
from privjax.fl.rounds import Algorithm
from privjax.fl.states import Client, RoundOptions, State

Metric = Callable[[PyTree, PyTree], dict[str, Any]]


class Question:
    """A round that leaves the model as it is: `question(params, cohort) -> metrics`.

    Attributes: `algorithm`, of whose `round` `privjax.explain` tells who sees what.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def __call__(
        self, params: PyTree, cohort: Any, *, key: Any = None
    ) -> dict[str, Array]:
        """Ask the clients of a cohort.

        Args:
          params: the model, or a `State` (with the clients' own parts).
          cohort: as for an algorithm's round.
          key: where sums are secure.
        """
        state = (
            params if isinstance(params, State) else State(params, (), (), jnp.int32(0))
        )
        # The optimiser's state is no concern of the clients.
        state = state._replace(server=())
        return self.algorithm.round(state, cohort, key=key)[1]


def evaluation(
    metric: Metric,
    *,
    weigh: str = "examples",
    deviation: bool = False,
    local: Callable[[str], bool] | None = None,
    **options: Unpack[RoundOptions],
) -> Question:
    """Federated evaluation: metrics of a model over all clients' examples, by sums.

    Args:
      metric: (params, batch) -> dictionary of arrays with one value per example.
      weigh: "examples" for the mean over examples, "clients" for the mean over clients
        of their means.
      deviation: also the standard deviation over clients of their means, under the
        metric's name with "_deviation"; a sum of squares leaves the clients for it.
      local: the parameters that are the clients' own, as for `fedavg`; then ask with the
        algorithm's state in place of params.
      **options: see `RoundOptions`.
    """
    if weigh not in ("examples", "clients"):
        raise InputError(f"weigh={weigh!r}: choose 'examples' or 'clients'.")
    part = Local(local) if local is not None else everything_shared

    def ask(public: PyTree, own: Client) -> Sent:
        found = metric(part.merge(public, own.state), own.data)
        n = count(own.data, own.mask)
        means = means_of(found, own.data, own.mask)
        some = jnp.where(n > 0, jnp.float32(1), 0)
        w = n if weigh == "examples" else some
        sums = {"weight": w, "examples": n, "metrics": scaled(means, w)}
        if deviation:
            squares = jax.tree.map(jnp.square, means)
            sums["moments"] = {
                "clients": some,
                "first": scaled(means, some),
                "second": scaled(squares, some),
            }
        return Sent(sums, (), own.state)

    def finish(params: PyTree, state: PyTree, sums: PyTree) -> Any:
        w = jnp.maximum(sums["weight"], 1)
        metrics = {k: v / w for k, v in sums["metrics"].items()}
        if deviation:
            n = jnp.maximum(sums["moments"]["clients"], 1)
            for k, first in sums["moments"]["first"].items():
                spread = sums["moments"]["second"][k] / n - jnp.square(first / n)
                metrics[f"{k}_deviation"] = jnp.sqrt(jnp.maximum(spread, 0))
        return params, state, {"examples": sums["examples"], **metrics}

    return Question(
        Algorithm(
            name="evaluation",
            start=lambda _: (),
            enrol=part.kept,
            offer=lambda params, _: part.shared(params),
            client=ask,
            finish=finish,
            **options,
        )
    )


def means_of(found: Any, data: PyTree, mask: Any) -> dict[str, Array]:
    """Means over the real examples of metrics with one value per example."""
    if not isinstance(found, dict):
        raise InputError(
            f"a metric returns a dictionary by name, not {type(found).__name__}."
        )
    examples = jax.tree.leaves(data)[0].shape[0]
    out = {}
    for name, value in found.items():
        x = jnp.asarray(value).astype(jnp.float32)
        if x.ndim == 0 and mask is None:
            out[name] = x
            continue
        if x.ndim != 1 or x.shape[0] != examples:
            raise InputError(
                f"metric {name!r} has shape {x.shape} for {examples} examples: return "
                "one value per example."
            )
        if mask is None:
            out[name] = jnp.mean(x)
        else:
            real = jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1)
            out[name] = jnp.sum(jnp.where(mask, x, 0)) / real
    return out


def fine_tuning(
    loss: Loss,
    *,
    client: Any,
    metric: Metric,
    holdout: float = 0.25,
    **options: Unpack[Options],
) -> Algorithm:
    """Every client trains the model further for itself, and keeps the result.

    A round leaves `state.params` as they are; the personal models are the clients'
    states. Its metrics are means over held-out examples of what the model gives as it
    is, "before/...", and as the client has trained it, "after/...".

    Args:
      client: an Optax transformation.
      metric: (params, batch) -> dictionary of arrays with one value per example.
      holdout: the last examples of each client, this share of them rounded up, are for
        measuring and the others for training.
      **options: see `Options`.
    """
    if not 0 < holdout < 1:
        raise InputError(f"holdout={holdout} is not between 0 and 1.")
    train, around = prepared(loss, **options)

    def tune(public: PyTree, own: Client) -> Sent:
        examples = jax.tree.leaves(own.data)[0].shape[0]
        place = jnp.arange(examples)
        n = count(own.data, own.mask)
        cut = jnp.floor(n * (1 - holdout) + 1e-6)
        real = jnp.ones(examples, bool) if own.mask is None else own.mask
        first, last = real & (place < cut), real & (place >= cut)
        done = train(client, public, own.data, mask=first, limit=own.steps, key=own.key)
        held = jnp.sum(last, dtype=jnp.float32)
        before = means_of(metric(public, own.data), own.data, last)
        after = means_of(metric(done.params, own.data), own.data, last)
        trained = jnp.sum(first, dtype=jnp.float32)
        sums = {
            "examples": trained,
            "loss": trained * done.loss,
            "held": held,
            "before": scaled(before, held),
            "after": scaled(after, held),
        }
        return Sent(sums, (), done.params)

    def finish(params: PyTree, state: PyTree, sums: PyTree) -> Any:
        held = jnp.maximum(sums["held"], 1)
        metrics = {
            f"{when}/{name}": value / held
            for when in ("before", "after")
            for name, value in sums[when].items()
        }
        return params, state, {**loss_of(sums), **metrics}

    return Algorithm(
        name="fine_tuning",
        start=lambda _: (),
        enrol=lambda params: params,
        offer=lambda params, _: params,
        client=tune,
        finish=finish,
        draws=train.needs_key,
        **around,
    )
