"""Householder reflections: QR with its relatives, Hessenberg and tridiagonal forms.

Signs, and the packing of reflectors below the diagonal, are LAPACK's, so that the results
are those of JAX on a CPU. Golub and Van Loan, Matrix Computations, sections 5.1, 5.2, 7.4
and 8.3. All arrays may have leading batch axes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.passes.decompose.matrices import (
    adjoint,
    chebyshev,
    column,
    conj,
    diagonal,
    dot,
    first_largest,
    outer,
    polynomial,
    real,
    steps,
    vecmat,
)

# Matrices are multiplied by this inside (norms of columns stay below 2^11).
_UP = 2.0**2
# Inverse norms of long columns are small: they keep this many more of their bits.
_MORE = 2.0**9
# Squared norms below this count as zero.
_TINY = 2.0**-32
# 1 / (1 + t) for the cosine t in [0, 1]; absolute error 2^-20. And, complex, 1 / x for
# x = |1 + t|^2 in [1, 4], in (x - 5/2) / (3/2); absolute error 2^-19.
_INVERSE = chebyshev(lambda t: 1 / (1 + t), 0.0, 1.0, 8)
_INVERSE_SQUARE = chebyshev(lambda z: 1 / (2.5 + 1.5 * z), -1.0, 1.0, 12)


class Reflection(NamedTuple):
    """H = I - tau v v^H, which maps its vector to beta e_k; H = I where tau = 0.

    Attributes:
      v: [..., m], 1 at k and 0 before.
      tau: [...].
      beta: [...], real.
      sign: [...], that of beta.
    """

    v: Any
    tau: Any
    beta: Any
    sign: Any


def reflection(x: Any, k: Any) -> Reflection:
    """The reflection of x[k:] (the entries before are not looked at) onto e_k.

    An inverse root and a comparison. The inverse root is corrected by a Newton step, so
    that H is orthogonal to about 2^-18.
    """
    places = np.arange(x.shape[-1])
    rest = jnp.where(places > k, x, jnp.zeros_like(x))
    first = lax.dynamic_index_in_dim(x, k, -1, keepdims=False)
    tail = real(dot(rest, conj(rest)))
    if jnp.iscomplexobj(x):  # nothing to do only where x[k:] is real as well
        tail = tail + lax.imag(first) * lax.imag(first)
    square = tail + real(first) * real(first)
    signs = jnp.stack([real(first), tail - _TINY]) < 0
    sign = jnp.where(signs[0], jnp.ones_like(tail), jnp.full_like(tail, -1))
    some = ~signs[1]

    # u = x / |x|, with a Newton step for |u| = 1.
    scale = (lax.rsqrt(square) * _MORE)[..., None].astype(x.dtype)
    whole = jnp.where(places >= k, x, jnp.zeros_like(x))
    u = whole * scale * (1 / _MORE)
    u = u * (1.5 - 0.5 * real(dot(u, conj(u))))[..., None].astype(x.dtype)
    norm = real(dot(whole, conj(u)))
    u_k = lax.dynamic_index_in_dim(u, k, -1, keepdims=False)

    # beta = sign |x|, tau = 1 - u_k / sign, v = u / (u_k - sign).
    if jnp.iscomplexobj(x):
        alpha = u_k * (-sign).astype(x.dtype)  # its real part is the cosine
        tau = 1 + alpha
        centred = (real(tau * conj(tau)) - 2.5) * (1 / 1.5)
        shrink = conj(tau) * polynomial(centred, _INVERSE_SQUARE).astype(x.dtype)
        inverse = shrink * (-sign).astype(x.dtype)
    else:
        cosine = -sign * u_k
        tau, inverse = 1 + cosine, -sign * polynomial(cosine, _INVERSE)
    v = jnp.where(places > k, u * inverse[..., None], jnp.zeros_like(u))
    v = jnp.where(some[..., None], v, jnp.zeros_like(v))
    v = jnp.where(places == k, jnp.ones_like(v), v)
    tau = jnp.where(some, tau, jnp.zeros_like(tau))
    beta = jnp.where(some, sign * norm, real(first))
    sign = jnp.where(some, sign, -sign)
    return Reflection(v, tau, beta, sign)


def reflect(a: Any, v: Any, tau: Any, where: Any = True) -> Any:
    """(I - tau v v^H) a in the columns `where`."""
    products = vecmat(conj(v), a)
    if where is not True:
        products = jnp.where(where, products, jnp.zeros_like(products))
    return a - outer(tau[..., None] * v, products)


def geqrf(a: Any) -> list[Any]:
    """[R with the reflectors below its diagonal, their factors tau].

    min(m - 1, n) steps (real) with an inverse root and a comparison each. At f = 18, for
    columns with norms between 2^-8 and 2^11, the relative error of Q R and the distance
    of Q^T Q from I are below 2^-13.
    """
    plain = not jnp.iscomplexobj(a)  # the last row alone needs no reflection
    packed, taus, _, _ = _triangularise(a, None, plain)
    return [packed, taus]


def geqp3(a: Any, jpvt: Any, *, use_magma: bool | None = None) -> list[Any]:
    """[packed, order of the columns (from 1), tau]: before each step of `geqrf`, the
    column with the largest rest is brought to the front. `jpvt` must be all zero, as
    from `jax.lax.linalg.qr` (no columns are held at the front)."""
    packed, taus, order, _ = _triangularise(a, jnp.zeros_like(jpvt), False)
    return [packed, order + 1, taus]


def orthonormal(a: Any, full: bool) -> tuple[Any, Any]:
    """(norms, Q) for a matrix with at least as many rows as orthogonal columns.

    The columns of Q are orthonormal also where those of `a` are 0; `full` makes Q square.
    """
    m, n = a.shape[-2:]
    packed, taus, _, signs = _triangularise(a, None, False)
    extra = m - n if full else 0
    q = householder_product(_padded(packed, extra), taus)
    norms = real(diagonal(packed)) * signs
    signs = jnp.concatenate([signs, jnp.ones((*signs.shape[:-1], extra))], -1)
    return norms, q * signs[..., None, :].astype(q.dtype)


def _triangularise(a: Any, order: Any, plain: bool) -> tuple[Any, Any, Any, Any]:
    """(packed, tau, order, signs); columns change places where `order` is given.

    `plain` leaves out a last reflection that would do nothing.
    """
    m, n = a.shape[-2:]
    rows, columns = np.arange(m), np.arange(n, dtype=np.int32)
    size = min(m, n)
    count = min(m - 1, n) if plain else size
    order = None if order is None else order + columns

    def step(carry: Any, k: Any) -> Any:
        a, order = carry
        if order is not None:
            a, order = _exchanged(a, order, k)
        h = reflection(column(a, k), k)
        a = reflect(a, h.v, conj(h.tau), columns >= k)
        mine = (rows[:, None] >= k) & (columns == k)
        new = jnp.where(rows == k, h.beta[..., None].astype(a.dtype), h.v * _UP)
        return (jnp.where(mine, new[..., None], a), order), (h.tau, h.sign)

    if count <= 0:
        nothing = jnp.zeros((*a.shape[:-2], size), a.dtype)
        return a, nothing, order, real(nothing)
    (a, order), each = lax.scan(step, (a * _UP, order), steps(count))
    taus, signs = (_padded(jnp.moveaxis(x, 0, -1), size - count) for x in each)
    return a * (1 / _UP), taus, order, signs


def _padded(x: Any, more: int) -> Any:
    """`more` zeros at the end of the last axis."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)])


def _exchanged(a: Any, order: Any, k: Any) -> tuple[Any, Any]:
    """Column k changes places with that of the largest norm below row k."""
    m, n = a.shape[-2:]
    rows, columns = np.arange(m), np.arange(n, dtype=np.int32)
    rest = jnp.where(rows[:, None] >= k, a, jnp.zeros_like(a))
    norms = jnp.sum(real(rest * conj(rest)), -2)
    hot = first_largest(jnp.where(columns >= k, norms, jnp.full_like(norms, -1)))
    chosen = hot.astype(np.int32)
    change = (columns == k).astype(np.int32) - chosen
    top = jnp.matmul(a, chosen.astype(a.dtype)[..., None])[..., 0]
    a = a + outer(top - column(a, k), change.astype(a.dtype))
    entry = dot(chosen, order)[..., None]
    return a, order + change * (entry - lax.dynamic_index_in_dim(order, k, -1))


def _vector(a: Any, k: Any, offset: int = 0) -> Any:
    """Reflector k of a packed matrix."""
    places = np.arange(a.shape[-2])
    v = column(a, k)
    v = jnp.where(places > k + offset, v, jnp.zeros_like(v))
    return jnp.where(places == k + offset, jnp.ones_like(v), v)


def householder_product(a: Any, taus: Any) -> Any:
    """The first columns of H_0 H_1 ...: a product of reflections in each step."""
    m, n = a.shape[-2:]
    eye = jnp.broadcast_to(jnp.eye(m, n, dtype=a.dtype), a.shape)
    return _apply(a, taus, eye, forward=False)


def _apply(a: Any, taus: Any, c: Any, *, forward: bool) -> Any:
    """H_0 H_1 ... c, or, `forward`, the adjoint of that product times c."""
    count = taus.shape[-1]

    def step(c: Any, k: Any) -> Any:
        tau = lax.dynamic_index_in_dim(taus, k, -1, keepdims=False)
        return reflect(c, _vector(a, k), conj(tau) if forward else tau), None

    return lax.scan(step, c, steps(count), reverse=not forward)[0] if count else c


def ormqr(a: Any, taus: Any, c: Any, *, left: bool, transpose: bool) -> Any:
    """Q c, Q^H c, c Q or c Q^H for a packed Q."""
    if left:
        return _apply(a, taus, c, forward=transpose)
    return adjoint(_apply(a, taus, adjoint(c), forward=not transpose))


def qr(
    a: Any, *, pivoting: bool, full_matrices: bool, use_magma: bool | None = None
) -> list[Any]:
    """[Q, R] or, pivoting, [Q, R, order of the columns]; error and signs as `geqrf`."""
    m, n = a.shape[-2:]
    size = m if full_matrices else min(m, n)
    order = jnp.zeros((*a.shape[:-2], n), np.int32) if pivoting else None
    plain = not pivoting and not jnp.iscomplexobj(a)
    packed, taus, order, _ = _triangularise(a, order, plain)
    least = min(m, n)
    q = householder_product(_padded(packed[..., :least], max(size - least, 0)), taus)
    r = jnp.where(np.triu(np.ones((size, n), bool)), packed[..., :size, :], 0)
    return [q, r, order] if pivoting else [q, r]


def hessenberg(a: Any) -> list[Any]:
    """[H with the reflectors below its first subdiagonal, tau], n - 1 steps."""
    n = a.shape[-1]
    places = np.arange(n)
    count = max(n - 1 if jnp.iscomplexobj(a) else n - 2, 0)

    def step(a: Any, k: Any) -> Any:
        h = reflection(column(a, k), k + 1)
        a = reflect(a, h.v, conj(h.tau), places >= k)
        a = adjoint(reflect(adjoint(a), h.v, conj(h.tau)))
        mine = (places[:, None] > k) & (places == k)
        new = jnp.where(places == k + 1, h.beta[..., None].astype(a.dtype), h.v * _UP)
        return jnp.where(mine, new[..., None], a), h.tau

    if count:
        a, taus = lax.scan(step, a * _UP, steps(count))
        a, taus = a * (1 / _UP), jnp.moveaxis(taus, 0, -1)
    else:
        taus = jnp.zeros((*a.shape[:-2], 0), a.dtype)
    return [a, _padded(taus, max(n - 1, 0) - count)]


def tridiagonal(a: Any, *, lower: bool) -> list[Any]:
    """[packed, diagonal, off-diagonal, tau] of a symmetric matrix, by `hessenberg`."""
    n = a.shape[-1]
    i = np.arange(n)
    triangle = np.tril(np.ones((n, n), bool)) if lower else np.triu(np.ones((n, n)))
    half = jnp.where(triangle, a, jnp.zeros_like(a))
    a = half + adjoint(jnp.where(np.eye(n, dtype=bool), jnp.zeros_like(a), half))
    if not lower:  # LAPACK works from the last column: the same, turned round
        a = a[..., ::-1, ::-1]
    packed, taus = hessenberg(a)
    d, e = real(packed[..., i, i]), real(packed[..., i[1:], i[:-1]])
    if not lower:
        packed, taus = packed[..., ::-1, ::-1], taus[..., ::-1]
        d, e = d[..., ::-1], e[..., ::-1]
    other = np.triu(np.ones((n, n), bool), 2) if lower else np.tril(np.ones((n, n)), -2)
    return [jnp.where(other, jnp.zeros_like(packed), packed), d, e, taus]


RULES: dict[str, Callable[..., Any]] = {
    "geqrf": geqrf,
    "geqp3": geqp3,
    "householder_product": householder_product,
    "ormqr": ormqr,
    "qr": qr,
    "hessenberg": hessenberg,
    "tridiagonal": tridiagonal,
}
