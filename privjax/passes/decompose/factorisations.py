"""Cholesky and LU factorisations: one loop over the columns, whole columns at a time.

What depends on data in the usual algorithms (which row is the pivot) is done by one-hot
vectors, so that every run does the same. Golub and Van Loan, Matrix Computations,
sections 3.4 (partial pivoting) and 4.2 (Cholesky, outer products).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.passes.decompose.matrices import (
    column,
    conj,
    dot,
    first_largest,
    magnitude,
    outer,
    real,
    row,
    steps,
    vecmat,
)

# Matrices are multiplied by this inside: entries of 2^-10 still keep 13 bits as factors
# of products, and entries up to 2^19 stay in range.
_UP = 2.0**6
_ROOT = 2.0**3
# Inverse roots of large pivots are small: they keep this many more of their bits.
_MORE = 2.0**9


def cholesky(a: Any) -> Any:
    """L with L L^H = a for positive definite matrices: n steps, one rsqrt in each.

    At f = 18, for diagonal entries between 2^-10 and 2^19, the relative error of L L^H
    is below 2^-12 (in norm). Where a pivot is not positive, its column of L is 0 (NaN
    elsewhere).
    """
    n = a.shape[-1]
    rows = np.arange(n)

    def step(a: Any, k: Any) -> Any:
        c = column(a, k)
        pivot = real(lax.dynamic_index_in_dim(c, k, -1))
        c = c * (lax.rsqrt(pivot) * _MORE).astype(a.dtype) * (1 / _MORE)
        c = jnp.where(rows >= k, c, jnp.zeros_like(c))
        return a - outer(c, conj(c)), c

    columns = lax.scan(step, a * _UP, steps(n))[1]
    return jnp.moveaxis(columns, 0, -1) * (1 / _ROOT)


def lu(a: Any) -> list[Any]:
    """[L and U in one matrix, pivots, permutation] with partial pivoting, as LAPACK's.

    min(m, n) steps: a comparison of magnitudes, one of all pairs, a division. At f = 18,
    for entries between 2^-10 and 2^19 / n, the relative error of L U is below 2^-14
    (in norm). Ties of magnitudes go to the first, but rounding decides near ties.
    """
    m, n = a.shape[-2:]
    rows, columns = np.arange(m, dtype=np.int32), np.arange(n)
    order = jnp.broadcast_to(rows, a.shape[:-1])

    def step(carry: Any, k: Any) -> Any:
        a, order = carry
        sizes = magnitude(column(a, k))
        hot = first_largest(jnp.where(rows >= k, sizes, jnp.full_like(sizes, -1)))
        chosen = hot.astype(np.int32)
        top = vecmat(chosen.astype(a.dtype), a)
        # Rows k and p change places: + (e_k - e_p) (row_p - row_k).
        change = (rows == k).astype(np.int32) - chosen
        a = a + outer(change.astype(a.dtype), top - row(a, k))
        entry = dot(chosen, order)[..., None]
        order = order + change * (entry - lax.dynamic_index_in_dim(order, k, -1))
        c = column(a, k)
        pivot = lax.dynamic_index_in_dim(top, k, -1)
        c = jnp.where(rows > k, c / jnp.broadcast_to(pivot, c.shape), jnp.zeros_like(c))
        a = a - outer(c, jnp.where(columns > k, top, jnp.zeros_like(top)))
        below = (rows[:, None] > k) & (columns == k)
        a = jnp.where(below, (c * _UP)[..., None], a)
        return (a, order), dot(chosen, rows)

    count = min(m, n)
    if count == 0:
        return [a, jnp.zeros((*a.shape[:-2], 0), np.int32), order]
    (a, order), pivots = lax.scan(step, (a * _UP, order), steps(count))
    return [a * (1 / _UP), jnp.moveaxis(pivots, 0, -1), order]


def lu_pivots_to_permutation(pivots: Any, *, permutation_size: int) -> Any:
    """The permutation that a sequence of exchanges of rows makes; exact.

    One comparison of all pivots with all places, then a step of two products for each.
    """
    places = np.arange(permutation_size, dtype=np.int32)
    hot = (pivots[..., None] == places).astype(np.int32)
    order = jnp.broadcast_to(places, (*pivots.shape[:-1], permutation_size))

    def step(order: Any, x: Any) -> Any:
        k, chosen = x
        change = (places == k).astype(np.int32) - chosen
        entry = dot(chosen, order)[..., None]
        return order + change * (entry - lax.dynamic_index_in_dim(order, k, -1)), None

    numbers = steps(pivots.shape[-1])
    return lax.scan(step, order, (numbers, jnp.moveaxis(hot, -2, 0)))[0]


def cholesky_update(r: Any, w: Any) -> Any:
    """The upper triangular factor of R^T R + w w^T: n rotations, a rsqrt in each."""
    n = r.shape[-1]

    def step(w: Any, x: Any) -> Any:
        k, line = x
        a = lax.dynamic_index_in_dim(line, k, -1)
        b = lax.dynamic_index_in_dim(w, k, -1)
        inverse = lax.rsqrt(a * a + b * b)
        c, s = a * inverse, b * inverse
        fix = 1.5 - 0.5 * (c * c + s * s)  # a Newton step for c^2 + s^2 = 1
        c, s = c * fix, s * fix
        return c * w - s * line, c * line + s * w

    lines = jnp.moveaxis(r, -2, 0) * _ROOT
    lines = lax.scan(step, w * _ROOT, (steps(n), lines))[1]
    return jnp.moveaxis(lines, 0, -2) * (1 / _ROOT)


def symmetric_product(a: Any, c: Any, *, alpha: float, beta: float) -> Any:
    """alpha a a^T + beta c."""
    return alpha * jnp.matmul(a, jnp.swapaxes(a, -1, -2)) + beta * c


RULES: dict[str, Callable[..., Any]] = {
    "cholesky": cholesky,
    "cholesky_update": cholesky_update,
    "symmetric_product": symmetric_product,
    "lu": lu,
    "lu_pivots_to_permutation": lu_pivots_to_permutation,
}
