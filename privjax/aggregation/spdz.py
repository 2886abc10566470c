"""`spdz`: clients share their updates among aggregator parties, who open the sum alone.

With `protocol="spdz2k"` sums carry MACs (Cramer, Damgard, Escudero, Scholl and Xing 2018;
`privjax.protocols.spdz2k`), and clients, who are no parties, enter their values as in
Damgard, Damgard, Nielsen, Nordholt and Toft, "Confidential Benchmarking Based on
Multiparty Computation" (FC 2016), here with a dealer:

1. for each client a dealer deals [[r]], uniform mod 2^(k+s), and tells it r mod 2^k;
2. the client sends x - r mod 2^k to all parties, who add it: [[x]] = [[r]] + (x - r);
3. parties add up the [[x]] of the clients that answered, hide the sum's high bits by a
   dealt 2^k [[r]], open it, toss a coin, and check what was opened by a random
   combination (BatchCheck).

A client that tells parties different things, and up to all but one of the parties, are
found out before the sum is used, but for a chance of about 2^-57 (2^-26 with 32 bits).

With `protocol="semi2k"` there is no dealer and nothing to check: a client draws additive
shares itself, all but one of them from a 256-bit seed that it sends, and parties that
follow the protocol learn no more than the sum unless all of them put their shares
together.
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
from privjax.aggregation.clipping import AdaptiveClip, check_bounds
from privjax.aggregation.encoding import Encoding
from privjax.aggregation.grid import check_encoding
from privjax.errors import InputError
from privjax.prg.chacha20 import KEY_WORDS, Purpose, bits, derive
from privjax.prg.session import session
from privjax.protocols.party import PARTY
from privjax.protocols.spdz2k.authenticated import Keys, Sum
from privjax.protocols.spdz2k.check import Ledger, Opened, absorb, balanced, message
from privjax.protocols.spdz2k.extended import Extended

PROTOCOLS = ("spdz2k", "semi2k")
_PUBLIC, _SERVER, _COIN, _MAC_KEYS, _HIGH = range(5)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Played:
    """A simulated round: the session's key; what is common to all; the parties' MAC keys.

    Attributes: session, public, server uint32[8]; alphas uint64[parties].
    """

    session: Array
    public: Array
    server: Array
    alphas: Array


@dataclass(frozen=True, repr=False)
class Spdz(Encoding):
    """Sums on shares among aggregator parties; see `spdz`."""

    parties: int = 3
    protocol: str = "spdz2k"

    made_by: ClassVar[str] = "spdz"
    needs_key: ClassVar[bool] = True
    streams: ClassVar[bool] = False
    linear: ClassVar[bool] = False

    @property
    def server_sees(self) -> str:
        return (
            f"each of {self.parties} aggregators sees a uniform share of every update, "
            "and all of them the sum"
        )

    def check(self, clients: int, weighted: bool) -> None:
        if clients < 2:
            raise InputError(
                f"a sum of {clients} client(s) would be that client's update; at least 2 "
                "are needed."
            )
        if self.certain(clients) < 2:
            raise InputError(
                f"{self} with {clients} clients: at least two honest clients must stay."
            )
        self.check_bounds("spdz", weighted)
        self.check_weights(weighted)
        self.check_room(clients)

    @property
    def ring(self) -> Extended:
        """Where shares with MACs live."""
        return Extended(self.bits)

    # -- one client after the other --------------------------------------------------------

    def begin(self, key_words: Array, session_words: Array, clients: int) -> Played:
        """Keys of the round; `key_words` for what is public, the session's for the rest."""
        drawn = bits(
            session_words, (Purpose.PARTY, 0, _MAC_KEYS), (self.parties,), np.uint64
        )
        if self.bits == 32:
            drawn = drawn >> np.uint64(32)
        # The sum of all keys is odd (see `Keys.fresh`).
        even = drawn << np.uint64(1)
        return Played(
            session_words,
            derive(key_words, (Purpose.PAIR, 0, _PUBLIC)),
            derive(session_words, (Purpose.CALL, 0, _SERVER)),
            even.at[0].set(even[0] | np.uint64(1)),
        )

    def message(
        self, played: Played, number: Array, xs: Sequence[Array], clients: int
    ) -> tuple[Any, Array]:
        """All parties' shares of one client's words, and whether its values fit.

        Returns: uint[parties, size], or with MACs the planes of `Extended` elements
        [parties, 2, size], share and MAC share.
        """
        own = derive(played.session, (Purpose.PARTY, number, 1))
        words, fits = self.encode(own, xs, clients, played.public)
        if self.protocol == "semi2k":
            return self._additive(derive(own, (Purpose.PARTY, 0, 2)), words), fits
        return self._authenticated(
            played, derive(own, (Purpose.PARTY, 0, 3)), words
        ), fits

    def _additive(self, key: Array, words: Array) -> Array:
        """Shares that add up to the words: all but the first from seeds."""
        numbers = jnp.arange(1, self.parties, dtype=np.uint32)
        seeds = jax.vmap(lambda p: derive(key, (Purpose.PARTY, p, 0)))(numbers)
        rest = jax.vmap(
            lambda s: bits(s, (Purpose.SELFMASK, 0, 0), words.shape, self.word)
        )(seeds)
        first = words - jnp.sum(rest, 0, dtype=self.word)
        return jnp.concatenate([first[None], rest])

    def _dealt(self, played: Played, key: Array, size: int) -> tuple[Any, Any]:
        """What the dealer makes of a mask r: r itself, and [[r]] of every party."""
        ring = self.ring
        shape = (*ring.planes, 2 * self.parties - 1, size)
        uniform = ring.from_marker(bits(key, (Purpose.PARTY, 0, 0), shape, np.uint64))
        shares = jax.tree.map(lambda v: v[: self.parties], uniform)
        macs = jax.tree.map(lambda v: v[self.parties :], uniform)
        mask = ring.total(shares, (0,))
        alpha = ring.total(ring.up(played.alphas), (0,))
        whole = mask * jax.tree.map(lambda v: jnp.broadcast_to(v, (size,)), alpha)
        first = whole - ring.total(macs, (0,))
        macs = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, macs)
        both = jax.tree.map(lambda s, m: jnp.stack([s, m], 1), shares, macs)
        return mask, both

    def _authenticated(self, played: Played, key: Array, words: Array) -> Any:
        """[[x]] of every party: [[r]] from the dealer plus x - r from the client."""
        ring = self.ring
        mask, both = self._dealt(played, key, words.shape[0])
        sent = words - ring.low(mask)

        def party(alpha: Array, both: Any) -> Any:
            keys = Keys(ring, alpha, jnp.uint64(0))
            return keys.inside(Sum(both, sent))

        return jax.vmap(party, axis_name=PARTY)(played.alphas, both)

    def add(self, total: Any, shares: Any) -> Any:
        """Every party adds a client's shares to its own total; local."""
        return total + shares

    def zero(self, size: int) -> Any:
        """Totals before the first client."""
        if self.protocol == "semi2k":
            return jnp.zeros((self.parties, size), self.word)
        return self.ring.zeros((self.parties, 2, size))

    def opened(self, played: Played, totals: Any) -> tuple[Array, Array]:
        """The sum, uint[size], and whether the parties' check holds.

        With MACs: open; with a coin tossed after that, each party enters what was opened
        into a ledger, and all compare (`protocols.spdz2k.check`).
        """
        if self.protocol == "semi2k":
            return jnp.sum(totals, 0, dtype=self.word), jnp.bool_(True)
        ring = self.ring
        size = totals.shape[-1]
        coin = derive(played.session, (Purpose.CHECK, 0, _COIN))
        spare = derive(played.session, (Purpose.CHECK, 0, _HIGH))
        totals = totals + ring.high(self._dealt(played, spare, size)[1])

        def party(alpha: Array, both: Any) -> tuple[Array, Array]:
            share, mac = (jax.tree.map(lambda v, i=i: v[i], both) for i in (0, 1))
            everybody = jax.tree.map(lambda v: lax.all_gather(v, PARTY), share)
            value = ring.total(everybody, (0,))
            check = (ring.to_marker(mac), alpha)
            item = Opened("sum", ring.to_marker(value), 64, check)
            before = Ledger.fresh(ring, self.parties)
            after = absorb(ring, self.parties, before, coin, [item])
            said = lax.all_gather(message(ring, after), PARTY)
            return ring.low(value), balanced(ring, said)

        values, sound = jax.vmap(party, axis_name=PARTY)(played.alphas, totals)
        return values[0], jnp.all(sound)

    def finish(
        self,
        played: Played,
        totals: Any,
        fits: Array,
        likes: Sequence[Any],
        clients: int,
        survivors: Array | None,
    ) -> list[Array]:
        """Open the sums; NaN where a value did not fit, or a check failed."""
        words, sound = self.opened(played, totals)
        if survivors is not None:
            sound = sound & self.noised(survivors)
        words = jnp.where(sound, words, jnp.zeros_like(words))
        return self.decode(
            words, likes, clients, fits & sound, played.public, played.server
        )

    # -- all clients ----------------------------------------------------------------------

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]:
        """The sum of each of `xs` over clients, from the parties' shares alone.

        Rounded as `secure_sum` does; NaN where a client's value is not finite or out of
        range, or the parties' check fails.
        """
        return self.combine_survivors(key_words, xs, None)

    def combine_survivors(
        self, key_words: Any, xs: Sequence[Array], survivors: Array | None
    ) -> list[Array]:
        """As `combine`, over the clients with `survivors`, bool[clients]."""
        clients = xs[0].shape[0]
        self.check(clients, weighted=False)
        likes = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs]
        size = sum(math.prod(like.shape) for like in likes)
        with jax.enable_x64(True):
            also = [] if survivors is None else [survivors]
            secret = session(key_words, *xs, *also, context=f"aggregate by {self}")
            played = self.begin(key_words, secret, clients)

            def step(carry: Any, client: Any) -> tuple[Any, None]:
                number, own, there = client
                shares, fit = self.message(played, number, own, clients)
                total, fits = carry
                added = self.add(total, shares)
                if there is not None:
                    added = jax.tree.map(
                        lambda a, b: jnp.where(there, a, b), added, total
                    )
                    fit = fit | ~there
                return (added, fits & fit), None

            numbers = jnp.arange(clients, dtype=np.uint32)
            start = self.zero(size), jnp.bool_(True)
            (totals, fits), _ = lax.scan(step, start, (numbers, list(xs), survivors))
            return self.finish(played, totals, fits, likes, clients, survivors)

    def recoverable(self, key_words: Array, survivors: Array) -> Array:
        """bool[]: whether as many clients' noise is there as counts."""
        return self.noised(survivors)

    def bits_per_client(self, count: int, clients: int) -> dict[str, int]:
        """What one client sends and is sent, in bits, for `count` values."""
        if self.protocol == "semi2k":
            seeds = (self.parties - 1) * 32 * KEY_WORDS
            return {"seeds": seeds, "share": count * self.bits}
        return {
            "mask, from the dealer": count * self.bits,
            "masked input": self.parties * count * self.bits,
        }


def spdz(
    parties: int = 3,
    *,
    protocol: str = "spdz2k",
    bits: int = 64,
    fractional_bits: int | None = None,
    clip: float | AdaptiveClip | None = None,
    max_weight: float | None = None,
    rounding: str = "nearest",
    dropped: int | float = 0,
    colluding: int | float = 0,
    rotate: bool = False,
    noise: Any = None,
) -> Spdz:
    """`aggregate=privjax.spdz(...)`: clients secret-share to a few aggregator parties.

    Any number of clients may drop out, each costs the parties one addition, and nobody
    but all parties together learns more than the sum. Simulated in one process; what is
    protected among separate ones is in `privjax.aggregation.spdz`.

    Args:
      parties: how many aggregators, 2 or more; one of them is to be honest.
      protocol: "spdz2k" (with MACs: parties and clients that deviate are found out;
        preprocessing by a dealer) or "semi2k" (parties follow the protocol; no dealer).
      dropped: how many clients, or which fraction, may drop out without their noise being
        missed; matters for `noise` alone.
      bits, fractional_bits, clip, max_weight, rounding, colluding, rotate, noise: as for
        `privjax.secure_sum`; "spdz2k" takes 32 or 64 bits.

    Raises:
      InputError: an option out of its range.
    """
    if not isinstance(parties, int) or not 2 <= parties <= 64:
        raise InputError(f"spdz(parties={parties!r}): 2 to 64 aggregators.")
    if protocol not in PROTOCOLS:
        raise InputError(f"spdz(protocol={protocol!r}): choose one of {PROTOCOLS}.")
    check_bounds("spdz", clip, max_weight, noise)
    check_encoding(
        "spdz", bits, fractional_bits, clip, rounding, rotate, dropped, colluding
    )
    if protocol == "spdz2k" and bits not in (32, 64):
        raise InputError(f"spdz(bits={bits}): spdz2k has rings of 32 and 64 bits.")
    return Spdz(
        clip=clip,
        max_weight=max_weight,
        noise=noise,
        bits=bits,
        fractional_bits=fractional_bits,
        rounding=rounding,
        rotate=rotate,
        dropped=dropped,
        colluding=colluding,
        parties=parties,
        protocol=protocol,
    )
