"""Share values: one party's part of a secret, with what it may use twice.

What a share is made of is its protocol's own business: a ring array, a pair of them, a
share with its MAC. `value` is a pytree; moving entries about (transposes, slices,
concatenations) acts on its leaves, or by its method `moved` where it has one (leaves may
have axes of their own). Sums are the protocol's: `Protocol.additive`.

A mask that was opened for one product serves every further product of the same value,
also of its transposes and reshapes: the opened difference is public anyway. These memos
live on the Python object only; they never cross into a loop body or out of a trace.
"""

from collections.abc import Callable
from typing import Any, Self

import jax


class Share:
    """One party's share of a secret array."""

    def __init__(self, value: Any, origin: Any = None) -> None:
        self.value = value
        self._origin = origin  # (parent, function of its leaves) or None
        self._mask: tuple[Any, Any] | None = None
        self.memo: dict[Any, Any] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        own = getattr(self.value, "shape", None)
        return tuple(jax.tree.leaves(self.value)[0].shape if own is None else own)

    def moved(self, fun: Callable[[Any], Any]) -> Self:
        """Some of the entries, in some order; the result has a mask of its own."""
        return type(self)(_moved(fun, self.value))

    def rearranged(self, fun: Callable[[Any], Any]) -> Self:
        """A transpose, reshape or broadcast: keeps the use of one mask."""
        return type(self)(_moved(fun, self.value), (self, fun))

    def masked(self, make: Callable[[Any], tuple[Any, Any]]) -> tuple[Any, Any]:
        """The mask's share and the opened masked value; `make` opens a fresh one."""
        if self._mask is None:
            if self._origin is None:
                self._mask = make(self.value)
            else:
                parent, fun = self._origin
                mask, opened = parent.masked(make)
                self._mask = _moved(fun, mask), _moved(fun, opened)
        return self._mask

    def tree_flatten(self) -> Any:
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> Self:
        return cls(children[0])


@jax.tree_util.register_pytree_node_class
class Arith(Share):
    """One party's share (additive in most protocols, mod 2^k) of a ring array."""


@jax.tree_util.register_pytree_node_class
class Bit(Share):
    """One party's share of an array of bits: of uint8 only the lowest bit counts."""


@jax.tree_util.register_pytree_node_class
class Word(Share):
    """One party's share of the k bits of every element of a ring array.

    Only the protocol looks inside: leaves may have axes for the bits.
    """


def moved(fun: Callable[..., Any], *shares: Any) -> Any:
    """A function of several shares of one kind that only moves entries about."""
    return type(shares[0])(_moved(fun, *(s.value for s in shares)))


def _moved(fun: Callable[..., Any], value: Any, *others: Any) -> Any:
    own = getattr(value, "moved", None)
    return jax.tree.map(fun, value, *others) if own is None else own(fun, *others)
