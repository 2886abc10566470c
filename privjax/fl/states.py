"""What a client, a round and a run carry, and whose of it is written back."""

from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp

from privjax._typing import Array, PyTree
from privjax.fl.cohorts import Cohort


class Client(NamedTuple):
    """What is one client's own.

    Attributes: its `state` of earlier rounds; `data`, a pytree of [examples, ...];
    `mask`, bool[examples] or None; `steps`, its limit or None; `key`, uint32[8] or None.
    """

    state: PyTree
    data: PyTree
    mask: Any = None
    steps: Any = None
    key: Any = None


class State(NamedTuple):
    """Everything that a run carries from round to round.

    Attributes:
      params: the model.
      server: the algorithm's own state at the server.
      clients: the clients' states, each leaf [all clients, ...]; () where they have none.
      rounds: int32, how many rounds are behind it.
    """

    params: PyTree
    server: PyTree
    clients: PyTree
    rounds: Array


class RoundOptions(TypedDict, total=False):
    """How a round's sums are formed and where its clients run.

    aggregate: as for `privjax.federated`. Default "plain".
    runtime: see `privjax.fl.runtime`. Default "auto".
    """

    aggregate: Any
    runtime: Any


def alive_in(cohort: Cohort) -> Array:
    """bool[clients], who answers."""
    if cohort.survivors is None:
        return jnp.ones(cohort.clients, bool)
    return jnp.asarray(cohort.survivors).astype(bool)


def who_answers(cohort: Cohort, method: Any) -> Array:
    """Who sends the method something: padding that adds no noise sends zeros."""
    there = alive_in(cohort)
    if cohort.present is None or getattr(method, "distributed", None) is not None:
        return there
    return there | ~jnp.asarray(cohort.present).astype(bool)


def scattered(clients: PyTree, kept: PyTree, ids: Any, alive: Any) -> PyTree:
    """The states of all clients with those of a cohort written back."""
    if not jax.tree.leaves(clients):
        return clients
    if ids is None:
        return jax.tree.map(lambda old, new: new.astype(old.dtype), clients, kept)
    if alive is not None:
        # Absent clients have made-up numbers: write them nowhere.
        total = jax.tree.leaves(clients)[0].shape[0]
        ids = jnp.where(jnp.asarray(alive).astype(bool), ids, total)
    return jax.tree.map(
        lambda old, new: old.at[ids].set(new.astype(old.dtype), mode="drop"),
        clients,
        kept,
    )
