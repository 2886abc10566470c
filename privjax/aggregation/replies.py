"""What the server of a round sends to single clients, and what it makes of replies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from privjax.aggregation.clients import Server
from privjax.aggregation.messages import Message, need, number, typed
from privjax.errors import InputError, PrivacyError, ProtocolError


@dataclass(frozen=True)
class Answers:
    """What a round gave.

    Attributes:
      sums: over the clients that were counted.
      rows: what they sent as it is, [clients, ...] each.
      nodes: who they are.
      lost: by node, in words, why the others that were asked were not.
    """

    sums: list[np.ndarray]
    rows: list[np.ndarray]
    nodes: tuple[int, ...]
    lost: dict[int, str]


def welcome(server: Server) -> Callable[[int], Message]:
    """The message of step `share`, by a client's number."""

    def message(i: int) -> Message:
        found = server.welcome(i)
        return {
            "i": number(found.number),
            "clients": number(found.clients),
            "neighbours": found.neighbours,
            "keys": found.keys,
            "public": found.public,
        }

    return message


def mail(server: Server) -> Callable[[int], Message]:
    """The message of step `mask`, by a client's number."""

    def message(i: int) -> Message:
        found = server.mail(i)
        return {"sealed": found.sealed, "present": found.present}

    return message


def advertised(
    replies: Mapping[int, Message], shape: tuple[int, ...], lost: dict[int, str]
) -> dict[int, np.ndarray]:
    """The public keys of those who trained, by node."""
    keys: dict[int, np.ndarray] = {}
    wanted = jax.ShapeDtypeStruct(shape, np.uint32)
    for node, reply in replies.items():
        try:
            (keys[node],) = typed([need(reply, "keys")], [wanted])
            del lost[node]
        except PrivacyError as error:
            lost[node] = str(error)
    return keys


def too_few(
    method: Any, clients: int, error: InputError, lost: Mapping[int, str]
) -> ProtocolError:
    return ProtocolError(
        f"only {clients} clients answered, which {method} does not allow ({error}); "
        f"{reasons(lost)}. Run the round again."
    )


def reasons(lost: Mapping[int, str]) -> str:
    """Why nodes are lost, for messages."""
    return "; ".join(f"node {n}: {why}" for n, why in lost.items()) or "nobody is lost"
