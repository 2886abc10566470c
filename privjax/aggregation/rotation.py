"""A random rotation that makes every coordinate small: H D x, Hadamard times signs.

A vector of norm C in d dimensions may have one coordinate of size C; after D, uniform
signs, and the normalised Hadamard matrix H each coordinate is sub-Gaussian of variance
C^2 / d (Suresh et al., "Distributed mean estimation with limited communication", ICML
2017, section 3; Ailon and Chazelle 2009). A quantiser then needs a range that is sqrt(d)
times smaller. All clients of a round use the same signs, so that sums are rotated back
once; the signs are public.

Instead of padding d to a power of two, the matrix of size n = 2^m, n <= d < 2 n, acts on
the first n coordinates and then on the last n: every coordinate of the result is
sub-Gaussian of variance C^2 / n, and norms are kept.
"""

import math

import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.prg.chacha20 import Purpose, bits

# A Hadamard matrix is a tensor power; factors of 2^6 keep its products small and square.
_FACTOR = 6


def window(size: int) -> int:
    """n of the module docstring for `size` coordinates; 1 for none."""
    return 1 << max(0, size.bit_length() - 1)


def signs(key: Array, size: int) -> Array:
    """int8[2, n]: uniform signs of both steps, from uint32[8]."""
    n = window(size)
    words = bits(key, (Purpose.NOISE, 0, 0), (2, -(-n // 8)), np.uint8)
    at = np.arange(8, dtype=np.uint8)
    drawn = ((words[:, :, None] >> at) & np.uint8(1)).reshape(2, -1)[:, :n]
    return 1 - 2 * drawn.astype(np.int8)


def rotate(x: Array, signs: Array) -> Array:
    """float[..., size] -> the same, rotated."""
    n = signs.shape[1]
    x = jnp.concatenate([hadamard(x[..., :n] * signs[0]), x[..., n:]], -1)
    rest = x.shape[-1] - n
    return jnp.concatenate([x[..., :rest], hadamard(x[..., rest:] * signs[1])], -1)


def rotate_back(x: Array, signs: Array) -> Array:
    """The inverse of `rotate`."""
    n = signs.shape[1]
    rest = x.shape[-1] - n
    x = jnp.concatenate([x[..., :rest], hadamard(x[..., rest:]) * signs[1]], -1)
    return jnp.concatenate([hadamard(x[..., :n]) * signs[0], x[..., n:]], -1)


def hadamard(x: Array) -> Array:
    """Normalised Walsh-Hadamard transform of the last axis, 2^m long; an involution."""
    size = x.shape[-1]
    order = size.bit_length() - 1
    factors = [_FACTOR] * (order // _FACTOR) + [order % _FACTOR] * (order % _FACTOR > 0)
    lead = x.shape[:-1]
    for factor in factors:
        # Each step transforms the foremost digit and moves it to the end.
        x = x.reshape(*lead, 1 << factor, size >> factor)
        matrix = jnp.asarray(_matrix(factor), x.dtype)
        x = jnp.einsum("...ab,ac->...bc", x, matrix, precision="highest")
    return x.reshape(*lead, size) / np.sqrt(size).astype(x.dtype)


def _matrix(order: int) -> np.ndarray:
    out = np.ones((1, 1))
    for _ in range(order):
        out = np.block([[out, out], [out, -out]])
    return out


def reach(size: int, clients: int, probability: float) -> float:
    """The largest coordinate of rotated vectors of norm 1, but for this probability.

    Over `clients` vectors of `size` coordinates: a union of sub-Gaussian tails; at most 1.
    """
    tail = 2 * math.log(2 * size * clients / probability)
    return min(1.0, math.sqrt(tail / window(size)))
