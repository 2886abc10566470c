"""What a real client does to enter its update into a sum among aggregators.

With MACs it hides its words by the mask r that the dealer sealed for it, and sends x - r to
all parties; else it draws additive shares, all but the first from seeds. Each is sealed for
one aggregator, whose key the client knew beforehand.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.aggregation.aggregators import Setting
from privjax.aggregation.agreement import X25519
from privjax.aggregation.dealt import as_uint32, expanded, of_uint32
from privjax.aggregation.few_bits import common
from privjax.aggregation.spdz import Spdz
from privjax.errors import InputError, ProtocolError, RangeError
from privjax.prg.keys import key as random_key
from privjax.prg.keys import key_words


class Entry:
    """One client in one round.

    Args:
      method: from `privjax.spdz`, the same at all.
      parties: public keys of the aggregators, and the dealer's behind them if there is one,
        uint32[parties (+ 1), 8].
      context: names the round.
    """

    def __init__(self, method: Spdz, parties: Any, context: bytes) -> None:
        self.method, self.setting = method, Setting.of(method)
        self.parties = checked(parties, self.setting)
        self.context, self.agreement = context, X25519(context)
        self._secret = np.asarray(key_words(random_key()))
        self._done = False

    def advertise(self) -> np.ndarray:
        """Its public key for this round, uint32[8]."""
        return self.agreement.public(self._secret)

    def share(self, clients: int, mask: Any, xs: Sequence[Any]) -> list[np.ndarray]:
        """A sealed message for each aggregator, uint8[...].

        Args:
          clients: how many there are.
          mask: what the dealer sealed for it; None where there is none.
          xs: the client's arrays, clipped and weighted.

        Raises:
          RangeError: a value is not finite or out of range.
          ProtocolError: asked twice, or the dealer's message was altered.
        """
        if self._done:
            raise ProtocolError("an update is entered once. Nothing was sent.")
        self._done = True
        with jax.enable_x64(True):
            own = jnp.asarray(key_words(random_key()))
            values = [jnp.asarray(x) for x in xs]
            public = common(self.context)
            words, fits = _encoded(self.method, clients, own, values, public)
            if not fits:
                raise RangeError(
                    f"an update is not finite, or too large for {self.method}; nothing "
                    "was sent."
                )
            sent = self._parts(np.asarray(words), mask)
        return [
            self.agreement.seal(self._secret, key, part)
            for key, part in zip(self.parties, sent, strict=False)
        ]

    def _parts(self, words: np.ndarray, mask: Any) -> list[np.ndarray]:
        parties, word = self.setting.parties, self.setting.word
        if not self.setting.dealt:
            seeds = [np.asarray(key_words(random_key())) for _ in range(parties - 1)]
            rest = [np.asarray(expanded(s, words.size, word)) for s in seeds]
            first = words - np.sum(rest, axis=0, dtype=word)
            return [as_uint32(first), *seeds]
        found = self.agreement.unseal(self._secret, self.parties[-1], mask)
        if len(found) != len(as_uint32(words)):
            raise ProtocolError(
                "the dealer's mask has another length. Nothing was sent."
            )
        return [as_uint32(words - of_uint32(found, words))] * parties


def checked(parties: Any, setting: Setting) -> np.ndarray:
    """Public keys of all parties. Raises: InputError where they are not as many."""
    found = np.asarray(parties, np.uint32)
    wanted = (setting.parties + setting.dealt, 8)
    if found.shape != wanted:
        raise InputError(
            f"aggregators= are public keys uint32{list(wanted)}, the dealer's behind those "
            f"of the aggregators; not {list(found.shape)}."
        )
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encoded(
    method: Spdz, clients: int, own: Array, xs: Sequence[Array], public: Array
) -> tuple[Array, Array]:
    return method.encode(own, xs, clients, public)
