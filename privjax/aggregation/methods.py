"""How a sum over clients is formed: in the clear, or so that only the sum is seen.

A method is hashable (it is a parameter of the `aggregate` marker) and has
- `combine(key_words, xs)`: the sum of each of `xs` over its leading axis of clients,
- `prepare(xs)`: what a client does to its own arrays before they are weighted,
- `check(clients, weighted)`: raises where this number of clients cannot be served,
- `needs_key`; `streams`, whether sums of parts may be added up, so that a loop over
  clients keeps one running sum; `linear`, whether the sum may be differentiated;
  `server_sees`, in words.

The secure sum is that of Bonawitz et al., "Practical Secure Aggregation for
Privacy-Preserving Machine Learning" (CCS 2017), section 4, the steps of a round in
which all clients stay; its sparse form takes the graph of Bell et al., "Secure
Single-Server Aggregation with (Poly)Logarithmic Overhead" (CCS 2020), section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.errors import InputError, UnsupportedError
from privjax.prg.chacha20 import Purpose, bits, derive
from privjax.prg.session import session

# More fractional bits than this say nothing about a float32 update of ordinary size.
_FINEST = 40


class Method(Protocol):
    """What `aggregate=` takes; see the module docstring."""

    needs_key: ClassVar[bool]
    streams: ClassVar[bool]
    linear: ClassVar[bool]
    server_sees: ClassVar[str]

    def check(self, clients: int, weighted: bool) -> None: ...

    def prepare(self, xs: Sequence[Array]) -> list[Array]: ...

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]: ...


@dataclass(frozen=True)
class Plain:
    """The ordinary sum: the server sees every client's update."""

    needs_key: ClassVar[bool] = False
    streams: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    server_sees: ClassVar[str] = "the server sees every client's update"

    def check(self, clients: int, weighted: bool) -> None:
        """Any number of clients."""

    def prepare(self, xs: Sequence[Array]) -> list[Array]:
        return list(xs)

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]:
        return [jnp.sum(x, 0, dtype=x.dtype) for x in xs]


@dataclass(frozen=True)
class SecureSum:
    """Fixed-point updates under pairwise masks in Z_2^bits; see `secure_sum`."""

    bits: int = 64
    fractional_bits: int | None = None
    clip: float | None = None
    rounding: str = "nearest"
    neighbours: int | None = None

    needs_key: ClassVar[bool] = True
    streams: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    server_sees: ClassVar[str] = "the server sees masked updates and their sum"

    # -- static choices --------------------------------------------------------------

    @property
    def word(self) -> Any:
        """The ring's unsigned type."""
        return np.dtype(f"uint{self.bits}")

    def check(self, clients: int, weighted: bool) -> None:
        if clients < 2:
            raise InputError(
                f"a secure sum of {clients} client(s) would be that client's update; "
                "at least 2 are needed."
            )
        if self.neighbours is not None and self.neighbours >= clients:
            raise InputError(
                f"secure_sum(neighbours={self.neighbours}) with {clients} clients: a "
                f"client has at most {clients - 1} others to share masks with. Leave "
                "neighbours= out for the full graph."
            )
        if weighted and self.clip is not None and self.fractional_bits is None:
            raise InputError(
                "secure_sum(clip=...) takes its scale from the clip norm, but weighted "
                "updates may be larger than it; also give fractional_bits=."
            )
        largest = 1.0 if self.clip is None else self.clip
        if self.limit(clients) < largest * 2.0 ** self.fraction(clients):
            raise InputError(
                f"{self} has no room for {clients} clients: the sum of so many values "
                f"up to {largest} takes {self.fraction(clients)} fractional bits, a "
                f"sign, and {math.log2(largest * clients):.1f} more."
            )

    def fraction(self, clients: int) -> int:
        """Fractional bits f: a value x is carried as round(2^f x)."""
        if self.fractional_bits is not None:
            return self.fractional_bits
        if self.clip is None:
            return 24
        # A little room: a norm that was clipped in float32 may be rounded up.
        fits = math.floor(math.log2(self.limit(clients) / (1.001 * self.clip)))
        return min(_FINEST, fits)

    def limit(self, clients: int) -> int:
        """The largest |round(2^f x)| of a client of which `clients` can be summed."""
        return (2 ** (self.bits - 1) - 1) // clients

    def degree(self, clients: int) -> int:
        """With how many others a client shares masks."""
        return clients - 1 if self.neighbours is None else self.neighbours

    # -- the client ------------------------------------------------------------------

    def prepare(self, xs: Sequence[Array]) -> list[Array]:
        """Scale the update to a joint L2 norm over all arrays of at most `clip`."""
        if self.clip is None:
            return list(xs)
        square = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in xs]
        norm = jnp.sqrt(jnp.sum(jnp.stack(square)))
        factor = jnp.minimum(1.0, self.clip / jnp.maximum(norm, 1e-30))
        return [x * factor.astype(x.dtype) for x in xs]

    def _encode(self, x: Array, uniform: Array | None) -> tuple[Array, Array]:
        """[clients, ...] -> ring words [clients, size]; whether all are in range."""
        clients = x.shape[0]
        flat = x.reshape(clients, -1)
        if jnp.issubdtype(x.dtype, jnp.integer):
            # Sums wrap like those of the integer type itself, whose width is a divisor.
            if x.dtype.itemsize * 8 > self.bits:
                raise UnsupportedError(
                    f"{x.dtype} sums do not fit into the ring of secure_sum"
                    f"(bits={self.bits})."
                )
            return flat.astype(jnp.int64).astype(self.word), jnp.bool_(True)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise UnsupportedError(f"secure_sum takes real numbers, not {x.dtype}.")
        scaled = flat.astype(jnp.float64) * 2.0 ** self.fraction(clients)
        if uniform is None:
            whole = jnp.round(scaled)
        else:
            whole = jnp.floor(scaled + uniform.astype(jnp.float64) * 2.0**-32)
        # The limit as a double may round up by at most 2^10 of 2^62: stay below it.
        fits = jnp.abs(whole) <= self.limit(clients) * (1 - 2.0**-50)
        signed = jnp.where(fits, whole, 0.0).astype(jnp.int64)
        return signed.astype(self.word), jnp.all(fits)

    def _quantised(self, key: Array, xs: Sequence[Array]) -> tuple[Array, Array]:
        """All clients' updates as ring words [clients, params], and whether all fit."""
        clients = xs[0].shape[0]
        sizes = [math.prod(x.shape[1:]) for x in xs]
        chance: list[Any] = [None] * len(xs)
        if self.rounding == "stochastic":
            own = jax.vmap(lambda i: derive(key, (Purpose.NOISE, i, 0)))
            draw = jax.vmap(
                lambda k: bits(k, (Purpose.NOISE, 0, 0), (sum(sizes),), "u4")
            )
            uniform = draw(own(jnp.arange(clients, dtype=jnp.uint32)))
            chance = jnp.split(uniform, np.cumsum(sizes)[:-1], axis=1)
        coded = [self._encode(x, u) for x, u in zip(xs, chance, strict=True)]
        words = jnp.concatenate([word for word, _ in coded], axis=1)
        return words, jnp.all(jnp.stack([fits for _, fits in coded]))

    def _edges(self, key: Array, clients: int) -> tuple[Array, Array]:
        """The graph of who shares masks: clients i < j of each edge.

        Edge t joins places a and a + d of a circle, a = t mod clients and d = 1 + t div
        clients. With degree clients - 1 these are all pairs once. With fewer, clients
        take their places by a random permutation, as Bell et al. ask.
        """
        t = np.arange(clients * self.degree(clients) // 2)
        a = t % clients
        b = (a + 1 + t // clients) % clients
        if self.neighbours is None:
            one, other = (jnp.asarray(e, jnp.uint32) for e in (a, b))
        else:
            order = bits(key, (Purpose.PAIR, 0, 0), (clients,), "u8")
            place = jnp.argsort(order).astype(jnp.uint32)
            one, other = place[a], place[b]
        return jnp.minimum(one, other), jnp.maximum(one, other)

    def _masked(self, key: Array, xs: Sequence[Array]) -> tuple[Array, Array]:
        # Bound to what it masks: the same key on other values, or in the lanes of a
        # vmap, masks otherwise.
        key = session(key, *xs, context=f"aggregate by {self}")
        words, fits = self._quantised(key, xs)
        clients, size = words.shape

        def add(rows: Array, edge: tuple[Array, Array]) -> tuple[Array, None]:
            i, j = edge
            shared = derive(key, (Purpose.PAIR, i, j))
            mask = bits(shared, (Purpose.PAIR, 0, 0), (size,), self.word)
            return rows.at[i].add(mask).at[j].add(-mask), None

        return lax.scan(add, words, self._edges(key, clients))[0], fits

    # -- the server ------------------------------------------------------------------

    def masked_updates(self, key_words: Array, xs: Sequence[Array]) -> Array:
        """What the clients send, and all that the server sees.

        1. q_i = round(2^f x_i), all arrays of client i side by side.
        2. s_ij, i < j: a key that i and j share.
        3. y_i = q_i + sum_{j > i} PRG(s_ij) - sum_{j < i} PRG(s_ji)  mod 2^bits.

        Args:
          key_words: uint32[8], best never used for another round (masks come from a
            session of the key and of `xs`, see `privjax.prg.session`).
          xs: arrays [clients, ...].

        Returns:
          uint[clients, params]; open `jax.enable_x64(True)` around the call to keep 64
          bits outside of it. Summed over clients, the masks cancel.
        """
        with jax.enable_x64(True):
            return self._masked(key_words, xs)[0]

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]:
        """The sum of each of `xs` over clients, from the masked updates alone.

        Each sum is off by at most clients * 2^-(f+1) with rounding to nearest and
        clients * 2^-f with stochastic rounding, and rounded once to its type. Where
        some client's value is not finite or out of range, all floating-point sums are
        NaN: such a client has nothing to send.
        """
        clients = xs[0].shape[0]
        self.check(clients, weighted=False)
        with jax.enable_x64(True):
            rows, fits = self._masked(key_words, xs)
            total = jnp.sum(rows, 0, dtype=self.word)
            sizes = [math.prod(x.shape[1:]) for x in xs]
            pieces = jnp.split(total, np.cumsum(sizes)[:-1])
            return [
                self._decode(piece, x, fits)
                for piece, x in zip(pieces, xs, strict=True)
            ]

    def _decode(self, words: Array, like: Array, fits: Array) -> Array:
        signed = lax.bitcast_convert_type(words, np.dtype(f"int{self.bits}"))
        if jnp.issubdtype(like.dtype, jnp.integer):
            return signed.astype(like.dtype).reshape(like.shape[1:])
        real = signed.astype(jnp.float64) * 2.0 ** -self.fraction(like.shape[0])
        real = jnp.where(fits, real, jnp.nan)
        return real.astype(like.dtype).reshape(like.shape[1:])


def plain() -> Plain:
    """`aggregate="plain"`: sums in the clear."""
    return Plain()


def secure_sum(
    bits: int = 64,
    *,
    fractional_bits: int | None = None,
    clip: float | None = None,
    rounding: str = "nearest",
    neighbours: int | None = None,
) -> SecureSum:
    """`aggregate="secure"` with options: the server learns the sum and nothing else.

    Every client sends its update as fixed-point numbers plus masks that it shares with
    other clients; the masks cancel in the sum. One process that simulates the round
    derives all pairwise keys from the key of the round and protects nobody. The
    guarantee holds for semi-honest parties, when each pair agrees on a key in private,
    when the clients that do not collude with the server stay connected by shared masks
    (the server learns the sum over each connected group), and when all clients answer.

    Args:
      bits: 64 or 32, the ring's word. The sum of all clients must stay below
        2^(bits-1-fractional_bits) in absolute value.
      fractional_bits: resolution 2^-fractional_bits. Default: 24 in the 64-bit ring
        (with 1,000 clients each may send up to 5e8); with `clip`, as many as fit, at
        most 40.
      clip: each client scales its update (before its weight) to this joint L2 norm.
      rounding: "nearest", or "stochastic", which is unbiased.
      neighbours: an even number of others with whom a client shares masks, on a random
        circulant graph drawn each round. Default: all others, whose cost is quadratic
        in the number of clients; beyond about 30 of them choose some tens.

    Raises:
      InputError: an option out of its range.
    """
    if bits not in (32, 64):
        raise InputError(f"secure_sum(bits={bits!r}): the ring has 32 or 64 bits.")
    if rounding not in ("nearest", "stochastic"):
        raise InputError(
            f"secure_sum(rounding={rounding!r}): choose 'nearest' or 'stochastic'."
        )
    if clip is not None and not (clip > 0 and math.isfinite(clip)):
        raise InputError(f"secure_sum(clip={clip!r}) must be a positive number.")
    if fractional_bits is not None and not 0 <= fractional_bits < bits - 1:
        raise InputError(
            f"secure_sum(fractional_bits={fractional_bits!r}) must be in "
            f"[0, {bits - 1})."
        )
    if bits == 32 and clip is None and fractional_bits is None:
        raise InputError(
            "secure_sum(bits=32) has no room for arbitrary float32 updates; give clip= "
            "(the scale follows from it) or fractional_bits=."
        )
    if neighbours is not None and (neighbours < 2 or neighbours % 2):
        raise InputError(
            f"secure_sum(neighbours={neighbours!r}) must be an even number, 2 or more."
        )
    return SecureSum(bits, fractional_bits, clip, rounding, neighbours)


_NAMED: dict[str, Any] = {"plain": plain, "secure": secure_sum}


def resolve(aggregate: Any) -> Any:
    """The method that `aggregate=` means.

    Raises:
      InputError: an unknown name, or an object without the methods of one.
    """
    if isinstance(aggregate, str):
        if aggregate not in _NAMED:
            raise InputError(
                f"aggregate={aggregate!r}: choose one of {sorted(_NAMED)} or pass a "
                "method such as privjax.secure_sum(...)."
            )
        return _NAMED[aggregate]()
    attributes = ("needs_key", "streams", "linear", "server_sees")
    wanted = ("combine", "prepare", "check", *attributes)
    missing = [name for name in wanted if not hasattr(aggregate, name)]
    if missing or isinstance(aggregate, type):
        raise InputError(
            f"aggregate={aggregate!r} is no aggregation method (it lacks {missing})."
        )
    return aggregate
