"""Cutting and joining arrays between the compiled steps of a protocol.

Outside of a trace this is NumPy's work: JAX would compile every slice of every shape.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax import _compat
from privjax._typing import Array


def host(tree: Any) -> Any:
    """NumPy arrays for all that is not being traced."""
    return jax.tree.map(
        lambda x: x if isinstance(x, _compat.Tracer) else np.asarray(x), tree
    )


def _module(arrays: Sequence[Any]) -> Any:
    return jnp if any(isinstance(x, _compat.Tracer) for x in arrays) else np


def concatenate(arrays: Sequence[Any]) -> Array:
    """Along the first axis."""
    return _module(arrays).concatenate(arrays)


def stack(arrays: Sequence[Any], axis: int = 0) -> Array:
    return _module(arrays).stack(arrays, axis)


def wide(x: Any) -> Array:
    """Unsigned numbers below 2^64 as uint64[..., 2]."""
    x = x.astype(np.uint64)
    return stack([x, x & np.uint64(0)], -1)


def wider(words: Any) -> Array:
    """uint32[2 n], the low half first -> uint64[n]."""
    low, high = (words[i::2].astype(np.uint64) for i in (0, 1))
    return low | high << np.uint64(32)


def padded(x: Any, to: int) -> Array:
    """Zeros behind the first axis."""
    return _module([x]).pad(x, [(0, to - x.shape[0])] + [(0, 0)] * (x.ndim - 1))


def moved(x: Any, source: int, to: int) -> Array:
    return _module([x]).moveaxis(x, source, to)
