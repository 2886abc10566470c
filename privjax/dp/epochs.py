"""Samplers that see every unit once an epoch, and what that costs.

=============  =====================================  ==================================
sampler        batches                                what it charges
=============  =====================================  ==================================
`BallsInBins`  each epoch puts every unit into one    one release an epoch, without
               of `bins` batches, independently       amplification
`Shuffled`     each epoch in a new order              one release an epoch, without
                                                      amplification; zero_out, replace_one
`Streamed`     an iterator, once through              one release; zero_out, replace_one
=============  =====================================  ==================================

Batches of `BallsInBins` (Chua et al. 2024, "Balls-and-bins sampling for DP-SGD") are less
predictable than those of a shuffle, and the literature has tighter figures for them (by
simulation); dp-accounting has none, so that what is charged is the bound without
amplification: within an epoch a unit is in one batch, and whatever the others do, that
is one release. For shuffled batches nothing better holds in general (Chua et al. 2024,
"How private are DP-SGD implementations?"): figures for Poisson sampling do not.
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
        overflow = float(stats.binom.sf(self.room, self.units + 1, 1 / self.bins))
        return per_epoch(event, far + overflow, steps, self.bins)


@dataclass(frozen=True)
class Shuffled(Sampler):
    """Every epoch in a new order; rows that do not fill a batch sit the epoch out."""

    units: int
    size: int

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
                order = permutation(jax.random.fold_in(key, epoch), self.units)
            mine = order[number * self.size : (number + 1) * self.size]
            yield mine, np.ones(self.size, np.float32)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        event, far = parts(mechanism, values)
        once = {"kind": "once", "event": event}
        return per_epoch(once, far, steps, self.steps_per_epoch)


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


def per_epoch(
    event: Event, far: float, steps: int, length: int
) -> list[tuple[Event, int]]:
    """One release an epoch begun, while every step adds to the distance."""
    if steps == 0:
        return []
    return [({**event, **with_distance(far * length)}, -(-steps // length))]
