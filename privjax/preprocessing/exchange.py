"""Two parties that take turns: protocols as generators, and the two ways to run them.

One party's side of a protocol is a generator. It yields what it sends and receives what
the other party sent in the same round; its return value is the party's output:

    def swap(mine):
        theirs = yield mine
        return theirs

Sides compose by `yield from`. `run` drives both sides in one process, eagerly or while
tracing, and counts; `drive` runs one side and hands its messages to a function that
carries them (a socket, say). A message is a pytree of arrays, or None for "nothing to
say in this round". Both open the 64-bit scope around the protocol's code.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax

from privjax.errors import ProtocolError

Message = Any
T = TypeVar("T")
Side = Generator[Message, Message, T]


@dataclass(frozen=True)
class Cost:
    """What travelled: rounds, messages and bytes sent by party 0 and by party 1.

    Both parties send at the same time: a round takes one latency.
    """

    rounds: int = 0
    messages: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)

    def after(self, first: Message, second: Message) -> "Cost":
        """The cost with one more round."""
        sizes = message_bytes(first), message_bytes(second)
        return Cost(
            self.rounds + 1,
            (
                self.messages[0] + (first is not None),
                self.messages[1] + (second is not None),
            ),
            (self.bytes[0] + sizes[0], self.bytes[1] + sizes[1]),
        )


def message_bytes(message: Message) -> int:
    """The payload: no framing, no headers."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(message))


def _step(side: Side[T], received: Message) -> tuple[bool, Any]:
    """(True, the next message) or (False, the output)."""
    try:
        return True, side.send(received)
    except StopIteration as end:
        return False, end.value


def run(first: Side[Any], second: Side[Any]) -> tuple[Any, Any, Cost]:
    """Both sides in this process, round by round.

    Returns: party 0's output, party 1's output, and the cost.

    Raises:
      ProtocolError: one side ends while the other goes on.
    """
    cost = Cost()
    with jax.enable_x64(True):
        going, a = _step(first, None)
        other, b = _step(second, None)
        while going and other:
            cost = cost.after(a, b)
            (going, a), (other, b) = _step(first, b), _step(second, a)
    if going or other:
        raise ProtocolError("the two sides of a protocol have different lengths.")
    return a, b, cost


def drive(side: Side[T], carry: Callable[[Message], Message]) -> T:
    """One side: `carry` sends a message and returns what the other party sent."""
    with jax.enable_x64(True):
        going, message = _step(side, None)
    while going:
        received = carry(message)
        with jax.enable_x64(True):
            going, message = _step(side, received)
    return message


def together(sides: Sequence[Side[T]]) -> Side[list[T]]:
    """Several protocols in the same rounds: as many as the longest of them takes.

    Both parties must list the same protocols in the same order.
    """
    states = [_step(side, None) for side in sides]
    while any(going for going, _ in states):
        received = yield [message if going else None for going, message in states]
        if not isinstance(received, list) or len(received) != len(states):
            raise ProtocolError("the other party runs other protocols.")
        states = [
            _step(side, message) if state[0] else state
            for side, state, message in zip(sides, states, received, strict=True)
        ]
    return [output for _, output in states]
