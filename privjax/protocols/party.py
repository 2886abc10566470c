"""Which party this is: the one place where the parties' program differs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

PARTY = "party"


def first_party(value: Any) -> Any:
    """`value` at P_0, zero at the others: how a public constant becomes shares."""
    return jax.tree.map(_first, value)


def _first(value: Any) -> Any:
    value = jnp.asarray(value)
    here = lax.broadcast(lax.axis_index(PARTY) == 0, value.shape)
    return lax.select(here, value, lax.full_like(value, 0))
