"""Choosing privately: report-noisy-max, the exponential mechanism, sparse vector.

Scores are rounded to a grid and the noise is drawn on it from exact tables, so that the
proofs hold for the numbers that are computed: they compare integers.

Report-noisy-max is epsilon-DP for every noise with P(X >= a + s) >= exp(-s/t)
P(X >= a) for all integers a and s >= 0: given the others' noise, the winner's must pass
a border that moves by at most twice the sensitivity (Dwork and Roth 2014, section 3.3;
Ding et al. 2021 for the exponential noise, which never does worse than the exponential
mechanism; McSherry and Talwar 2007 for Gumbel noise, which is that mechanism up to the
grid). Ties go to the first, which the argument allows.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.errors import InputError
from privjax.prg import exact
from privjax.prg.chacha20 import Purpose
from privjax.prg.tables import Table, cached_table, draw

Event = dict[str, Any]

NOISE: dict[str, Callable[[Fraction], exact.Law]] = {
    "exponential": exact.geometric,
    "gumbel": exact.gumbel,
    "laplace": exact.discrete_laplace,
}
# Steps of the grid per scale of the noise, and the range of scores on it.
_STEPS, _LIMIT = 9, 2**28


def _grid(scale: float, sensitivity: float) -> float:
    grid = 2.0 ** (math.floor(math.log2(scale)) - _STEPS)
    if grid > sensitivity:
        raise InputError(
            f"noise of scale {scale:g} for a sensitivity of {sensitivity:g}: the grid of "
            "the noise would be coarser than what it hides. Choose a larger epsilon."
        )
    return grid


def _whole(x: Array, grid: float) -> Array:
    """Steps of the grid, int32; clipped to the range, which moves no two apart."""
    steps = jnp.round(x.astype(np.float32) / np.float32(grid))
    return jnp.clip(steps, -_LIMIT, _LIMIT).astype(np.int32)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name}={value} is not a positive number.")


@dataclass(frozen=True)
class ReportNoisyMax:
    """The index of the greatest score after noise: epsilon-DP.

    Attributes:
      epsilon: the guarantee of one selection.
      sensitivity: how far one unit moves each score, at most (l-infinity).
      noise: "exponential" (the most accurate), "gumbel" or "laplace".
      monotonic: whether adding a unit moves all scores in the same direction, as counts
        do; half the noise is then enough.
    """

    epsilon: float
    sensitivity: float = 1.0
    noise: str = "exponential"
    monotonic: bool = False
    norm: ClassVar[str] = "linf"

    def __post_init__(self) -> None:
        _positive(epsilon=self.epsilon, sensitivity=self.sensitivity)
        if self.noise not in NOISE:
            raise InputError(f"noise={self.noise!r} is none of {sorted(NOISE)}.")

    @property
    def _factor(self) -> float:
        return (1 if self.monotonic else 2) / self.epsilon

    @property
    def granularity(self) -> float:
        """The grid's step, a power of two, to which scores are rounded."""
        return _grid(self._factor * self.sensitivity, self.sensitivity)

    @functools.cached_property
    def table(self) -> Table:
        moved = Fraction(self.sensitivity) / Fraction(self.granularity) + 1
        return cached_table(NOISE[self.noise], moved * Fraction(self._factor))

    def select(self, key_words: Array, scores: Array) -> Array:
        """The winner's index along the last axis, int32; finite scores [..., n]."""
        noise = draw(key_words, (Purpose.NOISE, 0, 0), scores.shape, self.table)
        noised = _whole(scores, self.granularity) + noise
        return jnp.argmax(noised, axis=-1).astype(np.int32)

    def apply(self, key_words: Array, arrays: Sequence[Array]) -> list[Array]:
        """The winner of one array of scores as a one-hot array of its shape."""
        if len(arrays) != 1:
            raise InputError(f"one array of scores is expected, not {len(arrays)}.")
        (scores,) = arrays
        winner = self.select(key_words, scores)
        return [jax.nn.one_hot(winner, scores.shape[-1], dtype=scores.dtype)]

    def event(self) -> Event:
        return {"kind": "pure", "epsilon": self.epsilon}

    def distance(self, count: int) -> float:
        return count * self.table.distance


@dataclass(frozen=True)
class Exponential(ReportNoisyMax):
    """The exponential mechanism: P(i) proportional to exp(epsilon score_i / (2 D)).

    With the Gumbel trick on a grid: probabilities differ from these by the rounding of
    scores and noise, the guarantee does not.
    """

    noise: str = "gumbel"


@dataclass(frozen=True)
class AboveThreshold:
    """Sparse vector: says which queries exceed a threshold, stops after `hits` of them.

    Lyu, Su and Li 2017, algorithm 1: epsilon-DP however many queries stay below. Half
    of epsilon goes to the threshold, half to the queries. Once `hits` have been found,
    the rest of the answers is "below", whatever the values.

    Attributes:
      epsilon: the guarantee for the whole stream of queries.
      threshold: public.
      sensitivity: how far one unit moves each query, at most.
      hits: how many queries may be reported as above.
    """

    epsilon: float
    threshold: float
    sensitivity: float = 1.0
    hits: int = 1
    norm: ClassVar[str] = "linf"

    def __post_init__(self) -> None:
        _positive(epsilon=self.epsilon, sensitivity=self.sensitivity, hits=self.hits)

    @property
    def granularity(self) -> float:
        widest = 4 * self.hits * self.sensitivity / self.epsilon
        return _grid(widest, self.sensitivity)

    @functools.cached_property
    def tables(self) -> tuple[Table, Table]:
        """Noise on the threshold, noise on each query."""
        moved = Fraction(self.sensitivity) / Fraction(self.granularity) + 1
        half = Fraction(self.epsilon) / 2
        laplace = exact.discrete_laplace
        return (
            cached_table(laplace, moved / half),
            cached_table(laplace, 2 * self.hits * moved / half),
        )

    def start(self, key_words: Array) -> Any:
        """The state before the first query."""
        noise = draw(key_words, (Purpose.NOISE, 0, 0), (), self.tables[0])
        limit = _whole(jnp.asarray(self.threshold), self.granularity) + noise
        return key_words, limit, jnp.zeros((), np.uint32), jnp.zeros((), np.int32)

    def ask(self, state: Any, value: Array) -> tuple[Any, Array]:
        """The next state, and whether the scalar `value` is above (bool)."""
        key_words, limit, asked, found = state
        asked = asked + np.uint32(1)
        noise = draw(key_words, (Purpose.NOISE, asked, 1), (), self.tables[1])
        above = _whole(value, self.granularity) + noise >= limit
        above &= found < self.hits
        return (key_words, limit, asked, found + above), above

    def apply(self, key_words: Array, arrays: Sequence[Array]) -> list[Array]:
        """1 where a query is reported as above and 0 elsewhere, of the same shape.

        One array; its elements in order are the stream of queries.
        """
        if len(arrays) != 1:
            raise InputError(f"one array of queries is expected, not {len(arrays)}.")
        (values,) = arrays
        _, above = lax.scan(self.ask, self.start(key_words), values.ravel())
        return [above.reshape(values.shape).astype(values.dtype)]

    def event(self) -> Event:
        return {"kind": "pure", "epsilon": self.epsilon}

    def distance(self, count: int) -> float:
        return self.tables[0].distance + count * self.tables[1].distance


@dataclass(frozen=True)
class RandomizedResponse:
    """Local DP for categories 0 ... buckets - 1 (Warner 1965; Kairouz et al. 2016).

    Each value is kept with probability 1 - p and else replaced by a uniform one, p such
    that replacing a unit's value changes no probability by more than exp(epsilon).

    Attributes:
      epsilon: the guarantee for each element of the input.
      buckets: how many categories there are.
    """

    epsilon: float
    buckets: int = 2
    norm: ClassVar[str] = "local"
    granularity: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _positive(epsilon=self.epsilon)
        if self.buckets < 2:
            raise InputError(f"buckets={self.buckets} is less than 2.")

    @functools.cached_property
    def noise_parameter(self) -> float:
        """p, rounded up."""
        p = self.buckets / (math.exp(self.epsilon) + self.buckets - 1)
        return min(1.0, math.nextafter(p, 1.0))

    @functools.cached_property
    def table(self) -> Table:
        p = Fraction(self.noise_parameter)
        other = p / self.buckets
        kept = 1 - other * (self.buckets - 1)
        return cached_table(exact.finite, (kept, *[other] * (self.buckets - 1)))

    def apply(self, key_words: Array, arrays: Sequence[Array]) -> list[Array]:
        """Randomised integers of the same shapes; every element independently."""
        out = []
        for number, x in enumerate(arrays):
            nonce = (Purpose.NOISE, number, 0)
            moved = draw(key_words, nonce, x.shape, self.table)
            values = jnp.clip(x.astype(np.int32), 0, self.buckets - 1)
            out.append(((values + moved) % self.buckets).astype(x.dtype))
        return out

    def unbiased(self, counts: Array) -> Array:
        """Estimates of the true counts from randomised ones, float32[..., buckets]."""
        p = self.noise_parameter
        total = jnp.sum(counts, axis=-1, keepdims=True)
        return (counts - total * (p / self.buckets)) / (1 - p)

    def event(self) -> Event:
        return {
            "kind": "randomized_response",
            "noise_parameter": self.noise_parameter,
            "buckets": self.buckets,
        }

    def distance(self, count: int) -> float:
        return count * self.table.distance
