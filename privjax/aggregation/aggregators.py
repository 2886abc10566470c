"""The parties of `spdz` as separate processes: what each answers to each message.

    step     who          is sent                           answers
    hello    all                                            its public key
    deal     the dealer   the clients' public keys          sealed: r to each client; shares
                                                            of all r to each aggregator
    admit    aggregators  the dealer's and clients' sealed  whose it could open
                          messages for it
    open     aggregators  who is counted                    its share of their sum
    check    aggregators  what was opened, a coin           its part of the check

The protocol is that of `spdz`, whose docstring says who is trusted with what; with
`protocol="semi2k"` there is no dealer and no check. Everything is sealed for the one who
is to read it (X25519, ChaCha20-Poly1305), so that who carries it, the server, sees
ciphertexts and shares of the sum. Clients know the aggregators' keys beforehand.

An aggregator opens one sum a round, of two clients or more, and with noise of no fewer than
its noise was calibrated for. What the server opens it opens for itself: it tosses the coin
once all shares are there, and sees the check fail where a party or a client cheated.
"""

import functools
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.aggregation.agreement import X25519
from privjax.aggregation.dealt import (
    as_uint32,
    check_words,
    dealt,
    digest,
    expanded,
    mac_keys,
    of_uint32,
    plus,
    share_words,
)
from privjax.aggregation.grid import number_of
from privjax.aggregation.messages import Message, listed, named, need, whole
from privjax.aggregation.spdz import Spdz
from privjax.errors import ProtocolError
from privjax.prg.chacha20 import KEY_WORDS
from privjax.prg.keys import key as random_key
from privjax.prg.keys import key_words
from privjax.protocols.spdz2k.extended import Extended


class Step(IntEnum):
    """What a party is asked."""

    HELLO = 0
    DEAL = 1
    ADMIT = 2
    OPEN = 3
    CHECK = 4


@dataclass(frozen=True)
class Setting:
    """What parties know of a method; plain values.

    Attributes: as of `Spdz`; `dropped` is None where clients add no noise.
    """

    parties: int
    protocol: str
    bits: int
    dropped: int | float | None

    @classmethod
    def of(cls, method: Spdz) -> "Setting":
        dropped = None if method.distributed is None else method.dropped
        return cls(method.parties, method.protocol, method.bits, dropped)

    @property
    def dealt(self) -> bool:
        """Whether shares have MACs, and a dealer makes them."""
        return self.protocol == "spdz2k"

    @property
    def ring(self) -> Extended:
        return Extended(self.bits)

    @property
    def word(self) -> np.dtype[Any]:
        """The unsigned type of a client's words."""
        return np.dtype(f"uint{max(8, 1 << (self.bits - 1).bit_length())}")

    def fewest(self, clients: int) -> int:
        """Of how many of a round's clients a sum may be opened."""
        if self.dropped is None:
            return 2
        return max(2, clients - number_of(self.dropped, clients))


class _Party:
    """A key of its own for as long as its process lives, and every round taken once."""

    def __init__(self) -> None:
        self._secret = np.asarray(key_words(random_key()))
        self.key = X25519().public(self._secret)
        self._taken: set[bytes] = set()

    def _begin(self, context: bytes) -> X25519:
        """Keys of a round seal one message each way: no round is taken twice."""
        if context in self._taken:
            raise ProtocolError("a party was asked for the same round twice.")
        self._taken.add(context)
        return X25519(context)


class Dealer(_Party):
    """Deals each client's mask and the parties' shares of it, with MACs.

    Args:  aggregators: their public keys, uint32[parties, 8].
    """

    def __init__(self, setting: Setting, aggregators: Any = None) -> None:
        super().__init__()
        self.setting, self._aggregators = setting, aggregators

    def handle(self, message: Message) -> Message:
        """The answer to one message. Raises: ProtocolError."""
        if whole(message, "step") == Step.HELLO:
            if "aggregators" in message and self._aggregators is None:
                self._aggregators = need(message, "aggregators")
            return {"key": self.key}
        if whole(message, "step") != Step.DEAL or self._aggregators is None:
            raise ProtocolError("the dealer knows no aggregators, or no such step.")
        context = need(message, "context").tobytes()
        keys, size = need(message, "keys"), whole(message, "size")
        agreement = self._begin(context)
        parties, ring = self.setting.parties, self.setting.ring
        with jax.enable_x64(True):
            seeds = np.stack([key_words(random_key()) for _ in range(parties)])
            alphas = mac_keys(parties, ring.k)
            masks, first = [], []
            for j in range(len(keys) + 1):
                mask, macs = dealt(ring.k, parties, size, seeds, alphas, j)
                masks.append(np.asarray(mask))
                first.append(np.asarray(macs))
        who = digest(keys)
        seal = functools.partial(agreement.seal, self._secret)
        shares = [
            np.concatenate([seeds[p], alphas[p : p + 1].view("<u4"), who])
            for p in range(parties)
        ]
        shares[0] = np.concatenate([shares[0], np.stack(first).reshape(-1)])
        return named(
            "mask", [seal(k, as_uint32(m)) for k, m in zip(keys, masks, strict=False)]
        ) | named(
            "share",
            [seal(k, s) for k, s in zip(self._aggregators, shares, strict=True)],
        )


class Aggregator(_Party):
    """One party that adds up shares of clients.

    Args:  number: from 0; `dealer`: its public key, uint32[8], where there is one.
    """

    def __init__(self, setting: Setting, number: int, dealer: Any = None) -> None:
        super().__init__()
        self.setting, self.number = setting, number
        self._dealer = None if dealer is None else np.asarray(dealer, np.uint32)
        self._context = b""
        self._next = Step.ADMIT

    def handle(self, message: Message) -> Message:
        """The answer to one message. Raises: ProtocolError; nothing was opened."""
        step = whole(message, "step")
        if step == Step.HELLO:
            return {"key": self.key}
        context = need(message, "context").tobytes()
        with jax.enable_x64(True):
            if step == Step.ADMIT:
                return self._admit(message, context)
            if context != self._context or step != self._next:
                raise ProtocolError(f"aggregator {self.number}: out of turn.")
            self._next = Step.CHECK if step == Step.OPEN else Step.ADMIT
            return self._open(message) if step == Step.OPEN else self._check(message)

    def _admit(self, message: Message, context: bytes) -> Message:
        agreement = self._begin(context)
        self._context, self._next = context, Step.OPEN
        keys, self._size = need(message, "keys"), whole(message, "size")
        there = np.asarray(need(message, "there"), bool)
        if self.setting.dealt:
            self._take(agreement, need(message, "dealt"), keys)
        self._words: dict[int, np.ndarray] = {}
        self._clients = len(keys)
        sealed = dict(
            zip(np.flatnonzero(there).tolist(), listed(message, "sealed"), strict=True)
        )
        seed = self.number > 0 and not self.setting.dealt
        expected = KEY_WORDS if seed else len(as_uint32(self._zeros()))
        for i, data in sealed.items():
            try:
                found = agreement.unseal(self._secret, keys[i], data)
            except ProtocolError:
                continue
            if len(found) == expected:
                self._words[i] = found
        fine = np.zeros(self._clients, bool)
        fine[list(self._words)] = True
        return {"fine": fine}

    def _take(self, agreement: X25519, sealed: np.ndarray, keys: np.ndarray) -> None:
        """The dealer's seed and key, and the MAC shares that are no function of a seed."""
        found = agreement.unseal(self._secret, self._dealer, sealed)
        self._seed, rest = found[:KEY_WORDS], found[KEY_WORDS:]
        self._alpha, who, first = rest[:2].view("<u8")[0], rest[2:10], rest[10:]
        if (who != digest(keys)).any():
            raise ProtocolError(
                f"aggregator {self.number}: the dealer has other clients."
            )
        shape = (self._size, self.setting.ring.words)
        self._first = first.reshape(-1, *shape) if self.number == 0 else None

    def _zeros(self) -> np.ndarray:
        return np.zeros(self._size, self.setting.word)

    def _open(self, message: Message) -> Message:
        counted = np.flatnonzero(need(message, "counted"))
        fewest = self.setting.fewest(self._clients)
        if len(counted) < fewest or not set(counted.tolist()) <= set(self._words):
            raise ProtocolError(
                f"aggregator {self.number}: a sum of {len(counted)} clients, and {fewest} "
                "are the fewest; nothing was opened."
            )
        if not self.setting.dealt:
            total = self._zeros()
            for i in counted.tolist():
                total = total + self._additive(self._words[i])
            return {"opened": as_uint32(total)}
        ring = self.setting.ring
        sums = ring.zeros((2, self._size))
        for i in [*counted.tolist(), self._clients]:
            spare = i == self._clients
            first = self._zeros_of(ring) if self._first is None else self._first[i]
            sent = self._zeros() if spare else of_uint32(self._words[i], self._zeros())
            place = jnp.array([self.number == 0, self.number > 0, spare])
            own = self._seed, jnp.uint64(self._alpha), first, sent
            sums = plus(ring.k, self._size, sums, own, jnp.uint32(i), place)
        self._both = sums
        return {"opened": np.asarray(share_words(ring.k, sums))}

    def _zeros_of(self, ring: Extended) -> np.ndarray:
        return np.zeros((self._size, ring.words), np.uint32)

    def _additive(self, words: np.ndarray) -> np.ndarray:
        if self.number == 0:
            return of_uint32(words, self._zeros())
        return np.asarray(expanded(words, self._size, self.setting.word))

    def _check(self, message: Message) -> Message:
        value, coin = need(message, "value"), need(message, "coin")
        setting = self.setting
        said = check_words(setting.ring.k, setting.parties, self._both, value, coin,
                        jnp.uint64(self._alpha))  # fmt: skip
        return {"check": np.asarray(said)}
