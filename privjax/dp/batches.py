"""Rows of data as batches of a static shape, without TensorFlow.

Data are a pytree of arrays with units on axis 0 (NumPy or JAX), or a random-access
source, something with `len()` and `[i]` that gives one unit's pytree, as lists of
examples and data-loader libraries have it. Batches that may be smaller than their room
are padded with zeros and carry a mask, which is as private as the rows are.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import jax
import numpy as np

from privjax.errors import InputError


def is_source(data: Any) -> bool:
    """Whether `data` is a random-access source of units."""
    arrays = hasattr(data, "shape") or isinstance(data, dict | tuple)
    return not arrays and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def size(data: Any) -> int:
    """How many units the data have. Raises: InputError where arrays disagree."""
    if is_source(data):
        return len(data)
    leaves = jax.tree.leaves(data)
    sizes = {np.shape(x)[0] if np.ndim(x) else -1 for x in leaves}
    if len(sizes) != 1 or -1 in sizes:
        raise InputError(
            f"data must have units on axis 0 of every array, equally many: "
            f"{[np.shape(x) for x in leaves]}."
        )
    return int(sizes.pop())


def take(data: Any, rows: np.ndarray, mask: np.ndarray) -> Any:
    """The rows, with zeros where the mask is 0, as NumPy arrays of `len(rows)` units."""
    if is_source(data):
        found = [data[int(i)] for i in rows]
        batch = jax.tree.map(lambda *xs: np.stack(xs), *found)
    else:
        batch = jax.tree.map(lambda x: np.asarray(x)[rows], data)
    if mask.all():
        return batch
    keep = mask.astype(bool)
    return jax.tree.map(lambda x: _padded(x, keep), batch)


def _padded(x: np.ndarray, keep: np.ndarray) -> np.ndarray:
    wide = keep.reshape(-1, *[1] * (x.ndim - 1))
    return np.where(wide, x, np.zeros((), x.dtype))


def with_mask(batch: Any, mask: np.ndarray, name: str | None) -> Any:
    """The batch with its mask: under `name` in a dictionary, else as a pair."""
    if name is None:
        return batch
    if isinstance(batch, dict):
        if name in batch:
            raise InputError(f"the data have a leaf {name!r} already: choose mask=.")
        return {**batch, name: mask}
    return batch, mask


def stacked(units: Iterable[Any], room: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Consecutive units of a stream as batches of `room`, the last one padded."""
    stream = iter(units)
    while found := list(islice(stream, room)):
        mask = (np.arange(room) < len(found)).astype(np.float32)
        padding = [jax.tree.map(np.zeros_like, found[0])] * (room - len(found))
        yield jax.tree.map(lambda *xs: np.stack(xs), *found, *padding), mask
