"""How the parties' shares make a value, for each sharing domain."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.protocols import wide
from privjax.protocols.party import PARTY
from privjax.protocols.wide import Wide


def _sum_wide(shares: Any) -> Any:
    return wide.stack(wide.total(Wide(shares[:, 0], shares[:, 1])))


def _sum_integers(shares: Any) -> Any:
    """The sum of [parties, ...] over the integers, in twice as many bits."""
    if shares.dtype.itemsize < 8:
        return jnp.sum(shares, axis=0, dtype=np.uint64)
    return wide.total(wide.from_low(shares))


def _add_wide(a: Any, b: Any) -> Any:
    return wide.stack(wide.unstack(a) + wide.unstack(b))


def _subtract_wide(a: Any, b: Any) -> Any:
    return wide.stack(wide.unstack(a) - wide.unstack(b))


@dataclass(frozen=True)
class Combined:
    """How shares of a domain make a value: `all` of [parties, ...], and two by two."""

    all: Callable[[Any], Any]
    add: Callable[[Any, Any], Any]
    missing: Callable[[Any, Any], Any]


COMBINED = {
    "sum": Combined(
        lambda v: jnp.sum(v, axis=0, dtype=v.dtype), operator.add, operator.sub
    ),
    "xor": Combined(lambda v: lax.reduce_xor(v, (0,)), operator.xor, operator.xor),
    "sum128": Combined(_sum_wide, _add_wide, _subtract_wide),
    "xor128": Combined(lambda v: lax.reduce_xor(v, (0,)), operator.xor, operator.xor),
}


def total(share: Any, domain: str) -> Any:
    """The value behind the parties' shares (an exchange of all shares)."""
    shares = lax.all_gather(share, PARTY)
    if domain == "integer":
        return _sum_integers(shares)
    if domain in COMBINED:
        return COMBINED[domain].all(shares)
    if domain.startswith("each:"):
        return shares
    return shares[int(domain.removeprefix("from:"))]
