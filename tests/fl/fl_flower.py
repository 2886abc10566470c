"""A SuperLink, SuperNodes and runs of Flower on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TOOLS = Path(sys.executable).parent


def environment(folder: Path, link: int) -> dict[str, str]:
    """Of Flower's processes, with a home of their own that knows the SuperLink `here`."""
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
        f'address = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
        "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }


def deployment(
    start: Callable[..., int], link: int, clients: int, log: Path
) -> list[int]:
    """A SuperLink and as many SuperNodes; the process groups of these."""
    start(
        "flower-superlink",
        *("--insecure", "--port", str(link)),
        "--disable-runtime-dependency-installation",
    )
    until(lambda: listening(link), 60, log)
    return [
        start(
            "flower-supernode",
            *("--insecure", "--superlink", f"127.0.0.1:{link}"),
            *("--port", str(port()), "--node-config", f"partition-id={i}"),
        )
        for i in range(clients)
    ]


def port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def running(log: Path, env: dict[str, str], name: str, *options: str) -> Iterator[int]:
    """A process group of Flower's; its number."""
    with open(log, "a") as file:
        process = subprocess.Popen(
            [str(TOOLS / name), *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(there: Callable[[], bool], seconds: float, log: Path) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, log.read_text()[-6000:]
        time.sleep(0.1)


def listening(number: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", number)) == 0
