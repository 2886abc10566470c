"""Input and output: sharing by an owner, opening, public constants."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.protocols import requests
from privjax.protocols.elements import from_words, to_words, total
from privjax.protocols.party import first_party
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.tuples import Noise, ToOwner


def share_input(x: Any, owner: int) -> Arith:
    """Shares of `x`, which only party `owner` needs to hold.

    1. the dealer tells the owner a random r, and everybody has [r]
    2. the owner sends x - r to all
    3. [x] = [r] + (x - r)
    """
    r = requests.uniform(x.shape, x.dtype, "sum")
    (clear,) = requests.dealt([r], ToOwner(owner))
    (delta,) = requests.open_values(
        [x - clear], (f"from:{owner}",), (x.dtype.itemsize * 8,)
    )
    return Arith(r + first_party(delta))


def share_bits(x: Any, owner: int) -> Bit:
    """`share_input` for bits: r is a bit, and x XOR r is sent."""
    r = requests.uniform(x.shape, np.uint8, "xor")
    (clear,) = requests.dealt([r], ToOwner(owner, "xor"))
    low = (x ^ clear) & np.uint8(1)
    (delta,) = requests.open_values([low], (f"from:{owner}",), (1,))
    return Bit(r ^ first_party(delta))


def public(value: Any) -> Arith:
    """A public ring array as a share."""
    return Arith(first_party(value))


def public_bits(value: Any) -> Bit:
    """A public bit array as a share."""
    return Bit(first_party(value))


def noise(draw: Noise) -> Arith:
    """[e] for noise e that the dealer draws: no party, nor n-1 of them, learns it.

    1. a uniform seed <k>, known to the dealer alone
    2. the dealer deals shares of the noise that k gives
    """
    seed = requests.uniform((8,), jnp.uint32, "xor")
    (share,) = requests.dealt([seed], draw)
    return Arith(share)


def open_arith(xs: Sequence[Arith]) -> list[Any]:
    """All parties learn the values; one round."""
    bits = tuple(x.value.dtype.itemsize * 8 for x in xs)
    return requests.open_values([x.value for x in xs], ("sum",) * len(xs), bits)


def open_bits(xs: Sequence[Bit]) -> list[Any]:
    """All parties learn the bits (uint8 0 or 1); one round."""
    low = [x.value & jnp.uint8(1) for x in xs]
    return requests.open_values(low, ("xor",) * len(xs), (1,) * len(xs))


# -- shares at rest: ring elements as words, low first; bits as one word ---------------


def pack(x: Arith | Bit) -> Any:
    if isinstance(x, Bit):
        return (x.value & np.uint8(1)).astype(np.uint32)[..., None]
    return to_words(x.value)


def unpack_arith(words: Any, dtype: Any) -> Arith:
    return Arith(from_words(words))


def unpack_bits(words: Any) -> Bit:
    return Bit(words[..., 0].astype(np.uint8))


def combine_arith(words: Any, dtype: Any) -> tuple[Any, Any]:
    return total(from_words(words)), np.True_


def combine_bits(words: Any) -> tuple[Any, Any]:
    return lax.reduce_xor(words[..., 0].astype(np.uint8), (0,)), np.True_
