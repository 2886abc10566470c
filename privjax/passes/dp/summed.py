"""A sum over units as a list of terms, and the cheapest exact way to its norms.

The squared norm of a unit's contribution is the sum of inner products between all pairs
of what its positions contribute: L^2 (m + n) multiplications for a contraction of length
L that yields m x n numbers, against L m n for the contribution itself, which is then read
three times. Contributions that were materialised finish the sum as well.

Where several rows of the batch belong to one unit (`Owners`), the pairs are those of all
rows with the same owner, or contributions are added up per owner.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from privjax._typing import Array
from privjax.passes.dp.maps import Map, Maps, Permuted, square_sum, tensordot, through
from privjax.passes.dp.terms import TOUCHED, Lookup, Product
from privjax.passes.units.states import Digit, Part


@dataclass(frozen=True, eq=False)
class Owners:
    """Which unit every row of the batch belongs to.

    ids: [rows], from 0 to count - 1; rows with any other number belong to nobody and
    contribute nothing.
    """

    ids: Array
    count: int

    def proper(self) -> "Owners":
        """With one number for rows that belong to nobody: negative ones would wrap."""
        theirs = (self.ids >= 0) & (self.ids < self.count)
        return Owners(jnp.where(theirs, self.ids, self.count), self.count)

    def added(self, x: Array) -> Array:
        """Sums over the rows of each owner: [count, ...]."""
        return jax.ops.segment_sum(x, self.ids, num_segments=self.count)

    def spread(self, x: Array) -> Array:
        """The owner's value for each row; zero where there is none."""
        return x.at[self.ids].get(mode="fill", fill_value=0)


class NotAdditive(Exception):
    """A loop does more with a sum that it carries than to add to it."""


@dataclass(frozen=True, eq=False)
class Summed:
    """A sum over units: the terms added up.

    `terms` are those of terms.py and apart.py; `carried` are the numbers of a loop's
    carries that are part of it, untouched.
    """

    terms: tuple[Any, ...]
    carried: tuple[int, ...] = ()

    @property
    def digits(self) -> tuple[Digit, ...]:
        return self.terms[0].digits if self.terms else ()

    @property
    def units(self) -> int:
        return self.terms[0].units

    def sqnorm(self, owners: Owners | None = None) -> Array:
        """The squared norm of each unit's contribution: [units]."""
        if owners is None and len(self.terms) == 1:
            known = self.terms[0].sqnorm()
            if known is not None:
                return known
        if self._materialised(owners):
            rows, _ = self._unmapped
            return square_sum(rows if owners is None else owners.added(rows))
        total = sum(self._pairs(owners))
        return jnp.maximum(total, 0)  # rounding errors of a norm that is nearly zero

    def weighted(
        self, weights: Array, keep: Array, owners: Owners | None = None
    ) -> Array:
        """sum_u weights[u] * contribution[u] over the units where `keep` is true."""
        if owners is not None:
            weights, keep = owners.spread(weights), owners.spread(keep)
        if self.materialised is not None:
            rows, maps = self._unmapped
            return through(maps, tensordot(weights, keep, rows))
        parts = [t.weighted(weights, keep) for t in self.terms]
        return functools.reduce(operator.add, parts)

    def rows(self) -> Array:
        """The contributions of all rows: [rows, ...]."""
        if self.carried or any(t.part != self.part for t in self.terms):
            raise NotAdditive
        return functools.reduce(operator.add, [t.rows() for t in self.terms])

    @functools.cached_property
    def _unmapped(self) -> tuple[Array, Maps]:
        """The contributions before the maps that all terms share, and these maps.

        Norms do not need them, and one sum is cheaper to move around than many.
        """
        maps = self.terms[0].maps
        if any(t.maps != maps for t in self.terms):
            return self.rows(), ()
        return functools.reduce(operator.add, [t.unmapped() for t in self.terms]), maps

    @property
    def materialised(self) -> Array | None:
        """The contributions before their maps, if they have been worked out already."""
        known = self.__dict__.get("_unmapped")
        return None if known is None else known[0]

    def whole(self) -> "Summed":
        """Of all units, where some terms have those of a slice."""
        if not any(t.partial for t in self.terms):
            return self
        terms = [t.whole() if t.partial else t for t in self.terms]
        return replace(added([Summed((t,)) for t in terms]), carried=self.carried)

    def within(self, part: Part | None) -> "Summed":
        """Of the units of a part."""
        if part is None:
            return self
        return replace(self, terms=tuple(replace(t, part=part) for t in self.terms))

    @property
    def part(self) -> Part | None:
        return self.terms[0].part if self.terms else None

    def scaled(self, factor: Array) -> "Summed":
        return self._each(lambda t: t.scaled(factor))

    def mapped(self, m: Map | Permuted) -> "Summed":
        return self._each(lambda t: t.mapped(m))

    def _each(self, change: Callable[[Any], Any]) -> "Summed":
        if self.carried:
            raise NotAdditive
        return Summed(tuple(change(t) for t in self.terms))

    # -- the choice --------------------------------------------------------------------

    def _materialised(self, owners: Owners | None) -> bool:
        """Whether contributions are cheaper than inner products between positions."""
        if not self._has_kernel():
            return True
        rows = self.units
        lengths = [t.length for t in self.terms]
        costs = [t.costs() for t in self.terms]
        pairs = sum(kernel for kernel, _, _ in costs)
        if len(self.terms) == 2:
            pairs += math.prod(lengths) * (self.terms[1].b.shape[-1] + 1)
        if owners is not None:
            pairs *= rows
        size = math.prod(self.terms[0].shape)
        dense = sum(row for _, row, _ in costs) + TOUCHED * size
        return pairs + sum(finish for _, _, finish in costs) > dense

    def _has_kernel(self) -> bool:
        kinds = sorted(type(t).__name__ for t in self.terms)
        if kinds in (["Product"], ["Lookup"]):
            return True
        if kinds != ["Lookup", "Product"]:
            return False
        product = next(t for t in self.terms if isinstance(t, Product))
        lookup = next(t for t in self.terms if isinstance(t, Lookup))
        return (
            product.maps == lookup.maps
            and product.a.shape[1] == 1
            and product.shape
            == lookup.shape
            == (product.a.shape[3], product.b.shape[3])
        )

    def _pairs(self, owners: Owners | None) -> list[Array]:
        """Inner products between positions, summed for each unit."""
        terms: Sequence[Any] = self.terms
        if owners is not None:
            terms = [t.one_unit() for t in terms]
        found = [_total(t.kernel(), t, t, owners) for t in terms]
        if len(terms) == 2:
            lookup = next(t for t in terms if isinstance(t, Lookup))
            product = next(t for t in terms if isinstance(t, Product))
            cross = _total(lookup.kernel_with(product), lookup, product, owners)
            found.append(2 * cross)
        return found


def _total(kernel: Array, first: Any, last: Any, owners: Owners | None) -> Array:
    if owners is None:
        return jnp.sum(kernel, axis=(1, 2))
    rows = owners.ids.shape[0]
    mine, other = (jnp.repeat(owners.ids, t.length // rows) for t in (first, last))
    within = jnp.where(mine[:, None] == other[None, :], kernel[0], 0)
    each = jnp.sum(within, axis=1)
    return jax.ops.segment_sum(each, mine, num_segments=owners.count)


def added(values: Sequence[Summed]) -> Summed:
    """The sum of sums; contractions of one kind become one longer contraction.

    A weight that is used twice has two of them. Their operands side by side along the
    length are the same sum, and its norms include the cross terms.
    """
    terms: list[Any] = []
    for term in (t for v in values for t in v.terms):
        like = next((k for k, t in enumerate(terms) if _alike(t, term)), None)
        if like is None:
            terms.append(term)
        else:
            terms[like] = terms[like].joined(term)
    if any(t.partial for t in terms):
        terms = _of_more_units(terms)
    return Summed(tuple(terms), tuple(k for v in values for k in v.carried))


def _of_more_units(terms: Sequence[Any]) -> list[Any]:
    """Terms of different slices of the units side by side, as far as that goes."""
    found: list[Any] = []
    for term in terms:
        for k, other in enumerate(found):
            both = other.beside(term)
            if both is not None:
                found[k] = both
                break
        else:
            found.append(term)
    if len(found) == len(terms):
        return found
    return list(added([Summed((t,)) for t in found]).terms)


def _alike(a: Any, b: Any) -> bool:
    if a.part != b.part:
        return False
    return a.maps == b.maps and a.digits == b.digits and a.like(b)
