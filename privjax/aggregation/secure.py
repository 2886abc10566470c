"""`secure_sum`: one server, masks between clients, all played in one program.

The steps are those of `steps`, which says what the protocol is and where it is from;
here they are run for all clients of a round, with `agreement.SIMULATED` in place of the
key agreement. `combine` takes the clients' updates stacked, and makes each pair's mask
once; `begin`, `message` and `finish` take one client after the other, so that memory does
not grow with the number of clients, at the price of making each pair's mask at both ends.
Both give the same words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.aggregation import steps
from privjax.aggregation.agreement import SIMULATED
from privjax.aggregation.clipping import AdaptiveClip, check_bounds
from privjax.aggregation.grid import check_encoding
from privjax.aggregation.masked import Masked
from privjax.aggregation.steps import Round
from privjax.errors import InputError, ProtocolError
from privjax.prg.chacha20 import KEY_WORDS, Purpose, bits, derive
from privjax.prg.session import session

_KEY_BITS = 32 * KEY_WORDS
# So many values of all clients stay in a CPU's caches while they are rounded.
_AT_ONCE = 2**16


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Played:
    """What the clients of a simulated round have, all of them together.

    Attributes: secrets, with a leading axis; public uint32[8], common to all; server
    uint32[8], the server's own; neighbours int32[clients, degree].
    """

    secrets: steps.Secrets
    public: Array
    server: Array
    neighbours: Array


@dataclass(frozen=True, repr=False)
class SecureSum(Masked):
    """Fixed-point updates under masks in Z_2^bits; see `secure_sum`."""

    needs_key: ClassVar[bool] = True
    streams: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    server_sees: ClassVar[str] = "the server sees masked updates and their sum"

    def order(self, key_words: Array, clients: int) -> Array:
        """int32[clients]: who sits where on the circle; public, and drawn anew."""
        if self.round(clients).circle.full:
            return jnp.arange(clients, dtype=np.int32)
        drawn = bits(key_words, (Purpose.PAIR, 0, 2), (clients,), np.uint64)
        return jnp.argsort(drawn).astype(np.int32)

    def begin(self, key_words: Array, session_words: Array, clients: int) -> Played:
        """Steps 1 and 2 up to the shares: keys, secrets, the graph.

        Args:
          key_words: uint32[8], for what is public.
          session_words: uint32[8], for what is secret: bound to what will be masked.
        """
        order = self.order(key_words, clients)
        return Played(
            steps.secrets_of(session_words, clients),
            derive(key_words, (Purpose.PAIR, 0, 3)),
            derive(session_words, (Purpose.CALL, 0, 4)),
            self.round(clients).circle.neighbours(order),
        )

    def message(
        self, played: Played, number: Array, xs: Sequence[Array], clients: int
    ) -> tuple[Array, Array]:
        """Step 3 of one client: its masked words, uint[size]; whether its values fit."""
        r, seed = self.round(clients), played.secrets.seed[number]
        theirs = played.neighbours[number]
        words, fits = self._encoded(played, number, xs)
        keys = SIMULATED.agree(
            played.secrets.mask[number], SIMULATED.public(played.secrets.mask[theirs])
        )
        factors = steps.signs(r, number.astype(np.int32), theirs)
        return steps.client_masked_input(r, words, seed, keys, factors), fits

    def _encoded(
        self, played: Played, number: Array, xs: Sequence[Array]
    ) -> tuple[Array, Array]:
        clients = played.neighbours.shape[0]
        return self.encode(played.secrets.own[number], xs, clients, played.public)

    def add(self, total: Array, words: Array) -> Array:
        """The server's sum of what clients sent."""
        return total + words

    def zero(self, size: int) -> Array:
        """The sum before the first client."""
        return jnp.zeros((size,), self.word)

    def finish(
        self,
        played: Played,
        total: Array,
        fits: Array,
        likes: Sequence[Any],
        clients: int,
        survivors: Array | None,
    ) -> list[Array]:
        """Step 4, and the sums; NaN where a value did not fit or too many dropped."""
        r = self.round(clients)
        alive = jnp.ones(clients, bool) if survivors is None else survivors
        ok = jnp.all(steps.enough(r, played.neighbours, alive)) & self.noised(alive)
        if r.threshold:
            publics = SIMULATED.public(played.secrets.mask)
            secrets = self._recovered(played, alive)
            total = steps.server_unmask(
                r, total, played.neighbours, secrets, publics, alive, SIMULATED
            )
        total = jnp.where(ok, total, jnp.zeros_like(total))
        return self.decode(
            total, likes, clients, fits & ok, played.public, played.server
        )

    def responses(self, played: Played, survivors: Array) -> Array:
        """What each client returns in step 4: uint32[clients, degree, 8]; 0 if gone."""
        r = self.round(played.neighbours.shape[0])
        shares = jax.vmap(lambda s: steps.client_shares(r, s))(played.secrets)
        given = shares[played.neighbours, jnp.asarray(r.circle.back)[None]]
        answers = jax.vmap(steps.client_unmask)(given, survivors[played.neighbours])
        return jnp.where(survivors[:, None, None], answers, np.uint32(0))

    def _recovered(self, played: Played, survivors: Array) -> Array:
        r = self.round(played.neighbours.shape[0])
        answers = self.responses(played, survivors)
        return steps.server_secrets(r, played.neighbours, answers, survivors)

    def _rows(
        self, key_words: Array, xs: Sequence[Array], *also: Array
    ) -> tuple[Played, Array, Array]:
        """Every client's masked words, [clients, size], and which clients' values fit."""
        clients = xs[0].shape[0]
        # Bound to what it masks: the same key on other values, or in the lanes of a
        # vmap, masks otherwise.
        secret = session(key_words, *xs, *also, context=f"aggregate by {self}")
        played = self.begin(key_words, secret, clients)
        r = self.round(clients)
        numbers = jnp.arange(clients, dtype=np.int32)

        def alone(number: Array, own: list[Array]) -> tuple[Array, Array]:
            words, fits = self._encoded(played, number, own)
            if r.threshold:
                seed = played.secrets.seed[number]
                words = words + steps.mask(r, steps.SELF, seed, words.shape[0])
            return words, fits

        words, fits = over_clients(alone, numbers, list(xs))
        rows = self._pairwise(r, played, self.order(key_words, clients), words)
        return played, r.reduced(rows), fits

    def _pairwise(self, r: Round, played: Played, order: Array, words: Array) -> Array:
        """Words plus the masks of every pair, each made once."""
        size = words.shape[1]
        secrets = played.secrets.mask

        def add(rows: Array, edge: tuple[Array, Array]) -> tuple[Array, None]:
            i, j = edge
            key = SIMULATED.agree(secrets[i], SIMULATED.public(secrets[j]))
            mask = steps.mask(r, steps.PAIR, key, size)
            return rows.at[i].add(mask).at[j].add(-mask), None

        return lax.scan(add, words, r.circle.edges(order))[0]

    def masked_updates(self, key_words: Array, xs: Sequence[Array]) -> Array:
        """What the clients send in step 3.

        Args:
          key_words: uint32[8], best never used for another round (masks come from a
            session of the key and of `xs`, see `privjax.prg.session`).
          xs: arrays [clients, ...].

        Returns:
          uint[clients, params]; open `jax.enable_x64(True)` around the call to keep 64
          bits outside of it. Summed over clients, the pairwise masks cancel; self-masks
          (where clients may drop out) do not.
        """
        with jax.enable_x64(True):
            return self._rows(key_words, xs)[1]

    def combine(self, key_words: Any, xs: Sequence[Array]) -> list[Array]:
        """The sum of each of `xs` over clients, from the masked updates alone.

        Each sum is off by at most clients * 2^-(f+1) with rounding to nearest and
        clients * 2^-f with stochastic rounding, and rounded once to its type. Where
        some client's value is not finite or out of range, all floating-point sums are
        NaN: such a client has nothing to send.
        """
        return self.combine_survivors(key_words, xs, None)

    def combine_survivors(
        self, key_words: Any, xs: Sequence[Array], survivors: Array | None
    ) -> list[Array]:
        """As `combine`, over the clients with `survivors`, bool[clients].

        NaN if somebody's secret cannot be recovered (see `recoverable`).
        """
        clients = xs[0].shape[0]
        self.check(clients, weighted=False)
        likes = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs]
        with jax.enable_x64(True):
            also = [] if survivors is None else [survivors]
            played, rows, fits = self._rows(key_words, xs, *also)
            if survivors is not None:
                fits = fits | ~survivors
                rows = jnp.where(survivors[:, None], rows, jnp.zeros_like(rows))
            total = jnp.sum(rows, 0, dtype=self.word)
            return self.finish(played, total, jnp.all(fits), likes, clients, survivors)

    def recoverable(self, key_words: Array, survivors: Array) -> Array:
        """bool[]: whether a round with this key survives these drop-outs.

        Secrets can be recovered, and as many clients' noise is there as counts.
        Under a trace the sums of a round that does not are NaN; this is the flag that
        says why.
        """
        clients = survivors.shape[0]
        r = self.round(clients)
        with jax.enable_x64(True):
            neighbours = r.circle.neighbours(self.order(key_words, clients))
            enough = jnp.all(steps.enough(r, neighbours, survivors))
            return enough & self.noised(survivors)


def over_clients(fun: Any, numbers: Array, xs: list[Array]) -> Any:
    """`fun` of every client: all at once, or one by one where a CPU's caches want it."""
    size = sum(x.size for x in xs)
    if jax.default_backend() != "cpu" or size <= _AT_ONCE:
        return jax.vmap(fun)(numbers, xs)
    return lax.map(lambda own: fun(*own), (numbers, xs))


def secure_sum(
    bits: int = 64,
    *,
    fractional_bits: int | None = None,
    clip: float | AdaptiveClip | None = None,
    max_weight: float | None = None,
    rounding: str = "nearest",
    neighbours: int | str | None = None,
    dropped: int | float = 0,
    threshold: int | None = None,
    colluding: int | float = 0,
    security: float = 40.0,
    correctness: float = 20.0,
    rotate: bool = False,
    noise: Any = None,
) -> SecureSum:
    """`aggregate="secure"` with options: the server learns the sum and nothing else.

    Every client sends its update as fixed-point numbers plus masks that it shares with
    other clients; the masks cancel in the sum. Where clients may drop out (`dropped`),
    each also has a mask of its own, and gives shares of its secrets to its neighbours,
    of whom `threshold` together let the server remove what does not cancel (Bonawitz et
    al. 2017; `privjax.aggregation.steps` has the protocol).

    One process that simulates the round derives all keys from the key of the round and
    protects nobody. Between real clients (`privjax.aggregation.clients`) the guarantee
    is: a server that follows the protocol and sees every message, together with up to
    `colluding` clients, learns the sum over the clients that stayed, except with
    probability 2^`exposure(clients)`. A server that lies to clients about who answered
    gets no further as long as `threshold` is more than half of a client's neighbours and
    half of those that collude: `division(clients)`. Clients that send wrong values are
    not found out.

    Args:
      bits: the ring is Z_2^bits, 8 to 64. The sum of all clients must stay below
        2^(bits-1-fractional_bits) in absolute value.
      fractional_bits: resolution 2^-fractional_bits. Default: 24 in the 64-bit ring
        (with 1,000 clients each may send up to 5e8); with `clip`, as many as fit, at
        most 40.
      clip: each client scales its update (before its weight) to this joint L2 norm; or
        an `AdaptiveClip`.
      max_weight: larger weights count as this one; needed where `clip` gives the scale,
        or `noise` is to hide a client, and clients are weighted.
      rounding: "nearest", or "stochastic", which is unbiased.
      neighbours: an even number of others with whom a client shares masks, on a random
        graph drawn each round; "auto" for the smallest that `security` and `correctness`
        allow. Default: all others, whose cost is quadratic in the number of clients;
        beyond about 30 of them choose some tens.
      dropped: how many clients, or which fraction of them, may drop out in a round. With
        0 all must answer, and there is nothing to recover.
      threshold: how many of a client's neighbours recover its secrets. Default: as many
        as `dropped` leaves, but with probability 2^-correctness.
      colluding: how many clients, or which fraction, may share all they know with the
        server; `noise` does not count on theirs.
      security, correctness: minus log2 of the probabilities, with neighbours="auto", that
        the server learns more than the sum, and that a round fails for want of shares.
      rotate: rotate each update at random before it is rounded, so that a small ring
        (bits=16, say) is fine enough; needs `clip`.
      noise: `CentralGaussian`, `DistributedGaussian` or `DistributedSkellam` of
        `privjax.aggregation`, for client-level differential privacy; needs `clip`.

    Raises:
      InputError: an option out of its range.
    """
    name = "secure_sum"
    check_bounds(name, clip, max_weight, noise)
    check_encoding(
        name, bits, fractional_bits, clip, rounding, rotate, dropped, colluding
    )
    if neighbours not in (None, "auto"):
        if not isinstance(neighbours, int) or neighbours < 2 or neighbours % 2:
            raise InputError(
                f"secure_sum(neighbours={neighbours!r}) must be an even number, 2 or "
                "more, or 'auto'."
            )
    if threshold is not None and not (isinstance(threshold, int) and threshold >= 1):
        raise InputError(f"secure_sum(threshold={threshold!r}) must be 1 or more.")
    if not dropped and threshold is not None:
        raise InputError("secure_sum(threshold=...) also needs dropped=.")
    return SecureSum(
        clip=clip,
        max_weight=max_weight,
        noise=noise,
        bits=bits,
        fractional_bits=fractional_bits,
        rounding=rounding,
        rotate=rotate,
        neighbours=neighbours,
        dropped=dropped,
        threshold=threshold,
        colluding=colluding,
        security=security,
        correctness=correctness,
    )


def too_few(method: Any, survivors: Any) -> ProtocolError:
    """The error of a round that cannot be recovered."""
    count, clients = int(np.sum(survivors)), len(survivors)
    return ProtocolError(
        f"{clients - count} of {clients} clients dropped out, and {method} cannot recover "
        "what they shared masks with; nothing was unmasked. State more dropped=, or run "
        "the round again."
    )
