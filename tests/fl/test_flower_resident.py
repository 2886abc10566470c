"""The process that stays, and what is said where Flower is missing."""

import dataclasses
import os
import subprocess
import sys
import time
from multiprocessing import AuthenticationError
from pathlib import Path

import numpy as np
import pytest

from privjax.errors import InputError, ProtocolError
from privjax.runtimes import flower
from privjax.runtimes.flower import resident, wire
from privjax.runtimes.flower.resident import Address, Task

X = np.arange(3, dtype="f4")


def begun(make: str, watch: int = 0, idle: float = 60.0) -> Address:
    return resident.start(Task(make, {"id": 7}, watch or os.getpid(), idle))


def gone(address: Address, seconds: float = 20.0) -> bool:
    """Whether the process ends in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(address.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_it_stays_and_ends_with_the_process_it_belongs_to() -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    address = begun("flower_echo:client", owner.pid)
    mode = os.stat(Path(address.path).parent).st_mode
    assert mode & 0o77 == 0
    for k in (1, 2):
        answer = wire.unpack(resident.ask(address, wire.pack({"x": X + k})))
        np.testing.assert_array_equal(answer["x"], X + k)
        found = [int(answer[name]) for name in ("pid", "asked", "id")]
        assert found == [address.pid, k, 7]
    # What went wrong is said by name alone: the text may be about the data.
    with pytest.raises(ProtocolError) as error:
        resident.ask(address, wire.pack({"bad": X}))
    assert str(error.value) == "ValueError"
    with pytest.raises(ProtocolError, match="ProtocolError"):
        resident.ask(address, b"no message")
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        resident.ask(dataclasses.replace(address, key="00" * 32), b"")
    assert resident.ask(address, wire.pack({"x": X}))
    owner.communicate(b"\n")
    assert gone(address) and not Path(address.path).parent.exists()
    with pytest.raises(OSError):
        resident.ask(address, wire.pack({"x": X}))


def test_it_ends_when_idle_and_where_there_is_no_client() -> None:
    broken, idle = begun("flower_echo:broken"), begun("flower_echo:client", idle=1.0)
    with pytest.raises(ProtocolError, match="RuntimeError"):
        resident.ask(broken, wire.pack({"x": X}))
    assert gone(broken) and gone(idle)


@pytest.mark.parametrize("name", ["flower_echo", "flower_echo:", "flower_echo:Missing"])
def test_what_is_no_function(name: str) -> None:
    with pytest.raises(InputError, match="form 'module|no function"):
        resident.resolve(name)


def test_without_flower_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.clientapp", None)
    monkeypatch.setitem(sys.modules, "flwr.serverapp", None)
    for make in (lambda: flower.client_app("m:f"), lambda: flower.server_app(print)):
        with pytest.raises(InputError, match=r"pip install 'privjax\[flower\]'"):
            make()
