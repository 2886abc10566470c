"""Rounds over Flower: a ClientApp and a ServerApp that carry privjax's messages.

    # client_app.py of a Flower app                 # server_app.py
    app = client_app("my_app.task:client")          app = server_app(main)

    # task.py                                       def main(network, config):
    def client(config):                                 fl.serve(ALGORITHM, PARAMS, network,
        return fl.participant(ALGORITHM, PARAMS,                 like=TYPES, rounds=20)
            load(config["partition-id"]))

`network(messages by node, seconds)` gives the replies of those who answered in time, and
`network.nodes()` says who is connected. What the messages are is not decided here
(`privjax.aggregation.remote`, `privjax.fl.deployed`); they travel as Flower arrays, in the
encoding of `wire`.

Flower starts a process per message. A client's program lives in another one that stays
(`resident`): it compiles once, and keeps the client's state for as long as its SuperNode
runs. Flower's simulation engine starts such a process per node too, which is not what it
is for: simulated clients run in one program here.

Needs `pip install privjax[flower]`; written for Flower 1.41, its public interface only.
"""

import importlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from privjax.errors import InputError, PrivacyError, ProtocolError
from privjax.runtimes.flower import wire
from privjax.runtimes.flower.resident import Address, Task, ask, start

Message = dict[str, np.ndarray]

_LOG = logging.getLogger(__name__)
_RECORD, _SCHEME = "privjax", "privjax.raw"
# Between looks at what has arrived, in seconds.
_PAUSE = 0.2


def flwr(module: str) -> Any:
    """One of Flower's modules. Raises InputError where Flower is not installed."""
    try:
        return importlib.import_module(f"flwr.{module}")
    except ImportError as error:
        raise InputError(
            f"clients over Flower need it: pip install 'privjax[flower]' ({error})."
        ) from error


def client_app(make: str, *, idle: float = 3600.0) -> Any:
    """A Flower `ClientApp`.

    Args:
      make: "module:function" of the app. The function is called once per node and run,
        in the process that stays, with the node's configuration and that of the run (a
        dictionary), and gives an object with `handle(message) -> message`, such as
        `privjax.fl.participant(...)`.
      idle: the client's process ends when it was not asked for so many seconds.

    Raises: InputError where Flower is not installed.
    """
    app = flwr("clientapp").ClientApp()
    reply_to = flwr("app").Message

    @app.train()
    def train(message: Any, context: Any) -> Any:
        blob = wire.pack(_arrays(message.content))
        answer = wire.unpack(_forwarded(blob, context, make, idle))
        return reply_to(_content(answer), reply_to=message)

    return app


def _forwarded(blob: bytes, context: Any, make: str, idle: float) -> bytes:
    """What the client's process answers; a new one where there is none."""
    run = str(context.run_id)
    found = dict(context.state.get(_RECORD, {}))
    if found.pop("run", None) == run:
        try:
            return _asked(Address(**found), blob)
        except (OSError, EOFError):
            _LOG.warning("the client's process has ended; a new one begins anew")
    config = {**context.run_config, **context.node_config}
    # The parent of this process is the one that the SuperNode starts clients with.
    address = start(Task(make, config, os.getppid(), idle))
    record = {**asdict(address), "run": run}
    context.state[_RECORD] = flwr("app").ConfigRecord(record)
    return _asked(address, blob)


def _asked(address: Address, blob: bytes) -> bytes:
    try:
        return ask(address, blob)
    except ProtocolError as error:
        # Flower tells the server what an exception says: its name is enough.
        raise ProtocolError(f"the client refused, or failed: {error}") from None


class Network:
    """The nodes of a run, and how to ask them.

    Args:  grid: Flower's, of the ServerApp.
    """

    def __init__(self, grid: Any) -> None:
        self.grid = grid
        self._message = flwr("app").Message

    def nodes(self) -> list[int]:
        """Who is connected."""
        return sorted(self.grid.get_node_ids())

    def __call__(
        self, messages: Mapping[int, Message], seconds: float, enough: int | None = None
    ) -> dict[int, Message]:
        """The replies that came in time; messages expire with it.

        Args:  enough: it does not wait for more replies than so many.
        """
        sent = [
            self._message(
                _content(m), dst_node_id=node, message_type="train", ttl=seconds
            )
            for node, m in messages.items()
        ]
        waiting = {i for i in self.grid.push_messages(sent) if i}
        until = time.monotonic() + seconds
        replies: dict[int, Message] = {}
        wanted = len(sent) if enough is None else enough
        while waiting and len(replies) < wanted and time.monotonic() < until:
            for reply in self.grid.pull_messages(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                node = reply.metadata.src_node_id
                try:
                    if reply.has_error():
                        raise ProtocolError(reply.error.reason)
                    if node in messages:
                        replies[node] = _arrays(reply.content)
                except PrivacyError as error:
                    _LOG.warning("node %s: %s", node, error)
            if waiting and len(replies) < wanted:
                time.sleep(_PAUSE)
        return replies


def server_app(main: Callable[[Network, dict[str, Any]], Any]) -> Any:
    """A Flower `ServerApp` that calls `main(network, configuration of the run)`.

    Raises: InputError where Flower is not installed.
    """
    app = flwr("serverapp").ServerApp()

    @app.main()
    def run(grid: Any, context: Any) -> None:
        main(Network(grid), dict(context.run_config))

    return app


def _content(message: Message) -> Any:
    """A message as Flower's record of arrays."""
    found = flwr("app")
    arrays = {
        name: found.Array(x.dtype.name, tuple(x.shape), _SCHEME, wire.raw(x))
        for name, x in message.items()
    }
    return found.RecordDict({_RECORD: found.ArrayRecord(arrays)})


def _arrays(content: Any) -> Message:
    """The message in Flower's record of arrays.

    Raises: ProtocolError where it is none.
    """
    record = content.get(_RECORD)
    if record is None or any(x.stype != _SCHEME for x in record.values()):
        raise ProtocolError("a message that is not privjax's.")
    return {k: wire.array(x.dtype, x.shape, x.data) for k, x in record.items()}


__all__ = ["Network", "client_app", "server_app"]
