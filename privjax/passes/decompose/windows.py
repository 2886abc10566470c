"""Reductions over windows beyond sums and max pooling."""

from collections.abc import Callable
from typing import Any

RULES: dict[str, Callable[..., Any]] = {}
