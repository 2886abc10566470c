"""Mechanisms: what is added to a sum of stated sensitivity before it is released.

Values of a release are integer multiples of one granularity, a power of two: the clipped
sum is rounded onto the grid and the noise is drawn on it, so that no output has low-order
bits that tell the sum (Mironov 2012, "On significance of the least significant bits for
differential privacy"). Rounding moves each value by at most half a grid step; the stated
sensitivity includes that.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.errors import InputError
from privjax.prg.buffer import in_a_buffer
from privjax.prg.chacha20 import Purpose
from privjax.prg.gaussian import gaussian_on_grid, round_to_grid, sensitivity_on_grid

# Grid steps per standard deviation: at least 2^17, the finest that the sampler has.
_STEPS = 17


@dataclass(frozen=True)
class Gaussian:
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

    @classmethod
    def of(cls, noise_multiplier: float, clip_norm: float, count: int) -> "Gaussian":
        """The mechanism for `count` values whose sum moves by at most `clip_norm`.

        Raises: `InputError` when so many values share so much noise that rounding them
        to its grid would dominate the sensitivity.
        """
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
                raise InputError(
                    f"noise_multiplier={noise_multiplier} on {count} values: the grid of "
                    "the noise would be too coarse for the sum."
                )
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

    def apply(self, key_words: Array, arrays: Sequence[Array]) -> list[Array]:
        """Noised arrays of the same shapes and dtypes; one keystream for all."""
        sizes = [math.prod(x.shape) for x in arrays]
        nonce = (Purpose.NOISE, 0, 0)
        noise = in_a_buffer(
            lambda: gaussian_on_grid(
                key_words, nonce, (sum(sizes),), self.sigma, self.granularity
            ),
            key_words[0],
        )
        pieces = jnp.split(noise, np.cumsum(sizes)[:-1])
        return [
            self._add(x, n.reshape(x.shape))
            for x, n in zip(arrays, pieces, strict=True)
        ]

    def _add(self, x: Array, noise: Array) -> Array:
        """Both are multiples of the grid, so the rounded sum tells their sum alone."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return (round_to_grid(wide, self.granularity) + noise).astype(x.dtype)
