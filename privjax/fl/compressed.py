"""Clients that send a few entries of their change of the model: `compress=` of `fedavg`.

A client adds to its change what it left out before, sends some entries, and remembers the
rest (error feedback; `privjax.aggregation.sparse`). Its memory is a state of its own, so
that `init` needs the number of clients.

============  ======================================  ================================
compress      entries                                 sums
============  ======================================  ================================
`TopK(f)`     each client's largest                   in the clear: places differ
`RandomK(f)`  of places that all have in common,      any: of k values, masked, shared,
              drawn anew in every round               with noise
============  ======================================  ================================

Quantisation is a method of summing, for any algorithm: `aggregate=quantised(bits)`, or
`secure_sum(bits, clip=..., rotate=True, rounding="stochastic")`.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from privjax._typing import Array, PyTree
from privjax.aggregation.methods import Plain
from privjax.aggregation.sparse import RandomK, TopK
from privjax.errors import InputError
from privjax.prg.chacha20 import KEY_WORDS, Purpose, derive
from privjax.transforms.base import typed_key


class Counted(NamedTuple):
    """The server's state where a round's places follow from its number."""

    inner: PyTree
    rounds: Array


def check_compress(compress: Any, method: Any, robust: Any) -> None:
    """Raises: InputError for what does not go together."""
    if compress is None:
        return
    if not isinstance(compress, TopK | RandomK):
        raise InputError(
            f"compress={compress!r}: choose TopK(...) or RandomK(...) of "
            "privjax.aggregation, or quantise by aggregate=."
        )
    if robust is not None:
        raise InputError(f"{robust} compares whole updates; leave compress= out.")
    if isinstance(compress, TopK) and not isinstance(method, Plain):
        raise InputError(
            f"{compress} and {method}: clients send different entries, whose places a "
            "sum of hidden updates cannot know. Use RandomK(...), whose places are "
            "common."
        )


def places_key(rounds: Array) -> Array:
    """uint32[8]: where the places of a round come from; public, the same for all runs."""
    zero = jnp.zeros(KEY_WORDS, np.uint32)
    return derive(zero, (Purpose.LOOP, jnp.asarray(rounds, np.uint32), 0))


def encoded(
    compress: Any, delta: PyTree, memory: PyTree, words: Any
) -> tuple[PyTree, PyTree]:
    """What a client adds to the sum, and its memory for the next round."""
    if isinstance(compress, RandomK):
        return compress.encode(delta, memory, typed_key(words))
    message, memory = compress.encode(delta, memory)
    return compress.decode(message, delta), memory


def decoded(compress: Any, total: PyTree, like: PyTree, words: Any) -> PyTree:
    """The change of the model that a sum of what clients sent stands for."""
    if isinstance(compress, RandomK):
        return compress.decode(total, like, typed_key(words))
    return total
