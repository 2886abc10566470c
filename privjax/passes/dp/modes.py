"""How a unit's contributions are brought to a bounded norm.

Every mode divides the releases of a step in groups and multiplies a unit's contributions
to each group by a factor, such that the root of the groups' squared bounds is the clip
norm: one Gaussian mechanism covers all of them, whatever the mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.errors import InputError

# Positions of the releases in a group, and the group's share of the clip norm.
Group = tuple[tuple[int, ...], float]


@dataclass(frozen=True)
class Flat:
    """All contributions of a unit as one vector, scaled down to the clip norm."""

    def groups(self, names: Sequence[str]) -> list[Group]:
        return [(tuple(range(len(names))), 1.0)]

    def factors(self, norms: Array, limit: Array | float, unit: float) -> Array:
        """By what to multiply contributions of these norms.

        `limit` is the group's bound, `unit` a norm of 1 on the scale of these norms.
        """
        return jnp.minimum(1, limit / jnp.maximum(norms, np.finfo(norms.dtype).tiny))


@dataclass(frozen=True)
class PerLayer(Flat):
    """Every released array by itself, all with the same bound.

    McMahan et al. 2018, "Learning differentially private recurrent language models".
    """

    def groups(self, names: Sequence[str]) -> list[Group]:
        return [((k,), len(names) ** -0.5) for k in range(len(names))]


@dataclass(frozen=True)
class Grouped(Flat):
    """Groups of parameters, each with its own bound.

    `bounds` lists (text, bound): a released array belongs to the first entry whose text
    occurs in its name (see `.releases()`). Bounds count relative to each other: they are
    scaled so that the root of their squares' sum is the clip norm.
    """

    bounds: tuple[tuple[str, float], ...]

    def groups(self, names: Sequence[str]) -> list[Group]:
        members: list[list[int]] = [[] for _ in self.bounds]
        for k, name in enumerate(names):
            found = [j for j, (text, _) in enumerate(self.bounds) if text in name]
            if not found:
                raise InputError(
                    f"clipping={self}: {name!r} is in no group; end with ('', bound)."
                )
            members[found[0]].append(k)
        total = math.hypot(*(bound for _, bound in self.bounds))
        return [
            (tuple(m), bound / total)
            for m, (_, bound) in zip(members, self.bounds, strict=True)
            if m
        ]


@dataclass(frozen=True)
class Automatic(Flat):
    """Contributions are normalised: clip_norm / (norm + gamma).

    Bu et al. 2023, "Automatic clipping: differentially private deep learning made easier
    and stronger". The clip norm is then no more than a factor of the learning rate.
    """

    gamma: float = 0.01

    def factors(self, norms: Array, limit: Array | float, unit: float) -> Array:
        return limit / (norms + self.gamma * unit)


@dataclass(frozen=True)
class Adaptive(Flat):
    """The clip norm follows a quantile of the norms.

    Andrew et al. 2021, "Differentially private learning with adaptive clipping". A call
    takes `clip_norm=`, the norm to clip to, and returns (result, next clip norm): the
    norm times exp(-rate * (fraction of units within it - quantile)). The fraction is
    released with noise of its own: contributions and the count are one vector per unit,
    of which the count has the part `share` of the squared length, so that the step costs
    what it does without.
    """

    quantile: float = 0.5
    rate: float = 0.2
    share: float = 0.01


MODES: dict[str, Flat] = {
    "flat": Flat(),
    "per_layer": PerLayer(),
    "automatic": Automatic(),
    "adaptive": Adaptive(),
}


def mode_of(spec: object) -> Flat:
    """A mode, from itself or from its name."""
    if isinstance(spec, Flat):
        return spec
    if isinstance(spec, str) and spec in MODES:
        return MODES[spec]
    raise InputError(
        f"clipping={spec!r} is none of {list(MODES)} and no mode such as Grouped."
    )
