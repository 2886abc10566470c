"""Both apps over a stand-in for Flower's interface: what they use of it, and how.

The stand-in has the few names of Flower 1.41 that `privjax.runtimes.flower` uses;
`test_flower_loopback` has the real ones.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from privjax.errors import ProtocolError
from privjax.runtimes import flower

X = np.arange(3, dtype="f4")


@dataclass
class Array:
    dtype: str
    shape: tuple[int, ...]
    stype: str
    data: bytes


class Message:
    def __init__(self, content: Any, reply_to: Any = None, **about: Any) -> None:
        self.content, self.about = content, about
        self.error: Any = None
        self.metadata = SimpleNamespace()
        if reply_to is not None:
            self.metadata.reply_to_message_id = reply_to.name
            self.metadata.src_node_id = reply_to.about["dst_node_id"]

    def has_error(self) -> bool:
        return self.error is not None


class App:
    def __init__(self) -> None:
        self.fun: Any = None

    def _kept(self) -> Any:
        def keep(fun: Any) -> Any:
            self.fun = fun
            return fun

        return keep

    train = main = _kept


@dataclass
class Context:
    """A node's, or the server's."""

    run_id: int = 1
    run_config: dict[str, Any] = field(default_factory=dict)
    node_config: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


class Grid:
    """Nodes 5 and 6, and a node 7 that never answers."""

    def __init__(self, client: App) -> None:
        self.client = client
        self.sent: dict[str, Any] = {}
        self.contexts = {n: Context(node_config={"id": n}) for n in (5, 6, 7)}

    def get_node_ids(self) -> list[int]:
        return [7, 6, 5]

    def push_messages(self, messages: list[Any]) -> list[str]:
        self.sent = {f"message {k}": message for k, message in enumerate(messages)}
        for name, message in self.sent.items():
            message.name = name
        return list(self.sent)

    def pull_messages(self, names: list[str]) -> Iterator[Message]:
        for name in names:
            message = self.sent[name]
            node = message.about["dst_node_id"]
            if node == 7:
                continue
            try:
                yield self.client.fun(message, self.contexts[node])
            except ProtocolError as error:
                reply = Message({}, reply_to=message)
                reply.error = SimpleNamespace(reason=str(error))
                yield reply


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "flwr": SimpleNamespace(),
        "flwr.app": SimpleNamespace(
            Array=Array,
            ArrayRecord=dict,
            ConfigRecord=dict,
            Message=Message,
            RecordDict=dict,
        ),
        "flwr.clientapp": SimpleNamespace(ClientApp=App),
        "flwr.serverapp": SimpleNamespace(ServerApp=App),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_messages_go_to_nodes_and_back(stand_in: None) -> None:
    found: list[Any] = []

    def main(network: flower.Network, config: dict[str, Any]) -> None:
        assert network.nodes() == [5, 6, 7] and config == {"rounds": 2}
        ask = {n: {"x": X + n} for n in (5, 7)}
        found.append(network(ask, 60.0, 1))
        found.append(network({5: {"x": X}}, 60.0))
        found.append(network({5: {"bad": X}}, 60.0))
        found.append(network({7: {"x": X}}, 0.3))

    client = flower.client_app("flower_echo:client", idle=20.0)
    grid = Grid(client)
    flower.server_app(main).fun(grid, Context(run_config={"rounds": 2}))
    first, second, failed, late = found
    assert failed == late == {}
    np.testing.assert_array_equal(first[5]["x"], X + 5)
    assert (int(first[5]["id"]), int(second[5]["asked"])) == (5, 2)
    assert int(first[5]["pid"]) == int(second[5]["pid"])
    # Another run on the same node is another client.
    grid.contexts[5].run_id = 2
    third = flower.Network(grid)({5: {"x": X}}, 60.0)[5]
    assert third["pid"] != first[5]["pid"] and int(third["asked"]) == 1


def test_what_is_not_ours_is_refused(stand_in: None) -> None:
    client = flower.client_app("flower_echo:client")
    strange = {"privjax": {"x": Array("float32", (3,), "numpy.ndarray", b"")}}
    for content in ({}, strange):
        with pytest.raises(ProtocolError, match="not privjax's"):
            client.fun(Message(content), Context())
