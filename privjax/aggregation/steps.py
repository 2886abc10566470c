"""The four steps of a secure sum, as functions of arrays: what clients do, and the server.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning"
(CCS 2017), section 4 and figure 4, against a server and clients that follow the protocol
and look at everything; with the sparse graph of Bell et al. (CCS 2020):

1. advertise: client u draws a mask secret a_u and a seed b_u, and publishes A_u;
2. share: u gives each neighbour a share of a_u and one of b_u (`shamir`);
3. mask: with s_uv agreed from a_u and A_v, u sends
   y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)   mod 2^bits;
4. unmask: told who answered, each client that did returns per neighbour *one* share: of
   b_v if v answered, of a_v if v dropped. The server recovers b_v, or a_v and with it
   the masks that did not cancel, and subtracts them from the sum of all y_u.

A value x_u stays hidden unless the server has both b_u and a_u: that is why it can be
told only one, and why a client that is late, after having been taken for dropped, still
has its self-mask. Simulation (`secure`) and real clients (`clients`) call these functions.
Arrays of one client carry no client axis; map them with `jax.vmap`.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.aggregation import shamir
from privjax.aggregation.graph import Circle
from privjax.errors import InputError
from privjax.prg.chacha20 import KEY_WORDS, Purpose, bits, keystream

# Second word of the nonces that derive a client's own randomness from its key.
_SECRETS, _POLYNOMIALS = 0, 1
# Which secret a share is of, and which mask a key is for.
SELF, PAIR = 0, 1


@dataclass(frozen=True)
class Round:
    """What everybody knows of a round.

    Attributes:
      circle: the graph; slots of a client are in the order of `circle.offsets`.
      threshold: how many shares give a secret; 0 where nobody may drop out: then there
        are no self-masks and no shares, and steps 2 and 4 fall away.
      bits: sums are mod 2^bits.
    """

    circle: Circle
    threshold: int
    bits: int

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= self.circle.degree:
            raise InputError(
                f"threshold={self.threshold} of {self.circle.degree} neighbours."
            )

    @property
    def word(self) -> np.dtype[Any]:
        """The unsigned type that holds a value mod 2^bits."""
        return np.dtype(f"uint{max(8, 1 << (self.bits - 1).bit_length())}")

    def reduced(self, words: Array) -> Array:
        """mod 2^bits."""
        if self.bits == 8 * self.word.itemsize:
            return words
        return words & np.array(2**self.bits - 1, self.word)


# -- step 1: advertise -----------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Secrets:
    """A client's own, each uint32[..., 8].

    Attributes: mask secret a, channel secret, seed b, and the key of its polynomials,
    its rounding and its noise.
    """

    mask: Array
    channel: Array
    seed: Array
    own: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PublicKeys:
    """What a client publishes: keys for masks and for the channel, uint32[..., 8]."""

    mask: Array
    channel: Array


def secrets_of(key: Array, clients: int) -> Secrets:
    """The secrets of so many clients in one round, with a leading axis, from one key."""
    words = clients * 4 * KEY_WORDS
    drawn = keystream(key, (Purpose.PARTY, _SECRETS, 1), words)
    drawn = drawn.reshape(clients, 4, KEY_WORDS)
    return Secrets(*(drawn[:, i] for i in range(4)))


def client_keys(key: Array, agreement: Any) -> tuple[Secrets, PublicKeys]:
    """Step 1: what one client keeps, and what it publishes."""
    secrets = jax.tree.map(lambda x: x[0], secrets_of(key, 1))
    public = PublicKeys(
        agreement.public(secrets.mask), agreement.public(secrets.channel)
    )
    return secrets, public


# -- step 2: share ---------------------------------------------------------------------


def client_shares(round_: Round, secrets: Secrets) -> Array:
    """Step 2: shares for each neighbour, uint32[degree, 2, 8], those of b, then of a.

    Each row is for one neighbour alone: it travels sealed (`agreement.X25519.seal`).
    """
    both = jnp.stack([secrets.seed, secrets.mask])
    words = (round_.threshold - 1) * both.size
    nonce = (Purpose.PARTY, _POLYNOMIALS, 1)
    coefficients = keystream(secrets.own, nonce, words).reshape(-1, *both.shape)
    return shamir.share(both, coefficients, round_.circle.degree)


# -- step 3: mask ----------------------------------------------------------------------


_PURPOSE = {SELF: Purpose.SELFMASK, PAIR: Purpose.PAIR}


def mask(round_: Round, which: int, key: Array, size: int) -> Array:
    """PRG(b) or PRG(s_uv), uint[size]."""
    return bits(key, (_PURPOSE[which], 0, 0), (size,), round_.word)


def signs(round_: Round, me: Array, neighbours: Array) -> Array:
    """+1 for neighbours with a higher number, -1 for the others, mod 2^bits: [degree]."""
    up = neighbours > me
    return jnp.where(up, round_.word.type(1), round_.word.type(-1 % 2**round_.bits))


def client_masked_input(
    round_: Round, words: Array, seed: Array, pair_keys: Array, factors: Array
) -> Array:
    """Step 3: y = x + PRG(b) + sum of +-PRG(s), uint[size].

    Args:
      words: the client's value in the ring, uint[size].
      pair_keys: uint32[degree, 8].
      factors: uint[degree], `signs`, with 0 for neighbours that left before this step.
    """
    size = words.shape[0]
    if round_.threshold:
        words = words + mask(round_, SELF, seed, size)
    masked = add_masks(round_, words, pair_keys, factors)
    return round_.reduced(masked)


def add_masks(
    round_: Round, words: Array, keys: Array, factors: Array, which: int = PAIR
) -> Array:
    """words + sum of factors * PRG(keys), one mask at a time."""
    size = words.shape[0]

    def add(total: Array, xs: tuple[Array, Array]) -> tuple[Array, None]:
        key, factor = xs
        return total + factor * mask(round_, which, key, size), None

    return lax.scan(add, words, (keys, factors))[0]


# -- step 4: unmask --------------------------------------------------------------------


def client_unmask(shares: Array, answered: Array) -> Array:
    """Step 4: one share per neighbour, and never both: uint32[degree, 8].

    Args:
      shares: what this client was given, uint32[degree, 2, 8], by slot.
      answered: bool[degree], whose masked input has arrived.
    """
    return jnp.where(answered[:, None], shares[:, SELF], shares[:, PAIR])


def enough(round_: Round, neighbours: Array, answering: Array) -> Array:
    """bool[clients]: whether enough neighbours of each are there to recover a secret."""
    if not round_.threshold:
        return jnp.broadcast_to(jnp.all(answering), answering.shape)
    return jnp.sum(answering[neighbours], 1) >= round_.threshold


def server_secrets(
    round_: Round, neighbours: Array, responses: Array, answering: Array
) -> Array:
    """The secret of each client that the answers give: b or a, uint32[clients, 8].

    Args:
      neighbours: int32[clients, degree].
      responses: uint32[clients, degree, 8], what each client returned in step 4.
      answering: bool[clients], who did.
    """
    back = jnp.asarray(round_.circle.back)
    # Slot a of client w is neighbour v, who holds w's share in its slot back[a].
    held = responses[neighbours, back[None, :]]
    return shamir.recover(held, answering[neighbours])


def server_unmask(
    round_: Round,
    total: Array,
    neighbours: Array,
    secrets: Array,
    publics: Array,
    survivors: Array,
    agreement: Any,
) -> Array:
    """The sum of the survivors' values, from the sum of what they sent: uint[size].

    Args:
      total: the sum of y over survivors.
      secrets: uint32[clients, 8] from `server_secrets`.
      publics: uint32[clients, 8], the clients' public mask keys.
      survivors: bool[clients], whose y is in the total.
    """
    size = total.shape[0]

    def step(total: Array, xs: tuple[Array, ...]) -> tuple[Array, None]:
        me, secret, theirs, stayed = xs

        def own(total: Array) -> Array:
            return total - mask(round_, SELF, secret, size)

        def pairs(total: Array) -> Array:
            # Those neighbours that stayed have added the opposite of this client's masks.
            keys = agreement.agree(secret, publics[theirs])
            factors = signs(round_, me, theirs) * survivors[theirs].astype(round_.word)
            return add_masks(round_, total, keys, factors)

        return lax.cond(stayed, own, pairs, total), None

    numbers = jnp.arange(round_.circle.clients, dtype=np.int32)
    total, _ = lax.scan(step, total, (numbers, secrets, neighbours, survivors))
    return round_.reduced(total)
