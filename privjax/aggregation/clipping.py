"""What bounds one client's part in a sum: its norm, its weight, and a norm that adapts.

A client scales its update to a joint Euclidean norm of at most C. With weights w, at
most `max_weight` = W, it sends (w / W) x and (w / W) C, so that the weights are summed by
the same method and the whole vector keeps within sqrt(2) C.

`AdaptiveClip` follows a quantile of the norms (Andrew, Thakkar, McMahan and Ramaswamy,
"Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, algorithm 1): each
client also says whether its norm is within C, the share b of those that are is part of
the same sum, under the same noise, and the next round takes

    C <- C exp(-rate (b - quantile)).

Updates are sent in units of C. The answer is sent as s (1[norm <= C] - 1/2), with s such
that the noise of the sum means a deviation `deviation` of b: one mechanism, whose
sensitivity grows by sqrt(1 + s^2 / 4), which is the paper's splitting of the noise.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from privjax._typing import Array
from privjax.aggregation.noise import CentralGaussian, Distributed, Noise
from privjax.errors import InputError

# The answer's size where no noise asks for more.
_SMALL = 0.1
# A norm that was clipped in float32 may be a little larger; sensitivities include it.
SLACK = 1.00001


@dataclass(frozen=True)
class AdaptiveClip:
    """A clip norm that follows a quantile of the clients' norms from round to round.

    Attributes:
      quantile: the share of clients that are not to be clipped.
      initial: the first round's norm.
      rate: how fast it moves, as a logarithm per round.
      deviation: of the noisy share of clients within the norm, where there is noise.
    """

    quantile: float = 0.5
    initial: float = 1.0
    rate: float = 0.2
    deviation: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise InputError(f"quantile={self.quantile} is not between 0 and 1.")
        for name in ("initial", "rate", "deviation"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name}={value} must be a positive number.")

    def following(self, norm: Array, share: Array) -> Array:
        """The next round's norm, from the share of clients within this one's."""
        return norm * jnp.exp(-self.rate * (share - self.quantile))

    def size(self, clients: int, noise: Noise | None) -> float:
        """s of the module docstring."""
        if noise is None:
            return _SMALL
        z, of_count = noise.noise_multiplier, self.deviation * clients
        if of_count <= z / 2:
            raise InputError(
                f"{self}: with noise_multiplier={z} the share of {clients} clients cannot "
                "be told so precisely; give a larger deviation=."
            )
        return z / math.sqrt(of_count**2 - z**2 / 4)


@dataclass(frozen=True, repr=False)
class Bounded:
    """The part of a method that bounds what a client contributes.

    Attributes:
      clip: a norm, an `AdaptiveClip`, or None.
      max_weight: larger weights count as this one; None: weights are not bounded.
      noise: of the sum.
    """

    clip: float | AdaptiveClip | None = None
    max_weight: float | None = None
    noise: Noise | None = None

    @property
    def adaptive(self) -> AdaptiveClip | None:
        return self.clip if isinstance(self.clip, AdaptiveClip) else None

    @property
    def central(self) -> CentralGaussian | None:
        """The noise that the server adds, if it does."""
        return self.noise if isinstance(self.noise, CentralGaussian) else None

    @property
    def distributed(self) -> Distributed | None:
        """The noise of which each client adds a part, if they do."""
        return self.noise if isinstance(self.noise, Distributed) else None

    def unit(self) -> float:
        """The clip norm in the units in which updates are sent; infinite for none."""
        if isinstance(self.clip, AdaptiveClip):
            return 1.0
        return math.inf if self.clip is None else self.clip

    def norm(self, clients: int) -> float:
        """The Euclidean norm of all that a client sends, at most; or infinite."""
        unit = self.unit()
        square = unit**2 * (1 if self.max_weight is None else 2)
        if self.adaptive is not None:
            square += self.adaptive.size(clients, self.noise) ** 2 / 4
        return math.sqrt(square)

    def prepare(self, xs: Sequence[Array]) -> list[Array]:
        """Scale the update to a joint norm over all arrays of at most `clip`."""
        return list(xs) if self.clip is None else self._clipped(xs, self._first())[0]

    def _first(self) -> Any:
        return self.clip if self.adaptive is None else self.adaptive.initial

    def _clipped(self, xs: Sequence[Array], norm: Any) -> tuple[list[Array], Array]:
        """Scaled to `norm` at most; and whether it was within it."""
        square = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in xs]
        found = jnp.sqrt(jnp.sum(jnp.stack(square)))
        factor = jnp.minimum(1.0, norm / jnp.maximum(found, 1e-30))
        return [x * factor.astype(x.dtype) for x in xs], found <= norm

    def contribution(
        self, xs: Sequence[Array], weight: Any, clip: Any, clients: int
    ) -> list[Array]:
        """What one client adds up: its update, then its weight, then its answer.

        Args:
          xs: the update; at least float32.
          weight: scalar or None.
          clip: this round's norm, where it adapts.
        """
        parts, within = list(xs), None
        if self.clip is not None:
            parts, within = self._clipped(xs, self._first() if clip is None else clip)
        if self.adaptive is not None:
            parts = [x / jnp.asarray(clip, x.dtype) for x in parts]
        if weight is not None:
            if self.max_weight is not None:
                weight = jnp.clip(weight / self.max_weight, 0, 1)
            parts = [x * weight.astype(x.dtype) for x in parts]
            parts.append(weight * self._weight_unit())
        if self.adaptive is not None and within is not None:
            size = self.adaptive.size(clients, self.noise)
            parts.append(size * (within.astype(jnp.float32) - 0.5))
        return parts

    def conclude(
        self,
        sums: Sequence[Array],
        weighted: bool,
        clip: Any,
        present: Any,
        clients: int,
    ) -> tuple[list[Array], Any, Any]:
        """From sums of contributions: those of updates, of weights, and the next norm.

        Args:  present: how many clients the sums are over, of `clients`.
        """
        sums, weights = list(sums), present
        answer = sums.pop() if self.adaptive is not None else None
        if weighted:
            weights = sums.pop() / self._weight_unit()
        if self.adaptive is not None:
            sums = [s * jnp.asarray(clip, s.dtype) for s in sums]
            share = (
                jnp.asarray(answer) / self.adaptive.size(clients, self.noise) / present
                + 0.5
            )
            clip = self.adaptive.following(clip, share)
        return sums, weights, clip

    def _weight_unit(self) -> float:
        unit = self.unit()
        return 1.0 if self.max_weight is None or math.isinf(unit) else unit

    def check_bounds(self, name: str, weighted: bool) -> None:
        """Raises: InputError where nothing bounds what clients send, and noise needs it."""
        if weighted and self.max_weight is None and self.noise is not None:
            raise InputError(
                f"{name}(noise=...) with weights needs max_weight=: a client's part is as "
                "large as its weight."
            )


def within(x: Array, norm: float) -> Array:
    """Scaled to the norm at most; zeros for a vector that is not finite.

    What contributions are already; where noise is to hide a client it must be certain,
    and no client may decide whether there is a result.
    """
    wide = x.astype(jnp.float64)
    found = jnp.sqrt(jnp.sum(jnp.square(wide)))
    factor = jnp.minimum(1.0, SLACK * norm / jnp.maximum(found, 1e-300))
    scaled = wide * jnp.where(found <= SLACK * norm, 1.0, factor)
    return jnp.where(jnp.isfinite(found), scaled, 0).astype(x.dtype)


def check_bounds(name: str, clip: Any, max_weight: Any, noise: Any) -> None:
    """Raises: InputError for an option out of its range."""
    for option, value in (("clip", clip), ("max_weight", max_weight)):
        if value is None or (option == "clip" and isinstance(value, AdaptiveClip)):
            continue
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name}({option}={value!r}) must be a positive number.")
    if noise is not None and not isinstance(noise, CentralGaussian | Distributed):
        raise InputError(
            f"{name}(noise={noise!r}): choose CentralGaussian, DistributedGaussian or "
            "DistributedSkellam of privjax.aggregation."
        )
    if noise is not None and clip is None:
        raise InputError(
            f"{name}(noise=...) needs clip=, a bound of each client's part."
        )


def given(method: Any) -> list[str]:
    """The options of a dataclass that are not as by default, as a user would write them."""
    return [
        f"{f.name}={getattr(method, f.name)!r}"
        for f in dataclasses.fields(method)
        if getattr(method, f.name) != f.default
    ]
