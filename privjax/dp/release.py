"""Applying a mechanism directly: `noised` for sums, `chosen` for selections.

For values that were computed outside of a `privjax.differentially_private` function,
where the caller vouches for their sensitivity. Nothing here checks it.
"""

from typing import Any

import jax
import jax.numpy as jnp

from privjax import _compat, random
from privjax._typing import Array, PyTree
from privjax.core import markers
from privjax.dp.selection import ReportNoisyMax
from privjax.errors import RandomKeyError
from privjax.prg.keys import key_words
from privjax.prg.session import session


def noised(value: PyTree, mechanism: Any, *, key: Any = None) -> PyTree:
    """`value` after the mechanism, drawn jointly for all leaves.

    Args:
      value: a pytree of arrays whose sensitivity is the one the mechanism was made for.
      mechanism: `Gaussian.of(...)`, `DiscreteLaplace.of(...)`, `RandomizedResponse(...)`,
        `AboveThreshold(...)` and so on. Charge it to a ledger: `ledger.spend(mechanism)`.
      key: `privjax.random.key()`; drawn from the operating system outside of traces.

    Returns: a pytree of the same structure, shapes and types.

    Raises: RandomKeyError under jit, vmap or scan without a key that is an argument.
    """
    leaves, tree = jax.tree.flatten(value)
    arrays = [jnp.asarray(x) for x in leaves]
    mine = _session(key, arrays, repr(mechanism))
    return jax.tree.unflatten(tree, markers.noise(mine, arrays, mechanism))


def chosen(scores: Array, mechanism: ReportNoisyMax, *, key: Any = None) -> Array:
    """The index of a (privately) greatest score, along the last axis; see `noised`."""
    scores = jnp.asarray(scores)
    return mechanism.select(_session(key, [scores], repr(mechanism)), scores)


def _session(key: Any, arrays: list[Array], context: str) -> Array:
    traced = _compat.under_trace() or any(isinstance(x, _compat.Tracer) for x in arrays)
    if key is None and not traced:
        key = random.key()
    if key is None or (_compat.under_trace() and not isinstance(key, _compat.Tracer)):
        raise RandomKeyError(
            "noise is drawn under jit, vmap, scan or another transformation without a "
            "key that is an argument of it: every call of the compiled program would "
            "repeat the noise. Pass key=privjax.random.key() into the outer function."
        )
    return session(key_words(key), *arrays, context=context)
