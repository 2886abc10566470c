"""Samplers that see every unit once an epoch, and what that costs.

=============  =====================================  ==================================
sampler        batches                                what it charges
=============  =====================================  ==================================
`BallsInBins`  each epoch puts every unit into one    an epoch of random allocation
               of `bins` batches, independently       (Gaussian noise: amplified)
`Shuffled`     each epoch in a new order              one release an epoch, without
                                                      amplification; zero_out, replace_one
`Streamed`     an iterator, once through              one release; zero_out, replace_one
=============  =====================================  ==================================

Batches of `BallsInBins` (Chua et al. 2024, "Balls-and-bins sampling for DP-SGD") are less
predictable than those of a shuffle, and amplify (accounting/allocation.py). Within an
epoch a unit is in one batch, and whatever the others do, that is one release: for
shuffled batches nothing better holds in general (Chua et al. 2024, "How private are
DP-SGD implementations?"), and figures for Poisson sampling do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import jax
import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from privjax.dp import batches
from privjax.dp.sampling import (
    Batch,
    Event,
    Sampler,
    at_least_one,
    fill,
    parts,
    permutation,
    room_for,
    with_distance,
)
from privjax.errors import InputError


@dataclass(frozen=True)
class BallsInBins(Sampler):
    """Every epoch has `bins` batches, and each unit is in one of them, at random."""

    units: int
    bins: int
    padded: ClassVar[bool] = True
    neighbours: ClassVar[tuple[str, ...]] = (
        "add_or_remove_one",
        "zero_out",
        "replace_one",
    )

    def __post_init__(self) -> None:
        at_least_one(units=self.units, bins=self.bins)

    @property
    def room(self) -> int:
        return room_for(self.units, 1 / self.bins)

    @property
    def expected(self) -> float:
        return self.units / self.bins

    @property
    def steps_per_epoch(self) -> int:
        return self.bins

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        for step in range(steps):
            epoch, number = divmod(step, self.bins)
            if number == 0:
                mine = jax.random.fold_in(key, epoch)
                words = np.asarray(jax.random.bits(mine, (2, self.units), "uint32"))
                wide = words[0].astype(np.uint64) << np.uint64(32) | words[1]
                bins = wide % np.uint64(self.bins)
            yield fill(np.flatnonzero(bins == number)[: self.room], self.room)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        event, far = parts(mechanism, values)
        if event["kind"] == "gaussian":
            event = {"kind": "balls_in_bins", "bins": self.bins, "event": event}
        return per_epoch(event, far + self.lost, steps, self.bins)

    @property
    def lost(self) -> float:
        if self.room >= self.units:
            return 0.0
        return float(stats.binom.sf(self.room, self.units + 1, 1 / self.bins))

    def participation(self, start: int, steps: int) -> tuple[int, int]:
        return _epochs(start, steps, self.bins), 1


@dataclass(frozen=True)
class Shuffled(Sampler):
    """Every epoch in a new order; rows that do not fill a batch sit the epoch out.

    Attributes:
      again: every epoch in the order of the first one, so that a unit's steps are a
        whole epoch apart, as banded noise over several epochs needs it.
    """

    units: int
    size: int
    again: bool = False

    def __post_init__(self) -> None:
        at_least_one(units=self.units, size=self.size)
        if self.size > self.units:
            raise InputError(f"size={self.size} is more than {self.units} units.")

    @property
    def room(self) -> int:
        return self.size

    @property
    def steps_per_epoch(self) -> int:
        return self.units // self.size

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        for step in range(steps):
            epoch, number = divmod(step, self.steps_per_epoch)
            if number == 0:
                turn = 0 if self.again else epoch
                order = permutation(jax.random.fold_in(key, turn), self.units)
            mine = order[number * self.size : (number + 1) * self.size]
            yield mine, np.ones(self.size, np.float32)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        event, far = parts(mechanism, values)
        once = {"kind": "once", "event": event}
        return per_epoch(once, far, steps, self.steps_per_epoch)

    def participation(self, start: int, steps: int) -> tuple[int, int]:
        length = self.steps_per_epoch
        return _epochs(start, steps, length), length if self.again else 1


@dataclass(frozen=True)
class Streamed(Sampler):
    """An iterator of units, once through in its own order; the last batch is padded."""

    size: int
    units: int = 0
    padded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least_one(size=self.size)

    @property
    def room(self) -> int:
        return self.size

    @property
    def steps_per_epoch(self) -> int:
        raise InputError("a stream has no known number of steps: give steps=.")

    def masked(
        self, data: Any, steps: int, key: Any = None
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """At most `steps` batches of an iterable of units' pytrees; see `Sampler`."""
        return islice(batches.stacked(data, self.size), steps)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        event, far = parts(mechanism, values)
        return per_epoch({"kind": "once", "event": event}, far, steps, max(steps, 1))

    def participation(self, start: int, steps: int) -> tuple[int, int]:
        return 1, steps


def _epochs(start: int, steps: int, length: int) -> int:
    """How many epochs of this length the steps touch."""
    return (start + steps - 1) // length - start // length + 1


def per_epoch(
    event: Event, far: float, steps: int, length: int
) -> list[tuple[Event, int]]:
    """One release an epoch begun, while every step adds to the distance."""
    if steps == 0:
        return []
    return [({**event, **with_distance(far * length)}, -(-steps // length))]
