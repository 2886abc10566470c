"""What a user may choose about a differentially private step, checked once."""

import math
from dataclasses import dataclass
from typing import Any

from privjax.errors import InputError
from privjax.passes.dp.modes import Adaptive, Flat, Grouped, mode_of

UNRELEASED = ("refuse", "drop")


@dataclass(frozen=True)
class Options:
    """See `privjax.differentially_private` for what each means.

    Raises: `InputError` for values out of range and for options that exclude each other.
    """

    clip_norm: float
    noise_multiplier: float
    denominator: float | None
    protected: Any
    outputs_unreleased: str
    clipping: Any
    microbatches: int
    expected_units: float | None
    max_units: int | None
    divided: bool

    def __post_init__(self) -> None:
        for name in ("clip_norm", "denominator", "expected_units"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}={value} is not a positive number.")
        if not 0 <= self.noise_multiplier < math.inf:
            raise InputError(
                f"noise_multiplier={self.noise_multiplier} is not at least 0."
            )
        if self.outputs_unreleased not in UNRELEASED:
            raise InputError(
                f"outputs_unreleased={self.outputs_unreleased!r} is none of "
                f"{UNRELEASED}."
            )
        if not isinstance(self.divided, bool):
            raise InputError(
                f"divided={self.divided!r} is neither True nor False; how parameters are "
                "divided is their own `jax.sharding`."
            )
        for name in ("microbatches", "max_units"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name}={value!r} is not a positive number of parts.")
        if self.denominator is not None and self.expected_units is not None:
            raise InputError(
                "denominator= says what the loss divides by and expected_units= what a "
                "mean should divide by; give one of them."
            )
        if isinstance(self.mode, Grouped) and not all(
            b > 0 for _, b in self.mode.bounds
        ):
            raise InputError(f"clipping={self.mode}: bounds are positive numbers.")

    @property
    def mode(self) -> Flat:
        return mode_of(self.clipping)

    @property
    def adapts(self) -> bool:
        return isinstance(self.mode, Adaptive)

    def bound(self, units: int) -> float:
        """The clip norm on the scale of one unit's contribution, of `units` in a mean."""
        return float(self.clip_norm) * self.scale(units)

    def scale(self, units: int) -> float:
        return 1 / (units if self.denominator is None else self.denominator)

    def rescale(self, rows: int) -> float:
        """From a mean over all rows to one over the expected number of units."""
        return 1.0 if self.expected_units is None else rows / self.expected_units
