"""The aggregators as the server of a round sees them: who is asked what, in which order."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.aggregation.aggregators import Setting, Step
from privjax.aggregation.dealt import of_uint32
from privjax.aggregation.few_bits import common
from privjax.aggregation.messages import Message, listed, named, need, number, typed
from privjax.aggregation.spdz import Spdz
from privjax.errors import MacCheckError, ProtocolError
from privjax.prg.keys import key as random_key
from privjax.prg.keys import key_words
from privjax.protocols.spdz2k.check import balanced

# Messages by party (the dealer's number is that of the aggregators), seconds -> replies.
Ask = Callable[[Mapping[int, Message], float], Mapping[int, Message]]


class PartyLost(ProtocolError):
    """An aggregator or the dealer has ended: every one of them is needed."""


class Panel:
    """The parties in one round.

    Args:
      ask: carries messages to them, and raises PartyLost, or leaves out who is gone.
      context: names the round.
      size: how many words a client enters.
    """

    def __init__(
        self, method: Spdz, ask: Ask, seconds: float, context: bytes, size: int
    ) -> None:
        self.method, self.setting = method, Setting.of(method)
        self.ask, self.seconds, self.context, self.size = ask, seconds, context, size
        self._dealt: list[np.ndarray] = []

    def hello(self) -> None:
        """Raises PartyLost where one of them is not there."""
        everybody = self.setting.parties + self.setting.dealt
        self._asked(Step.HELLO, {p: {} for p in range(everybody)})

    def deal(self, keys: np.ndarray) -> list[np.ndarray] | None:
        """What the dealer sealed for each client; None where nothing is dealt."""
        self.keys = keys
        if not self.setting.dealt:
            return None
        dealer = self.setting.parties
        about = {"keys": keys, "size": number(self.size)}
        reply = self._asked(Step.DEAL, {dealer: about})[dealer]
        masks, self._dealt = listed(reply, "mask"), listed(reply, "share")
        if (len(masks), len(self._dealt)) != (len(keys), dealer):
            raise ProtocolError("the dealer's answer is not for these clients.")
        return masks

    def admit(self, sealed: Mapping[int, Sequence[np.ndarray]]) -> np.ndarray:
        """bool[clients], whose messages all aggregators could read.

        Args:  sealed: by client, one message for each aggregator.
        """
        there = np.zeros(len(self.keys), bool)
        there[list(sealed)] = True
        messages: dict[int, Message] = {}
        for p in range(self.setting.parties):
            mine = [sealed[i][p] for i in np.flatnonzero(there).tolist()]
            about = {"keys": self.keys, "size": number(self.size), "there": there}
            dealt = {"dealt": self._dealt[p]} if self._dealt else {}
            messages[p] = about | dealt | named("sealed", mine)
        replies = self._asked(Step.ADMIT, messages)
        wanted = [jax.ShapeDtypeStruct(there.shape, np.bool_)]
        fine = [typed([need(r, "fine")], wanted)[0] for r in replies.values()]
        return np.all(fine, axis=0) & there

    def open(self, counted: np.ndarray) -> np.ndarray:
        """The sum over the counted clients, words.

        Raises: MacCheckError where a client or a party cheated.
        """
        parties = range(self.setting.parties)
        replies = self._asked(Step.OPEN, {p: {"counted": counted} for p in parties})
        like = np.zeros(self.size, self.setting.word)
        with jax.enable_x64(True):
            if not self.setting.dealt:
                shares = [of_uint32(need(r, "opened"), like) for r in replies.values()]
                return np.sum(shares, axis=0, dtype=like.dtype)
            ring = self.setting.ring
            form = [jax.ShapeDtypeStruct((self.size, ring.words), np.uint32)]
            shares = [typed([need(r, "opened")], form)[0] for r in replies.values()]
            value, low = _opened(self.setting, jnp.asarray(np.stack(shares)))
            # Tossed now that no share can be changed.
            coin = np.asarray(key_words(random_key()))
            about: Message = {"value": np.asarray(value), "coin": coin}
            said = self._asked(Step.CHECK, dict.fromkeys(parties, about)).values()
            checks = [need(reply, "check") for reply in said]
            if not _balanced(self.setting, jnp.asarray(np.stack(checks))):
                raise MacCheckError(
                    f"{self.method}: what the aggregators opened fails their check: a "
                    "party, or a client, sent something else than it should have. The sum "
                    "is lost."
                )
            return np.asarray(low)

    def decoded(self, clients: int, types: Sequence[Any], words: Any) -> list[Any]:
        """The sums in the shapes and types of what a client sends."""
        with jax.enable_x64(True):
            server = np.frombuffer(os.urandom(32), np.uint32)
            keys = common(self.context), jnp.asarray(server)
            found = _decoded(
                self.method, clients, tuple(types), jnp.asarray(words), keys
            )
            return [np.asarray(x) for x in found]

    def _asked(self, step: Step, messages: Mapping[int, Message]) -> dict[int, Message]:
        about = {"step": number(step), "context": np.frombuffer(self.context, np.uint8)}
        whole = {p: m | about for p, m in messages.items()}
        replies = self.ask(whole, self.seconds)
        gone = [p for p in messages if p not in replies]
        if gone:
            names = [self.name(p) for p in gone]
            raise PartyLost(
                f"{', '.join(names)} of {self.method} did not answer in "
                f"{self.seconds:g} s: every share is needed, and nothing was opened."
            )
        return {p: replies[p] for p in sorted(messages)}

    def name(self, p: int) -> str:
        return "the dealer" if p == self.setting.parties else f"aggregator {p}"


@functools.partial(jax.jit, static_argnums=0)
def _opened(setting: Setting, shares: Array) -> tuple[Array, Array]:
    total = setting.ring.total(setting.ring.from_words(shares), (0,))
    return setting.ring.to_words(total), setting.ring.low(total)


@functools.partial(jax.jit, static_argnums=0)
def _balanced(setting: Setting, said: Array) -> Array:
    return balanced(setting.ring, said)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decoded(
    method: Spdz, clients: int, types: Any, total: Array, keys: Any
) -> list[Array]:
    return method.decode(total, types, clients, jnp.bool_(True), *keys)
