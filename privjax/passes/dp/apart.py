"""Sums over a part of the unit index, as micro-batches side by side have them.

A batch of k*b examples reshaped to [k, b] and mapped over k gives k gradients, each a sum
over b units. All of them together are one sum over all units, in which a unit adds to the
place of its own micro-batch and zero to the others. `Apart` keeps that place beside the
terms, so that norms, and the sum over places that mostly follows, cost nothing more.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privjax._typing import Array
from privjax.passes.dp.maps import Map, Maps, Permuted
from privjax.passes.dp.summed import Summed, added
from privjax.passes.dp.terms import Rows
from privjax.passes.units.states import Digit, Part

# Equations that act on each value alone, whatever the shape.
_EACH = frozenset("neg copy copy_p convert_element_type name stop_gradient".split())


@dataclass(frozen=True, eq=False)
class Apart:
    """Unit u contributes `inner`'s contribution at its place along `axis`, else zero.

    Attributes:
      inner: contributions with an `axis` of size 1.
      axis, size: the axis of places, and how many there are.
      at: which digit of the unit index is the place (loops' digits counted).
    """

    inner: Summed
    axis: int
    size: int
    at: int

    maps: Maps = ()
    part: Part | None = None
    partial = False

    @property
    def digits(self) -> tuple[Digit, ...]:
        return self.inner.digits

    @property
    def units(self) -> int:
        return self.inner.units

    def _within(self, x: Array) -> Array:
        """[units, ...] as [places, units of one place, ...]."""
        sizes = [[d.size for d in ds if not d.loop] for ds in self._around()]
        before, after = map(math.prod, sizes)
        fine = x.reshape(before, self.size, after, *x.shape[1:])
        return jnp.moveaxis(fine, 1, 0).reshape(self.size, before * after, *x.shape[1:])

    def _around(self) -> tuple[tuple[Digit, ...], tuple[Digit, ...]]:
        return self.digits[: self.at], self.digits[self.at + 1 :]

    # -- what terms have -----------------------------------------------------------------

    def sqnorm(self) -> Array | None:
        return self.inner.sqnorm()

    def unmapped(self) -> Array:
        rows = self.inner.rows()
        after = math.prod(d.size for d in self._around()[1] if not d.loop)
        place = jnp.arange(self.units) // after % self.size
        place = place.reshape(-1, *[1] * (rows.ndim - 1))
        shape = (*rows.shape[: self.axis + 1], self.size, *rows.shape[self.axis + 2 :])
        here = lax.broadcasted_iota(place.dtype, shape, self.axis + 1) == place
        return jnp.where(here, rows, jnp.zeros((), rows.dtype))

    rows = unmapped

    def dense(self) -> Rows:
        """The contributions themselves."""
        return Rows(self.unmapped(), (), self.digits)

    def weighted(self, weights: Array, keep: Array) -> Array:
        def place(terms: Any, weights: Array, keep: Array) -> Array:
            return Summed(terms).weighted(weights, keep)

        terms = tuple(t.each(self._within) for t in self._plain().terms)
        each = jax.vmap(place)(terms, self._within(weights), self._within(keep))
        return jnp.moveaxis(jnp.squeeze(each, self.axis + 1), 0, self.axis)

    def _plain(self) -> Summed:
        """`inner` as terms that are arrays."""
        return Summed(
            tuple(t.dense() if isinstance(t, Apart) else t for t in self.inner.terms)
        )

    def scaled(self, factor: Array) -> "Apart":
        return replace(self, inner=self.inner.scaled(factor))

    def like(self, other: Any) -> bool:
        mine = (self.axis, self.size, self.at)
        return isinstance(other, Apart) and mine == (other.axis, other.size, other.at)

    def joined(self, other: "Apart") -> "Apart":
        return replace(self, inner=added([self.inner, other.inner]))

    def each(self, change: Any) -> Any:
        return self.dense().each(change)

    def mapped(self, m: Map | Permuted) -> Any:
        """The map on what is at one place, where the axis of places survives it."""
        if isinstance(m, Permuted) or m.lifts:
            return self.dense().mapped(m)
        name, p = m.eqn.primitive.name, m.eqn.params
        if name in _EACH:
            return replace(self, inner=self.inner.mapped(m))
        if name == "transpose":
            axis = tuple(p["permutation"]).index(self.axis)
            return replace(self, inner=self.inner.mapped(m), axis=axis)
        old, new = (v.aval.shape for v in (m.eqn.invars[0], m.eqn.outvars[0]))
        before = math.prod(old[: self.axis])
        for axis, size in enumerate(new):
            same = size == self.size and math.prod(new[:axis]) == before
            if same and name in ("reshape", "squeeze") and p.get("dimensions") is None:
                one = (*new[:axis], 1, *new[axis + 1 :])
                inner = self.inner.mapped(Permuted(tuple(range(len(old))), one))
                return replace(self, inner=inner, axis=axis)
        return self.dense().mapped(m)

    def together(self, shape: tuple[int, ...]) -> Summed:
        """The sum over places, of this shape."""
        order = tuple(range(len(shape) + 1))
        return self.inner.mapped(Permuted(order, shape))
