"""Type names that several layers share."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

Array = jax.Array
PyTree = Any
Shape = Sequence[int]
Function = Callable[..., Any]

__all__ = ["Array", "Function", "PyTree", "Shape"]
