"""Input and output: sharing by an owner, opening, public constants."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from privjax.core import markers
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.tuples import Noise, ToOwner

PARTY = "party"


def first_party(value: Any) -> Any:
    """`value` at P_0, zero at the others: how a public constant becomes shares."""
    value = jnp.asarray(value)
    here = lax.broadcast(lax.axis_index(PARTY) == 0, value.shape)
    return lax.select(here, value, lax.full_like(value, 0))


def share_input(x: Any, owner: int) -> Arith:
    """Shares of `x`, which only party `owner` needs to hold.

    1. the dealer tells the owner a random r, and everybody has [r]
    2. the owner sends x - r to all
    3. [x] = [r] + (x - r)
    """
    r = markers.uniform(x.shape, x.dtype, "sum")
    (clear,) = markers.dealt([r], ToOwner(owner))
    (delta,) = markers.open_values(
        [x - clear], (f"from:{owner}",), (x.dtype.itemsize * 8,)
    )
    return Arith(r + first_party(delta))


def public(value: Any) -> Arith:
    """A public ring array as a share."""
    return Arith(first_party(value))


def noise(draw: Noise) -> Arith:
    """[e] for noise e that the dealer draws: no party, nor n-1 of them, learns it.

    1. a uniform seed <k>, known to the dealer alone
    2. the dealer deals shares of the noise that k gives
    """
    seed = markers.uniform((8,), jnp.uint32, "xor")
    (share,) = markers.dealt([seed], draw)
    return Arith(share)


def open_arith(xs: Sequence[Arith]) -> list[Any]:
    """All parties learn the values; one round."""
    bits = tuple(x.value.dtype.itemsize * 8 for x in xs)
    return markers.open_values([x.value for x in xs], ("sum",) * len(xs), bits)


def open_bits(xs: Sequence[Bit]) -> list[Any]:
    """All parties learn the bits (uint8 0 or 1); one round."""
    low = [x.value & jnp.uint8(1) for x in xs]
    return markers.open_values(low, ("xor",) * len(xs), (1,) * len(xs))
