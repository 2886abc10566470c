"""A sum over units, held as what it is made of.

Sums and norms are taken in at least float32, whatever the program's types: rounding the
sum of many units to a narrower type would move it by more than one unit may.

`Summed` is a list of terms that are added up. A term is either `Product`, a contraction
whose operands are kept (Goodfellow 2015, "Efficient per-example gradient computations";
Bu et al. 2023, "Differentially private optimization on large model at small cost"), or
`Rows`, the contributions of all units. Both answer the same three questions: the squared
norm of each unit's contribution, the sum of the contributions with weights, and the
contributions themselves. Axis 0 of every array is the units, in their order.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from privjax import _compat
from privjax._typing import Array
from privjax.passes.units.states import Digit


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

    def _key(self) -> tuple[Any, ...]:
        params = sorted(self.eqn.params.items())
        return self.eqn.primitive.name, str(params), self.lifts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Map) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


Maps = tuple[Map, ...]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["a", "b"],
    meta_fields=["shape", "dtype", "precision", "maps", "digits"],
)
@dataclass(frozen=True, eq=False)
class Product:
    """Unit u contributes sum_s a[u, g, s, :] x b[u, g, s, :], reshaped to `shape`.

    a: [units, groups, length, m], b: [units, groups, length, n].
    """

    a: Array
    b: Array
    shape: tuple[int, ...]
    dtype: Any
    precision: Any
    maps: Maps
    digits: tuple[Digit, ...]

    @property
    def units(self) -> int:
        return self.a.shape[0]

    @functools.cached_property
    def outer(self) -> Array:
        """[units, groups, m, n]: the contributions before `maps`."""
        return self._contract((2,), (2,), (0, 1), self.a, self.b)

    def _contract(self, ca: Any, cb: Any, batch: Any, a: Array, b: Array) -> Array:
        return lax.dot_general(
            a,
            b,
            ((ca, cb), (batch, batch)),
            precision=self.precision,
            preferred_element_type=_wide(self.dtype),
        )

    @property
    def materialised(self) -> bool:
        """Whether contributions are cheaper than Gram matrices over the length.

        Gram matrices take length^2 (m + n) multiplications per unit; the contributions
        are written once and read twice, which costs about three per entry.
        """
        _, _, length, m = self.a.shape
        n = self.b.shape[3]
        return length > 1 and length * length * (m + n) >= 3 * m * n

    def sqnorm(self) -> Array:
        if self.materialised:
            return _square_sum(self.outer)
        a, b = self.a, self.b
        if a.shape[1] == 1 and a.shape[2] == 1:
            return _square_sum(a) * _square_sum(b)
        # |sum_s a_s b_s^T|^2 = sum_{s,t} (a_s . a_t) (b_s . b_t), never below zero.
        gram_a = self._contract((3,), (3,), (0, 1), a, a)
        gram_b = self._contract((3,), (3,), (0, 1), b, b)
        return jnp.maximum(jnp.sum(gram_a * gram_b, axis=(1, 2, 3)), 0)

    def weighted(self, weights: Array, keep: Array) -> Array:
        if self.materialised:
            out = _tensordot(weights, keep, self.outer)
            return _through(self.maps, out.reshape(self.shape))
        a, b = (x.astype(_wide(x.dtype)) for x in (self.a, self.b))
        if a.size > b.size:
            a, b = _masked(a, keep), _scaled(b, weights, keep)
        else:
            a, b = _scaled(a, weights, keep), _masked(b, keep)
        units, groups, length, _ = a.shape
        if groups == 1:
            flat = [x.reshape(units * length, x.shape[3]) for x in (a, b)]
            out = self._contract((0,), (0,), (), *flat)
        else:
            out = self._contract((0, 2), (0, 2), (1,), a, b)
        return _through(self.maps, out.reshape(self.shape))

    def rows(self) -> Array:
        each = self.outer.reshape(self.units, *self.shape)
        return (
            jax.vmap(functools.partial(_through, self.maps))(each)
            if self.maps
            else each
        )

    def scaled(self, factor: Array) -> "Product":
        """Every contribution times a public scalar."""
        if self.a.size <= self.b.size:
            return replace(self, a=self.a * factor.astype(self.a.dtype))
        return replace(self, b=self.b * factor.astype(self.b.dtype))

    def mapped(self, m: Map) -> "Product":
        return replace(self, maps=(*self.maps, m))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["x"], meta_fields=["maps", "digits"]
)
@dataclass(frozen=True, eq=False)
class Rows:
    """Unit u contributes x[u]."""

    x: Array
    maps: Maps
    digits: tuple[Digit, ...]

    @property
    def units(self) -> int:
        return self.x.shape[0]

    def sqnorm(self) -> Array:
        return _square_sum(self.x)

    def weighted(self, weights: Array, keep: Array) -> Array:
        return _through(self.maps, _tensordot(weights, keep, self.x))

    def rows(self) -> Array:
        return (
            jax.vmap(functools.partial(_through, self.maps))(self.x)
            if self.maps
            else self.x
        )

    def scaled(self, factor: Array) -> "Rows":
        return replace(self, x=self.x * factor.astype(self.x.dtype))

    def mapped(self, m: Map) -> "Rows":
        return replace(self, maps=(*self.maps, m))


Term = Product | Rows


class NotAdditive(Exception):
    """A loop does more with a sum that it carries than to add to it."""


@dataclass(frozen=True, eq=False)
class Summed:
    """A sum over units: the terms added up.

    `carried` are the numbers of a loop's carries that are part of it, untouched.
    """

    terms: tuple[Term, ...]
    carried: tuple[int, ...] = ()

    @property
    def digits(self) -> tuple[Digit, ...]:
        return self.terms[0].digits if self.terms else ()

    def sqnorm(self) -> Array:
        """The squared norm of each unit's contribution: [units]."""
        if len(self.terms) == 1:
            return self.terms[0].sqnorm()
        return _square_sum(self.rows())

    def weighted(self, weights: Array, keep: Array) -> Array:
        """sum_u weights[u] * contribution[u] over the units where `keep` is true."""
        if len(self.terms) > 1 and "_rows" in self.__dict__:
            return Rows(self.rows(), (), ()).weighted(weights, keep)
        parts = [t.weighted(weights, keep) for t in self.terms]
        return functools.reduce(operator.add, parts)

    def rows(self) -> Array:
        """The contributions: [units, ...]."""
        if self.carried:
            raise NotAdditive
        if "_rows" not in self.__dict__:
            rows = [t.rows() for t in self.terms]
            total = rows[0]
            for other in rows[1:]:
                total = total + other
            self.__dict__["_rows"] = total
        return self.__dict__["_rows"]

    def scaled(self, factor: Array) -> "Summed":
        return self._each(lambda t: t.scaled(factor))

    def mapped(self, m: Map) -> "Summed":
        return self._each(lambda t: t.mapped(m))

    def _each(self, change: Callable[[Term], Term]) -> "Summed":
        if self.carried:
            raise NotAdditive
        return Summed(tuple(change(t) for t in self.terms))


def added(values: Sequence[Summed]) -> Summed:
    """The sum of sums; contractions of one kind become one longer contraction.

    A weight that is used twice has two of them. Their operands side by side along the
    length are the same sum, and its norms include the cross terms.
    """
    terms: list[Term] = []
    for term in (t for v in values for t in v.terms):
        like = next((k for k, t in enumerate(terms) if _alike(t, term)), None)
        if like is None:
            terms.append(term)
            continue
        first = terms[like]
        if isinstance(first, Rows):
            terms[like] = replace(first, x=first.x + term.x)  # type: ignore[union-attr]
        else:
            terms[like] = _longer(first, term)  # type: ignore[arg-type]
    return Summed(tuple(terms), tuple(k for v in values for k in v.carried))


def _alike(a: Term, b: Term) -> bool:
    if type(a) is not type(b) or a.maps != b.maps or a.digits != b.digits:
        return False
    if isinstance(a, Rows):
        return isinstance(b, Rows) and a.x.shape == b.x.shape
    assert isinstance(b, Product)
    same = (a.shape, a.dtype, a.precision) == (b.shape, b.dtype, b.precision)
    return same and all(
        x.shape[:2] == y.shape[:2] and x.shape[3] == y.shape[3]
        for x, y in ((a.a, b.a), (a.b, b.b))
    )


def _longer(first: Product, other: Product) -> Product:
    return replace(
        first,
        a=jnp.concatenate([first.a, other.a], axis=2),
        b=jnp.concatenate([first.b, other.b], axis=2),
    )


def _through(maps: Maps, x: Array) -> Array:
    for m in maps:
        x = m(x)
    return x


def _wide(dtype: Any) -> Any:
    """At least float32: norms and sums of half-precision values are taken in it."""
    return jnp.promote_types(dtype, jnp.float32)


def _square_sum(x: Array) -> Array:
    x = x.astype(_wide(x.dtype)).reshape(x.shape[0], math.prod(x.shape[1:]))
    return jnp.sum(jnp.square(x), axis=1)


def _column(v: Array, x: Array) -> Array:
    return v.reshape(-1, *[1] * (x.ndim - 1))


def _masked(x: Array, keep: Array) -> Array:
    """Rows of units that are left out become zero, also where they are not finite."""
    keep = lax.broadcast_in_dim(keep, x.shape, (0,))
    return lax.select(keep, x, jnp.zeros_like(x))


def _scaled(x: Array, weights: Array, keep: Array) -> Array:
    return _masked(x * _column(weights, x).astype(x.dtype), keep)


def _tensordot(weights: Array, keep: Array, rows: Array) -> Array:
    return jnp.sum(_scaled(rows.astype(_wide(rows.dtype)), weights, keep), axis=0)
