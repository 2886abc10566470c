"""From a client's real update to words of the ring Z_2^bits, and from a sum of words back.

A value x is carried as round(2^f x). The grid follows from what is stated: with a clip
norm C and n clients, as fine as fits into the ring. Optionally the update is rotated
first (`rotation`), so that its coordinates are small and a small ring serves, and each
client adds noise in the ring (`noise`).

Rounding. "nearest" errs by at most half a step, "stochastic" by less than one and is
unbiased. Rounding lengthens a vector; where noise is to hide it, its length counts:
rounded to nearest, sqrt(d) / 2 steps more at most; stochastic rounding is *conditional*
(Kairouz, Liu and Steinke 2021, section 4): drawn again until the rounded vector's norm,
in steps, with c = 2^f C is at most

    sqrt(c^2 + d / 4 + c + sqrt(d) / 2),  or c + sqrt(d) if that is less,

which a draw misses with probability at most exp(-1/2). A vector that misses it
`_ATTEMPTS` times is sent as zeros, so that the bound holds always.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.aggregation import rotation
from privjax.aggregation.clipping import SLACK, Bounded, given, within
from privjax.aggregation.noise import FINEST, TAIL
from privjax.errors import InputError, UnsupportedError
from privjax.prg.chacha20 import Purpose, bits

# More fractional bits than this say nothing about a float32 update of ordinary size.
_FINEST = 40
_ATTEMPTS = 64
# Rotated coordinates leave their range, and are cut off, with this probability a round.
_CUT = 1e-6
# Second word of the nonces of a client's own key.
_ROUNDING, _NOISE = 0, 1


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
class Encoding(Bounded):
    """Fixed point in the ring; see the module docstring."""

    made_by: ClassVar[str] = "encoding"

    bits: int = 64
    fractional_bits: int | None = None
    rounding: str = "nearest"
    rotate: bool = False
    dropped: int | float = 0
    colluding: int | float = 0

    def __repr__(self) -> str:
        return f"{self.made_by}({', '.join(given(self))})"

    # -- static choices --------------------------------------------------------------

    @property
    def word(self) -> np.dtype[Any]:
        """The unsigned type that holds a ring element."""
        return np.dtype(f"uint{max(8, 1 << (self.bits - 1).bit_length())}")

    def lost(self, clients: int) -> int:
        """How many of them may drop out."""
        return _count(self.dropped, clients)

    def against(self, clients: int) -> int:
        """How many of them may tell the server all they know."""
        return _count(self.colluding, clients)

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

    # -- the client ------------------------------------------------------------------

    def encode(
        self, key: Array, xs: Sequence[Array], clients: int, public: Array
    ) -> tuple[Array, Array]:
        """One client's arrays as ring words, and whether they all fit.

        Args:
          key: uint32[8], the client's own, for rounding and noise.
          xs: arrays of any shapes: reals, and integers whose sums wrap.
          public: uint32[8], common to all, for the rotation.

        Returns: uint[size], reals first; bool[].
        """
        reals, integers = split(xs)
        words, fits = [], jnp.bool_(True)
        if reals:
            wide = jnp.result_type(np.float32, *reals)
            flat = jnp.concatenate([x.reshape(-1).astype(wide) for x in reals])
            whole, fits = self._whole(key, flat, clients, public)
            words.append(self._to_ring(whole))
        for x in integers:
            if x.dtype.itemsize * 8 > self.bits:
                raise UnsupportedError(
                    f"{x.dtype} sums do not fit into the ring of {self}."
                )
            words.append(self._to_ring(x.reshape(-1).astype(jnp.int64)))
        return jnp.concatenate(words), fits

    def _to_ring(self, whole: Array) -> Array:
        words = whole.astype(self.word)
        if self.bits == 8 * self.word.itemsize:
            return words
        return words & np.array(2**self.bits - 1, self.word)

    def _whole(
        self, key: Array, x: Array, clients: int, public: Array
    ) -> tuple[Array, Array]:
        """int64[count]: rounded, with the client's noise; and whether all are in range."""
        grid = self.grid(clients, x.size)
        scaled = self._steps(x, grid, public)
        whole = self._round(key, scaled, grid)
        # A large limit as a double may round up, by at most 2^10 of 2^62: stay below it.
        exactly = grid.limit < 2**53
        fits = jnp.abs(whole) <= grid.limit * (1.0 if exactly else 1 - 2.0**-50)
        if grid.reach:
            # A longer vector than foreseen would be cut without a word.
            fits = fits & (_length(x) <= SLACK * self.norm(clients))
        signed = jnp.where(fits, whole, 0.0).astype(jnp.int64)
        if self.distributed is not None:
            nonce = (Purpose.NOISE, _NOISE, 0)
            signed = signed + self.distributed.sample(key, nonce, x.size, grid.scale)
        return signed, jnp.all(fits) | (self.noise is not None)

    def _steps(self, x: Array, grid: Grid, public: Array) -> Array:
        """float64[count]: bounded for certain, rotated, in steps of the grid."""
        if self.noise is not None:
            x = within(x, self.norm(grid.clients))
        if self.rotate and x.size > 1:
            x = rotation.rotate(x, rotation.signs(public, x.size))
        scaled = x.astype(jnp.float64) * 2.0**grid.fraction
        return jnp.clip(scaled, -grid.reach, grid.reach) if grid.reach else scaled

    def _round(self, key: Array, scaled: Array, grid: Grid) -> Array:
        """Onto the integers; with noise, no longer than the grid's sensitivity."""
        if self.rounding == "nearest":
            whole = jnp.round(scaled)
            return self._bounded(whole, grid) if self.noise is not None else whole

        def drawn(attempt: Array) -> Array:
            nonce = (Purpose.NOISE, _ROUNDING, attempt)
            uniform = bits(key, nonce, scaled.shape, np.uint32)
            return jnp.floor(scaled + uniform.astype(jnp.float64) * 2.0**-32)

        first = drawn(jnp.uint32(0))
        if self.noise is None:
            return first

        def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
            attempt = state[0] + np.uint32(1)
            return attempt, drawn(attempt)

        def long(state: tuple[Array, Array]) -> Array:
            return ~_within(state[1], grid) & (state[0] < np.uint32(_ATTEMPTS))

        _, whole = lax.while_loop(long, again, (jnp.uint32(0), first))
        return self._bounded(whole, grid)

    def _bounded(self, whole: Array, grid: Grid) -> Array:
        return jnp.where(_within(whole, grid), whole, 0.0)

    # -- the sum -----------------------------------------------------------------------

    def decode(
        self,
        total: Array,
        likes: Sequence[Any],
        clients: int,
        fits: Array,
        public: Array,
        server: Array | None = None,
    ) -> list[Array]:
        """The sums, in the shapes and types of one client's arrays `likes`.

        Reals are NaN where something did not fit. `server` is uint32[8], the server's
        key where it adds noise.
        """
        spare = 8 * self.word.itemsize - self.bits
        signed = lax.bitcast_convert_type(
            total, np.dtype(f"int{8 * self.word.itemsize}")
        )
        if spare:
            by = np.array(spare, signed.dtype)
            signed = (signed << by) >> by
        reals, integers = split(likes)
        count = sum(math.prod(x.shape) for x in reals)
        values = jnp.zeros((0,))
        if reals:
            grid = self.grid(clients, count)
            values = signed[:count].astype(jnp.float64) * grid.step
            if self.central is not None:
                # Before it is rotated back: Gaussian noise looks alike from everywhere.
                mechanism = self.mechanism(clients, count)
                (values,) = mechanism.apply(server, [values])
            if self.rotate and count > 1:
                wide = jnp.result_type(np.float32, *(x.dtype for x in reals))
                signs = rotation.signs(public, count)
                values = rotation.rotate_back(values.astype(wide), signs)
            values = jnp.where(fits, values, jnp.nan)
        pieces = iter(_cut(values, reals))
        rest = iter(_cut(signed[count:], integers))
        return [
            next(pieces if jnp.issubdtype(x.dtype, jnp.floating) else rest)
            .astype(x.dtype)
            .reshape(x.shape)
            for x in likes
        ]

    # -- privacy -----------------------------------------------------------------------

    def event(self, clients: int, count: int) -> dict[str, Any]:
        """What one release of the sum costs, for `privjax.accounting`.

        Args:  count: real values of one client.
        """
        if self.central is not None:
            found = self.mechanism(clients, count)
            return {**found.event(), "distance": found.distance(count)}
        if self.distributed is not None:
            grid = self.grid(clients, count)
            certain = self.certain(clients)
            return self.distributed.event(grid.scale, grid.sensitivity, certain, count)
        return {"kind": "non_private"}

    def mechanism(self, clients: int, count: int) -> Any:
        """The server's mechanism on the opened sum, where it adds the noise."""
        grid = self.grid(clients, count)
        if self.central is None:
            raise InputError(f"{self}: the server adds no noise.")
        return self.central.mechanism(grid.sensitivity * grid.step, count)


def _count(share: int | float, clients: int) -> int:
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


def split(xs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Reals and integers; raises UnsupportedError for anything else."""
    reals = [x for x in xs if jnp.issubdtype(x.dtype, jnp.floating)]
    integers = [x for x in xs if jnp.issubdtype(x.dtype, jnp.integer)]
    for x in xs:
        if not any(jnp.issubdtype(x.dtype, k) for k in (jnp.floating, jnp.integer)):
            raise UnsupportedError(f"a ring takes real numbers, not {x.dtype}.")
    return reals, integers


def _cut(flat: Array, likes: Sequence[Any]) -> list[Array]:
    sizes = [math.prod(x.shape) for x in likes]
    return jnp.split(flat, np.cumsum(sizes)[:-1]) if likes else []


def _length(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float64))))


def _within(whole: Array, grid: Grid) -> Array:
    return _length(whole) <= grid.sensitivity
