"""Which units a step sees: part of the mechanism, so the sampler tells the accountant.

=============  =====================================  ==================================
sampler        batches                                what it charges for T steps
=============  =====================================  ==================================
`FullBatch`    all units, every step                  T releases
`Poisson`      each unit with probability `rate`,     T Poisson-sampled releases
               padded to a static room
`FixedSize`    a uniform subset of a fixed size       T releases sampled without
                                                      replacement; replace_one
=============  =====================================  ==================================

Samplers that go through the data epoch by epoch are in `epochs.py`.
All draws are ChaCha20's, from a key of the operating system unless one is given.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from privjax import random
from privjax.dp import batches
from privjax.errors import InputError
from privjax.prg.keys import key_words

Event = dict[str, Any]
Batch = tuple[np.ndarray, np.ndarray]

# Chance of one batch's overflow up to which it is charged to delta; beyond, it is
# accounted for as truncated sampling. Rooms that are not given are chosen for _ROOM.
_RARE, _ROOM = 1e-12, 1e-15


class Sampler:
    """Draws rows, batch after batch, and says what a release on them costs.

    Attributes:
      units: how many units the data have (public).
      room: the static number of rows of a batch.
      expected: the expected number of units in a batch: the fixed denominator of a loss.
      padded: whether batches may be smaller than their room and need their mask.
      neighbours: the relations that the charge holds for.
    """

    units: int
    padded: ClassVar[bool] = False
    neighbours: ClassVar[tuple[str, ...]] = ("zero_out", "replace_one")

    @property
    def room(self) -> int:
        raise NotImplementedError

    @property
    def expected(self) -> float:
        return float(self.room)

    @property
    def steps_per_epoch(self) -> int:
        """About how many batches go by until a unit has been seen once."""
        return max(1, round(self.units / self.expected))

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        """`steps` times (row numbers int64[room], mask float32[room])."""
        raise NotImplementedError

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        """Events, and how often each, of a mechanism applied to `steps` batches.

        Args:
          mechanism: an event, or an object with `event()` (and `distance(values)`).
          values: how many numbers one release has.
        """
        raise NotImplementedError

    @property
    def lost(self) -> float:
        """The chance that a batch lacks a unit that it should have."""
        return 0.0

    def participation(self, start: int, steps: int) -> tuple[int, int]:
        """How often a unit takes part in these steps, and how far apart, at least.

        Raises: InputError where that is left to chance.
        """
        raise InputError(
            f"{type(self).__name__} leaves open how often a unit takes part, on which "
            "correlated noise depends: use Shuffled, BallsInBins, Streamed, FullBatch, or "
            "BlockCyclicPoisson with BandedToeplitz(rate=)."
        )

    def charge_run(
        self, mechanism: Any, start: int = 0, values: int = 0
    ) -> list[tuple[Event, int]]:
        """Events, and how often each, of a run of correlated noise from step `start` on.

        Args:
          mechanism: `BandedToeplitz(...)` or `TreeAggregation(...)`: its `steps` are the
            length of the run.
          values: how many numbers one step releases.

        Raises: InputError when a unit may take part more often, or at steps less far
          apart, than the mechanism's sensitivity allows for.
        """
        mechanism.admits(*self.participation(start, mechanism.steps))
        event, far = parts(mechanism, values)
        if "add_or_remove_one" in self.neighbours:
            # Which steps a unit is in does not depend on what other units there are.
            event = event["event"]
        far += self.lost * mechanism.steps
        return [({**event, **with_distance(far)}, 1)]

    def masked(
        self, data: Any, steps: int, key: Any = None
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """`steps` batches of the data with their masks, NumPy arrays of static shapes.

        Args:
          data: a pytree of arrays with units on axis 0, or a random-access source.
          key: `privjax.random.key()`; drawn from the operating system by default.

        Raises: InputError when the data have another number of units.
        """
        found = batches.size(data)
        if found != self.units:
            raise InputError(f"the sampler is for {self.units} units, not {found}.")
        words = random.key() if key is None else key
        key_words(words)
        return (
            (batches.take(data, rows, keep), keep)
            for rows, keep in self.rows(words, steps)
        )

    def batches(
        self, data: Any, steps: int, key: Any = None, mask: str | None = "mask"
    ) -> Iterator[Any]:
        """The same, with the mask as a part of the batch.

        Args:
          mask: the name under which a dictionary of data gets the mask (other pytrees
            become pairs); None leaves it out, for samplers that need none.
        """
        if mask is None and self.padded:
            raise InputError(
                f"batches of {type(self).__name__} are padded: their mask is needed to "
                "tell rows from padding."
            )
        for batch, keep in self.masked(data, steps, key):
            yield batches.with_mask(batch, keep, mask)


@dataclass(frozen=True)
class FullBatch(Sampler):
    """Every step sees all units."""

    units: int
    neighbours: ClassVar[tuple[str, ...]] = (
        "add_or_remove_one",
        "zero_out",
        "replace_one",
    )

    @property
    def room(self) -> int:
        return self.units

    def participation(self, start: int, steps: int) -> tuple[int, int]:
        return steps, 1

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        for _ in range(steps):
            yield np.arange(self.units), np.ones(self.units, np.float32)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        event, far = parts(mechanism, values)
        return [({**event, **with_distance(far)}, steps)]


@dataclass(frozen=True)
class Poisson(Sampler):
    """Each unit is in a batch with probability `rate`, independently.

    Attributes:
      rate: rounded down to a multiple of 2^-32 when rows are drawn.
      capacity: rows of a batch; chosen so that a batch overflows with probability 1e-15
        when None. A sample that does not fit is cut to a uniform subset.
    """

    units: int
    rate: float
    capacity: int | None = None
    padded: ClassVar[bool] = True
    neighbours: ClassVar[tuple[str, ...]] = (
        "add_or_remove_one",
        "zero_out",
        "replace_one",
    )

    def __post_init__(self) -> None:
        at_least_one(units=self.units)
        if not 0 < self.rate <= 1 or math.floor(self.rate * 2**32) == 0:
            raise InputError(f"rate={self.rate} is not in [2^-32, 1].")
        if self.capacity is not None:
            at_least_one(capacity=self.capacity)

    @property
    def room(self) -> int:
        if self.capacity is not None:
            return self.capacity
        return room_for(self.units, self.rate)

    @property
    def expected(self) -> float:
        return self.units * self.rate

    @property
    def overflow(self) -> float:
        """The chance that one batch does not fit, for one unit more than there are."""
        if self.room >= self.units:
            return 0.0
        return float(stats.binom.sf(self.room, self.units + 1, self.rate))

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        limit = math.floor(self.rate * 2**32)
        for step in range(steps):
            mine = jax.random.fold_in(key, step)
            drawn = np.asarray(jax.random.bits(mine, (self.units,), "uint32"))
            chosen = np.flatnonzero(drawn < limit)
            if len(chosen) > self.room:
                # A uniform order of all units, of a shape that is always the same.
                order = permutation(jax.random.fold_in(mine, 1), self.units)
                chosen = order[np.isin(order, chosen)][: self.room]
            yield fill(chosen, self.room)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        event, far = parts(mechanism, values)
        if self.rate == 1 and self.room >= self.units:
            return [({**event, **with_distance(far)}, steps)]
        if self.overflow <= _RARE:
            sampled = {"kind": "poisson", "rate": self.rate, "event": event}
            return [({**sampled, **with_distance(far + self.overflow)}, steps)]
        cut = {
            "kind": "truncated_poisson",
            "rate": self.rate,
            "capacity": self.room,
            "units": self.units,
            "event": event,
        }
        return [({**cut, **with_distance(far)}, steps)]


@dataclass(frozen=True)
class FixedSize(Sampler):
    """A uniform subset of `size` units, drawn anew for every step."""

    units: int
    size: int
    neighbours: ClassVar[tuple[str, ...]] = ("replace_one",)

    def __post_init__(self) -> None:
        at_least_one(units=self.units, size=self.size)
        if self.size > self.units:
            raise InputError(f"size={self.size} is more than {self.units} units.")

    @property
    def room(self) -> int:
        return self.size

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        for step in range(steps):
            order = permutation(jax.random.fold_in(key, step), self.units)
            yield order[: self.size], np.ones(self.size, np.float32)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        event, far = parts(mechanism, values)
        drawn = {
            "kind": "fixed_size",
            "size": self.size,
            "units": self.units,
            "event": event,
        }
        return [({**drawn, **with_distance(far)}, steps)]


# -- helpers ---------------------------------------------------------------------------


def parts(mechanism: Any, values: int) -> tuple[Event, float]:
    """The event without its distance, and the distance of one release."""
    event = getattr(mechanism, "event", None)
    out = dict(event() if callable(event) else mechanism)
    far = float(out.pop("distance", 0.0))
    measure = getattr(mechanism, "distance", None)
    return out, far + (float(measure(values)) if callable(measure) else 0.0)


def with_distance(far: float) -> Event:
    return {"distance": far} if far else {}


def room_for(units: int, rate: float) -> int:
    """Rows so that a binomial sample overflows with probability _ROOM at most."""
    room = int(stats.binom.isf(_ROOM, units + 1, rate)) + 1
    return min(units, -(-room // 8) * 8)


def fill(rows: np.ndarray, room: int) -> Batch:
    out = np.zeros(room, np.int64)
    out[: len(rows)] = rows
    return out, (np.arange(room) < len(rows)).astype(np.float32)


def permutation(key: Any, count: int) -> np.ndarray:
    """A uniform order by sorting 128-bit numbers; ties have probability count^2 2^-129."""
    words = np.asarray(jax.random.bits(key, (4, count), "uint32"))
    return np.lexsort(words)


def at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1 or value != int(value):
            raise InputError(f"{name}={value} is not a whole number of at least 1.")
