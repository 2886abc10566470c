"""An Optax transformation for those who have per-example gradients already.

    optimiser = optax.chain(
        privjax.dp.privatize(clip_norm=1.0, noise_multiplier=1.1, denominator=256,
                             key=privjax.random.key()),
        optax.adam(1e-3),
    )

`privjax.differentially_private` needs no per-example gradients and checks the rest of the
program as well; this one trusts the caller that row i depends on unit i only.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]

from privjax._typing import Array, PyTree
from privjax.dp.correlated import BandedToeplitz, TreeAggregation
from privjax.errors import InputError
from privjax.passes.dp.mechanisms import Gaussian
from privjax.prg.chacha20 import Purpose, derive
from privjax.prg.keys import key_words
from privjax.prg.session import session


class PrivatizeState(NamedTuple):
    """The key's words, the steps so far, and the state of correlated noise (or None).

    It holds the noise's key: whoever reads it can remove the noise.
    """

    key: Array
    steps: Array
    noise: Any


def clipped_sum(
    grads: PyTree, clip_norm: float, mask: Array | None = None
) -> tuple[PyTree, Array]:
    """Sum over axis 0 of contributions scaled to a joint norm of at most `clip_norm`.

    Args:
      grads: a pytree of arrays [units, ...]: one contribution per unit.
      mask: [units]; units with 0 are left out.

    Returns: the sums, and the norms before clipping, float32[units]. A unit with a value
      that is not finite contributes 0.
    """
    leaves, tree = jax.tree.flatten(grads)
    wide = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in leaves]
    squares = [jnp.sum(jnp.square(x.reshape(x.shape[0], -1)), axis=1) for x in wide]
    norms = jnp.sqrt(sum(squares))
    keep = jnp.isfinite(norms)
    if mask is not None:
        keep &= mask != 0
    scale = jnp.minimum(1.0, clip_norm / jnp.maximum(norms, 1e-30))
    scale = jnp.where(keep, scale, 0)

    def total(x: Array, dtype: Any) -> Array:
        weight = scale.reshape(-1, *[1] * (x.ndim - 1))
        kept = jnp.where(weight > 0, x, 0)
        return jnp.sum(kept * weight, axis=0).astype(dtype)

    sums = [total(x, y.dtype) for x, y in zip(wide, leaves, strict=True)]
    return jax.tree.unflatten(tree, sums), norms


def privatize(
    clip_norm: float,
    noise_multiplier: float,
    *,
    denominator: float,
    key: Any,
    correlated: TreeAggregation | BandedToeplitz | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip, sum, noise and divide per-example gradients.

    Args:
      clip_norm: bound on the Euclidean norm of one example's gradient over all leaves.
      noise_multiplier: standard deviation over `clip_norm`; 0 adds none.
      denominator: a fixed number to divide by, such as the expected batch size.
      key: `privjax.random.key()`; kept in the optimiser's state.
      correlated: noise that is correlated over steps, instead; it must be made with
        this `clip_norm` and `noise_multiplier`.

    Returns: an Optax transformation whose `update` takes gradients with an axis of
      examples in front and optionally `mask=`, and gives one gradient. Charge
      `.mechanism`'s or `correlated`'s event to a ledger, by way of the sampler.
    """
    if not (0 < clip_norm < math.inf and 0 < denominator < math.inf):
        raise InputError(
            f"clip_norm={clip_norm} and denominator={denominator} must be positive."
        )
    if not 0 <= noise_multiplier < math.inf:
        raise InputError(f"noise_multiplier={noise_multiplier} is not at least 0.")
    if correlated is not None and (
        correlated.clip_norm != clip_norm
        or correlated.noise_multiplier != noise_multiplier
    ):
        raise InputError("the correlated noise is for another clip norm or multiplier.")
    words = key_words(key)

    def init(params: PyTree) -> PrivatizeState:
        state = None if correlated is None else correlated.start(words)
        return PrivatizeState(jnp.asarray(words), jnp.zeros((), np.uint32), state)

    def update(
        grads: PyTree,
        state: PrivatizeState,
        params: PyTree | None = None,
        *,
        mask: Array | None = None,
        **_: Any,
    ) -> tuple[PyTree, PrivatizeState]:
        sums, _norms = clipped_sum(grads, clip_norm, mask)
        leaves, tree = jax.tree.flatten(sums)
        noise = state.noise
        if correlated is not None:
            noise, leaves = correlated.step(noise, leaves)
        elif noise_multiplier > 0:
            mechanism = Gaussian.of(
                noise_multiplier, clip_norm, sum(x.size for x in leaves)
            )
            mine = derive(state.key, (Purpose.CALL, state.steps, 0))
            leaves = mechanism.apply(session(mine, *leaves, context="optax"), leaves)
        averages = [x / jnp.asarray(denominator, x.dtype) for x in leaves]
        after = PrivatizeState(state.key, state.steps + np.uint32(1), noise)
        return jax.tree.unflatten(tree, averages), after

    return optax.GradientTransformationExtraArgs(init, update)
