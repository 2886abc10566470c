"""One client's program, mapped over clients, and the sums that leave.

The client's program is a `jit` of its own in the result, named `client_update`; nothing
but its averaged outputs (through the `aggregate` marker) and outputs that provably do
not depend on any client's data leave it. So the structure itself guarantees that only
sums cross, and the check is the dependence analysis below.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from privjax import _compat
from privjax._typing import Array
from privjax.core.labels import Analysis, infer
from privjax.core.trace import Traced, line_of
from privjax.errors import InputError, LeakError, UnsupportedError
from privjax.passes.federated.sequence import gathered
from privjax.passes.federated.survivors import aggregate, present
from privjax.passes.units.rules import HOST

# Below this many bytes in and out of all clients together, mapped clients stay in a
# CPU's second-level cache, and one wide step is cheaper than a loop of narrow ones.
SMALL = 2**20


@contextlib.contextmanager
def one_client_alone(name: str) -> Iterator[None]:
    """While one client's program is traced: it has no axis of clients.

    Raises: UnsupportedError for a collective over one, with its line.
    """
    try:
        yield
    except NameError as error:
        found = re.search(r"axis name:? (\w+)", str(error))
        if found is None:
            raise
        raise UnsupportedError(
            f"{name}: a collective over {found[1]!r} ({line_of(error)}), and no such axis "
            "is mapped: the program of one client sees no other client. Return what is to "
            "be summed: its sum or mean over clients leaves them by itself. Where a client "
            "goes on with such a mean, write the round over the clients axis: "
            f"level='round' and jax.vmap(..., axis_name={found[1]!r})."
        ) from error


class Dependence(Analysis):
    """Label True: the value depends on some client's data."""

    def constant(self, value: Any) -> bool:
        return False

    def transfer(self, eqn: Any, labels: Sequence[bool]) -> list[bool]:
        if any(labels) and eqn.primitive.name in HOST:
            raise LeakError(
                f"`{eqn.primitive.name}`{self.where()} hands a value that depends on "
                "the clients' data to the host. Remove it from the client's program."
            )
        return [any(labels)] * len(eqn.outvars)

    def join(self, a: bool, b: bool) -> bool:
        return a or b

    def control(self, label: bool, outs: Sequence[bool]) -> list[bool]:
        if label and self.eqn.effects:
            raise LeakError(
                f"`{self.eqn.primitive.name}`{self.where()}: the clients' data decide "
                "whether, or how often, something is handed to the host. Remove it from "
                "the client's program."
            )
        return [label or out for out in outs]


@dataclass(frozen=True)
class ClientProgram:
    """One client's update: flat inputs (some the client's own), flat outputs.

    Attributes:
      closed: the jaxpr of one client.
      own: per input, whether it belongs to the client (the others are public).
      averaged: positions of the outputs that depend on the client's data.
      common: positions of those that do not: equal for all clients.
    """

    closed: Any
    own: tuple[bool, ...]
    averaged: tuple[int, ...]
    common: tuple[int, ...]

    def update(self) -> Callable[..., list[Any]]:
        """The program as a jitted function `client_update`, a call in every jaxpr."""
        run = jaxpr_as_fun(self.closed)

        def client_update(*values: Any) -> list[Any]:
            return list(run(*values))

        return jax.jit(client_update)


def client_program(traced: Traced, own: Sequence[bool]) -> ClientProgram:
    """Sort the outputs of a client's update.

    Raises:
      InputError: an output depends on the clients' data and has no mean of its type.
      LeakError: the update hands a client's data to the host.
    """
    labels, _ = infer(Dependence(), traced.closed, list(own))
    averaged = tuple(k for k, label in enumerate(labels) if label)
    common = tuple(k for k, label in enumerate(labels) if not label)
    avals = traced.out_avals
    for k in averaged:
        if not jnp.issubdtype(avals[k].dtype, jnp.inexact):
            raise InputError(
                f"{traced.name}: output {output_name(traced.out_tree, k)} has dtype "
                f"{avals[k].dtype} and depends on the clients' data, so the mean over "
                f"clients is no {avals[k].dtype}. Return it as a float, or leave it "
                "out."
            )
    return ClientProgram(traced.closed, tuple(own), averaged, common)


def output_name(out_tree: Any, k: int) -> str:
    """How a person would write the k-th flat output: `['count']`, or `0` when alone."""
    indexed = jax.tree.unflatten(out_tree, range(out_tree.num_leaves))
    path = jax.tree_util.tree_flatten_with_path(indexed)[0][k][0]
    return f"`{jax.tree_util.keystr(path)}`" if path else "(the only one)"


def choose_strategy(program: ClientProgram, clients: int) -> str:
    """ "vmap" on accelerators and where all clients together are small, else "scan"."""
    if jax.default_backend() != "cpu":
        return "vmap"
    ins = _mine(program.closed.in_avals, program.own)
    total = clients * sum(map(_bytes, [*ins, *program.closed.out_avals]))
    return "vmap" if total <= SMALL else "scan"


def mean_over_clients(
    program: ClientProgram,
    values: Sequence[Any],
    *,
    clients: int,
    method: Any,
    strategy: str,
    weights: Any = None,
    survivors: Any = None,
    clip: Any = None,
    key_words: Any = None,
) -> tuple[list[Array], list[Array], Any]:
    """The round: every client's update, then the (weighted) mean of what they return.

    Args:
      values: flat inputs; the clients' own ones have a leading axis of `clients`.
      method: the aggregation method (see `privjax.aggregation.methods`).
      strategy: "scan" or "vmap".
      weights: None or nonnegative [clients].
      survivors: None or bool[clients], who answers; the mean is over them.
      clip: the clip norm of this round, where the method adapts it.
      key_words: uint32[8] where the method needs randomness.

    Returns: the flat outputs, the sums that left the clients, and the next clip norm.
    """
    update = program.update()
    own = _mine(values, program.own)
    bounded = hasattr(method, "contribution") and bool(program.averaged)

    def run(own: list[Any]) -> list[Any]:
        rest = iter(own)
        pairs = zip(values, program.own, strict=True)
        return update(*[next(rest) if mine else v for v, mine in pairs])

    def one(client: Any) -> tuple[list[Any], Any, Any]:
        own, weight, there = client
        out = run(own)
        parts = [out[k] for k in program.averaged]
        parts = parts if bounded else method.prepare(parts)
        parts = [part.astype(wide(part.dtype)) for part in parts]
        if bounded:
            parts = method.contribution(parts, weight, clip, clients)
        elif weight is not None:
            parts = [part * weight.astype(part.dtype) for part in parts] + [weight]
        if there is not None:
            parts = [present(there, part) for part in parts]
        return parts, (), ()

    consts = _compat.open_jaxpr(program.closed)[1]
    bound = [x for x in (*values, weights, survivors, clip, *consts) if x is not None]
    sums: list[Any] = []
    if program.averaged:
        found = gathered(
            one,
            (own, weights, survivors),
            clients=clients,
            chunk=clients if strategy == "vmap" else 1,
            method=method,
            key_words=key_words,
            answering=survivors,
            bound=bound,
        )
        sums = found.parts
        if not found.summed:
            sums = aggregate(sums, method, key_words, survivors)
    # What does not depend on the clients is the first one's.
    first = run([x[0] for x in own]) if program.common else []
    common = [first[k] for k in program.common]

    avals = program.closed.out_avals
    out: list[Any] = [None] * len(avals)
    for k, c in zip(program.common, common, strict=True):
        out[k] = c
    weight_sum: Any = clients if survivors is None else jnp.sum(survivors)
    left = sums
    if bounded:
        weighted = weights is not None
        sums, weight_sum, clip = method.conclude(
            sums, weighted, clip, weight_sum, clients
        )
    elif weights is not None:
        *sums, weight_sum = sums
    for k, s in zip(program.averaged, sums, strict=True):
        out[k] = (s / jnp.asarray(weight_sum, s.dtype)).astype(avals[k].dtype)
    return out, left, clip


def _mine(values: Sequence[Any], own: Sequence[bool]) -> list[Any]:
    return [v for v, mine in zip(values, own, strict=True) if mine]


def wide(dtype: Any) -> Any:
    """The type in which sums of a type are formed: at least float32."""
    return (
        jnp.promote_types(dtype, jnp.float32) if np.dtype(dtype).itemsize < 4 else dtype
    )


def _bytes(aval: Any) -> int:
    return int(np.prod(aval.shape, dtype=np.int64)) * getattr(aval.dtype, "itemsize", 4)
