"""Elementary and special functions in terms of those with protocols of their own."""

from collections.abc import Callable
from typing import Any

RULES: dict[str, Callable[..., Any]] = {}
