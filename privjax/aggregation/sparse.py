"""Sending a few entries of an update, and remembering the rest for the next round.

`TopK`: the entries of largest magnitude, with their places (Aji and Heafield 2017), and
error feedback: what was not sent is added to the next update (Stich, Cordonnier and Jaggi,
"Sparsified SGD with memory", NeurIPS 2018, algorithm 1; Karimireddy et al. 2019). Clients
send different entries, so that the server must see whose they are.

`RandomK`: the same entries for all clients of a round, drawn from a common key. Only
values are sent, and they can go through a secure sum, noise and all.

Both are pure functions of a client's memory, a pytree like the update, which stays with
the client:

    memory = compress.init(update)
    message, memory = compress.encode(update, memory, key)
    update = compress.decode(message, like, key)
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from privjax._typing import Array, PyTree
from privjax.errors import InputError
from privjax.prg.chacha20 import Purpose, bits
from privjax.prg.keys import key_words

_VALUE_BITS = 32


class Sparse(NamedTuple):
    """Some entries of a vector: values float[k], places int32[k]."""

    values: Array
    places: Array


@dataclass(frozen=True)
class _Compress:
    """Attributes: fraction, the share of an update's entries that is sent, in (0, 1]."""

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise InputError(f"fraction={self.fraction!r} is not in (0, 1].")

    def count(self, like: PyTree) -> int:
        """How many entries are sent of an update like this: at least one."""
        return max(1, math.ceil(self.fraction * _size(like)))

    def init(self, like: PyTree) -> PyTree:
        """The memory before the first round: zeros."""
        return jax.tree.map(jnp.zeros_like, like)


@dataclass(frozen=True)
class TopK(_Compress):
    """The entries of largest magnitude; see the module docstring."""

    def encode(
        self, update: PyTree, memory: PyTree, key: Any = None
    ) -> tuple[Sparse, PyTree]:
        """The message of this round, and the memory for the next."""
        flat, unravel = ravel_pytree(jax.tree.map(jnp.add, update, memory))
        _, places = lax.top_k(jnp.abs(flat), self.count(update))
        sent = Sparse(flat[places], places.astype(np.int32))
        return sent, unravel(flat.at[places].set(0))

    def decode(self, message: Sparse, like: PyTree, key: Any = None) -> PyTree:
        """The update that a message stands for: zeros elsewhere."""
        return _scattered(message, like)

    def bits_per_client(self, like: PyTree) -> dict[str, int]:
        """What one client sends, in bits."""
        k = self.count(like)
        place = max(1, (_size(like) - 1).bit_length())
        return {"values": k * _VALUE_BITS, "places": k * place}


@dataclass(frozen=True)
class RandomK(_Compress):
    """Entries drawn from a key that all clients of a round have in common."""

    def places(self, like: PyTree, key: Any) -> Array:
        """int32[k], sorted, without repetition."""
        words = key_words(key)
        drawn = bits(words, (Purpose.NOISE, 1, 0), (_size(like),), np.uint32)
        # Ties (of 32 bits) fall to lower places: of no consequence, as none is secret.
        _, places = lax.top_k(drawn, self.count(like))
        return jnp.sort(places).astype(np.int32)

    def encode(self, update: PyTree, memory: PyTree, key: Any) -> tuple[Array, PyTree]:
        """float[k], the message of this round; and the memory for the next.

        Messages of clients with one `key` may be added up, by any aggregation.
        """
        flat, unravel = ravel_pytree(jax.tree.map(jnp.add, update, memory))
        places = self.places(update, key)
        return flat[places], unravel(flat.at[places].set(0))

    def decode(self, message: Array, like: PyTree, key: Any) -> PyTree:
        """The update (or the sum of updates) that a message stands for."""
        return _scattered(Sparse(message, self.places(like, key)), like)

    def bits_per_client(self, like: PyTree) -> dict[str, int]:
        """What one client sends in the clear, in bits."""
        return {"values": self.count(like) * _VALUE_BITS}


def _scattered(message: Sparse, like: PyTree) -> PyTree:
    flat, unravel = ravel_pytree(like)
    zeros = jnp.zeros(flat.shape, message.values.dtype)
    return unravel(zeros.at[message.places].set(message.values).astype(flat.dtype))


def _size(like: PyTree) -> int:
    return sum(math.prod(np.shape(x)) for x in jax.tree.leaves(like))
