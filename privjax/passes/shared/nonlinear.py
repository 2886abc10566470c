"""Functions of one or two reals, by `protocols.functions`."""

from collections.abc import Callable
from typing import Any

from privjax.passes.shared.arithmetic import mul, operands
from privjax.passes.shared.values import SECRET, Fixed

RULES: dict[str, Callable[..., Any]] = {}
