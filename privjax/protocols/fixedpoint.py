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
from privjax.protocols import elements


@dataclass(frozen=True)
class FixedPoint:
    """The fixed-point format of a secret-shared program.

    Attributes:
      ring_bits: size of the ring, 32, 64 or 128 (two words per element; semi2k and
        reference only, three to nine times the time of 64).
      fractional_bits: bits behind the point of a factor, 18 unless given (40 in the ring
        of 128 bits); a product needs twice as many for a moment, so that values must
        stay below `max_value`.
      truncation: how products lose their surplus bits. "probabilistic" (1 round): up or
        down at random, unbiased, by less than one unit. "exact" (log2(ring_bits) + 3
        rounds): to the nearest, so that results do not depend on chance. Neither has a
        large-error case.
    """

    ring_bits: int = 64
    fractional_bits: int = None  # type: ignore[assignment]
    truncation: str = "probabilistic"

    def __post_init__(self) -> None:
        if self.ring_bits not in elements.RINGS:
            raise InputError(
                f"ring_bits={self.ring_bits}: the ring has 32, 64 or 128 bits."
            )
        given: int | None = self.fractional_bits
        if given is None:
            object.__setattr__(self, "fractional_bits", 40 if self.two_words else 18)
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
    def two_words(self) -> bool:
        return self.ring_bits > 64

    @property
    def dtype(self) -> Any:
        """The ring, as `protocols.elements` names it."""
        return elements.ring_dtype(self.ring_bits)

    @property
    def signed(self) -> Any:
        """The widest signed integers with elements of their own."""
        return np.dtype(f"int{min(64, self.ring_bits)}")

    @property
    def unsigned(self) -> Any:
        return np.dtype(f"uint{min(64, self.ring_bits)}")

    @property
    def real(self) -> Any:
        """The float type that encodings are computed in."""
        return np.dtype("float32" if self.ring_bits == 32 else "float64")

    @property
    def precision(self) -> int:
        """Bits of the mantissa of public constants, and of what functions aim at."""
        return max(18, min(40, self.fractional_bits)) if self.two_words else 18

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
        whole = lax.round(scaled, lax.RoundingMethod.TO_NEAREST_EVEN)
        return elements.from_reals(whole, self.dtype)

    def decode(self, v: Any, scale: int, dtype: Any) -> Any:
        """Ring elements -> real array of `dtype`."""
        return (elements.to_reals(v) * (2.0**-scale)).astype(dtype)

    def encode_integer(self, x: Any) -> Any:
        """Integer array -> ring elements that equal it, or are congruent."""
        x = jnp.asarray(x)
        signed = jnp.issubdtype(x.dtype, jnp.signedinteger)
        return elements.from_integers(
            x.astype(self.signed if signed else self.unsigned), self.dtype
        )

    def decode_integer(self, v: Any, dtype: Any) -> Any:
        """Ring elements -> integer array of `dtype`."""
        return elements.to_integers(v, dtype)

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
