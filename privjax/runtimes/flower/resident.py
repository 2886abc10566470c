"""A client's process that compiles once and stays.

Flower starts a process per message to a node. What a client's program has compiled, its
data and its state between rounds live in another one, which the first message starts
and every later one finds: `ask` sends it a message over a local socket, and it answers.
It ends with the SuperNode, or when nobody has asked for `idle` seconds.

The socket lies in a folder that only this user can enter, and whoever connects proves to
know a random key; what travels are bytes of `wire`, nothing that could be run.

    python -m privjax.runtimes.flower.resident      (what to do is on its standard input)
"""

import contextlib
import importlib
import json
import math
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

from privjax.errors import InputError, ProtocolError
from privjax.runtimes.flower.wire import pack, unpack

START_SECONDS = 120.0
_DONE, _FAILED = b"+", b"-"


@dataclass(frozen=True)
class Address:
    """Where a client's process is: the socket's path, the key, the process's number."""

    path: str
    key: str
    pid: int


@dataclass(frozen=True)
class Task:
    """What a client's process is to do.

    Attributes:
      make: "module:function", config -> an object with `handle(message) -> message`.
      config: of the node, plain values.
      watch: it ends when this process does.
      idle: or when it was not asked for so many seconds.
    """

    make: str
    config: dict[str, Any]
    watch: int
    idle: float


def resolve(reference: str) -> Callable[[dict[str, Any]], Any]:
    """The function that "module:function" names.

    Raises: InputError where there is none.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise InputError(f"{reference!r} is not of the form 'module:function'.")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise InputError(f"{module} has no function {name!r}.")
    return found


def start(task: Task) -> Address:
    """A new client's process."""
    folder = tempfile.mkdtemp(prefix="privjax-")
    path, key = str(Path(folder) / "client"), secrets.token_hex(32)
    paths = os.pathsep.join(p for p in sys.path if p)
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )
    # It outlives this process; while that runs, it takes note of the other's end.
    threading.Thread(target=process.wait, daemon=True).start()
    assert process.stdin is not None
    order = {"path": path, "key": key, "task": asdict(task)}
    process.stdin.write(json.dumps(order).encode())
    process.stdin.close()
    until = time.monotonic() + START_SECONDS
    while not os.path.exists(path):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise ProtocolError(
                f"the client's process did not start (status {process.poll()}); what it "
                "printed says why."
            )
        time.sleep(0.02)
    return Address(path, key, process.pid)


def ask(address: Address, message: bytes) -> bytes:
    """The answer of a client's process to one message.

    Raises:
      OSError, EOFError: it is not there (any more).
      ProtocolError: with what went wrong there.
    """
    with Client(address.path, authkey=bytes.fromhex(address.key)) as there:
        there.send_bytes(message)
        answer = there.recv_bytes()
    if answer[:1] != _DONE:
        raise ProtocolError(answer[1:].decode())
    return answer[1:]


def serve(path: str, key: str, task: Task) -> None:
    """The client's process."""
    clock = _Clock()
    folder = str(Path(path).parent)
    threading.Thread(target=_watch, args=(task, clock, folder), daemon=True).start()
    made = _Made(task)
    with Listener(path, authkey=bytes.fromhex(key)) as listener:
        while not made.failed:
            try:
                with listener.accept() as there, clock.busy():
                    there.send_bytes(made.answer(there.recv_bytes()))
            except (OSError, EOFError, AuthenticationError):
                continue  # whoever it was did not know the key, or did not wait
    shutil.rmtree(folder, ignore_errors=True)


class _Clock:
    """Since when nobody has asked."""

    def __init__(self) -> None:
        self.since = time.monotonic()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        self.since = math.inf
        try:
            yield
        finally:
            self.since = time.monotonic()


class _Made:
    """The client, made for its first message. What fails is said here, not there."""

    def __init__(self, task: Task) -> None:
        self.task, self.failed = task, False
        self._client: Any = None

    def answer(self, data: bytes) -> bytes:
        """The reply, or the name of what went wrong: its text may be about the data."""
        try:
            if self._client is None:
                self.failed = True
                self._client = resolve(self.task.make)(self.task.config)
                self.failed = False
            return _DONE + pack(self._client.handle(unpack(data)))
        except Exception as error:
            traceback.print_exc()
            return _FAILED + type(error).__name__.encode()


def _watch(task: Task, clock: _Clock, folder: str) -> None:
    """Ends the process with the one it belongs to, or when it is idle."""
    while _alive(task.watch) and time.monotonic() - clock.since < task.idle:
        time.sleep(0.5)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # there, a signal of 0 would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def main() -> None:
    """Read the task from standard input, and serve."""
    order = json.loads(sys.stdin.read())
    serve(order["path"], order["key"], Task(**order["task"]))
