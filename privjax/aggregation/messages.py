"""What the messages of a round are made of: NumPy arrays by name, checked when read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from privjax.errors import ProtocolError

Message = dict[str, np.ndarray]
# Messages by node, seconds, how many replies are enough (None: all) -> replies by node.
Exchange = Callable[[Mapping[int, Message], float, int | None], Mapping[int, Message]]


def need(message: Message, name: str) -> np.ndarray:
    """A message's array. Raises ProtocolError where there is none of this name."""
    if name not in message:
        raise ProtocolError(f"a message without `{name}`.")
    return message[name]


def number(n: int) -> np.ndarray:
    """An integer as an array."""
    return np.asarray(n, np.int64)


def whole(message: Message, name: str) -> int:
    """The integer of this name. Raises ProtocolError where it is none."""
    x = need(message, name)
    if x.shape != () or x.dtype.kind not in "iu":
        raise ProtocolError(f"`{name}` of a message is no integer.")
    return int(x)


def named(name: str, xs: Sequence[Any]) -> Message:
    """A list of arrays under one name."""
    return {f"{name}/{k}": np.asarray(x) for k, x in enumerate(xs)}


def listed(message: Message, name: str) -> list[np.ndarray]:
    """The arrays that `named` put there."""
    count = sum(key.startswith(f"{name}/") for key in message)
    return [need(message, f"{name}/{k}") for k in range(count)]


def typed(xs: Sequence[np.ndarray], types: Sequence[Any]) -> list[np.ndarray]:
    """The same arrays. Raises ProtocolError for other shapes or types."""
    found = [(x.shape, x.dtype) for x in xs]
    wanted = [(tuple(t.shape), np.dtype(t.dtype)) for t in types]
    if found != wanted:
        raise ProtocolError(f"sent {found[:3]}, not {wanted[:3]}.")
    return list(xs)


def finite(xs: list[np.ndarray]) -> list[np.ndarray]:
    """The same arrays. Raises ProtocolError where one is not finite."""
    if not all(np.isfinite(x).all() for x in xs):
        raise ProtocolError("sent values that are not finite")
    return xs
