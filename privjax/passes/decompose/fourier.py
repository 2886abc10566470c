"""Discrete Fourier transforms as products with public matrices, on pairs of reals.

A product of a secret with a public matrix costs the parties no communication but a
truncation. Long transforms of composite length n1 n2 are split as by Cooley and Tukey
(1965): two short ones with a product by public roots of unity in between. Errors are
about 2^-17 of the root mean square of the result.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

# Lengths up to this are one product with the whole matrix.
_WHOLE = 64

Pair = tuple[Any, Any]  # (real part, imaginary part or None where it is 0)


def fft_pairs(
    x: Pair, *, fft_type: Any, fft_lengths: Sequence[int]
) -> tuple[Any, Any | None]:
    """The `fft` primitive on a pair; the second result is None where it is real.

    `fft_type` is that of the primitive: 0 forward, 1 inverse, 2 of real values (half of
    the last axis of the result), 3 the inverse of that.
    """
    kind = int(fft_type)
    last = len(fft_lengths) - 1
    axes = list(enumerate(fft_lengths, start=-len(fft_lengths)))
    if kind == 3:  # the halved axis goes last, when the others are done
        for axis, n in axes[:last]:
            x = _along(x, axis, n, +1)
        return _from_half(x, fft_lengths[-1]), None
    for axis, n in reversed(axes):
        x = _along(x, axis, n, +1 if kind == 1 else -1)
        if kind == 2 and axis == -1:
            half = n // 2 + 1
            x = x[0][..., :half], None if x[1] is None else x[1][..., :half]
    return x[0], jnp.zeros_like(x[0]) if x[1] is None else x[1]


def _along(x: Pair, axis: int, n: int, sign: int) -> Pair:
    """Transform one axis; inverse transforms (`sign` 1) are divided by n."""
    moved = [None if v is None else jnp.moveaxis(v, axis, -1) for v in x]
    out = _transform((moved[0], moved[1]), n, sign)
    re, im = (None if v is None else jnp.moveaxis(v, -1, axis) for v in out)
    return re, im


def _transform(x: Pair, n: int, sign: int) -> Pair:
    """The transform of the last axis.

    With j = j1 n2 + j2 and k = k1 + k2 n1, and w the n-th root of unity:
    X_k = sum_j2 (w^n1)^(j2 k2) w^(j2 k1) sum_j1 (w^n2)^(j1 k1) x_j.
    """
    n1 = _divisor(n)
    if n <= 1:
        return x
    if n1 == 1:
        out = _times(x, *_roots(np.arange(n), np.arange(n), n, sign))
        return _scaled(out, 1 / n) if sign > 0 else out
    n2 = n // n1
    rows = _each(x, lambda v: v.reshape(*v.shape[:-1], n1, n2).swapaxes(-1, -2))
    rows = _transform(rows, n1, sign)  # [..., j2, k1]
    rows = _product(rows, *_roots(np.arange(n2), np.arange(n1), n, sign))
    rows = _transform(_each(rows, lambda v: v.swapaxes(-1, -2)), n2, sign)
    return _each(rows, lambda v: v.swapaxes(-1, -2).reshape(*v.shape[:-2], n))


def _divisor(n: int) -> int:
    """The divisor n1 of n to split by, 1 where n is short or prime."""
    if n <= _WHOLE:
        return 1
    return max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)


def _roots(rows: Any, columns: Any, n: int, sign: int) -> Pair:
    """cos and sin of 2 pi sign j k / n, public; large tables are computed on demand."""
    if len(rows) * len(columns) <= _WHOLE**2:
        angle = (2 * np.pi / n) * (np.outer(rows, columns) % n)
        return np.cos(angle), sign * np.sin(angle)
    jk = jnp.asarray(rows, np.uint32)[:, None] * jnp.asarray(columns, np.uint32) % n
    turns = jk.astype(np.float32) * np.float32(2 * np.pi / n)
    return jnp.cos(turns), sign * jnp.sin(turns)


def _times(x: Pair, cos: Any, sin: Any) -> Pair:
    """(re + i im) (cos + i sin) as matrices: one real product."""
    re, im = x
    numbers = np if isinstance(cos, np.ndarray) else jnp
    table = numbers.concatenate([cos, sin], 1)
    if im is not None:
        lower = numbers.concatenate([-sin, cos], 1)
        table, re = numbers.concatenate([table, lower], 0), jnp.concatenate(x, -1)
    out = jnp.matmul(re, table.astype(re.dtype))
    return out[..., : cos.shape[1]], out[..., cos.shape[1] :]


def _product(x: Pair, cos: Any, sin: Any) -> Pair:
    """Entry by entry with public numbers."""
    re, im = x
    cos, sin = (jnp.asarray(v, re.dtype) for v in (cos, sin))
    if im is None:
        return re * cos, re * sin
    return re * cos - im * sin, re * sin + im * cos


def _from_half(x: Pair, n: int) -> Any:
    """Real values from the first half of their transform along the last axis."""
    half, rest = n // 2 + 1, slice(1, n - n // 2)
    if n > _WHOLE:  # the other half are the conjugates, in reverse
        re, im = x[0], jnp.zeros_like(x[0]) if x[1] is None else x[1]
        re = jnp.concatenate([re, re[..., rest][..., ::-1]], -1)
        im = jnp.concatenate([im, -im[..., rest][..., ::-1]], -1)
        return _transform((re, im), n, +1)[0]
    cos, sin = _roots(np.arange(half), np.arange(n), n, +1)
    weight = np.ones((half, 1))
    weight[rest] = 2.0  # for an entry and its conjugate
    table = (
        weight * cos
        if x[1] is None
        else np.concatenate([cos, -sin]) * (np.concatenate([weight, weight]))
    )
    values = x[0] if x[1] is None else jnp.concatenate(x, -1)
    return jnp.matmul(values, table.astype(values.dtype)) * (1 / n)


def _scaled(x: Pair, by: float) -> Pair:
    return _each(x, lambda v: v * by)


def _each(x: Pair, fun: Callable[[Any], Any]) -> Pair:
    return fun(x[0]), None if x[1] is None else fun(x[1])


def fft(x: Any, *, fft_type: Any, fft_lengths: Sequence[int]) -> Any:
    """The primitive on a real or complex array."""
    pair = (lax.real(x), lax.imag(x)) if jnp.iscomplexobj(x) else (x, None)
    re, im = fft_pairs(pair, fft_type=fft_type, fft_lengths=fft_lengths)
    return re if im is None else lax.complex(re, im)


RULES: dict[str, Callable[..., Any]] = {"fft": fft}
