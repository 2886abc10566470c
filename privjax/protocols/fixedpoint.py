"""Fixed-point numbers in a ring: what a real number is, to a protocol.

A real x is the integer round(x * 2^scale) in two's complement modulo 2^ring_bits. Factors
have scale `fractional_bits`; a product has twice that until it is truncated.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.errors import InputError, RangeError


@dataclass(frozen=True)
class FixedPoint:
    """The fixed-point format of a secret-shared program.

    Attributes:
      ring_bits: size of the ring, 32 or 64.
      fractional_bits: bits behind the point of a factor; a product needs twice as many
        for a moment, so that values must stay below `max_value`.
      truncation: how products lose their surplus bits. "probabilistic" (1 round): up or
        down at random, unbiased, by less than one unit. "exact" (log2(ring_bits) + 3
        rounds): to the nearest, so that results do not depend on chance. Neither has a
        large-error case.
    """

    ring_bits: int = 64
    fractional_bits: int = 18
    truncation: str = "probabilistic"

    def __post_init__(self) -> None:
        if self.ring_bits not in (32, 64):
            raise InputError(f"ring_bits={self.ring_bits}: the ring has 32 or 64 bits.")
        if self.truncation not in ("probabilistic", "exact"):
            raise InputError(
                f"truncation={self.truncation!r}: choose 'probabilistic' or 'exact'."
            )
        if not 1 <= self.fractional_bits <= self.ring_bits // 2 - 3:
            raise InputError(
                f"fractional_bits={self.fractional_bits}: a product needs twice as many "
                f"bits and some before the point; at most {self.ring_bits // 2 - 3} "
                f"fit into {self.ring_bits} bits."
            )

    @property
    def dtype(self) -> Any:
        return np.dtype(f"uint{self.ring_bits}")

    @property
    def signed(self) -> Any:
        return np.dtype(f"int{self.ring_bits}")

    @property
    def real(self) -> Any:
        """The float type that encodings are computed in."""
        return np.dtype("float64" if self.ring_bits == 64 else "float32")

    @property
    def max_value(self) -> float:
        """Magnitudes of values and of products must stay below this.

        Truncation without the large-error case needs |x| < 2^(k-2) at twice the scale.
        """
        return float(2.0 ** (self.ring_bits - 2 - 2 * self.fractional_bits))

    @property
    def resolution(self) -> float:
        return float(2.0**-self.fractional_bits)

    def encode(self, x: Any, scale: int) -> Any:
        """Real array -> ring elements, rounded to nearest."""
        scaled = jnp.asarray(x).astype(self.real) * (2.0**scale)
        return (
            lax.round(scaled, lax.RoundingMethod.TO_NEAREST_EVEN)
            .astype(self.signed)
            .astype(self.dtype)
        )

    def decode(self, v: Any, scale: int, dtype: Any) -> Any:
        """Ring elements -> real array of `dtype`."""
        real = v.astype(self.signed).astype(self.real) * (2.0**-scale)
        return real.astype(dtype)

    def check(self, x: Any, name: str) -> None:
        """Raise `RangeError` when a clear array of reals is not finite or does not fit."""
        a = np.asarray(x)
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            return
        if not np.all(np.isfinite(a)):
            raise RangeError(f"{name} contains NaN or infinity; it cannot be shared.")
        a = np.abs(a.astype(np.complex128 if a.dtype.kind == "c" else np.float64))
        if a.size and float(np.max(a)) >= self.max_value:
            raise RangeError(
                f"{name} has a magnitude of {np.max(a):.4g}; fixed point with "
                f"{self.ring_bits} ring bits and {self.fractional_bits} fractional bits "
                f"holds magnitudes below {self.max_value:.4g}. Rescale it, or give "
                "fixed_point=privjax.FixedPoint(...) fewer fractional bits."
            )
