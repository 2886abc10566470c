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
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.aggregation import rotation
from privjax.aggregation.clipping import SLACK, within
from privjax.aggregation.grid import Grid, Scaled
from privjax.errors import InputError, UnsupportedError
from privjax.prg.chacha20 import Purpose, bits

_ATTEMPTS = 64
# Second word of the nonces of a client's own key.
_ROUNDING, _NOISE = 0, 1


@dataclass(frozen=True, repr=False)
class Encoding(Scaled):
    """Fixed point in the ring; see the module docstring."""

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
