"""Gaussian noise on a grid, from ChaCha20, for releases that must not leak by rounding.

Noise that is added as floating-point numbers of full precision leaks: which numbers can
occur depends on the value that they are added to (Mironov, "On significance of the
least significant bits for differential privacy", CCS 2012), and JAX's float32 normal
has only 2^23 values. Here both the sum and the noise are integer multiples of a power
of two, the granularity, so that the released number carries no information but the
integer sum itself. What is left is how close the law of the noise is to a Gaussian.

Construction. With granularity g and a coarse step w = 2^m g, 64 <= sigma / w < 128,

    noise = w * round(sigma / w * Z) + g * (U + U' - (2^m - 1)),

Z normal by inversion of its distribution function at 42 random bits, U and U' uniform
on 0 ... 2^m - 1: linear interpolation of a finely sampled Gaussian. The coarse part is
a short computation in float32, whose rounding moves the border of a coarse cell by
about 2^-16 of its width; round(sigma / g * Z) at once would move that of a *fine* cell
by as much as 2^-6 of its width, which in a million coordinates an adversary can see.

Guarantee. The noise is symmetric and independent for different nonces; its variance
lies between sigma^2 and 1.0001 sigma^2. Its law is that of a Gaussian of this variance,
rounded to the grid, up to relative errors of the probabilities whose mean square is at
most 2^-31 (which bounds the Kullback-Leibler divergence per coordinate), the largest
being 2^-10 within 5 sigma. Beyond, probabilities are multiples of 2^-42; what lies
beyond 7.09 sigma, of mass 2^-42, is folded into the last value.
The variance is larger where the granularity is coarser than sigma / 64: rounding adds
granularity^2 / 12.
The tests compute these errors, cell by cell. It is not the exact discrete Gaussian of
Canonne, Kamath and Steinke (2020).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array, Shape
from privjax.errors import InputError
from privjax.prg.chacha20 import Nonce
from privjax.prg.pieces import drawn

# Words of a keystream for a number.
WORDS = 2
# Bits of each of the two uniform parts, at most; the rest of 64 bits is for Z.
_FINE_BITS = 11
# Exponent of the lower bound on sigma / w.
_COARSE_BITS = 6

# z / x as a polynomial, where x = erf(z / sqrt 2) and w = -log(1 - x^2): least relative
# error (2e-7 and 7e-7 in float32) on w <= 5 in the variable w - 2.5, and on 5 <= w <=
# 29 in the variable sqrt(w) - 3.75. Highest power first.
_SPLIT, _CENTRE, _TAIL = 5.0, 2.5, 3.75
_COEFFICIENTS = (
    (4.0335326190188425e-08, 2.8432730687200092e-05),
    (4.862876039624098e-07, -0.0001733956451062113),
    (-4.9901641432370525e-06, 0.00034849022631533444),
    (-6.219431725185132e-06, -0.00035532735637389123),
    (0.00030914839589968324, 0.0006377610843628645),
    (-0.0017730069812387228, -0.0018222499638795853),
    (-0.005908170249313116, 0.002953566377982497),
    (0.3488026559352875, 1.4264862537384033),
    (2.1233136653900146, 5.0734944343566895),
)


def _f32(value: float) -> np.float32:
    return np.float32(value)


def _normal(q: Array, negative: Array) -> Array:
    """The normal whose absolute value exceeds its own with probability q in (0, 1]."""
    x = _f32(1) - q
    w = -jnp.log(q * (_f32(2) - q))
    tail = w > _f32(_SPLIT)
    v = jnp.where(tail, jnp.sqrt(w) - _f32(_TAIL), w - _f32(_CENTRE))
    ratio = jnp.where(tail, _f32(_COEFFICIENTS[0][1]), _f32(_COEFFICIENTS[0][0]))
    for low, high in _COEFFICIENTS[1:]:
        ratio = ratio * v + jnp.where(tail, _f32(high), _f32(low))
    return jnp.where(negative, -x, x) * ratio


def _exponent(x: Array) -> Array:
    """floor(log2 x) of a positive float32."""
    return lax.bitcast_convert_type(x, np.int32) // np.int32(2**23) - np.int32(127)


def _power(exponent: Array) -> Array:
    """2^exponent as float32, exactly, for exponents in -126 ... 127."""
    return lax.bitcast_convert_type((exponent + 127) * np.int32(2**23), np.float32)


def default_granularity(sigma: Any) -> Array:
    """2^(floor(log2 sigma) - 17): sigma is 2^17 to 2^18 steps of the grid.

    Fine enough for the sum's own rounding: it adds sqrt(d) steps to the sensitivity,
    which is at most 0.8 % of sigma for d = 10^6 coordinates. Noise up to 7 sigma, and
    sums up to 64 sigma, are exact multiples in float32 (2^24 steps).
    """
    return _power(_exponent(jnp.asarray(sigma, np.float32)) - 17)


def _check(sigma: Any, granularity: Any) -> None:
    """What can be seen before tracing: a finite sigma, a power of two in range."""
    if isinstance(sigma, jax.core.Tracer) or isinstance(granularity, jax.core.Tracer):
        return
    if not (np.isfinite(sigma) and 2.0**-100 <= sigma <= 2.0**100):
        raise InputError(f"sigma must be in [2^-100, 2^100], not {sigma}.")
    if granularity is None:
        return
    mantissa, _ = np.frexp(granularity)
    if not (granularity > 0 and mantissa == 0.5):
        raise InputError(f"granularity must be a power of two, not {granularity}.")
    most = 2.0 ** (_FINE_BITS + _COARSE_BITS)
    if not 1 <= sigma / granularity < 2 * most:
        raise InputError(
            f"granularity {granularity} must be in (sigma * 2^-18, sigma]; "
            f"sigma is {sigma}."
        )


def gaussian_on_grid(
    key: Array, nonce: Nonce, shape: Shape, sigma: Any, granularity: Any = None
) -> Array:
    """Gaussian noise whose values are integer multiples of `granularity`.

    Args:
      key, nonce: uint32[8] and three words, as in `keystream` (purpose `NOISE`).
      shape: static.
      sigma: standard deviation, a positive scalar, traced or not.
      granularity: a power of two, at most sigma and more than sigma * 2^-18, traced or
        not; None chooses `default_granularity(sigma)`.

    Returns:
      float32[shape], exact multiples of the granularity; see the module's guarantee.

    Raises:
      InputError: sigma or granularity, where their values are known, are out of range.
    """
    return drawn(key, nonce, shape, WORDS, gaussian_from_words(sigma, granularity))


def gaussian_from_words(
    sigma: Any, granularity: Any = None
) -> Callable[[Array], Array]:
    """What makes `gaussian_on_grid` of uniform words: uint32[WORDS, n] -> float32[n]."""
    _check(sigma, granularity)
    sigma = jnp.asarray(sigma, np.float32)
    if granularity is None:
        granularity = default_granularity(sigma)
    grid = jnp.asarray(granularity, np.float32)
    fine = jnp.clip(_exponent(sigma) - _exponent(grid) - _COARSE_BITS, 0, _FINE_BITS)
    step = grid * _power(fine)

    return partial(_on_grid, scale=sigma / step, fine=fine, grid=grid)


def _on_grid(words: Array, scale: Array, fine: Array, grid: Array) -> Array:
    """From uint32[2, n]; a coarse step is 2^fine steps of the grid."""
    high, low = words
    # |Z| from 31 + 10 bits, in the middle of their cell of (0, 1]; its sign from one.
    upper = (high >> np.uint32(1)).astype(np.int32).astype(np.float32)
    lower = (low & np.uint32(2**10 - 1)).astype(np.int32).astype(np.float32)
    q = upper * _f32(2.0**-31) + (lower + _f32(0.5)) * _f32(2.0**-41)
    z = _normal(q, (high & np.uint32(1)) != 0)
    coarse = jnp.round(z * scale).astype(np.int32)
    # Two uniforms of `fine` bits from the upper 22 bits of the second word.
    drop = (_FINE_BITS - fine).astype(np.uint32)
    mask = np.uint32(2**_FINE_BITS - 1)
    one = (low >> np.uint32(10) & mask) >> drop
    two = (low >> np.uint32(10 + _FINE_BITS)) >> drop
    spread = (one + two).astype(np.int32) - ((np.int32(1) << fine) - 1)
    return ((coarse << fine) + spread).astype(np.float32) * grid


def round_to_grid(x: Array, granularity: Any) -> Array:
    """The nearest multiples of `granularity` (a power of two), ties to even.

    Round a sum before adding noise of the same granularity: sum and noise are then
    integers times g, their float32 sum is a function of that integer alone (exact below
    2^24 g, rounded once above), and it cannot tell more than the integer does. Each
    coordinate moves by at most g / 2: see `sensitivity_on_grid`.

    Returns: an array of x's shape and floating type.
    """
    grid = jnp.asarray(granularity, x.dtype)
    return jnp.round(x / grid) * grid


def sensitivity_on_grid(sensitivity: float, size: int, granularity: float) -> float:
    """Euclidean sensitivity of a sum of `size` coordinates after `round_to_grid`.

    Two neighbouring sums, each rounded, differ by at most g more in every coordinate:
    sensitivity + sqrt(size) g.
    """
    return float(sensitivity + np.sqrt(size) * granularity)
