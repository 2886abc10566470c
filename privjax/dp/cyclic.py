"""Block-cyclic Poisson sampling: what amplifies banded matrix factorisation.

Units are dealt to as many blocks as the noise has bands, by their number; step t draws
a Poisson sample of block t mod blocks (Choquette-Choo et al. 2023, section 4).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from privjax.dp.correlated import BandedToeplitz
from privjax.dp.sampling import Batch, Event, Poisson, Sampler
from privjax.errors import InputError


@dataclass(frozen=True)
class BlockCyclicPoisson(Sampler):
    """Each unit of the block whose turn it is, with probability `rate`.

    Attributes:
      units, rate: as for `Poisson`; the expected batch is rate * units / blocks.
      blocks: as many as the noise has bands.
    """

    units: int
    rate: float
    blocks: int
    padded: ClassVar[bool] = True
    neighbours: ClassVar[tuple[str, ...]] = Poisson.neighbours

    def __post_init__(self) -> None:
        if not 1 <= self.blocks <= self.units:
            raise InputError(f"blocks={self.blocks} is not in 1 ... {self.units}.")
        self._largest()

    def _largest(self) -> Poisson:
        return Poisson(-(-self.units // self.blocks), self.rate)

    @property
    def room(self) -> int:
        return self._largest().room

    @property
    def expected(self) -> float:
        return self.units * self.rate / self.blocks

    def rows(self, key: Any, steps: int) -> Iterator[Batch]:
        poisson = self._largest()
        for step, (rows, keep) in enumerate(poisson.rows(key, steps)):
            mine = rows * self.blocks + step % self.blocks
            # The last blocks may lack a unit.
            keep = keep * (mine < self.units)
            yield np.where(keep > 0, mine, 0), keep.astype(np.float32)

    def charge_run(
        self, mechanism: Any, start: int = 0, values: int = 0
    ) -> list[tuple[Event, int]]:
        if start % self.blocks:
            raise InputError(f"a run begins with the first of {self.blocks} blocks.")
        return self.charge(mechanism, mechanism.steps, values)

    def charge(
        self, mechanism: Any, steps: int, values: int = 0
    ) -> list[tuple[Event, int]]:
        """For `BandedToeplitz` noise of as many bands and the same rate, or for
        independent noise, of which a unit sees every `blocks`-th step.
        """
        times = -(-steps // self.blocks)
        if isinstance(mechanism, BandedToeplitz):
            if (mechanism.bands, mechanism.rate) != (self.blocks, self.rate):
                raise InputError(
                    f"noise of {mechanism.bands} bands for rate {mechanism.rate} with "
                    f"{self.blocks} blocks at rate {self.rate}: both must be the same."
                )
            if steps > mechanism.steps:
                raise InputError(f"the noise is for {mechanism.steps} steps.")
            gaussian = {
                "kind": "gaussian",
                "noise_multiplier": mechanism.noise_multiplier,
                "distance": mechanism.distance(values) * self.blocks,
            }
            return self._largest().charge(gaussian, times)
        return self._largest().charge(mechanism, times, values * self.blocks)
