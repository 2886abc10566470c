"""What can be said about a differentially private step: its releases, and its norms."""

from dataclasses import dataclass

import numpy as np

from privjax.passes.dp.mechanisms import Gaussian


@dataclass(frozen=True)
class Releases:
    """What one call of a differentially private function lets out of its units.

    Attributes:
      protected: the jointly clipped and noised sums, each with the user's line.
      mechanism: the noise on them (None when `noise_multiplier` is 0).
      units: how many units the private argument holds.
      dropped: names of outputs that are replaced because they would leak.
      declassified: reasons given for values that the user let out, with their lines.
      asked: what `privjax.release` lets out, with its share of the privacy budget.
      closed_over: arrays that the function has from outside: they count as public.
    """

    protected: tuple[str, ...]
    mechanism: Gaussian | None
    units: int
    dropped: tuple[str, ...]
    declassified: tuple[str, ...]
    asked: tuple[str, ...] = ()
    closed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.protected)} sums over {self.units} units, clipped jointly"]
        if self.mechanism is None:
            lines[0] += ", WITHOUT noise"
        else:
            lines[0] += f", noise of standard deviation {self.mechanism.sigma:.4g}"
        lines += [f"  {text}" for text in self.protected]
        lines += [f"released by itself: {text}" for text in self.asked]
        lines += [f"dropped: {name}" for name in self.dropped]
        lines += [f"declassified: {why}" for why in self.declassified]
        if self.closed_over:
            lines += [f"public, closed over: {', '.join(self.closed_over)}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Diagnosis:
    """What clipping saw: not private, for local use.

    Attributes:
      norms: [groups, units], on the scale of one unit's own gradient.
      kept: [units], false for units that are masked or not finite.
    """

    norms: np.ndarray
    kept: np.ndarray

    def clipped_fraction(self, clip_norm: float) -> float:
        """The part of the kept units whose norm over all groups is above `clip_norm`."""
        norms = np.sqrt(np.sum(self.norms**2, axis=0))[self.kept]
        return float(np.mean(norms > clip_norm)) if norms.size else 0.0
