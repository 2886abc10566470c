"""Commitments between two parties, and coins that neither of them can choose.

A commitment is BLAKE2s of 256 random bits, who commits, when, and the value: binding
and hiding with BLAKE2s as a random oracle. The party and the call are inside, so that a
commitment cannot be sent back as one's own or saved for later.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import received_as
from privjax.preprocessing.session import Session
from privjax.prg.blake2s import commit

_NONCE_WORDS = 8
_commit = jax.jit(commit)


def sealed(me: Session, party: int, call: Array, words: Array, nonce: Array) -> Array:
    """A party's commitment to uint32[n] in a call."""
    head = jnp.stack([jnp.uint32(party), me.number, call])
    return _commit(jnp.concatenate([head, words]), nonce)


def open_together(me: Session, value: Array, what: str) -> Side[Array]:
    """Both show a value; neither can choose its own after seeing the other's.

    Two rounds. `value` is uint32[n] or uint64[n]; the other party's has its form.

    Raises: MacCheckError if what is shown is not what was committed to.
    """
    call = me.call()
    words = lax.bitcast_convert_type(value, np.uint32).reshape(-1)
    nonce = me.draw((_NONCE_WORDS,), np.uint32)
    received = yield sealed(me, me.index, call, words, nonce)
    promised = received_as(received, (8,), np.uint32)
    received = yield (value, nonce)
    shown, their_nonce = received if isinstance(received, tuple) else (None, None)
    shown = received_as(shown, value.shape, value.dtype)
    their_nonce = received_as(their_nonce, (_NONCE_WORDS,), np.uint32)
    their_words = lax.bitcast_convert_type(shown, np.uint32).reshape(-1)
    again = sealed(me, 1 - me.index, call, their_words, their_nonce)
    me.require(jnp.all(again == promised), what)
    return shown


def toss(me: Session) -> Side[Array]:
    """A common random key, uint32[8], fixed only now. Two rounds."""
    mine = me.draw((8,), np.uint32)
    theirs = yield from open_together(me, mine, "the coin toss")
    return mine ^ theirs
