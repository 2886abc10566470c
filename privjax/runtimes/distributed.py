"""One process per party, joined by JAX's distributed runtime over `shard_map`.

Each process holds its own inputs, its own seed and its own shares; only openings leave
it. The party program is the one that the simulation runs, so that outputs are the same
bit for bit. Links are not encrypted or authenticated yet: see SECURITY.md.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from privjax.core.interpret import run
from privjax.errors import (
    InputError,
    MacCheckError,
    PreprocessingError,
    ProtocolError,
)
from privjax.protocols.party import PARTY
from privjax.runtimes.discharge import Online
from privjax.runtimes.material import Material, Store


class Distributed:
    """This process's place among the parties; see `distributed`."""

    def __init__(
        self, party: int, parties: int, coordinator: str, material: str | Path
    ) -> None:
        if not 0 <= party < parties:
            raise ProtocolError(f"party={party}: the parties are 0 to {parties - 1}.")
        if jax.distributed.is_initialized():
            if (jax.process_index(), jax.process_count()) != (party, parties):
                raise ProtocolError(
                    f"this process already is {jax.process_index()} of "
                    f"{jax.process_count()}, not {party} of {parties}."
                )
        else:
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(coordinator, parties, party)
        self.party, self.parties = party, parties
        self.aborted = False
        self.store = Store(material, party)
        first = [
            next(d for d in jax.devices() if d.process_index == i)
            for i in range(parties)
        ]
        self.mesh = jax.sharding.Mesh(np.array(first), (PARTY,))

    def go_on(self) -> None:
        """Raises MacCheckError once a check has failed: the abort is for good."""
        if self.aborted:
            raise MacCheckError(
                "an earlier session was aborted because a party cheated: this process "
                "does not go on. Find out who, and start new processes."
            )

    def agree(self, digest: str, session: str) -> None:
        """All parties run the same program on the same session, or nobody starts."""
        words = np.frombuffer(bytes.fromhex(digest + session), np.uint32)
        everybody = np.asarray(multihost_utils.process_allgather(words))
        if np.any(everybody != words):
            raise PreprocessingError(
                "the parties do not run the same program with the same material: "
                f"party {self.party} has program {digest[:12]}, session {session[:12]}."
            )

    def place(self, local: Any) -> Any:
        """This party's slice of an array that is split over the parties."""
        sharding = NamedSharding(self.mesh, PartitionSpec(PARTY))
        return jax.make_array_from_process_local_data(sharding, np.asarray(local)[None])

    def execute(
        self,
        online: Callable[..., Any],
        material: Material,
        inputs: Sequence[Any],
    ) -> list[Any]:
        """Run a compiled online program on this party's inputs; local results."""
        args = jax.tree.map(
            self.place, (material.seed, material.corrections, list(inputs))
        )
        return [np.asarray(x.addressable_data(0)) for x in online(*args)]

    def online(
        self, party: Any, per_party_out: Sequence[bool]
    ) -> Callable[..., list[Any]]:
        """The online program as a function over the mesh of parties."""

        def body(seed: Any, corrections: Any, inputs: list[Any]) -> list[Any]:
            mine = jax.tree.map(lambda x: x[0], (seed, corrections, inputs))
            cx = Online(mine[0], self.parties, mine[1])
            out = run(cx, party, mine[2])
            return [
                x[None] if own else x for x, own in zip(out, per_party_out, strict=True)
            ]

        specs = [
            PartitionSpec(PARTY) if own else PartitionSpec() for own in per_party_out
        ]
        split = PartitionSpec(PARTY)
        return jax.jit(
            jax.shard_map(
                body,
                mesh=self.mesh,
                in_specs=(split, split, split),
                out_specs=specs,
                check_vma=False,
            )
        )


def distributed(
    party: int,
    parties: int,
    *,
    material: str | Path,
    coordinator: str = "127.0.0.1:12355",
) -> Distributed:
    """Join the other parties' processes; pass the result as `runtime=`.

    Args:
      party: this process's number, 0 to parties - 1.
      parties: number of processes.
      material: the directory into which the dealer's `fun.deal(..., directory=...)`
        wrote this party's folder.
      coordinator: address of party 0's coordination service, the same for all.

    Call it before any other use of JAX in the process. Raises `ProtocolError` for a
    party number out of range.
    """
    return Distributed(party, parties, coordinator, material)


def local_input(x: Any, mine: bool, path: str, owner: int, party: int) -> Any:
    """This party's array for an input: its own values, or zeros in their place."""
    given = not isinstance(x, jax.ShapeDtypeStruct)
    if mine and not given:
        raise InputError(
            f"{path} belongs to party {owner}, which is this process, but only its "
            "shape was given."
        )
    if not mine and given:
        raise InputError(
            f"{path} belongs to party {owner}; party {party} must not hold it. Pass "
            "jax.ShapeDtypeStruct(shape, dtype) in its place."
        )
    return jnp.asarray(x) if mine else np.zeros(x.shape, x.dtype)
