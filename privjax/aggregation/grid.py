"""How finely a round's values are carried in the ring Z_2^bits: what follows from options.

A value x is carried as round(2^f x). The grid follows from what is stated: with a clip norm
C and n clients, as fine as fits into the ring, with room for the noise that clients add and
for what rounding adds to a vector's norm (`encoding` has the bounds).
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.aggregation import rotation
from privjax.aggregation.clipping import SLACK, Bounded, given
from privjax.aggregation.noise import FINEST, TAIL
from privjax.errors import InputError

# More fractional bits than this say nothing about a float32 update of ordinary size.
_FINEST = 40
# Rotated coordinates leave their range, and are cut off, with this probability a round.
_CUT = 1e-6


@dataclass(frozen=True)
class Grid:
    """How the values of one round are carried.

    Attributes:
      clients, count: how many clients, and real values of each.
      fraction: f.
      limit: the largest |round(2^f x)| of a client, so that all clients' sum fits.
      reach: the largest |2^f x| of a rotated coordinate; larger ones are cut. 0: no cut.
      sensitivity: the largest Euclidean norm of a client's rounded vector, in steps;
        infinite where nothing is clipped.
      scale: the deviation of one client's noise, in steps; 0 for none.
    """

    clients: int
    count: int
    fraction: int
    limit: int
    reach: float
    sensitivity: float
    scale: Fraction

    @property
    def step(self) -> float:
        return 2.0**-self.fraction


@dataclass(frozen=True, repr=False)
class Scaled(Bounded):
    """The options of an encoding, and the grid that follows from them."""

    made_by: ClassVar[str] = "encoding"

    bits: int = 64
    fractional_bits: int | None = None
    rounding: str = "nearest"
    rotate: bool = False
    dropped: int | float = 0
    colluding: int | float = 0

    def __repr__(self) -> str:
        return f"{self.made_by}({', '.join(given(self))})"

    @property
    def word(self) -> np.dtype[Any]:
        """The unsigned type that holds a ring element."""
        return np.dtype(f"uint{max(8, 1 << (self.bits - 1).bit_length())}")

    def lost(self, clients: int) -> int:
        """How many of them may drop out."""
        return number_of(self.dropped, clients)

    def against(self, clients: int) -> int:
        """How many of them may tell the server all they know."""
        return number_of(self.colluding, clients)

    def certain(self, clients: int) -> int:
        """How many clients' noise is certain: honest, and there until the end."""
        return clients - self.lost(clients) - self.against(clients)

    def noised(self, survivors: Array) -> Array:
        """bool[]: whether as many stayed as the noise is calibrated for."""
        if self.distributed is None:
            return jnp.bool_(True)
        clients = survivors.shape[0]
        return jnp.sum(survivors) >= clients - self.lost(clients)

    def fraction(self, clients: int, count: int = 1) -> int:
        """Fractional bits f: a value x is carried as round(2^f x)."""
        norm = self.norm(clients)
        if self.fractional_bits is not None:
            return self.fractional_bits
        if math.isinf(norm):
            return 24
        # A little room: a norm that was clipped in float32 may be rounded up.
        needed = 1.001 * norm * self._spread(clients, count)
        finest = _FINEST
        if self.distributed is not None:
            z = self.distributed.noise_multiplier
            deviation = z * norm / math.sqrt(self.certain(clients))
            needed += TAIL * deviation / math.sqrt(clients)
            finest = min(finest, FINEST - math.ceil(math.log2(deviation)))
        f = min(finest, math.floor(math.log2(self._room() / clients / needed)))
        # Rounding makes vectors longer, and what hides them: sometimes by one bit.
        return f if self._holds(self._grid(clients, count, f)) else f - 1

    def limit(self, clients: int) -> int:
        """The largest |round(2^f x)| of a client of which `clients` can be summed."""
        return self._room() // clients

    def _room(self) -> int:
        return 2 ** (self.bits - 1) - 1

    def _spread(self, clients: int, count: int) -> float:
        """The largest coordinate of a client's vector of norm 1."""
        return rotation.reach(count, clients, _CUT) if self.rotate else 1.0

    def grid(self, clients: int, count: int) -> Grid:
        """The grid of a round of `clients` clients with `count` real values each.

        Raises: InputError where the ring is too small for it, or the noise too little.
        """
        found = self._grid(clients, count, self.fraction(clients, count))
        if self.distributed is not None and found.scale < Fraction(1, 2):
            raise InputError(
                f"{self}: the noise of one of {clients} clients is less than half a "
                "step of the grid. Use more bits=, more noise, or rotate=True."
            )
        if not self._holds(found):
            raise InputError(self._no_room(clients, found.fraction))
        return found

    def _grid(self, clients: int, count: int, f: int) -> Grid:
        norm, room = self.norm(clients), self._room()
        sensitivity, scale, reach = math.inf, Fraction(0), 0.0
        if math.isfinite(norm):
            steps = norm * 2.0**f
            sensitivity = self._rounded(SLACK * steps, count)
            if self.rotate:
                reach = 1.001 * steps * self._spread(clients, count)
        if self.distributed is not None:
            scale = self.distributed.scale(sensitivity, self.certain(clients))
            room -= math.ceil(TAIL * float(scale) * math.sqrt(clients))
        limit = max(room, 0) // clients
        return Grid(clients, count, f, limit, reach, sensitivity, scale)

    def _holds(self, grid: Grid) -> bool:
        """Whether all clients' values together have room."""
        norm = self.norm(grid.clients)
        if math.isinf(norm) or self.fractional_bits is not None:
            return grid.limit >= 1
        return grid.limit >= (grid.reach or norm * 2.0**grid.fraction)

    def _rounded(self, steps: float, count: int) -> float:
        """A bound on the norm of a vector of norm `steps` once it is rounded."""
        if self.rounding == "nearest":
            return steps + math.sqrt(count) / 2
        spread = math.sqrt(steps**2 + count / 4 + steps + math.sqrt(count) / 2)
        return min(spread, steps + math.sqrt(count))

    def check_room(self, clients: int) -> None:
        """Raises: InputError where not even the values that are foreseen fit."""
        norm = self.norm(clients)
        largest = norm if math.isfinite(norm) else 1.0
        f = self.fraction(clients)
        if not self.rotate and self.limit(clients) < largest * 2.0**f:
            raise InputError(self._no_room(clients, f))

    def check_weights(self, weighted: bool) -> None:
        """Raises: InputError where weights would leave the scale that a clip norm gives."""
        bounded = self.max_weight is not None or self.fractional_bits is not None
        if weighted and self.clip is not None and not bounded:
            raise InputError(
                f"{self} takes its scale from the clip norm, but weighted updates may be "
                "larger than it; also give max_weight=, or fractional_bits=."
            )

    def _no_room(self, clients: int, f: int) -> str:
        largest = self.norm(clients)
        largest = largest if math.isfinite(largest) else 1.0
        return (
            f"{self} has no room for {clients} clients: the sum of so many values up to "
            f"{largest} takes {f} fractional bits, a sign, and "
            f"{math.log2(largest * clients):.1f} more."
        )


def number_of(share: int | float, clients: int) -> int:
    """A number of clients, from a number or from a fraction below 1."""
    return share if isinstance(share, int) else math.floor(share * clients)


def check_encoding(
    name: str,
    bits: int,
    fractional_bits: int | None,
    clip: Any,
    rounding: str,
    rotate: bool,
    dropped: int | float,
    colluding: int | float,
) -> None:
    """Raises: InputError for an option of the encoding out of its range."""
    if not isinstance(bits, int) or not 8 <= bits <= 64:
        raise InputError(f"{name}(bits={bits!r}): the ring has 8 to 64 bits.")
    if rounding not in ("nearest", "stochastic"):
        raise InputError(
            f"{name}(rounding={rounding!r}): choose 'nearest' or 'stochastic'."
        )
    if fractional_bits is not None and not 0 <= fractional_bits < bits - 1:
        raise InputError(
            f"{name}(fractional_bits={fractional_bits!r}) must be in [0, {bits - 1})."
        )
    if bits < 64 and clip is None and fractional_bits is None:
        raise InputError(
            f"{name}(bits={bits}) has no room for arbitrary float32 updates; give clip= "
            "(the scale follows from it) or fractional_bits=."
        )
    if rotate and clip is None:
        raise InputError(f"{name}(rotate=True) needs clip=.")
    for option, share in (("dropped", dropped), ("colluding", colluding)):
        if not (share >= 0 and (isinstance(share, int) or share < 1)):
            raise InputError(
                f"{name}({option}={share!r}): a number of clients, or a fraction below 1."
            )
