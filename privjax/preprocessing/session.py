"""What a party keeps from the base transfers, and the sessions derived from it.

`setup` runs once per pair of parties. `open_session` derives the keys of one session;
all randomness of a session comes from them, by call numbers that both sides count in
step. A session number must be used once: the same number gives the same masks again.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax import _compat
from privjax._typing import Array
from privjax.errors import MacCheckError, ProtocolError, RandomKeyError
from privjax.preprocessing import bitmatrix
from privjax.preprocessing.base_ot import base_transfers
from privjax.preprocessing.bitmatrix import bucket
from privjax.preprocessing.exchange import Cost, Side, run
from privjax.preprocessing.host import host, wider
from privjax.prg.chacha20 import Nonce, Purpose, derive, keystream

KAPPA = 128
ROW_WORDS = KAPPA // 32

# Second nonce words under keys that nothing else uses.
_PAIRS, _CHOSEN, _OWN, _DRAW = 1, 1, 2, 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Setup:
    """One party's long-lived secrets. Keep it in memory; never show or log it.

    Attributes:
      delta: uint32[4], the 128 choices of this party as extension sender.
      chosen: uint32[128, 8], the keys chosen by them.
      pairs: uint32[128, 2, 8], the keys among which the other party chose.
      own: uint32[8], this party's own key.
    """

    delta: Array
    chosen: Array
    pairs: Array
    own: Array


def setup(index: int, session: bytes) -> Side[Setup]:
    """128 base transfers in either direction: two rounds, 16 KiB from each party.

    Args:
      index: 0 or 1, this party.
      session: as in `base_ot.choose`: the same on both sides, new for every setup.

    Raises:
      RandomKeyError: under a trace; the keys would be constants of the program.
    """
    if index not in (0, 1):
        raise ProtocolError(f"oblivious transfer has parties 0 and 1, not {index}.")
    if _compat.under_trace():
        raise RandomKeyError("base transfers cannot run inside of a traced function.")
    delta = np.frombuffer(os.urandom(4 * ROW_WORDS), "<u4").astype(np.uint32)
    own = np.frombuffer(os.urandom(32), "<u4").astype(np.uint32)
    choices = np.asarray(bitmatrix.unpack(jnp.asarray(delta), KAPPA)).astype(bool)
    chosen, pairs = yield from base_transfers(choices, index, session)
    return Setup(*(jnp.asarray(x) for x in (delta, chosen, pairs, own)))


class Session:
    """One party in one session: keys, the running call number, the sticky verdict.

    Attributes:
      index: 0 or 1.
      ok: whether every check so far passed: a Boolean array, traced under a trace,
        where the caller must look at it; otherwise a failed check raises at once.
    """

    def __init__(self, index: int, keys: Setup, number: Array) -> None:
        self.index = index
        self.keys = keys
        self.number = number
        self.ok: Array = jnp.asarray(True)
        self._calls = 0
        self._draws = 0

    def call(self) -> Array:
        """A number that no other call of this session gets; the sides stay in step.

        Raises: MacCheckError if a check has failed before.
        """
        self._alive("a session that has failed cannot go on")
        self._calls += 1
        return jnp.asarray(np.uint32(self._calls))

    def draw(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Uniform words that only this party knows; the other side need not draw.

        `dtype` is uint32 or uint64.
        """
        self._draws += 1
        size = math.prod(shape) * np.dtype(dtype).itemsize // 4
        words = host(_stream(self.keys.own, np.uint32(self._draws), bucket(size)))
        if np.dtype(dtype) == np.uint32:
            return words[:size].reshape(shape)
        return wider(words[:size]).reshape(shape)

    def _alive(self, what: str) -> None:
        if not isinstance(self.ok, _compat.Tracer) and not bool(self.ok):
            raise MacCheckError(f"{what}: the other party deviated.")

    def require(self, passed: Array, what: str) -> None:
        """Join a check to the verdict. The session is dead once one has failed.

        Throw the setup away too: a cheater may have guessed a bit of this party's Delta,
        and every further session with it would be another guess.

        Raises: MacCheckError, outside of a trace, if any check has failed.
        """
        self.ok = self.ok & passed
        self._alive(f"{what} failed")


@partial(jax.jit, static_argnums=2)
def _stream(own: Array, draw: Array, words: int) -> Array:
    return keystream(own, (Purpose.RAW, _DRAW, draw), words)


@jax.jit
def _derived(keys: Setup, number: Array) -> Setup:
    def each(key: Array, nonce: Nonce) -> Array:
        return derive(key, nonce)

    many = jax.vmap(each, in_axes=(0, None))
    pairs = many(keys.pairs.reshape(-1, 8), (Purpose.RAW, _PAIRS, number))
    return Setup(
        keys.delta,
        many(keys.chosen, (Purpose.RAW, _CHOSEN, number)),
        pairs.reshape(keys.pairs.shape),
        each(keys.own, (Purpose.RAW, _OWN, number)),
    )


def open_session(index: int, keys: Setup, number: int | Array) -> Session:
    """Session `number`, in [0, 2^32), of a setup. A number must be used only once."""
    word = jnp.asarray(number, np.uint32)
    return Session(index, _derived(keys, word), word)


def expand(keys: Array, call: Array, words: int) -> Array:
    """uint32[..., 8] -> uint32[..., words]: every key's keystream of this call."""
    flat = keys.reshape(-1, 8)
    nonce = (Purpose.RAW, 0, call)
    out = jax.vmap(lambda key: keystream(key, nonce, words))(flat)
    return out.reshape(*keys.shape[:-1], words)


def cost(side: Callable[[Session], Side[Any]]) -> Cost:
    """What a protocol sends, found by tracing both sides: nothing is computed.

    Args: side, called with the session of party 0 and with that of party 1.
    """
    found = []

    def both() -> None:
        blank = Setup(
            jnp.zeros((ROW_WORDS,), np.uint32),
            jnp.zeros((KAPPA, 8), np.uint32),
            jnp.zeros((KAPPA, 2, 8), np.uint32),
            jnp.zeros((8,), np.uint32),
        )
        found.append(run(*(side(open_session(i, blank, 0)) for i in (0, 1)))[2])

    jax.eval_shape(both)
    return found[0]
