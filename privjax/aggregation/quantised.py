"""`quantised`: sums in the clear of updates that were rotated and cut to a few bits.

Each client rotates its update by signs that are common to all (`rotation`), divides it by
its own step = max |x| / (2^(bits-1) - 1), and rounds up or down at random so that it is
right on average (Suresh, Yu, Kumar and McMahan, "Distributed mean estimation with limited
communication", ICML 2017, sections 2 and 3). It sends the step and integers of `bits`
bits; the server adds up, and rotates back once.

Error. Each rotated coordinate of a client is off by less than its step, with mean 0 and
variance at most step^2 / 4; errors of clients are independent. Rotated back, the sum of n
clients is off by at most sqrt(n d) step / 2 in root mean square over its d values.

Numbers that stand alone (a weight, a count, a loss) are sent as they are: beside an
update they cost nothing, and in its vector they would set the step for all of it.

To cut updates to a few bits and hide them as well, take `secure_sum(bits=..., clip=...,
rotate=True, rounding="stochastic")`, whose clients share one step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.aggregation import rotation
from privjax.aggregation.clipping import AdaptiveClip, Bounded, check_bounds, given
from privjax.errors import InputError, ProtocolError, UnsupportedError
from privjax.prg.chacha20 import Purpose, bits, derive
from privjax.prg.session import session

_SCALE_BITS = 32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Played:
    """A simulated round: uint32[8] twice, the clients' randomness and what is common."""

    session: Array
    public: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quanta:
    """One client's message: int32[size]; their step; float32[k], what stands alone."""

    whole: Array
    step: Array
    alone: Array


@dataclass(frozen=True, repr=False)
class Quantised(Bounded):
    """Sums of updates of a few bits; see `quantised`."""

    bits: int = 8
    rotate: bool = True

    needs_key: ClassVar[bool] = True
    streams: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    spares: ClassVar[str] = "arrays of one entry"
    server_sees: ClassVar[str] = "the server sees every client's update, quantised"

    def __repr__(self) -> str:
        return f"quantised({', '.join(given(self))})"

    def check(self, clients: int, weighted: bool) -> None:
        """Any number of clients."""

    def begin(self, key_words: Array, session_words: Array, clients: int) -> Played:
        """Keys of the round."""
        return Played(session_words, derive(key_words, (Purpose.PAIR, 0, 3)))

    def encode(self, key: Array, x: Array, public: Array) -> tuple[Array, Array]:
        """One client's message: int32[size] of `bits` bits, and its step.

        Args:
          key: uint32[8], the client's own.
          x: float[size].
          public: uint32[8], common to all clients of the round.
        """
        if self.rotate and x.size > 1:
            x = rotation.rotate(x, rotation.signs(public, x.size))
        most = 2 ** (self.bits - 1) - 1
        step = jnp.max(jnp.abs(x), initial=0.0) / most
        uniform = bits(key, (Purpose.NOISE, 0, 0), x.shape, np.uint32) >> np.uint32(8)
        level = x / jnp.where(step > 0, step, 1)
        whole = jnp.floor(level + uniform.astype(x.dtype) * 2.0**-24)
        whole = jnp.clip(whole, -most, most)
        # A value that is no number stays none: its integers cannot say so.
        return whole.astype(np.int32), jnp.where(jnp.isfinite(step), step, jnp.nan)

    def message(
        self, played: Played, number: Array, xs: Sequence[Array], clients: int
    ) -> tuple[Array, Array]:
        """What one client's message stands for, float[size], rotated; always fits."""
        own = derive(played.session, (Purpose.PARTY, number, 0))
        return self.stands_for(self.sent(own, xs, played.public)), jnp.bool_(True)

    def sent(self, key: Array, xs: Sequence[Array], public: Array) -> Quanta:
        """What one client sends; `key` and `public` as for `encode`."""
        whole, step = self.encode(key, _flat(_many(xs)), public)
        return Quanta(whole, step, _flat([x for x in xs if x.size == 1]))

    def stands_for(self, sent: Quanta) -> Array:
        """float[size]: a client's rotated update, and what it sent as it is."""
        update = sent.whole.astype(sent.step.dtype) * sent.step
        return jnp.concatenate([update, sent.alone])

    def packed(self, whole: Any) -> np.ndarray:
        """uint8[ceil(bits size / 8)]: integers of `bits` bits, one after the other."""
        most = 2 ** (self.bits - 1) - 1
        levels = (np.asarray(whole).astype(np.int64) + most).astype(np.uint16)
        places = np.arange(self.bits, dtype=np.uint16)
        return np.packbits((levels[:, None] >> places & 1).astype(bool).reshape(-1))

    def unpacked(self, data: np.ndarray, size: int) -> np.ndarray:
        """int32[size], from what `packed` made of them.

        Raises: ProtocolError for bytes that it does not make.
        """
        most = 2 ** (self.bits - 1) - 1
        if data.dtype != np.uint8 or data.shape != (-(-self.bits * size // 8),):
            raise ProtocolError(f"{data.dtype}{data.shape} are no {size} integers.")
        each = np.unpackbits(data, count=self.bits * size).reshape(size, self.bits)
        levels = each.astype(np.int32) @ (1 << np.arange(self.bits, dtype=np.int32))
        if np.any(levels > 2 * most):
            raise ProtocolError(f"an integer of {self.bits} bits is out of its range.")
        return (levels - most).astype(np.int32)

    def add(self, total: Array, message: Array) -> Array:
        return total + message

    def zero(self, size: int) -> Array:
        return jnp.zeros((size,), np.float32)

    def finish(
        self,
        played: Played,
        total: Array,
        fits: Array,
        likes: Sequence[Any],
        clients: int,
        survivors: Array | None,
    ) -> list[Array]:
        """The sums, rotated back."""
        many = [x for x in likes if math.prod(x.shape) != 1]
        count = sum(math.prod(x.shape) for x in many)
        update = total[:count]
        if self.rotate and count > 1:
            update = rotation.rotate_back(update, rotation.signs(played.public, count))
        sizes = np.cumsum([math.prod(x.shape) for x in many])[:-1]
        pieces = iter(jnp.split(update, sizes) if many else [])
        alone = iter(total[count:])
        found = [next(alone if math.prod(x.shape) == 1 else pieces) for x in likes]
        return [
            piece.astype(x.dtype).reshape(x.shape)
            for piece, x in zip(found, likes, strict=True)
        ]

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]:
        return self.combine_survivors(key_words, xs, None)

    def combine_survivors(
        self, key_words: Any, xs: Sequence[Array], survivors: Array | None
    ) -> list[Array]:
        """The sum of what the clients of a bool array sent."""
        clients = xs[0].shape[0]
        likes = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs]
        secret = session(key_words, *xs, context=f"aggregate by {self}")
        played = self.begin(key_words, secret, clients)

        def step(total: Array, client: Any) -> tuple[Array, None]:
            number, own, there = client
            sent, _ = self.message(played, number, own, clients)
            return total + (sent if there is None else jnp.where(there, sent, 0)), None

        start = self.zero(sum(math.prod(x.shape) for x in likes))
        numbers = jnp.arange(clients, dtype=np.uint32)
        total, _ = lax.scan(step, start, (numbers, list(xs), survivors))
        return self.finish(played, total, jnp.bool_(True), likes, clients, survivors)

    def bits_per_client(
        self, count: int, clients: int, alone: int = 0
    ) -> dict[str, int]:
        """What one client sends, in bits, for `count` values, `alone` of them scalars."""
        update = (count - alone) * self.bits
        return {"update": update, "step": _SCALE_BITS, "alone": alone * _SCALE_BITS}


def _many(xs: Sequence[Array]) -> list[Array]:
    """The arrays that are quantised."""
    return [x for x in xs if x.size != 1]


def _flat(xs: Sequence[Array]) -> Array:
    for x in xs:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise UnsupportedError(f"quantised takes real numbers, not {x.dtype}.")
    rows = [x.reshape(-1).astype(jnp.float32) for x in xs]
    return jnp.concatenate([jnp.zeros(0, jnp.float32), *rows])


def quantised(
    bits: int = 8,
    *,
    rotate: bool = True,
    clip: float | AdaptiveClip | None = None,
    max_weight: float | None = None,
) -> Quantised:
    """`aggregate=privjax.aggregation.quantised(...)`: updates of a few bits per value.

    Args:
      bits: of each value, 2 to 16; unbiased, with the error that the module states.
      rotate: spread each update over all coordinates first.
      clip, max_weight: as for `privjax.secure_sum`.

    Raises:
      InputError: an option out of its range.
    """
    if not isinstance(bits, int) or not 2 <= bits <= 16:
        raise InputError(f"quantised(bits={bits!r}): 2 to 16 bits.")
    check_bounds("quantised", clip, max_weight, None)
    return Quantised(clip, max_weight, None, bits, rotate)
