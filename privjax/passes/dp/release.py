"""`release`: the user asks for one more sum to be let out, with noise.

The marker stands for a sum over units that is clipped and noised at that place and counts
as public afterwards, also in what is computed per unit: a second round. It takes a share
of the step's privacy budget, so that the step as a whole keeps its noise multiplier z: a
release with the share s has the multiplier z / sqrt(s), and Gaussian mechanisms of
multipliers z_k compose, also adaptively, to one of (sum of z_k^-2)^(-1/2) (Dong, Roth and
Su 2022, "Gaussian differential privacy").
"""

import math

import jax.numpy as jnp
from jax.interpreters import ad, batching

from privjax._typing import Array
from privjax.core.markers import marker
from privjax.errors import DifferentiationError, InputError

release_p = marker("release", lambda x, **_: x, lambda x, **_: x)


def _batch(args: tuple, dims: tuple, **params: object) -> tuple:
    return release_p.bind(*args, **params), dims[0]


def _refuse(*_: object, **__: object) -> None:
    raise DifferentiationError(
        "privjax.release is differentiated; apply jax.lax.stop_gradient to its operand."
    )


batching.primitive_batchers[release_p] = _batch
ad.primitive_jvps[release_p] = _refuse


def release(x: Array, bound: float, share: float = 0.1) -> Array:
    """A sum (or mean) over units that a differentially private step may let out.

    Outside of `differentially_private` it is `x` itself.

    Args:
      x: a sum over units, of floating-point type; a mean is one, too.
      bound: how far, in Euclidean norm, one unit may move `x`; larger contributions are
        scaled down to it. For the mean of hits over 256 units it is 1 / 256.
      share: this release's part of the step's privacy budget, between 0 and 1; all
        shares together must stay below 1. Its noise has the standard deviation
        bound * noise_multiplier / sqrt(share).

    Raises:
      InputError: bound or share is not a positive number, or x is not floating-point.
    """
    if not 0 < bound < math.inf or not 0 < share <= 1:
        raise InputError(
            f"release needs bound > 0 and 0 < share <= 1: {bound}, {share}."
        )
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"release: noise is added to real numbers, not {x.dtype}.")
    return release_p.bind(x, bound=float(bound), share=float(share))
