"""Share values: one party's part of a secret, with what it may use twice.

A mask that was opened for one product serves every further product of the same value,
also of its transposes and reshapes: the opened difference is public anyway. These memos
live on the Python object only; they never cross into a loop body or out of a trace.
"""

from collections.abc import Callable
from typing import Any

import jax


class _Masked:
    """A share and, lazily, its mask: `masked()` gives (mask share, opened difference)."""

    def __init__(self, value: Any, origin: Any = None) -> None:
        self.value = value
        self._origin = origin  # (parent, function of its value) or None
        self._mask: tuple[Any, Any] | None = None
        self.memo: dict[Any, Any] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def masked(self, make: Callable[[Any], tuple[Any, Any]]) -> tuple[Any, Any]:
        """The mask's share and the opened masked value; `make` opens a fresh one."""
        if self._mask is None:
            if self._origin is None:
                self._mask = make(self.value)
            else:
                parent, fun = self._origin
                mask, opened = parent.masked(make)
                self._mask = fun(mask), fun(opened)
        return self._mask


class Arith(_Masked):
    """One party's additive share (mod 2^k) of a ring array."""

    def rearranged(self, fun: Callable[[Any], Any]) -> "Arith":
        """A transpose, reshape or broadcast: keeps the use of one mask."""
        return Arith(fun(self.value), (self, fun))

    def tree_flatten(self) -> Any:
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> "Arith":
        return cls(children[0])


class Bit(_Masked):
    """One party's XOR share of an array of bits: uint8, only the lowest bit counts."""

    def rearranged(self, fun: Callable[[Any], Any]) -> "Bit":
        """A transpose, reshape or broadcast: keeps the use of one mask."""
        return Bit(fun(self.value), (self, fun))

    def tree_flatten(self) -> Any:
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> "Bit":
        return cls(children[0])


jax.tree_util.register_pytree_node(Arith, Arith.tree_flatten, Arith.tree_unflatten)
jax.tree_util.register_pytree_node(Bit, Bit.tree_flatten, Bit.tree_unflatten)
