"""Noise that is correlated over steps: DP-FTRL's tree, and banded matrix factorisation.

Where a model is a sum of gradients, what matters is the noise on prefix sums. Noise that
later steps partly take back gives better ones at the same privacy, and needs no
sampling to be random (Kairouz et al. 2021, "Practical and private (deep) learning
without sampling or shuffling"; Choquette-Choo et al. 2023, "(Amplified) banded matrix
factorization").

Both are stateful: `start(key_words)` makes the state and `step(state, arrays)` returns
the next state and the noised arrays, which are sums in which one unit's contribution has
Euclidean norm `clip_norm` at most. `event()` is one release of the *whole* run.

Every number is a multiple of the grid, also the correction by earlier noise, which is
rounded to it. Given what was released before, a unit moves the fresh noise by its
contribution to C G, and by the rounding: `slack` is that part, and the noise is scaled
so that it is included.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.errors import InputError
from privjax.passes.dp.mechanisms import Gaussian
from privjax.prg.chacha20 import Purpose
from privjax.prg.gaussian import gaussian_on_grid, round_to_grid
from privjax.prg.session import session

Event = dict[str, Any]
State = Any


def square_root_coefficients(bands: int) -> tuple[float, ...]:
    """First column of the square root of the lower triangular matrix of ones.

    1, 1/2, 3/8, ...: binomial coefficients of (1 - x)^(-1/2) (Fichtenberger, Henzinger
    and Upadhyay 2023); cut to `bands` diagonals (Kalinin and Lampert 2024).
    """
    out = [1.0]
    for k in range(1, bands):
        out.append(out[-1] * (2 * k - 1) / (2 * k))
    return tuple(out)


@dataclass(frozen=True)
class _Correlated:
    noise_multiplier: float
    clip_norm: float
    steps: int
    count: int

    def __post_init__(self) -> None:
        for name in ("noise_multiplier", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name}={getattr(self, name)} is not positive.")
        for name in ("steps", "count"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is not at least 1.")

    @property
    def norm(self) -> str:
        return "l2"

    def _gaussian(self, norm: float, slack: float) -> Gaussian:
        """Noise for contributions of this norm, whose rounding counts `slack` values."""
        return Gaussian.of(self.noise_multiplier, norm, max(1, math.ceil(slack)))

    @property
    def mechanism(self) -> Gaussian:
        raise NotImplementedError

    @property
    def sigma(self) -> float:
        """Standard deviation of the fresh noise on each value."""
        return self.mechanism.sigma

    @property
    def sensitivity(self) -> float:
        """Of all releases together, in Euclidean norm, rounding included."""
        return self.mechanism.sensitivity

    @property
    def granularity(self) -> float:
        return self.mechanism.granularity

    def admits(self, times: int, apart: int) -> None:
        """Raises InputError unless a unit may take part so often, so far apart."""
        raise NotImplementedError

    def event(self) -> Event:
        """What a whole run costs."""
        raise NotImplementedError

    def distance(self, count: int) -> float:
        return self.mechanism.distance(count)

    def _fresh(self, key_words: Array, t: Array, x: Array) -> Array:
        """Noise of one step: from the key, the step, and what it protects."""
        mine = session(key_words, t, x, context=repr(self))
        nonce = (Purpose.NOISE, 0, 0)
        return gaussian_on_grid(mine, nonce, x.shape, self.sigma, self.granularity)

    def _flat(self, arrays: list[Array]) -> Array:
        flat = jnp.concatenate([x.astype(np.float32).ravel() for x in arrays])
        if flat.shape != (self.count,):
            raise InputError(
                f"{flat.size} values, where count={self.count} was stated."
            )
        return round_to_grid(flat, self.granularity)

    def _like(self, flat: Array, arrays: list[Array]) -> list[Array]:
        ends = np.cumsum([x.size for x in arrays])[:-1]
        pieces = jnp.split(flat, ends)
        return [
            p.reshape(x.shape).astype(x.dtype)
            for p, x in zip(pieces, arrays, strict=True)
        ]


@dataclass(frozen=True)
class TreeAggregation(_Correlated):
    """DP-FTRL: the noise on every prefix sum is that of at most log2(steps) + 1 nodes.

    A unit takes part in one step of each run (make one run an epoch); it is in `levels`
    nodes of the binary tree over steps.

    Attributes:
      noise_multiplier: the deviation of a node's noise divided by the norm of what a
        unit moves in all nodes together.
      clip_norm, steps, count: bound on a contribution, length of a run, values a step.
    """

    @property
    def levels(self) -> int:
        return self.steps.bit_length()

    @property
    def mechanism(self) -> Gaussian:
        # Each of the nodes is a sum of rounded sums: it moves by one grid step more.
        norm = self.clip_norm * math.sqrt(self.levels)
        return self._gaussian(norm, self.count * self.levels)

    def admits(self, times: int, apart: int) -> None:
        if times > 1:
            raise InputError(
                f"a unit takes part {times} times in a run of {self.steps} steps, and "
                "TreeAggregation is for one: make a run one epoch (steps=), which begins "
                "where an epoch does."
            )

    def event(self) -> Event:
        gaussian = {"kind": "gaussian", "noise_multiplier": self.noise_multiplier}
        return {"kind": "once", "event": gaussian}

    def start(self, key_words: Array) -> State:
        nodes = jnp.zeros((self.levels, self.count), np.float32)
        return key_words, jnp.zeros((), np.uint32), nodes, nodes[0]

    def step(self, state: State, arrays: list[Array]) -> tuple[State, list[Array]]:
        """Sums with the difference of this prefix's noise and the last one's.

        After `steps` steps the noise is NaN.
        """
        key_words, t, nodes, before = state
        x = self._flat(arrays)
        t = t + np.uint32(1)
        bits = (t >> lax.iota(np.uint32, self.levels)) & np.uint32(1)
        # The node that ends here is the one of the lowest bit of t.
        level = jnp.argmax(bits)
        nodes = nodes.at[level].set(self._fresh(key_words, t, x))
        total = jnp.sum(jnp.where(bits[:, None] != 0, nodes, np.float32(0)), axis=0)
        noised = jnp.where(t <= self.steps, x + (total - before), np.float32(np.nan))
        return (key_words, t, nodes, total), self._like(noised, arrays)


@dataclass(frozen=True)
class BandedToeplitz(_Correlated):
    """Noise C^-1 z for a lower triangular Toeplitz C of few diagonals.

    The default C is the banded square root of prefix summation. Noise of a step is
    y_t = z_t - sum_j c_j y_(t-j), so the last bands - 1 noises are kept.

    Attributes:
      noise_multiplier: deviation of z over what a unit moves in C G.
      clip_norm, steps, count: bound on a contribution, length of the run, values a step.
      bands: how many diagonals C has. 1 is independent noise.
      participations: how often a unit takes part, at least `bands` steps apart: the
        columns of C that it uses then have no row in common.
      rate: with block-cyclic Poisson sampling (`BlockCyclicPoisson`), the probability
        with which a unit is in a batch of its own block; then `participations` is not
        used, and the noise is relative to a single column.
    """

    bands: int = 8
    participations: int = 1
    rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bands <= self.steps:
            raise InputError(f"bands={self.bands} is not in 1 ... {self.steps}.")
        most = -(-self.steps // self.bands)
        if not 1 <= self.participations <= most:
            raise InputError(
                f"participations={self.participations}: {self.steps} steps have room for "
                f"{most} that are {self.bands} apart."
            )
        if self.rate is not None and not 0 < self.rate <= 1:
            raise InputError(f"rate={self.rate} is not in (0, 1].")

    @property
    def coefficients(self) -> tuple[float, ...]:
        return square_root_coefficients(self.bands)

    @property
    def column_norm(self) -> float:
        return math.hypot(*self.coefficients)

    @property
    def mechanism(self) -> Gaussian:
        times = 1 if self.rate is not None else self.participations
        norm = self.clip_norm * self.column_norm * math.sqrt(times)
        # Steps of the grid by which neighbours may differ beyond C G, in every value of
        # every step that a unit has an effect on: 1 + 2 (bands - 1) for the correction, a
        # sum of float32 products below 2^24 steps, each off by half a step at most, and
        # rounded once; and at most 1 for the rounding of what the unit contributes.
        slack = (2 * self.bands) ** 2 * self.count * self.bands * times
        return self._gaussian(norm, slack)

    def admits(self, times: int, apart: int) -> None:
        if self.rate is not None:
            raise InputError("rate= is for batches of BlockCyclicPoisson.")
        if times > self.participations:
            raise InputError(
                f"a unit takes part {times} times in a run of {self.steps} steps, not "
                f"participations={self.participations}."
            )
        if times > 1 and apart < self.bands:
            raise InputError(
                f"a unit may take part {apart} steps apart, which is less than "
                f"bands={self.bands}. Sample in the same order in every epoch "
                "(Shuffled(..., again=True)), with at least as many batches as bands."
            )

    def event(self) -> Event:
        """One release; with `rate`, see `count_of_events`.

        Choquette-Choo et al. 2023: with blocks as many as bands, a unit's
        possible steps are `bands` apart, their columns disjoint, and the run is as
        private as ceil(steps / bands) Poisson-sampled Gaussian releases.
        """
        gaussian = {"kind": "gaussian", "noise_multiplier": self.noise_multiplier}
        if self.rate is None:
            return {"kind": "once", "event": gaussian}
        return {"kind": "poisson", "rate": self.rate, "event": gaussian}

    @property
    def count_of_events(self) -> int:
        """How often `event()` is to be charged for the whole run."""
        return 1 if self.rate is None else -(-self.steps // self.bands)

    def start(self, key_words: Array) -> State:
        past = jnp.zeros((self.bands - 1, self.count), np.float32)
        return key_words, jnp.zeros((), np.uint32), past

    def step(self, state: State, arrays: list[Array]) -> tuple[State, list[Array]]:
        """Sums with this step's noise; after `steps` steps the noise is NaN."""
        key_words, t, past = state
        x = self._flat(arrays)
        weights = jnp.asarray(self.coefficients[1:], np.float32)
        back = round_to_grid(jnp.sum(weights[:, None] * past, axis=0), self.granularity)
        noise = self._fresh(key_words, t, x) - back
        noise = jnp.where(t < self.steps, noise, np.float32(np.nan))
        past = jnp.concatenate([noise[None], past])[: self.bands - 1]
        return (key_words, t + np.uint32(1), past), self._like(x + noise, arrays)
