"""Robust statistics in place of the mean: some clients may send anything.

=====================  ====================================  =======================
`coordinate_median`    median of every coordinate            Yin et al. 2018
`trimmed_mean`         mean without the extremes, likewise   Yin et al. 2018
`krum`                 the update nearest to the others      Blanchard et al. 2017
`multi_krum`           the mean of the nearest ones          Blanchard et al. 2017
`geometric_median`     smoothed Weiszfeld steps (RFA)        Pillutla et al. 2022
=====================  ====================================  =======================

All but the last are no functions of sums: the server must see every single client's
update, and `privjax.explain` says so. The geometric median is a few weighted means, so
that a secure sum can serve it, which is the paper's point.

Each is a function (rows, alive) -> statistic: a pytree of [clients, ...] and
bool[clients] to a pytree of [...]; how many are alive may change without recompilation.
They are plain JAX: `privjax.secret_shared(lambda rows: median(rows))` computes one on
secret shares, so that nobody sees a single update.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from privjax._typing import Array, PyTree
from privjax.errors import InputError

# Sums over the leading axis of each of some arrays, formed by an aggregation method.
Totals = Callable[[list[Array]], list[Array]]


@dataclass(frozen=True)
class Robust:
    """A robust statistic.

    Attributes:
      name, options: what it is, for reports.
      statistic: (rows, alive or None, totals) -> pytree of [...].
      sums: how many sums over clients it takes; None where sums do not suffice.
    """

    name: str
    options: tuple[tuple[str, Any], ...]
    statistic: Callable[[PyTree, Any, Totals], PyTree]
    sums: int | None = None

    def __call__(
        self, rows: PyTree, alive: Any = None, totals: Totals | None = None
    ) -> PyTree:
        """The statistic of `rows`, a pytree of [clients, ...].

        Args:
          alive: bool[clients]; None takes all rows as they are. With it, a client whose
            update is not finite counts as absent too.
          totals: how sums over clients are formed, where it is a function of sums.
        """
        if alive is not None:
            alive = jnp.asarray(alive).astype(bool)
            for x in jax.tree.leaves(rows):
                finite = jnp.isfinite(x).reshape(x.shape[0], -1)
                alive &= jnp.all(finite, axis=1)
        return self.statistic(rows, alive, totals or _plainly)

    def __str__(self) -> str:
        inside = ", ".join(f"{k}={v}" for k, v in self.options)
        return f"{self.name}({inside})"


def _plainly(xs: list[Array]) -> list[Array]:
    return [jnp.sum(x, axis=0) for x in xs]


def coordinate_median() -> Robust:
    """The median of every coordinate, the mean of the middle two for even numbers."""

    def one(x: Array, alive: Any) -> Array:
        ranked, m = _ranked(x, alive)
        if isinstance(m, int):
            low, high = ranked[(m - 1) // 2], ranked[m // 2]
            return ((low + high) / 2).astype(x.dtype)
        low = jnp.take(ranked, jnp.maximum(m - 1, 0) // 2, axis=0)
        high = jnp.take(ranked, m // 2, axis=0)
        return jnp.where(m > 0, (low + high) / 2, 0).astype(x.dtype)

    return Robust("coordinate_median", (), _each(one))


def trimmed_mean(fraction: float) -> Robust:
    """The mean of every coordinate without the floor(fraction m) least and greatest.

    Args:
      fraction: in [0, 1/2), more than the share of clients that may be dishonest.
    """
    if not 0 <= fraction < 0.5:
        raise InputError(f"trimmed_mean({fraction}): choose a fraction in [0, 0.5).")

    def one(x: Array, alive: Any) -> Array:
        ranked, m = _ranked(x, alive)
        if isinstance(m, int):
            ends = math.floor(fraction * m + 1e-6)
            return jnp.mean(ranked[ends : m - ends], axis=0).astype(x.dtype)
        cut = jnp.floor(fraction * m + 1e-6).astype(jnp.int32)
        rank = _wide(jnp.arange(x.shape[0]), x)
        inside = (rank >= cut) & (rank < m - cut)
        total = jnp.sum(jnp.where(inside, ranked, 0), axis=0)
        return (total / jnp.maximum(m - 2 * cut, 1)).astype(x.dtype)

    return Robust("trimmed_mean", (("fraction", fraction),), _each(one))


def krum(byzantine: int) -> Robust:
    """The one update with the least sum of squared distances to its nearest others.

    Of m updates, each is scored by the m - byzantine - 2 that are nearest to it. The
    guarantee needs m >= 2 byzantine + 3.
    """
    return _krum("krum", byzantine, 1)


def multi_krum(byzantine: int, chosen: int) -> Robust:
    """The mean of the `chosen` updates with the best scores of `krum`."""
    if chosen < 1:
        raise InputError(f"multi_krum(chosen={chosen}) is not at least 1.")
    return _krum("multi_krum", byzantine, chosen)


def geometric_median(iterations: int = 4, smoothing: float = 1e-6) -> Robust:
    """The point of least summed distance to all updates, by Weiszfeld's steps (RFA).

    v begins at the mean; `iterations` times v is the mean weighted by
    1 / max(smoothing, |v - x_i|). Every step is a weighted sum in which a client
    computes its own weight.
    """
    if iterations < 1 or not 0 < smoothing < math.inf:
        raise InputError(
            f"geometric_median(iterations={iterations}, smoothing={smoothing}): both "
            "must be positive."
        )

    def statistic(rows: PyTree, alive: Any, totals: Totals) -> PyTree:
        leaves, tree = jax.tree.flatten(rows)
        there = _there(leaves[0], alive)

        def mean(weights: Array) -> list[Array]:
            weights = jnp.where(there, weights, 0)
            parts = [
                jnp.where(_wide(there, x), x * _wide(weights, x).astype(x.dtype), 0)
                for x in leaves
            ]
            *sums, weight = totals([*parts, weights])
            weight = jnp.maximum(weight, 1e-30)
            return [s / weight.astype(s.dtype) for s in sums]

        v = mean(jnp.ones(there.shape, jnp.float32))
        for _ in range(iterations):
            far = jnp.sqrt(_squares([x - c for x, c in zip(leaves, v, strict=True)]))
            v = mean(1 / jnp.maximum(smoothing, far))
        return jax.tree.unflatten(tree, v)

    options = (("iterations", iterations), ("smoothing", smoothing))
    return Robust("geometric_median", options, statistic, sums=iterations + 1)


# -- helpers ---------------------------------------------------------------------------


def _each(
    one: Callable[[Array, Any], Array],
) -> Callable[[PyTree, Any, Totals], PyTree]:
    return lambda rows, alive, _: jax.tree.map(lambda x: one(x, alive), rows)


def _wide(alive: Array, x: Array) -> Array:
    return alive.reshape(-1, *[1] * (x.ndim - 1))


def _there(x: Array, alive: Any) -> Array:
    return jnp.ones(x.shape[0], bool) if alive is None else alive


def _ranked(x: Array, alive: Any) -> tuple[Array, Any]:
    """Sorted along the clients, the absent behind the others, and how many live."""
    if alive is None:
        return jnp.sort(x, axis=0), x.shape[0]
    largest = jnp.asarray(jnp.inf, x.dtype)
    ranked = jnp.sort(jnp.where(_wide(alive, x), x, largest), axis=0)
    return ranked, jnp.sum(alive, dtype=jnp.int32)


def _squares(leaves: list[Array]) -> Array:
    """Squared norms of all clients' updates over all leaves, float32[clients]."""
    flat = [x.reshape(x.shape[0], -1).astype(jnp.float32) for x in leaves]
    return sum((jnp.sum(jnp.square(x), axis=1) for x in flat), start=jnp.float32(0))


def _krum(name: str, byzantine: int, chosen: int) -> Robust:
    if byzantine < 0:
        raise InputError(f"{name}(byzantine={byzantine}) is negative.")

    def statistic(rows: PyTree, alive: Any, _: Totals) -> PyTree:
        leaves, tree = jax.tree.flatten(rows)
        alive = _there(leaves[0], alive)
        n = alive.shape[0]
        if n < 2 * byzantine + 3:
            raise InputError(
                f"{name}(byzantine={byzantine}) needs at least {2 * byzantine + 3} "
                f"clients, and the cohort has {n}."
            )
        m = jnp.sum(alive, dtype=jnp.int32)
        flat = [
            jnp.where(_wide(alive, x), x, 0).reshape(n, -1).astype(jnp.float32)
            for x in leaves
        ]
        square = sum((_distances(x) for x in flat), start=jnp.zeros((n, n)))
        both = alive[:, None] & alive[None, :] & ~jnp.eye(n, dtype=bool)
        ranked = jnp.sort(jnp.where(both, square, jnp.inf), axis=1)
        nearest = jnp.arange(n) < jnp.clip(m - byzantine - 2, 1, m - 1)
        scores = jnp.sum(jnp.where(nearest, ranked, 0), axis=1)
        order = jnp.argsort(jnp.where(alive, scores, jnp.inf))
        rank = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
        best = alive & (rank < chosen)
        share = best / jnp.maximum(jnp.sum(best), 1)
        picked = [
            jnp.sum(jnp.where(_wide(best, x), x * _wide(share, x), 0), axis=0)
            for x in leaves
        ]
        return jax.tree.unflatten(
            tree, [p.astype(x.dtype) for p, x in zip(picked, leaves, strict=True)]
        )

    options: tuple[tuple[str, Any], ...] = (("byzantine", byzantine),)
    if name == "multi_krum":
        options += (("chosen", chosen),)
    return Robust(name, options, statistic)


def _distances(x: Array) -> Array:
    """Squared distances of the rows of [n, size], from their differences to the mean.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a b loses what a and b have in common; the mean of all
    rows has most of that.
    """
    x = x - jnp.mean(x, axis=0)
    gram = jnp.dot(x, x.T, precision=jax.lax.Precision.HIGHEST)
    own = jnp.diagonal(gram)
    return jnp.maximum(own[:, None] + own[None, :] - 2 * gram, 0)
