"""Mechanisms: what is added to a sum of stated sensitivity before it is released.

Values of a release are integer multiples of one granularity, a power of two: the clipped
sum is rounded onto the grid, the noise is drawn on it, both are added as integers, and
only the result becomes floating point again. So no output has low-order bits that tell the
sum (Mironov 2012, "On significance of the least significant bits for differential
privacy"). Rounding moves each value by at most half a grid step; the stated sensitivity
includes that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.prg.gaussian import gaussian_on_grid

# Rounding may add this fraction to the sensitivity.
_ROUNDING = 2.0**-10
# Sums are cut off at this many grid steps, far above what clipping leaves.
_LARGEST = 2**30


@dataclass(frozen=True)
class Gaussian:
    """Gaussian noise on a grid, for all arrays of a release jointly.

    Attributes:
      noise_multiplier: standard deviation divided by the sensitivity.
      sensitivity: how far, in Euclidean norm over all arrays, adding or removing one unit
        moves the sums once they are rounded.
      granularity: the grid's step, a power of two.

    Guarantee: the result of `apply` is that of the Gaussian mechanism with this noise
    multiplier, for inputs whose sums move by at most `clip_norm` as given to `of`.
    """

    noise_multiplier: float
    sensitivity: float
    granularity: float

    @classmethod
    def of(cls, noise_multiplier: float, clip_norm: float, count: int) -> "Gaussian":
        """The mechanism for `count` values whose sum moves by at most `clip_norm`."""
        step = clip_norm * _ROUNDING / math.sqrt(max(count, 1))
        granularity = 2.0 ** math.floor(math.log2(step))
        # Two neighbouring sums are rounded by half a step each, in every coordinate.
        sensitivity = clip_norm + granularity * math.sqrt(count)
        return cls(float(noise_multiplier), sensitivity, granularity)

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise on each value."""
        return self.noise_multiplier * self.sensitivity

    def apply(self, key_words: Array, arrays: Sequence[Array]) -> list[Array]:
        """Noised arrays of the same shapes and dtypes; one keystream for all."""
        sizes = [math.prod(x.shape) for x in arrays]
        noise = gaussian_on_grid(
            key_words, 0, (sum(sizes),), self.sigma, self.granularity
        )
        cuts = np.cumsum(sizes)[:-1]
        out = []
        for x, n in zip(arrays, jnp.split(noise, cuts), strict=True):
            steps = self._steps(x) + n.reshape(x.shape)
            wide = steps.astype(jnp.promote_types(x.dtype, jnp.float32))
            out.append((wide * self.granularity).astype(x.dtype))
        return out

    def _steps(self, x: Array) -> Array:
        """Values as whole numbers of grid steps; what is not finite counts as zero."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        steps = jnp.round(wide * np.asarray(1 / self.granularity, wide.dtype))
        steps = jnp.where(jnp.isfinite(steps), steps, 0)
        return jnp.clip(steps, -_LARGEST, _LARGEST).astype(jnp.int32)
