"""The secret-sharing pass: from a program on arrays to what one party does."""

from privjax.passes.shared.interpreter import Shared
from privjax.passes.shared.values import Boolean, Fixed, Integer

__all__ = ["Boolean", "Fixed", "Integer", "Shared"]
