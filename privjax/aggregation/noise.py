"""Noise on a sum over clients: by the server on the opened sum, or by every client.

`CentralGaussian`: whoever opens the sum adds Gaussian noise (`passes.dp.mechanisms`); the
server that adds it sees the exact sum.

`DistributedGaussian` and `DistributedSkellam`: each client adds integer noise to its
quantised update before it is masked or shared, so that nobody sees less noise than that
of all honest clients that stayed. Discrete Gaussians: Kairouz, Liu and Steinke, "The
Distributed Discrete Gaussian Mechanism" (ICML 2021), theorem 1, for what a sum of them is
worth; Skellam: Agarwal, Kairouz and Liu (NeurIPS 2021), closed under sums. Samples are
exact (`prg.tables`): no floating-point number is involved between the rounded update and
the ring.

A drop-out takes its noise along. Each of n clients, of which d may drop out and c may
collude with the server (who know their own noise), adds variance
(noise_multiplier * sensitivity)^2 / (n - d - c): what is certain is what is accounted for.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from privjax._typing import Array
from privjax.errors import InputError
from privjax.passes.dp.mechanisms import Gaussian
from privjax.prg import exact
from privjax.prg.chacha20 import Nonce
from privjax.prg.tables import Table, cached_table, draw

Event = dict[str, Any]

# Steps of the grid to the deviation of one client's noise, at most: 24 times as many
# entries make a table.
FINEST = 13
# Deviations of the noise in a sum for which the ring has room; beyond it the sum wraps
# (which costs accuracy, not privacy) with probability below 2^-60 per value.
TAIL = 9.0


@dataclass(frozen=True)
class CentralGaussian:
    """Gaussian noise that the server adds to the sum.

    Attributes:
      noise_multiplier: deviation divided by the sum's sensitivity (the clip norm, plus
        what rounding adds to it).
    """

    noise_multiplier: float
    distributed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _positive(self)

    def mechanism(self, sensitivity: float, count: int) -> Gaussian:
        """For a sum of `count` values that one client moves by at most `sensitivity`."""
        return Gaussian.of(self.noise_multiplier, sensitivity, count)


@dataclass(frozen=True)
class Distributed:
    """Noise in the ring, a part from each client; subclasses say which.

    Attributes:
      noise_multiplier: deviation of the noise that is certain, divided by the sum's
        sensitivity.
    """

    noise_multiplier: float
    distributed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _positive(self)

    def scale(self, sensitivity: float, certain: int) -> Fraction:
        """The deviation of one client's noise, in steps, on a grid of 2^-20 steps.

        Args:
          sensitivity: of the sum, in steps.
          certain: how many clients' noise is certain.
        """
        exactly = self.noise_multiplier * sensitivity / math.sqrt(certain)
        return Fraction(math.ceil(exactly * 2**20), 2**20)

    def table(self, scale: Fraction) -> Table:
        raise NotImplementedError

    def event(
        self, scale: Fraction, sensitivity: float, certain: int, count: int
    ) -> Event:
        """What the sum's release costs, for `privjax.accounting`."""
        raise NotImplementedError

    def sample(self, key: Array, nonce: Nonce, size: int, scale: Fraction) -> Array:
        """One client's noise in steps: int32[size]."""
        return draw(key, nonce, (size,), self.table(scale))

    def distance(self, scale: Fraction, certain: int, count: int) -> float:
        """Total variation distance of what is drawn from the law that is accounted for."""
        return certain * count * self.table(scale).distance


@dataclass(frozen=True)
class DistributedGaussian(Distributed):
    """Discrete Gaussian noise from every client: concentrated DP of their sum."""

    def table(self, scale: Fraction) -> Table:
        return cached_table(exact.discrete_gaussian, scale)

    def event(
        self, scale: Fraction, sensitivity: float, certain: int, count: int
    ) -> Event:
        epsilon = concentrated(float(scale), sensitivity, certain, count)
        return {
            "kind": "zcdp",
            "rho": epsilon**2 / 2,
            "distance": self.distance(scale, certain, count),
        }


def concentrated(scale: float, l2: float, parties: int, count: int) -> float:
    """epsilon of the (epsilon^2 / 2)-zCDP of a sum of discrete Gaussians.

    Kairouz, Liu and Steinke 2021, theorem 1, in units of the grid, for `parties` of
    deviation `scale` each and integer vectors of `count` entries that differ by at most
    `l2` in Euclidean norm. The first of the three is taken at order 1, where its constant
    term weighs most.
    """
    variance = parties * scale**2
    tau = 10 * math.fsum(
        math.exp(-2 * math.pi**2 * scale**2 * k / (k + 1)) for k in range(1, parties)
    )
    # l1 of an integer vector is at most the square of its l2, and sqrt(count) times it.
    l1 = min(l2 * l2, math.sqrt(count) * l2)
    return min(
        math.sqrt(l2**2 / variance + 2 * tau * count),
        math.sqrt(
            l2**2 / variance + 2 * l1 * tau / math.sqrt(variance) + tau**2 * count
        ),
        l2 / math.sqrt(variance) + tau * math.sqrt(count),
    )


@dataclass(frozen=True)
class DistributedSkellam(Distributed):
    """Skellam noise from every client: their sum is Skellam, with Renyi DP."""

    def table(self, scale: Fraction) -> Table:
        return cached_table(exact.skellam, scale**2)

    def event(
        self, scale: Fraction, sensitivity: float, certain: int, count: int
    ) -> Event:
        return {
            "kind": "skellam",
            "variance": float(certain * scale**2),
            "l2": sensitivity,
            "l1": min(sensitivity**2, math.sqrt(count) * sensitivity),
            "distance": self.distance(scale, certain, count),
        }


def _positive(noise: Any) -> None:
    z = noise.noise_multiplier
    if not (isinstance(z, int | float | np.number) and 0 < z < math.inf):
        raise InputError(f"noise_multiplier={z!r} must be a positive number.")


Noise = CentralGaussian | Distributed
