"""Gathers, scatters and slices at secret indices, obliviously."""

from collections.abc import Callable
from typing import Any

# Primitive -> (position of the first index operand, rule).
INDEXED: dict[str, tuple[int, Callable[..., Any]]] = {}
