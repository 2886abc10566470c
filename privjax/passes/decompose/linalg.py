"""Factorisations and solutions of secret matrices."""

from collections.abc import Callable
from typing import Any

RULES: dict[str, Callable[..., Any]] = {}
