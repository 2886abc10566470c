"""Input and output: sharing by an owner, opening, public constants."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols.party import PARTY
from privjax.protocols.ring import from_words, to_words
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.tuples import Noise

Pair = tuple[Any, Any]
KEPT = "send:0>0,1>1,2>2"


def at(choices: dict[int, Any], otherwise: Any) -> Any:
    """One array at some parties, `otherwise` at the rest."""
    out = jnp.asarray(otherwise)
    for party, value in choices.items():
        here = lax.broadcast(lax.axis_index(PARTY) == party, out.shape)
        out = lax.select(here, jnp.asarray(value), out)
    return out


def component(value: Any, number: int) -> Pair:
    """A share with x_number = value (known to its two holders), the others zero."""
    value = jnp.asarray(value)
    zero = jnp.zeros_like(value)
    return at({number: value}, zero), at({(number - 1) % 3: value}, zero)


def tell(
    values: Sequence[Any], domains: Sequence[str], bits: Sequence[int]
) -> tuple[list[Any], list[Any]]:
    """(what this party sent, what it was sent); one round.

    A party's own copy takes the same way, so that it exists in full as well: XLA would
    merge rounds and compute it anew for every use.
    """
    n = len(values)
    out = markers.open_values(
        [*values, *values], [*domains, *[KEPT] * n], [*bits, *bits]
    )
    return out[n:], out[:n]


def from_owner(x: Any, owner: int, domain: str, bits: int) -> Pair:
    """A share of `x`, which party o = `owner` holds; one round, one element sent.

    1. x_{o+1} = F_{o+1}, known to P_o and P_{o+1};  x_{o+2} = 0
    2. P_o sends x_o = x - x_{o+1} to P_{o-1}
    """
    before, after = (owner - 1) % 3, (owner + 1) % 3
    mine, theirs = markers.pairwise(x.shape, x.dtype)
    rest = x - theirs if domain == "sum" else x ^ theirs
    rest = rest & np.array((1 << bits) - 1, x.dtype)
    (rest,), (told,) = tell([rest], (f"send:{owner}>{before}",), (bits,))
    zero = jnp.zeros_like(x)
    return (
        at({owner: rest, after: mine}, zero),
        at({owner: theirs, before: told}, zero),
    )


def share_input(x: Any, owner: int) -> Arith:
    """Shares of `x`, which only party `owner` needs to hold."""
    return Arith(from_owner(x, owner, "sum", 8 * x.dtype.itemsize))


def share_bits(x: Any, owner: int) -> Bit:
    """Shares of bits; one bit is sent for each."""
    return Bit(from_owner(x, owner, "xor", 1))


def public(value: Any) -> Arith:
    """A public ring array as a share."""
    return Arith(component(value, 0))


def public_bits(value: Any) -> Bit:
    """A public bit array as a share."""
    return Bit(component(value, 0))


def noise(draw: Noise) -> Arith:
    """[e_0 + e_1] for noise that P_0 and P_1 draw and share; one round.

    A party knows at most one of the two, so that against any party one full draw is
    left; the variance of the sum is twice what the mechanism asks for.
    """
    seed = markers.uniform((8,), jnp.uint32, "xor")  # this party's own
    (own,) = draw.clear(seed)
    a, b = share_input(own, 0).value, share_input(own, 1).value
    return Arith((a[0] + b[0], a[1] + b[1]))


def open_arith(xs: Sequence[Arith]) -> list[Any]:
    """All parties learn the values; one round, one element per party."""
    bits = tuple(8 * x.value[0].dtype.itemsize for x in xs)
    pairs = [jnp.stack(x.value) for x in xs]
    return markers.open_values(pairs, ("sum:pairs",) * len(xs), bits)


def open_bits(xs: Sequence[Bit]) -> list[Any]:
    """All parties learn the bits (uint8 0 or 1); one round, one bit per party."""
    pairs = [jnp.stack(x.value) & np.uint8(1) for x in xs]
    return markers.open_values(pairs, ("xor:pairs",) * len(xs), (1,) * len(xs))


# -- shares at rest: the words of both components, each low first; bits as one word each --


def pack(x: Arith | Bit) -> Any:
    if isinstance(x, Bit):
        return jnp.stack([(v & np.uint8(1)).astype(np.uint32) for v in x.value], -1)
    return jnp.concatenate([to_words(v) for v in x.value], -1)


def unpack_arith(words: Any, dtype: Any) -> Arith:
    limbs = np.dtype(dtype).itemsize // 4
    return Arith((from_words(words[..., :limbs]), from_words(words[..., limbs:])))


def unpack_bits(words: Any) -> Bit:
    return Bit((words[..., 0].astype(np.uint8), words[..., 1].astype(np.uint8)))


def combine_arith(words: Any, dtype: Any) -> tuple[Any, Any]:
    first, second = jax.vmap(lambda w: unpack_arith(w, dtype).value)(words)
    return jnp.sum(first, axis=0, dtype=first.dtype), _alike(first, second)


def combine_bits(words: Any) -> tuple[Any, Any]:
    first, second = unpack_bits(words).value
    return lax.reduce_xor(first, (0,)), _alike(first, second)


def _alike(first: Any, second: Any) -> Any:
    """Whether both holders of each component have the same."""
    return jnp.all(second == jnp.roll(first, -1, axis=0))
