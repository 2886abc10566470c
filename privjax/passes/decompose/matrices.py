"""What the algorithms on matrices share: rows and columns at public places, one-hots.

All arrays may have leading batch axes. A one-hot is a row of truth values; turned into
integers, products with it are exact on shares and cost one opening.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

# Beyond this many entries, the largest is found among the largest of groups.
_PAIRS = 32


def adjoint(a: Any) -> Any:
    """The conjugate transpose of the last two axes."""
    return conj(jnp.swapaxes(a, -1, -2))


def conj(x: Any) -> Any:
    return lax.conj(x) if jnp.iscomplexobj(x) else x


def real(x: Any) -> Any:
    return lax.real(x) if jnp.iscomplexobj(x) else x


def magnitude(x: Any) -> Any:
    """|x|, for complex numbers |re| + |im|, by which LAPACK picks its pivots."""
    if not jnp.iscomplexobj(x):
        return jnp.abs(x)
    parts = jnp.abs(jnp.stack([lax.real(x), lax.imag(x)]))
    return parts[0] + parts[1]


def outer(u: Any, v: Any) -> Any:
    """u v^T, for batches of vectors."""
    return u[..., :, None] * v[..., None, :]


def column(a: Any, k: Any) -> Any:
    """Column k, a public (maybe traced) number."""
    return lax.dynamic_index_in_dim(a, k, axis=-1, keepdims=False)


def row(a: Any, k: Any) -> Any:
    """Row k, a public (maybe traced) number."""
    return lax.dynamic_index_in_dim(a, k, axis=-2, keepdims=False)


def vecmat(v: Any, a: Any) -> Any:
    """v^T a, for batches."""
    return jnp.matmul(v[..., None, :], a)[..., 0, :]


def dot(u: Any, v: Any) -> Any:
    """u^T v over the last axis, for batches: one product of the protocol."""
    return jnp.matmul(u[..., None, :], v[..., :, None])[..., 0, 0]


def diagonal(a: Any) -> Any:
    """The diagonal of square matrices, by public places."""
    i = np.arange(min(a.shape[-2:]))
    return a[..., i, i]


def steps(count: int) -> Any:
    """The public numbers of the steps of a loop."""
    return jnp.arange(count, dtype=np.int32)


def first_largest(v: Any) -> Any:
    """One-hot of the first of the largest entries along the last axis.

    All pairs are compared at once: one comparison's rounds and log2(n) more.
    """
    n = v.shape[-1]
    if n > _PAIRS:
        return _first_largest_of_groups(v)
    # later[i, j] = v_i < v_j for i < j; entry i wins unless one of its pairs is lost.
    i, j = np.triu_indices(n, 1)
    later = v[..., i] < v[..., j]
    table = np.full((n, n), 2 * len(i))  # the diagonal: true
    table[i, j], table[j, i] = len(i) + np.arange(len(i)), np.arange(len(i))
    always = jnp.ones((*v.shape[:-1], 1), bool)
    wins = jnp.concatenate([later, ~later, always], -1)[..., table]
    return jnp.all(wins, -1)


def _first_largest_of_groups(v: Any) -> Any:
    n = v.shape[-1]
    size = int(np.ceil(np.sqrt(n)))
    groups = -(-n // size)
    # Copies of the last entry come later than itself and never win.
    padding = jnp.broadcast_to(v[..., -1:], (*v.shape[:-1], groups * size - n))
    parts = jnp.concatenate([v, padding], -1).reshape(*v.shape[:-1], groups, size)
    inner = first_largest(parts)
    best = jnp.sum(jnp.where(inner, parts, jnp.zeros_like(parts)), -1)
    hot = inner & first_largest(best)[..., None]
    return hot.reshape(*v.shape[:-1], groups * size)[..., :n]


def ascending(v: Any) -> Any:
    """[..., rank, entry]: the permutation that sorts the last axis, stably, as 0 and 1.

    An entry's rank is the number of entries that go before it.
    """
    n = v.shape[-1]
    i, j = np.triu_indices(n, 1)
    before = (v[..., j] < v[..., i]).astype(np.int32)  # the later one goes first
    swapped, kept = np.zeros((2, len(i), n), np.int32)
    swapped[np.arange(len(i)), i] = 1
    swapped[np.arange(len(i)), j] = -1
    kept[np.arange(len(i)), j] = 1
    rank = jnp.matmul(before, swapped) + kept.sum(0, dtype=np.int32)
    places = np.arange(n, dtype=np.int32)[:, None]
    return (rank[..., None, :] == places).astype(v.dtype)


def polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    """sum_i c_i x^i by pairs of terms (Estrin): log2(degree) products deep."""
    terms = [jnp.full_like(x, coefficients[0])] + [c for c in coefficients[1:]]
    pairs = []
    for k in range(0, len(terms), 2):
        low = terms[k]
        pairs.append(low + x * terms[k + 1] if k + 1 < len(terms) else low)
    power = x
    while len(pairs) > 1:
        power = power * power
        joined = []
        for k in range(0, len(pairs), 2):
            low = pairs[k]
            joined.append(low + power * pairs[k + 1] if k + 1 < len(pairs) else low)
        pairs = joined
    return pairs[0]


def chebyshev(fun: Any, low: float, high: float, degree: int) -> list[float]:
    """Coefficients of the interpolation of `fun` at Chebyshev's points of an interval."""
    fit = np.polynomial.Chebyshev.interpolate(fun, degree, [low, high])
    return [float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef]
