"""Discrete Fourier transforms as products with public matrices."""

from collections.abc import Callable
from typing import Any

RULES: dict[str, Callable[..., Any]] = {}
