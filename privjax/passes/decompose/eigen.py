"""Eigenvalues of symmetric (Hermitian) matrices and singular values, by Jacobi's method.

Rotations of disjoint pairs run at once, in the order of a round-robin tournament (Brent
and Luk 1985; Golub and Van Loan, Matrix Computations, section 8.5). The number of sweeps
is fixed, so that nothing depends on data. All arrays may have leading batch axes.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.errors import UnsupportedError
from privjax.passes.decompose.matrices import (
    adjoint,
    ascending,
    chebyshev,
    conj,
    diagonal,
    magnitude,
    polynomial,
    real,
)
from privjax.passes.decompose.reflections import orthonormal

# The mean sum of a row's magnitudes while rotations run, and what the scale of the
# eigenvalues is multiplied by, so that small ones keep more of their bits.
_ROW_SUM = 2.0**4
_MORE = 2.0**8
# Differences of diagonal entries count as this much larger: pairs that are far below
# the scale of the matrix are left alone instead of rotated by noise.
_FLOOR = 2.0**-13
# Keeps a zero matrix from being divided by zero in floating point; below resolution.
_NOTHING = 2.0**-60
# 1 / sqrt(2 (1 + t)) for the cosine t in [0, 1] of twice the angle; error 2^-20.
_HALF_ANGLE = chebyshev(lambda t: 1 / np.sqrt(2 * (1 + t)), 0.0, 1.0, 7)
# Matrices are multiplied by this before they are squared.
_UP = 2.0**2


def sweeps(n: int) -> int:
    """How many times every pair of n indices is rotated."""
    return 1 if n <= 2 else 2 + math.ceil(math.log2(n))


def eigh(
    a: Any,
    *,
    lower: bool,
    sort_eigenvalues: bool,
    subset_by_index: Any = None,
    algorithm: Any = None,
) -> list[Any]:
    """[eigenvectors as columns, eigenvalues ascending].

    `sweeps(n)` sweeps of n - 1 steps, with an inverse root, a comparison and products in
    each: about 50 rounds a step. At f = 18, for matrices whose row sums are between 2^-8
    and 2^18 / n, errors of eigenvalues, of A V - V diag(w) and of V^T V - I are about
    2^-14 of the mean row sum (of 1 for V). Signs of eigenvectors are arbitrary, as in
    LAPACK, but need not be LAPACK's.
    """
    n = a.shape[-1]
    triangle = np.tril(np.ones((n, n), bool)) if lower else np.triu(np.ones((n, n)))
    half = jnp.where(triangle, a, jnp.zeros_like(a))
    a = half + adjoint(jnp.where(np.eye(n, dtype=bool), jnp.zeros_like(a), half))
    if n <= 1:
        return [jnp.ones_like(a), real(diagonal(a))]
    size = jnp.sum(magnitude(a), (-1, -2)) * (1 / n) + _NOTHING
    whole = jnp.broadcast_to(size[..., None, None], a.shape).astype(a.dtype)
    w, v = _jacobi((a * _ROW_SUM) / whole)
    if sort_eigenvalues:
        order = ascending(w)
        w = jnp.matmul(order, w[..., None])[..., 0]
        v = jnp.matmul(v, jnp.swapaxes(order, -1, -2).astype(v.dtype))
    w = w * (size * _MORE)[..., None] * (1 / (_MORE * _ROW_SUM))
    some = slice(*(subset_by_index or (None,)))
    return [v[..., some], w[..., some]]


def _jacobi(a: Any) -> tuple[Any, Any]:
    """(diagonal, V) with V^H a V nearly diagonal, for row sums of about 2^4."""
    n = a.shape[-1]
    if odd := n % 2:
        a = jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, 1), (0, 1)])
    size = n + odd
    v = jnp.broadcast_to(jnp.eye(size, dtype=a.dtype), a.shape)
    seats = _next_round(size)

    def step(both: Any, _: Any) -> Any:
        rotation = _rotations(both[..., :size, :])
        both = _columns(both, rotation)[..., seats]
        a, v = both[..., :size, :], both[..., size:, :]
        a = adjoint(_columns(adjoint(a), rotation))[..., seats, :]
        return jnp.concatenate([a, v], -2), None

    both = jnp.concatenate([a, v], -2)  # columns of a and of v are rotated together
    both = lax.scan(step, both, length=sweeps(n) * (size - 1))[0]
    return real(diagonal(both[..., :n, :n])), both[..., size : size + n, :n]


def _next_round(size: int) -> Any:
    """Who comes to which seat for the next round; seats 2i and 2i + 1 play together.

    The first stays; after size - 1 rounds all pairs have met and sit as at first.
    """
    top, bottom = list(range(0, size, 2)), list(range(1, size, 2))
    if size > 2:
        top, bottom = [0, bottom[0], *top[1:-1]], [*bottom[1:], top[-1]]
    return np.stack([top, bottom], -1).ravel()


def _rotations(a: Any) -> Any:
    """[..., pair, 2, 2]: unitary matrices that make the pairs' 2 x 2 blocks diagonal.

    With x half the difference of the diagonal entries, y the entry above the diagonal
    and r^2 = x^2 + |y|^2, the first column is (c, sign(x) conj(y) / (2 r c)) with
    c^2 = (1 + |x| / r) / 2: the smaller of the two angles.
    """
    even, odd = np.arange(0, a.shape[-1], 2), np.arange(1, a.shape[-1], 2)
    x = 0.5 * (real(a[..., even, even]) - real(a[..., odd, odd]))
    y = a[..., even, odd]
    negative = x < 0
    x = jnp.where(negative, -x, x) + _FLOOR
    y = conj(jnp.where(negative, -y, y))
    inverse = lax.rsqrt(x * x + real(y * conj(y)))
    cosine, sine = x * inverse, y * inverse.astype(y.dtype)
    half = polynomial(cosine, _HALF_ANGLE)
    c, s = (1 + cosine) * half, sine * half.astype(y.dtype)
    # A Newton step for c^2 + |s|^2 = 1.
    fix = 1.5 - 0.5 * (c * c + real(s * conj(s)))
    c, s = (c * fix).astype(y.dtype), s * fix.astype(y.dtype)
    return jnp.stack([jnp.stack([c, -conj(s)], -1), jnp.stack([s, c], -1)], -2)


def _columns(a: Any, rotation: Any) -> Any:
    """Columns 2i and 2i + 1 of `a` times the i-th rotation."""
    pairs = a.reshape(*a.shape[:-1], -1, 2)
    return jnp.einsum("...rib,...ibc->...ric", pairs, rotation).reshape(a.shape)


def svd(
    a: Any,
    *,
    full_matrices: bool,
    compute_uv: bool,
    subset_by_index: Any = None,
    algorithm: Any = None,
) -> list[Any]:
    """[singular values descending, U, V^H].

    V from `eigh` of A^H A, then U and the singular values from a QR factorisation of
    A V, whose columns are orthogonal: U is unitary also where singular values are 0. At
    f = 18, for matrices with norms between 2^-5 and 2^10, errors of singular values and
    of A - U diag(s) V^H are about 2^-13 of the norm. Signs as for `eigh`.
    """
    m, n = a.shape[-2:]
    if m < n:
        out = svd(adjoint(a), full_matrices=full_matrices, compute_uv=compute_uv)
        out = [out[0], adjoint(out[2]), adjoint(out[1])] if compute_uv else out
    else:
        up = a * _UP
        square = jnp.matmul(adjoint(up), up)
        v = eigh(square, lower=True, sort_eigenvalues=True)[0][..., ::-1]
        b = jnp.matmul(a, v)
        if compute_uv:
            out = [*orthonormal(b, full_matrices), adjoint(v)]
        else:
            b = b * _UP
            out = [jnp.sqrt(jnp.sum(real(b * conj(b)), -2)) * (1 / _UP)]
    if subset_by_index is None:
        return out
    if full_matrices and m != n:
        raise UnsupportedError(
            "svd of a secret with subset_by_index needs full_matrices=False."
        )
    some = slice(*subset_by_index)
    cut = [out[0][..., some]]
    return cut + [out[1][..., some], out[2][..., some, :]] if compute_uv else cut


RULES: dict[str, Callable[..., Any]] = {"eigh": eigh, "svd": svd}
