"""Mechanisms: what is added to a sum of stated sensitivity before it is released.

Values of a release are integer multiples of one granularity, a power of two: the clipped
sum is rounded onto the grid and the noise is drawn on it, so that no output has low-order
bits that tell the sum (Mironov 2012, "On significance of the least significant bits for
differential privacy"). Rounding moves each value by at most half a grid step; the stated
sensitivity includes that.

===================  ======  ====================================================
mechanism            norm    law of the noise, and how it is accounted for
===================  ======  ====================================================
`Gaussian`           l2      nearly a rounded Gaussian (prg.gaussian says how nearly)
`RoundedGaussian`    l2      a Gaussian rounded to the grid, from an exact table
`DiscreteGaussian`   l2      Canonne, Kamath and Steinke 2020: zero-concentrated DP
`DiscreteLaplace`    l1      two-sided geometric: pure epsilon
`Skellam`            l1, l2  difference of Poissons (Agarwal et al. 2021): Renyi DP
===================  ======  ====================================================

Every mechanism is hashable and has `norm`, `sensitivity`, `granularity`,
`apply(key_words, arrays)`, `distance(count)`, the total variation distance of a release
of so many values from its stated law, and `event()`: a dictionary that
`privjax.accounting` understands and that can be written as JSON.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.errors import InputError
from privjax.prg import divided, exact, gaussian, tables
from privjax.prg.chacha20 import Purpose
from privjax.prg.gaussian import round_to_grid, sensitivity_on_grid
from privjax.prg.pieces import changed, drawn, large
from privjax.prg.tables import Table, cached_table

Event = dict[str, Any]

# Grid steps per standard deviation: at least 2^17, the finest that the sampler has.
_STEPS = 17


class Noise:
    """What the mechanisms share: noise on the grid is added to sums on the grid.

    Subclasses are dataclasses with the attributes named in the module's table, and make
    values of noise, multiples of the granularity, of `words` uniform words each in
    `_sampler`.
    """

    norm: ClassVar[str]
    words: ClassVar[int]
    granularity: float

    def event(self) -> Event:
        """What one release costs, for `privjax.accounting`."""
        raise NotImplementedError

    def distance(self, count: int) -> float:
        """Total variation distance of `count` values of noise from the stated law."""
        raise NotImplementedError

    def _sampler(self) -> Callable[[Array], Array]:
        """uint32[words, n] -> float32[n]."""
        raise NotImplementedError

    def apply(self, key_words: Array, arrays: Sequence[Array]) -> list[Array]:
        """Noised arrays of the same shapes and dtypes.

        A large array has a keystream of its own, and is changed in place; the others have
        one together.
        """
        draw, out = self._sampler(), list(arrays)
        small = [i for i, x in enumerate(arrays) if not large(x)]
        for i, x in enumerate(arrays):
            if large(x):
                nonce = (Purpose.NOISE, 1 + i, 0)
                add = lambda old, words: self._add(old, draw(words))  # noqa: E731
                out[i] = changed(x, key_words, nonce, self.words, add)
        sizes = [math.prod(arrays[i].shape) for i in small]
        noise = drawn(key_words, (Purpose.NOISE, 0, 0), (sum(sizes),), self.words, draw)
        pieces = jnp.split(noise, np.cumsum(sizes)[:-1])
        for i, piece in zip(small, pieces, strict=True):
            out[i] = self._add(arrays[i], piece.reshape(arrays[i].shape))
        return out

    def _add(self, x: Array, noise: Array) -> Array:
        """Both are multiples of the grid, so the rounded sum tells their sum alone."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return (round_to_grid(wide, self.granularity) + noise).astype(x.dtype)


@dataclass(frozen=True)
class Divided:
    """A mechanism for arrays that are divided over devices: each draws its part's noise."""

    mechanism: Noise

    def apply(self, key_words: Array, arrays: Sequence[Array]) -> list[Array]:
        """As the mechanism's own; the keystreams, one an array, are used in `divided`
        order."""
        own, draw = self.mechanism, self.mechanism._sampler()

        def noise(i: int, x: Array) -> Array:
            nonce = (Purpose.NOISE, 1 + i, 1)
            return divided.drawn_like(x, key_words, nonce, own.words, draw)

        return [own._add(x, noise(i, x)) for i, x in enumerate(arrays)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mechanism, name)


@dataclass(frozen=True)
class Gaussian(Noise):
    """Gaussian noise on a grid, for all arrays of a release jointly.

    Attributes:
      noise_multiplier: standard deviation divided by the sensitivity.
      sensitivity: how far, in Euclidean norm over all arrays, adding or removing one unit
        moves the sums once they are rounded.
      granularity: the grid's step, a power of two.

    Guarantee: the result of `apply` is that of the Gaussian mechanism with this noise
    multiplier (see prg.gaussian for how closely), for sums that one unit moves by at most
    the `clip_norm` given to `of`.
    """

    noise_multiplier: float
    sensitivity: float
    granularity: float
    norm: ClassVar[str] = "l2"
    words: ClassVar[int] = gaussian.WORDS

    @classmethod
    def of(cls, noise_multiplier: float, clip_norm: float, count: int) -> "Gaussian":
        """The mechanism for `count` values whose sum moves by at most `clip_norm`.

        Raises: `InputError` when so many values share so much noise that rounding them
        to its grid would dominate the sensitivity.
        """
        _at_least_zero(noise_multiplier, clip_norm, count)
        sensitivity = clip_norm
        while True:
            sigma = noise_multiplier * sensitivity
            grid = 2.0 ** (math.floor(math.log2(sigma)) - _STEPS)
            rounded = sensitivity_on_grid(clip_norm, count, grid)
            if rounded <= sensitivity or math.floor(
                math.log2(noise_multiplier * rounded)
            ) == math.floor(math.log2(sigma)):
                return cls(float(noise_multiplier), rounded, grid)
            if rounded > 2 * clip_norm:
                raise _too_coarse(noise_multiplier, count)
            sensitivity = rounded

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise on each value."""
        return self.noise_multiplier * self.sensitivity

    def truncated(self, count: int) -> "Gaussian":
        """The mechanism for sums that are rounded up or down to its grid.

        Truncation on shares errs by less than a whole step where rounding errs by half:
        two neighbouring sums of `count` values move apart by up to one more step each.
        """
        more = math.sqrt(count) * self.granularity
        return dataclasses.replace(self, sensitivity=self.sensitivity + more)

    def event(self) -> Event:
        return {"kind": "gaussian", "noise_multiplier": self.noise_multiplier}

    def distance(self, count: int) -> float:
        """0: the sampler bounds its error as a divergence, which is not accounted for."""
        return 0.0

    def _sampler(self) -> Callable[[Array], Array]:
        return gaussian.gaussian_from_words(self.sigma, self.granularity)


@dataclass(frozen=True)
class FromTable(Noise):
    """Noise drawn exactly from a table of its law on the grid.

    Attributes:
      noise_multiplier: the noise's scale divided by the sensitivity.
      sensitivity: in `norm`, how far one unit moves the rounded sums.
      granularity: the grid's step, a power of two.
      count: how many values are released together.
    """

    noise_multiplier: float
    sensitivity: float
    granularity: float
    count: int
    law: ClassVar[Callable[..., exact.Law]]
    words: ClassVar[int] = tables.WORDS
    # Logarithm of the grid steps to the noise's scale; a table has 24 times as many
    # entries for Gaussian tails and 140 times for exponential ones.
    fineness: ClassVar[int] = 12

    @classmethod
    def of(cls, noise_multiplier: float, clip_norm: float, count: int) -> Self:
        """The mechanism for `count` values whose sum moves by at most `clip_norm`.

        `clip_norm` is measured in the mechanism's norm. The grid has 2^12 to 2^13 steps to
        the noise's scale (2^10 to 2^11 for `DiscreteLaplace`).

        Raises: `InputError` when rounding `count` values to the grid would more than
        double the sensitivity.
        """
        _at_least_zero(noise_multiplier, clip_norm, count)
        scale = noise_multiplier * clip_norm
        grid = 2.0 ** (math.floor(math.log2(scale)) - cls.fineness)
        more = {"l1": count, "l2": math.sqrt(count), "linf": 1}[cls.norm] * grid
        if more > clip_norm:
            raise _too_coarse(noise_multiplier, count)
        return cls(float(noise_multiplier), clip_norm + more, grid, count)

    @property
    def scale(self) -> float:
        """The noise's scale parameter in the units of the sum."""
        return self.noise_multiplier * self.sensitivity

    @property
    def steps(self) -> Fraction:
        """The same in steps of the grid, exactly."""
        return Fraction(self.scale) / Fraction(self.granularity)

    @functools.cached_property
    def table(self) -> Table:
        return cached_table(type(self).law, self._parameter())

    def _parameter(self) -> Fraction:
        return self.steps

    def distance(self, count: int) -> float:
        return count * self.table.distance

    def _sampler(self) -> Callable[[Array], Array]:
        step, table = np.float32(self.granularity), self.table
        return lambda words: tables.from_words(words, table).astype(np.float32) * step


@dataclass(frozen=True)
class RoundedGaussian(FromTable):
    """A Gaussian rounded to the grid: post-processing of the Gaussian mechanism.

    A sum on the grid plus rounded noise is the rounded sum of both, so that everything
    known of the Gaussian mechanism (tight accounting, amplification by sampling) holds,
    up to `distance`. `noise_multiplier` is the deviation divided by the sensitivity.
    """

    norm: ClassVar[str] = "l2"
    law = staticmethod(exact.rounded_gaussian)

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise on each value, before rounding."""
        return self.scale

    def event(self) -> Event:
        return {"kind": "gaussian", "noise_multiplier": self.noise_multiplier}


@dataclass(frozen=True)
class DiscreteGaussian(FromTable):
    """The discrete Gaussian: 1/2z^2-concentrated DP with z = `noise_multiplier`.

    Canonne, Kamath and Steinke 2020, theorem 14, for vectors; sums of several parties'
    discrete Gaussians are nearly one (Kairouz, Liu and Steinke 2021).
    """

    norm: ClassVar[str] = "l2"
    law = staticmethod(exact.discrete_gaussian)

    @property
    def sigma(self) -> float:
        return self.scale

    def event(self) -> Event:
        return {"kind": "zcdp", "rho": 0.5 / self.noise_multiplier**2}


@dataclass(frozen=True)
class DiscreteLaplace(FromTable):
    """The discrete Laplace (two-sided geometric): pure DP with epsilon 1/z.

    z = `noise_multiplier` is the scale divided by the l1 sensitivity.
    """

    norm: ClassVar[str] = "l1"
    fineness: ClassVar[int] = 10
    law = staticmethod(exact.discrete_laplace)

    def event(self) -> Event:
        return {"kind": "pure", "epsilon": 1 / self.noise_multiplier}


@dataclass(frozen=True)
class Skellam(FromTable):
    """The difference of two Poissons; `noise_multiplier` is deviation over sensitivity.

    Sums of Skellam noise of several parties are Skellam noise. Renyi DP by Agarwal,
    Kairouz and Liu 2021, theorem 3.5, for integer orders, with the l2 sensitivity D2 in
    grid steps and D1 = min(D2^2, sqrt(count) D2) for the l1 sensitivity of integers.
    """

    norm: ClassVar[str] = "l2"
    law = staticmethod(exact.skellam)

    @property
    def sigma(self) -> float:
        return self.scale

    def _parameter(self) -> Fraction:
        return self.steps**2

    def event(self) -> Event:
        l2 = self.sensitivity / self.granularity
        return {
            "kind": "skellam",
            "variance": float(self._parameter()),
            "l2": l2,
            "l1": min(l2 * l2, math.sqrt(self.count) * l2),
        }


def _at_least_zero(noise_multiplier: float, clip_norm: float, count: int) -> None:
    for name, value in (("noise_multiplier", noise_multiplier), ("norm", clip_norm)):
        if not 0 < value < math.inf:
            raise InputError(f"{name}={value} is not a positive number.")
    if count < 0:
        raise InputError(f"count={count} is less than 0.")


def _too_coarse(noise_multiplier: float, count: int) -> InputError:
    return InputError(
        f"noise_multiplier={noise_multiplier} on {count} values: the grid of "
        "the noise would be too coarse for the sum."
    )
