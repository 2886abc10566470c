"""What contributions still have to go through, and arithmetic along the axis of units."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privjax import _compat
from privjax._typing import Array


class Map:
    """A norm-preserving linear equation that the contributions still have to go through.

    `lifts` leading axes were added by loops that stack their results.
    """

    def __init__(self, eqn: Any, lifts: int = 0) -> None:
        self.eqn = eqn
        self.lifts = lifts

    def __call__(self, x: Array) -> Array:
        run: Callable[[Array], Array] = lambda v: _compat.bind(self.eqn, [v])[0]  # noqa: E731
        for _ in range(self.lifts):
            run = jax.vmap(run)
        return run(x)

    def lifted(self) -> "Map":
        return Map(self.eqn, self.lifts + 1)

    def _key(self) -> tuple[Any, ...]:
        params = sorted(self.eqn.params.items())
        return self.eqn.primitive.name, str(params), self.lifts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Map) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True)
class Permuted:
    """Axes in another order, then another shape: a `Map` that is no equation."""

    order: tuple[int, ...]
    shape: tuple[int, ...]
    lifts: int = 0

    def __call__(self, x: Array) -> Array:
        run: Callable[[Array], Array] = lambda v: (  # noqa: E731
            v.transpose(self.order).reshape(self.shape)
        )
        for _ in range(self.lifts):
            run = jax.vmap(run)
        return run(x)

    def lifted(self) -> "Permuted":
        return replace(self, lifts=self.lifts + 1)


Maps = tuple[Map | Permuted, ...]


def through(maps: Maps, x: Array) -> Array:
    for m in maps:
        x = m(x)
    return x


def batched(formula: str, x: Array, y: Array) -> Array:
    """A contraction for norms: in full precision also where the default is less."""
    dtype, full = wide(jnp.result_type(x, y)), lax.Precision.HIGHEST
    return jnp.einsum(formula, x, y, precision=full, preferred_element_type=dtype)


def wide(dtype: Any) -> Any:
    """At least float32: norms and sums of half-precision values are taken in it."""
    return jnp.promote_types(dtype, jnp.float32)


def square_sum(x: Array) -> Array:
    """The squared norm of each unit's values: [units]."""
    x = x.astype(wide(x.dtype)).reshape(x.shape[0], math.prod(x.shape[1:]))
    return jnp.sum(jnp.square(x), axis=1)


def masked(x: Array, keep: Array) -> Array:
    """Rows of units that are left out become zero, also where they are not finite."""
    flat = _flat(x)
    keep = lax.broadcast_in_dim(keep, flat.shape, (0,))
    return lax.select(keep, flat, jnp.zeros_like(flat)).reshape(x.shape)


def scaled(x: Array, weights: Array, keep: Array) -> Array:
    flat = _flat(x) * weights[:, None].astype(x.dtype)
    return masked(flat, keep).reshape(x.shape)


def _flat(x: Array) -> Array:
    """One shape, so that XLA sees when a layer's terms scale the same array."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def tensordot(weights: Array, keep: Array, rows: Array) -> Array:
    return jnp.sum(scaled(rows.astype(wide(rows.dtype)), weights, keep), axis=0)
