"""Shamir's secret sharing of 256-bit keys, for many clients at once.

Shamir, "How to share a secret" (CACM 1979), word by word over GF(2^32): a random
polynomial of degree threshold - 1 whose constant term is the secret; holder number a
gets its value at a + 1. Any `threshold` shares give the secret, fewer are independent of
it. Recovery is a sum of shares with Lagrange's coefficients, of which the factors are
constants of the program; who answered is an array.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.aggregation.field import inverse, multiply
from privjax.errors import InputError


def points(holders: int) -> np.ndarray:
    """uint32[holders]: where the polynomial is evaluated; never 0, which is the secret."""
    return np.arange(1, holders + 1, dtype=np.uint32)


def share(secret: Array, coefficients: Array, holders: int) -> Array:
    """Values at `points(holders)` of the polynomials with these coefficients.

    Args:
      secret: uint32[...], the constant terms.
      coefficients: uint32[threshold - 1, ...], uniform and used once.

    Returns: uint32[holders, ...]
    """
    if coefficients.shape[1:] != secret.shape:
        raise InputError(
            f"coefficients of shape {coefficients.shape} for secrets of shape "
            f"{secret.shape}."
        )
    x = jnp.asarray(points(holders)).reshape(holders, *(1,) * secret.ndim)

    def horner(acc: Array, coefficient: Array) -> tuple[Array, None]:
        return multiply(acc ^ coefficient, x), None

    zero = jnp.zeros_like(secret, shape=(holders, *secret.shape))
    acc, _ = lax.scan(horner, zero, coefficients[::-1])
    return acc ^ secret


@functools.lru_cache(maxsize=8)
def _factors(holders: int) -> np.ndarray:
    """uint32[m, a]: x_m / (x_m - x_a), and 1 for a = m."""
    x = points(holders)
    difference = x[:, None] ^ x[None, :]
    factors = multiply(
        np.broadcast_to(x[:, None], difference.shape), inverse(difference)
    )
    return np.where(np.eye(holders, dtype=bool), np.uint32(1), factors)


def weights(present: Array) -> Array:
    """Lagrange's coefficients at 0 of the holders that answered, 0 for the others.

    Args:  present: bool[..., holders].
    Returns: uint32[..., holders]
    """
    holders = present.shape[-1]

    def step(acc: Array, xs: tuple[Array, Array]) -> tuple[Array, None]:
        here, row = xs
        return multiply(acc, jnp.where(here[..., None], row, np.uint32(1))), None

    one = jnp.ones_like(present, dtype=np.uint32)
    rows = jnp.moveaxis(present, -1, 0), jnp.asarray(_factors(holders))
    acc, _ = lax.scan(step, one, rows)
    return jnp.where(present, acc, np.uint32(0))


def recover(shares: Array, present: Array) -> Array:
    """The secrets from the shares of those who answered; all of them are used.

    Args:
      shares: uint32[..., holders, words]; those of absent holders count for nothing.
      present: bool[..., holders]. Fewer than `threshold` give a wrong secret.

    Returns: uint32[..., words]
    """
    parts = multiply(shares, weights(present)[..., None])
    return lax.reduce_xor(parts, (parts.ndim - 2,))
