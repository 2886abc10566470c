"""Input and output: nothing to do."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols.elements import from_words, to_words
from privjax.protocols.party import PARTY
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.tuples import Noise


def share_input(x: Any, owner: int) -> Arith:
    """The value, whoever owns it."""
    return Arith(x)


def share_bits(x: Any, owner: int) -> Bit:
    """The bits, whoever owns them."""
    return Bit(x)


def public(value: Any) -> Arith:
    """The value."""
    return Arith(jax.tree.map(jnp.asarray, value))


def public_bits(value: Any) -> Bit:
    """The bits."""
    return Bit(jnp.asarray(value))


def noise(draw: Noise) -> Arith:
    """A draw from a seed that all parties make and open: the one kernel with a round."""
    seed = markers.uniform((8,), jnp.uint32, "xor")
    (common,) = markers.open_values([seed], ("xor",), (32,))
    return Arith(draw.clear(common)[0])


def open_arith(xs: Sequence[Arith]) -> list[Any]:
    """The values."""
    return [x.value for x in xs]


def open_bits(xs: Sequence[Bit]) -> list[Any]:
    """The bits, as uint8 0 or 1."""
    return [x.value & np.uint8(1) for x in xs]


def pack(x: Arith | Bit) -> Any:
    if isinstance(x, Bit):
        return (x.value & np.uint8(1)).astype(np.uint32)[..., None]
    return to_words(x.value)


def unpack_arith(words: Any, dtype: Any) -> Arith:
    return Arith(from_words(_alike(words)))


def unpack_bits(words: Any) -> Bit:
    return Bit(_alike(words)[..., 0].astype(np.uint8))


def _alike(words: Any) -> Any:
    """What all parties hold, as a value that does not depend on the party."""
    return lax.pmax(words, PARTY)


def combine_arith(words: Any, dtype: Any) -> tuple[Any, Any]:
    return from_words(words[0]), jnp.all(words == words[0])


def combine_bits(words: Any) -> tuple[Any, Any]:
    return words[0, ..., 0].astype(np.uint8), jnp.all(words == words[0])
