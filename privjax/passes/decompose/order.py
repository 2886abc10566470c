"""Sorting, ranking and selection by rank."""

from collections.abc import Callable
from typing import Any

RULES: dict[str, Callable[..., Any]] = {}
