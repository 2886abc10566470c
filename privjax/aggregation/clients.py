"""A secure sum between real clients and a server: one object per party, arrays between.

The steps of `steps` with X25519 and sealed shares. Each call takes what arrived and
returns what is to be sent, as NumPy arrays; how they travel is not decided here. The
server must give each client's messages to that client alone.

    step                client i                          server
    1 advertise         client.advertise()                Server(method, key, all keys)
    2 share             client.share(server.welcome(i))   server.collect(i, sealed)
    3 mask              client.mask(server.mail(i), xs)   server.add(i, masked)
    4 unmask            client.unmask(server.news(i))     server.hear(i, response)
                                                          server.open(likes)

What a client adds up is `method.contribution(update, weight, clip, clients)`, and what the
server makes of the sums `method.conclude(...)`: clipping, weights, and a norm that adapts.

Clients are numbered from 0 among those that advertised. Whoever does not answer a step is
left out of the later ones, up to the number that the method allows for.

Not protected against: a server that lies about who answered to different clients, or who
gives its own keys for a client's (there are no certificates here; the channel and the
list of public keys must be authentic), and clients that send wrong values.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.aggregation import shamir, steps
from privjax.aggregation.agreement import TAG_BYTES, X25519
from privjax.aggregation.secure import SecureSum
from privjax.aggregation.steps import PAIR, SELF, Round
from privjax.errors import ProtocolError, RangeError
from privjax.prg.chacha20 import KEY_WORDS, Purpose, derive
from privjax.prg.keys import key_words

_SEALED_BYTES = 2 * 4 * KEY_WORDS + TAG_BYTES


@dataclass(frozen=True)
class Welcome:
    """What the server tells a client before step 2.

    Attributes:
      number: the client's own.
      clients: how many there are.
      neighbours: int32[degree], the numbers of its neighbours, by slot.
      keys: uint32[degree, 2, 8], their public keys.
      public: uint32[8], common to all, for the rotation.
    """

    number: int
    clients: int
    neighbours: np.ndarray
    keys: np.ndarray
    public: np.ndarray


@dataclass(frozen=True)
class Mail:
    """Sealed shares from neighbours: uint8[degree, 80]; bool[degree], who sent some."""

    sealed: np.ndarray
    present: np.ndarray


class Client:
    """One client in one round; see the module docstring.

    Args:
      method: from `privjax.secure_sum`, the same at all parties.
      key: a privjax key of its own, from the operating system, used for nothing else.
      context: names the round, the same bytes at all clients, never the same twice.
    """

    def __init__(self, method: SecureSum, key: Any, context: bytes) -> None:
        self.method = method
        self.agreement = X25519(context)
        self._key = key_words(key)
        self._phase = 0

    def _step(self, number: int) -> None:
        """Every step is taken once, and in order."""
        if self._phase != number - 1:
            raise ProtocolError(
                f"step {number} of a round after step {self._phase}: each is taken once, "
                "in order. Nothing was sent."
            )
        self._phase = number

    def advertise(self) -> np.ndarray:
        """Step 1: public keys for masks and for the channel, uint32[2, 8]."""
        self._step(1)
        self._secrets, public = steps.client_keys(self._key, self.agreement)
        return np.stack([public.mask, public.channel])

    def share(self, welcome: Welcome) -> np.ndarray:
        """Step 2: a sealed share of both secrets for each neighbour, uint8[degree, 80].

        Where nobody may drop out there are none: uint8[degree, 0].
        """
        r = self.method.round(welcome.clients)
        numbers = np.asarray(welcome.neighbours)
        wrong = len(set(numbers.tolist())) < len(numbers) or welcome.number in numbers
        if numbers.shape != (r.circle.degree,) or wrong:
            raise ProtocolError(
                f"{numbers.tolist()} are no {r.circle.degree} neighbours of client "
                f"{welcome.number}: leave the round."
            )
        self._step(2)
        self._round, self._welcome = r, welcome
        if not r.threshold:
            return np.zeros((len(numbers), 0), np.uint8)
        with jax.enable_x64(True):
            shares = np.asarray(_shares(r, self._secrets))
        return np.stack(
            [
                self.agreement.seal(self._secrets.channel, keys[1], share)
                for keys, share in zip(welcome.keys, shares, strict=True)
            ]
        )

    def mask(self, mail: Mail, xs: Sequence[Any]) -> np.ndarray:
        """Step 3: the update's words under all masks, uint[size].

        Args:
          xs: the client's arrays, clipped and weighted by `method.contribution`.

        Raises:
          RangeError: a value is not finite or out of range; the client drops out.
          ProtocolError: a share was altered, or too few neighbours are there.
        """
        r, me, present = self._round, self._welcome, np.asarray(mail.present, bool)
        if r.threshold and present.sum() < r.threshold:
            raise ProtocolError(
                f"{present.sum()} of {len(present)} neighbours sent shares and "
                f"{r.threshold} are needed: leave the round."
            )
        if not r.threshold and not present.all():
            raise ProtocolError("a neighbour left, and the method allows for none.")
        self._noised(present)
        received: Any = np.zeros((r.circle.degree, 2, KEY_WORDS), np.uint32)
        if r.threshold:
            for slot in np.flatnonzero(present):
                sender, sealed = me.keys[slot, 1], mail.sealed[slot]
                share = self.agreement.unseal(self._secrets.channel, sender, sealed)
                received[slot] = share.reshape(2, KEY_WORDS)
        pair_keys = self.agreement.agree(self._secrets.mask, me.keys[:, 0])
        with jax.enable_x64(True):
            own, public = (jnp.asarray(k) for k in (self._secrets.own, me.public))
            values = [jnp.asarray(x) for x in xs]
            words, fits = _encoded(self.method, me.clients, own, values, public)
            if not fits:
                raise RangeError(
                    f"an update is not finite, or too large for {self.method}; nothing "
                    "was sent."
                )
            self._step(3)
            number = jnp.int32(me.number)
            signs = steps.signs(r, number, jnp.asarray(me.neighbours))
            factors = signs * jnp.asarray(present).astype(r.word)
            seed = self._secrets.seed
            self._received, self._present = received, present
            return np.asarray(_masked(r, words, seed, pair_keys, factors))

    def unmask(self, answered: Any) -> np.ndarray:
        """Step 4: one share per neighbour, of one of its two secrets; uint32[degree, 8].

        Args:
          answered: bool[degree], which neighbours' masked input the server has.

        Raises: ProtocolError if it is asked twice, or if fewer than the threshold did.
        """
        answered = np.asarray(answered, bool)
        if not self._round.threshold:
            raise ProtocolError("nobody may drop out: there is nothing to unmask.")
        if (answered & ~self._present).any():
            raise ProtocolError("a neighbour that left is said to have answered.")
        if answered.sum() < self._round.threshold:
            raise ProtocolError(
                f"{answered.sum()} neighbours answered, fewer than "
                f"{self._round.threshold}; nothing was sent."
            )
        self._noised(answered)
        self._step(4)
        return np.where(
            answered[:, None], self._received[:, SELF], self._received[:, PAIR]
        )

    def _noised(self, there: np.ndarray) -> None:
        """Raises ProtocolError where it sees that others' noise is missing.

        A client that shares masks with all others knows who answered as the server says
        it; on a sparse graph that is for the server to look at (`Server.check_noise`).
        """
        clients, method = self._welcome.clients, self.method
        counted = clients - method.lost(clients)
        if (
            method.distributed is not None
            and self._round.circle.full
            and 1 + there.sum() < counted
        ):
            raise ProtocolError(
                f"{1 + there.sum()} of {clients} clients answered, and the noise of "
                f"{counted} was counted on; nothing was sent."
            )


class Server:
    """The server in one round; see the module docstring.

    Args:
      method: as for the clients.
      key: a privjax key, for what is public (who is whose neighbour, the rotation) and
        for noise that the server adds.
      keys: what the clients advertised, uint32[clients, 2, 8].
      context: as for the clients.
    """

    def __init__(self, method: SecureSum, key: Any, keys: Any, context: bytes) -> None:
        self.agreement = X25519(context)
        self.keys = np.asarray(keys, np.uint32)
        clients = len(self.keys)
        method.check(clients, weighted=False)
        self.method, self.round = method, method.round(clients)
        with jax.enable_x64(True):
            words = key_words(key)
            order = method.order(words, clients)
            self.neighbours = np.asarray(self.round.circle.neighbours(order))
            self.public = np.asarray(derive(words, (Purpose.PAIR, 0, 3)))
            # What is public, and what the server draws its own noise from.
            self._keys = self.public, np.asarray(derive(words, (Purpose.CALL, 0, 4)))
        shape = (clients, self.round.circle.degree)
        self._sealed = np.zeros((*shape, _SEALED_BYTES), np.uint8)
        self._responses = np.zeros((*shape, KEY_WORDS), np.uint32)
        self._total: Any = None
        self.shared, self.answered, self.heard = (
            np.zeros(clients, bool) for _ in "123"
        )

    def welcome(self, i: int) -> Welcome:
        """For client i, before step 2."""
        mine = self.neighbours[i]
        return Welcome(i, len(self.keys), mine, self.keys[mine], self.public)

    def collect(self, i: int, sealed: Any) -> None:
        """Step 2 of client i."""
        sealed = np.asarray(sealed, np.uint8)
        width = _SEALED_BYTES if self.round.threshold else 0
        _expect(i, sealed, (self.round.circle.degree, width), self.shared)
        self._sealed[i, :, :width] = sealed
        self.shared[i] = True

    def mail(self, i: int) -> Mail:
        """For client i, before step 3: from each neighbour the share that is for it."""
        back = self.round.circle.back
        theirs = self.neighbours[i]
        return Mail(self._sealed[theirs, back], self.shared[theirs])

    def add(self, i: int, masked: Any) -> None:
        """Step 3 of client i."""
        masked = np.asarray(masked)
        shape = masked.shape if self._total is None else self._total.shape
        _expect(i, masked, shape, self.answered, self.shared)
        if masked.dtype != self.round.word:
            raise ProtocolError(
                f"client {i} sent {masked.dtype}, not {self.round.word}."
            )
        self._total = masked.copy() if self._total is None else self._total + masked
        self.answered[i] = True

    def news(self, i: int) -> np.ndarray:
        """For client i, before step 4: bool[degree], which neighbours answered."""
        return self.answered[self.neighbours[i]]

    def hear(self, i: int, response: Any) -> None:
        """Step 4 of client i."""
        response = np.asarray(response, np.uint32)
        _expect(i, response, self._responses.shape[1:], self.heard, self.answered)
        self._responses[i] = response
        self.heard[i] = True

    def check_noise(self) -> None:
        """Before steps 3 and 4: whether as many clients' noise is there as counts.

        With the answers of step 4 the sum could be had, with less noise than that.

        Raises: ProtocolError.
        """
        clients, lost = len(self.keys), self.method.lost(len(self.keys))
        there = (self.answered if self.answered.any() else self.shared).sum()
        if self.method.distributed is not None and there < clients - lost:
            raise ProtocolError(
                f"{there} of {clients} clients answered, fewer than "
                f"{self.method} counts on for its noise; nothing was unmasked."
            )

    def missing(self) -> np.ndarray:
        """bool[clients]: whose secret cannot be recovered from who was heard so far."""
        if not self.round.threshold:
            return ~self.answered
        return (self.heard[self.neighbours].sum(1) < self.round.threshold) & self.shared

    def open(self, likes: Sequence[Any]) -> list[np.ndarray]:
        """The sums over the clients that answered, in the shapes and types of `likes`.

        Raises: ProtocolError where too many dropped out, before anything is unmasked; or
          where a recovered key does not belong to its client.
        """
        self.check_noise()
        missing = self.missing()
        if missing.any() or self._total is None:
            raise ProtocolError(
                f"{self.answered.sum()} of {len(self.keys)} clients answered, and the "
                f"masks of {missing.sum()} cannot be recovered with {self.method}; "
                "nothing was unmasked. Run the round again."
            )
        with jax.enable_x64(True):
            total = jnp.asarray(self._total)
            if self.round.threshold:
                total = self._unmasked(total)
            types = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in likes)
            sums = _decoded(self.method, len(self.keys), types, total, self._keys)
            return [np.asarray(x) for x in sums]

    def _unmasked(self, total: Array) -> Array:
        r, back = self.round, self.round.circle.back
        held = self._responses[self.neighbours, back[None]]
        secrets = np.asarray(_recovered(held, self.heard[self.neighbours]))
        stayed = np.flatnonzero(self.answered)
        minus = np.full(len(stayed), -1, np.int64).astype(r.word)
        total = _without(r, SELF, total, secrets[stayed], minus)
        for i in np.flatnonzero(self.shared & ~self.answered):
            if (self.agreement.public(secrets[i]) != self.keys[i, 0]).any():
                raise ProtocolError(
                    f"the shares of client {i}, which dropped out, do not give its key: "
                    "some client sent a wrong one. Run the round again."
                )
            theirs = self.neighbours[i]
            keys = self.agreement.agree(secrets[i], self.keys[theirs, 0])
            signs = np.where(theirs > i, 1, -1).astype(r.word)
            factors = signs * self.answered[theirs].astype(r.word)
            total = _without(r, PAIR, total, keys, factors)
        return total


def _expect(i: int, x: Any, shape: Any, done: Any, before: Any = None) -> None:
    """Raises: ProtocolError for a message of another form, or out of turn."""
    if done[i] or (before is not None and not before[i]):
        raise ProtocolError(f"client {i} takes a step twice, or out of turn.")
    if x.shape != tuple(shape):
        raise ProtocolError(f"client {i} sent {x.shape}, not {tuple(shape)}.")


@functools.partial(jax.jit, static_argnums=0)
def _shares(r: Round, secrets: Any) -> Array:
    return steps.client_shares(r, secrets)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encoded(
    method: SecureSum, clients: int, own: Array, xs: Sequence[Array], public: Array
) -> tuple[Array, Array]:
    return method.encode(own, xs, clients, public)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decoded(
    method: SecureSum, clients: int, types: Any, total: Array, keys: Any
) -> list[Array]:
    reduced = method.round(clients).reduced(total)
    return method.decode(reduced, types, clients, jnp.bool_(True), *keys)


@functools.partial(jax.jit, static_argnums=0)
def _masked(r: Round, words: Array, seed: Array, keys: Array, factors: Array) -> Array:
    return steps.client_masked_input(r, words, seed, keys, factors)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _without(r: Round, which: int, total: Array, keys: Array, factors: Array) -> Array:
    return steps.add_masks(r, total, keys, factors, which)


@jax.jit
def _recovered(held: Array, present: Array) -> Array:
    return shamir.recover(held, present)
