"""Who is asked in a round: samplers of cohorts.

Clients are the units of `privjax.dp`'s samplers, whose draws and whose charges are what
client-level privacy is accounted by:

==================  ==================================================================
`FixedSize`         a uniform subset of a fixed size, without replacement
`Poisson`           each client with probability `rate`, padded to a static room
`FullBatch`         all clients, every round
`Weighted`          a fixed number without replacement, with unequal chances
`Cyclic`            in turns, a fixed group after the other
==================  ==================================================================
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from privjax.dp.sampling import (
    Batch,
    Event,
    FixedSize,
    FullBatch,
    Poisson,
    Sampler,
    at_least_one,
    parts,
    permutation,
    with_distance,
)
from privjax.errors import InputError


@dataclass(frozen=True)
class Weighted(Sampler):
    """`size` clients without replacement, one after the other by their weights.

    A client with twice the weight has twice the chance in every draw (successive
    sampling, by exponential clocks: Efraimidis and Spirakis 2006).

    Attributes:
      weights: one positive number per client; public.
      size: clients per round.
    """

    weights: tuple[float, ...]
    size: int

    def __init__(self, weights: Sequence[float], size: int) -> None:
        given = tuple(float(w) for w in weights)
        if not given or not all(0 < w < float("inf") for w in given):
            raise InputError("weights= must be positive numbers.")
        at_least_one(size=size)
        if size > len(given):
            raise InputError(f"size={size} is more than {len(given)} clients.")
        object.__setattr__(self, "weights", given)
        object.__setattr__(self, "size", int(size))
        object.__setattr__(self, "units", len(given))

    @property
    def room(self) -> int:
        return self.size

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        weights = np.asarray(self.weights)
        for step in range(steps):
            mine = jax.random.fold_in(key, step)
            words = np.asarray(jax.random.bits(mine, (2, self.units), "uint32"))
            # In (0, 1): 53 of 64 random bits, and never 0.
            whole = (words[0].astype(np.uint64) << np.uint64(32)) | words[1]
            uniform = ((whole >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
            clocks = -np.log(uniform) / weights
            chosen = np.argsort(clocks)[: self.size]
            yield chosen, np.ones(self.size, np.float32)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        """T releases: that a client may be left out is not made use of."""
        event, far = parts(mechanism, values)
        return [({**event, **with_distance(far)}, steps)]


@dataclass(frozen=True)
class Cyclic(Sampler):
    """Fixed groups take turns: round t asks the clients of group t mod groups.

    The groups are drawn once, by the key of the run. Where availability follows the time
    of day this is the model (Eichner et al. 2019, Cho et al. 2023).

    Attributes:
      units: how many clients.
      groups: how many groups; sizes differ by one at most.
    """

    units: int
    groups: int
    padded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.groups <= self.units:
            raise InputError(f"groups={self.groups} is not in 1 ... {self.units}.")

    @property
    def room(self) -> int:
        return -(-self.units // self.groups)

    @property
    def expected(self) -> float:
        return self.units / self.groups

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        order = permutation(key, self.units)
        for step in range(steps):
            mine = order[step % self.groups :: self.groups]
            ids = np.zeros(self.room, np.int64)
            ids[: len(mine)] = mine
            yield ids, (np.arange(self.room) < len(mine)).astype(np.float32)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        """A client takes part in every `groups`-th round, in ceil(T / groups) at most."""
        event, far = parts(mechanism, values)
        return [({**event, **with_distance(far)}, -(-steps // self.groups))]


@dataclass(frozen=True)
class Faults:
    """Clients that drop out or are slow, for experiments.

    Attributes:
      dropped: the chance that a client of a cohort does not answer.
      slow: the chance that it gets only a part of its work done.
      steps: local steps of a slow client, uniformly from the first to the second.
    """

    dropped: float = 0.0
    slow: float = 0.0
    steps: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        for name in ("dropped", "slow"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} is not in [0, 1].")
        if not 0 <= self.steps[0] <= self.steps[1]:
            raise InputError(f"steps={self.steps} is no range.")

    def draw(self, key: Any, clients: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Survivors, bool[clients], and step limits, int32[clients] or None."""
        words = np.asarray(jax.random.bits(key, (3, clients), "uint32"))
        uniform = words.astype(np.float64) * 2.0**-32
        survivors = uniform[0] >= self.dropped
        if not self.slow:
            return survivors, None
        low, high = self.steps
        part = low + np.floor(uniform[2] * (high - low + 1)).astype(np.int32)
        everything = np.int32(2**31 - 1)
        return survivors, np.where(uniform[1] < self.slow, part, everything)


__all__ = [
    "Cyclic",
    "Faults",
    "FixedSize",
    "FullBatch",
    "Poisson",
    "Sampler",
    "Weighted",
]
