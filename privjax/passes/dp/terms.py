"""What a sum over units is made of: terms, each with operands in place of contributions.

- `Product`, a contraction whose operands are kept (Goodfellow 2015, "Efficient
  per-example gradient computations"; Bu et al. 2023, "Differentially private optimization
  on large model at small cost"),
- `Lookup`, rows of a table that are added to, as in the gradient of an embedding,
- `Rows`, the contributions of all units themselves.

Axis 0 of every array is the units, in their order. A term can be finished with a weight
for each unit, can give the contributions (`rows`), and, but for `Rows`, inner products
between contributions without them (`kernel`). `summed.py` chooses.

Sums and norms are taken in at least float32, whatever the program's types: rounding the
sum of many units to a narrower type would move it by more than one unit may.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.passes.dp.left_out import contracted
from privjax.passes.dp.maps import (
    Map,
    Maps,
    Permuted,
    batched,
    scaled,
    square_sum,
    tensordot,
    through,
    wide,
)
from privjax.passes.units.states import Digit, Part


class _Term:
    """What all terms share. `arrays` are the fields with the units on axis 0."""

    arrays: tuple[str, ...]
    scalable: str
    maps: Maps
    digits: tuple[Digit, ...]
    part: Part | None

    @property
    def units(self) -> int:
        return int(getattr(self, self.arrays[0]).shape[0])

    def each(self, change: Callable[[Array], Array]) -> Any:
        """The term with `change` applied to all its arrays."""
        return replace(
            self,  # type: ignore[type-var]
            **{name: change(getattr(self, name)) for name in self.arrays},
        )

    @property
    def partial(self) -> bool:
        """Whether it has some of the units, and no loop over them is running."""
        return self.part is not None and not any(d.loop for d in self.digits)

    def whole(self) -> Any:
        """With all units, of which the others contribute zero."""
        assert self.part is not None
        total, numbers = self.part.total, self.part.numbers
        fill = lambda x: jnp.zeros((total, *x.shape[1:]), x.dtype).at[numbers].set(x)  # noqa: E731
        return replace(self.each(fill), digits=(Digit(None, total),), part=None)

    def beside(self, other: Any) -> Any:
        """Both as one, where they are alike and of different units; else None."""
        if type(self) is not type(other) or not (self.partial and other.partial):
            return None
        (mine, tree), (theirs, other_tree) = map(_unnumbered, (self, other))
        alike = tree == other_tree and all(
            x.shape[1:] == y.shape[1:] and x.dtype == y.dtype
            for x, y in zip(mine, theirs, strict=True)
        )
        assert self.part is not None and other.part is not None
        part = Part((*self.part.rows, *other.part.rows), self.part.total)
        numbers = part.numbers
        if not alike or len(np.unique(numbers)) < len(numbers):
            return None
        every = len(numbers) == part.total
        inorder = every and bool((np.diff(numbers) > 0).all())

        def joined(x: Array, y: Array) -> Array:
            both = jnp.concatenate([x, y])
            return both[np.argsort(numbers)] if every and not inorder else both

        leaves = [joined(x, y) for x, y in zip(mine, theirs, strict=True)]
        return replace(
            jax.tree.unflatten(tree, leaves),
            digits=(Digit(None, len(numbers)),),
            part=None if every else part,
        )

    def unmapped(self) -> Array:
        """The contributions before `maps`: [units, ...]."""
        raise NotImplementedError

    def rows(self) -> Array:
        """The contributions: [units, ...]."""
        each = self.unmapped()
        if not self.maps:
            return each
        return jax.vmap(functools.partial(through, self.maps))(each)

    def mapped(self, m: Map | Permuted) -> Any:
        return replace(self, maps=(*self.maps, m))  # type: ignore[type-var]

    def scaled(self, factor: Array) -> Any:
        """Every contribution times a public scalar."""
        x = getattr(self, self.scalable)
        return replace(self, **{self.scalable: x * factor.astype(x.dtype)})  # type: ignore[type-var]


def _unnumbered(term: Any) -> tuple[list[Any], Any]:
    """A term's arrays, and all else but which units they are of."""
    return jax.tree.flatten(replace(term, part=None, digits=()))


def _pytree(data: list[str], meta: list[str]) -> Any:
    return functools.partial(
        jax.tree_util.register_dataclass,
        data_fields=data,
        meta_fields=[*meta, "maps", "digits", "part"],
    )


@_pytree(["a", "b"], ["shape", "dtype", "precision"])
@dataclass(frozen=True, eq=False)
class Product(_Term):
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
    part: Part | None = None

    arrays = ("a", "b")

    @property
    def scalable(self) -> str:  # type: ignore[override]
        return "a" if self.a.size <= self.b.size else "b"

    @property
    def length(self) -> int:
        return int(self.a.shape[2])

    @functools.cached_property
    def outer(self) -> Array:
        """[units, groups, m, n]: the contributions before `maps`."""
        contract = (((2,), (2,)), ((0, 1), (0, 1)))
        return self._dot(self.a, self.b, contract, self.precision)

    def _dot(
        self, a: Array, b: Array, dims: Any, precision: Any = lax.Precision.HIGHEST
    ) -> Array:
        """A contraction, in full precision where a norm has to hold for the sum."""
        kind = wide(self.dtype)
        return lax.dot_general(
            a, b, dims, precision=precision, preferred_element_type=kind
        )

    def over_steps(self) -> "Product":
        """Of arrays stacked along axis 0: one longer length."""

        def longer(x: Array) -> Array:
            x = jnp.moveaxis(x, 0, 2)
            return x.reshape(*x.shape[:2], -1, x.shape[4])

        return self.each(longer)

    def like(self, other: Any) -> bool:
        """Whether both are one contraction over a longer length."""
        if not isinstance(other, Product):
            return False
        same = (self.shape, self.dtype, self.precision) == (
            other.shape,
            other.dtype,
            other.precision,
        )
        return same and all(
            x.shape[:2] == y.shape[:2] and x.shape[3] == y.shape[3]
            for x, y in ((self.a, other.a), (self.b, other.b))
        )

    def joined(self, other: "Product") -> "Product":
        return replace(
            self,
            a=jnp.concatenate([self.a, other.a], axis=2),
            b=jnp.concatenate([self.b, other.b], axis=2),
        )

    def sqnorm(self) -> Array | None:
        """The norm where it is a product of norms: one position, one group."""
        if self.a.shape[1] == 1 and self.length == 1:
            return square_sum(self.a) * square_sum(self.b)
        return None

    def kernel(self) -> Array:
        """[units, length, length]: inner products of what positions contribute."""
        positions = (((3,), (3,)), ((0, 1), (0, 1)))
        gram_a = self._dot(self.a, self.a, positions)
        gram_b = self._dot(self.b, self.b, positions)
        return jnp.sum(gram_a * gram_b, axis=1)

    def one_unit(self) -> "Product":
        """All units as positions of one."""
        return self.each(
            lambda x: jnp.moveaxis(x, 0, 1).reshape(1, x.shape[1], -1, x.shape[3])
        )

    def costs(self) -> tuple[float, float, float]:
        """Multiplications per unit: of the kernel, of rows, of the weighted sum."""
        groups, length, m = self.a.shape[1:]
        n = self.b.shape[3]
        dense = groups * length * m * n
        return groups * length * length * (m + n), dense, dense

    def weighted(self, weights: Array, keep: Array) -> Array:
        a, b = (x.astype(wide(x.dtype)) for x in (self.a, self.b))
        weigh_a = a.size <= b.size
        if weigh_a:
            a = scaled(a, weights, keep)
        else:
            b = scaled(b, weights, keep)
        units, groups, length, _ = a.shape
        if groups == 1:
            a, b = (x.reshape(units * length, x.shape[3]) for x in (a, b))
            keep = jnp.repeat(keep, length)
        dot = self._over_units
        if weigh_a:
            out = contracted(dot, a, b, keep, -1)
        else:
            out = contracted(lambda b, a: dot(a, b), b, a, keep, -2)
        return through(self.maps, out.reshape(self.shape))

    def _over_units(self, a: Array, b: Array) -> Array:
        over, alike = ((0,), ()) if a.ndim == 2 else ((0, 2), (1,))
        return self._dot(a, b, ((over, over), (alike, alike)))

    def unmapped(self) -> Array:
        return self.outer.reshape(self.units, *self.shape)

    def mapped(self, m: Map | Permuted) -> "Product":
        """A transposed matrix product is a matrix product."""
        if self.maps or not isinstance(m, Map) or m.lifts:
            return super().mapped(m)
        name, params = m.eqn.primitive.name, m.eqn.params
        shape = (self.a.shape[3], self.b.shape[3])
        matrix = self.a.shape[1] == 1 and self.shape == shape
        if name == "transpose" and matrix and tuple(params["permutation"]) == (1, 0):
            return replace(self, a=self.b, b=self.a, shape=shape[::-1])
        if name == "reshape" and params["dimensions"] is None:
            return replace(self, shape=tuple(m.eqn.outvars[0].aval.shape))
        return super().mapped(m)


@_pytree(["ids", "b"], ["shape", "dtype"])
@dataclass(frozen=True, eq=False)
class Lookup(_Term):
    """Unit u adds b[u, s, :] to row ids[u, s] of a table of zeros.

    ids: [units, length], outside of the table where nothing is added;
    b: [units, length, n]; shape: (rows, n).
    """

    ids: Array
    b: Array
    shape: tuple[int, int]
    dtype: Any
    maps: Maps
    digits: tuple[Digit, ...]
    part: Part | None = None

    arrays = ("ids", "b")
    scalable = "b"

    @property
    def length(self) -> int:
        return int(self.ids.shape[1])

    def over_steps(self) -> "Lookup":
        """Of arrays stacked along axis 0: one longer length."""
        return self.each(
            lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])
        )

    def like(self, other: Any) -> bool:
        return isinstance(other, Lookup) and self.shape == other.shape

    def joined(self, other: "Lookup") -> "Lookup":
        return replace(
            self,
            ids=jnp.concatenate([self.ids, other.ids], axis=1),
            b=jnp.concatenate([self.b, other.b], axis=1),
        )

    def sqnorm(self) -> Array | None:
        return None

    def kernel(self) -> Array:
        b = self._inside()
        same = self.ids[:, :, None] == self.ids[:, None, :]
        gram = batched("usn,utn->ust", b, b)
        return jnp.where(same, gram, 0)

    def kernel_with(self, product: Product) -> Array:
        """[units, length, product.length]: with a product of the table's shape."""
        ids = jnp.clip(self.ids, 0, self.shape[0] - 1)
        picked = jnp.take_along_axis(product.a[:, 0], ids[:, None, :], axis=2)
        gram = batched("usn,utn->ust", self._inside(), product.b[:, 0])
        return gram * jnp.swapaxes(picked, 1, 2).astype(gram.dtype)

    def _inside(self) -> Array:
        """`b`, zero where it falls outside of the table."""
        there = (self.ids >= 0) & (self.ids < self.shape[0])
        return jnp.where(there[:, :, None], self.b, 0).astype(wide(self.b.dtype))

    def one_unit(self) -> "Lookup":
        return self.each(lambda x: x.reshape(1, -1, *x.shape[2:]))

    def costs(self) -> tuple[float, float, float]:
        (length, n), rows = self.b.shape[1:], self.shape[0]
        write = _SCATTER * length * n
        return length * length * n, write + rows * n, write

    def weighted(self, weights: Array, keep: Array) -> Array:
        b = scaled(self.b.astype(wide(self.b.dtype)), weights, keep)
        flat = b.reshape(-1, b.shape[2])
        out = jnp.zeros(self.shape, b.dtype)
        out = out.at[self._places().reshape(-1)].add(flat, mode="drop")
        return through(self.maps, out)

    def _places(self) -> Array:
        """Places outside of the table by one number that is beyond it."""
        there = (self.ids >= 0) & (self.ids < self.shape[0])
        return jnp.where(there, self.ids, self.shape[0])

    def unmapped(self) -> Array:
        zeros = jnp.zeros(self.shape, wide(self.b.dtype))
        one = lambda ids, b: zeros.at[ids].add(b.astype(zeros.dtype), mode="drop")  # noqa: E731
        return jax.vmap(one)(self._places(), self.b)


@_pytree(["x"], [])
@dataclass(frozen=True, eq=False)
class Rows(_Term):
    """Unit u contributes x[u]."""

    x: Array
    maps: Maps
    digits: tuple[Digit, ...]
    part: Part | None = None

    arrays = ("x",)
    scalable = "x"

    def over_steps(self) -> "Rows":
        return self.each(lambda x: jnp.sum(x, axis=0))

    def like(self, other: Any) -> bool:
        return isinstance(other, Rows) and self.x.shape == other.x.shape

    def joined(self, other: "Rows") -> "Rows":
        return replace(self, x=self.x + other.x)

    def sqnorm(self) -> Array | None:
        return square_sum(self.x)

    def weighted(self, weights: Array, keep: Array) -> Array:
        return through(self.maps, tensordot(weights, keep, self.x))

    def unmapped(self) -> Array:
        return self.x


Term = Product | Lookup | Rows

# How many multiplications adding one number to a table costs, and writing one number of
# a contribution that is materialised and reading it twice (measured on a CPU).
_SCATTER = 8
TOUCHED = 64
