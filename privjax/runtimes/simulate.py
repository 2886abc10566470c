"""All parties on one device, under `vmap` over the party axis.

Simulation computes the protocol bit for bit and protects nobody: one process holds all
shares. It is for development, for counting, and for measuring accuracy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from privjax.core.interpret import run
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols.party import PARTY
from privjax.runtimes.discharge import Online, Simulate


def party_keys(words: Any, parties: int) -> Any:
    """uint32[parties, 8]: each party's seed, from the session's key."""
    return jax.vmap(
        lambda i: chacha20.derive(words, (int(Purpose.PARTY), i, jnp.uint32(0)))
    )(jnp.arange(parties, dtype=jnp.uint32))


def simulation(
    program: Any, parties: int, per_party_in: Sequence[bool], per_party_out: Any
) -> Callable[..., list[Any]]:
    """A function `(key words, *inputs) -> outputs` that runs a party program.

    `per_party_in[i]` says whether input i has a leading party axis (shares) or is the
    same for all; `per_party_out` likewise. An output that is said to be common must not
    differ between parties: JAX refuses the trace otherwise.
    """

    def fun(words: Any, *inputs: Any) -> list[Any]:
        def party(key: Any, *values: Any) -> list[Any]:
            return run(Simulate(key, parties), program, values)

        return jax.vmap(
            party,
            in_axes=(0, *(0 if own else None for own in per_party_in)),
            out_axes=[0 if own else None for own in per_party_out],
            axis_name=PARTY,
            axis_size=parties,
        )(party_keys(words, parties), *inputs)

    return fun


def online(
    program: Any, parties: int, per_party_in: Sequence[bool], per_party_out: Any
) -> Callable[..., list[Any]]:
    """As `simulation`, of the online part alone: `(seeds, corrections, *inputs)`.

    `seeds` is uint32[parties, 8]; corrections have a leading party axis.
    """

    def fun(seeds: Any, corrections: Any, *inputs: Any) -> list[Any]:
        def party(seed: Any, own: Any, *values: Any) -> list[Any]:
            return run(Online(seed, parties, own), program, values)

        results = jax.vmap(
            party,
            in_axes=(0, 0, *(0 if own else None for own in per_party_in)),
            axis_name=PARTY,
            axis_size=parties,
        )(seeds, corrections, *inputs)
        # What all parties learn each may have put together by itself.
        return [
            x if own else x[0] for x, own in zip(results, per_party_out, strict=True)
        ]

    return fun
