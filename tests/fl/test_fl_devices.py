"""Four devices, and two processes with two each, give the result of one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import fl_device_process as program
import numpy as np

SCRIPT = Path(__file__).parent / "fl_device_process.py"


def start(devices: int, *arguments: Any) -> subprocess.Popen[str]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        text=True,
    )


def finished(processes: list[subprocess.Popen[str]]) -> None:
    logs = [p.communicate(timeout=300)[0] for p in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), "\n".join(logs)


def test_four_devices_and_two_processes(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    one = start(4, tmp_path / "devices.npz")
    two = [start(2, tmp_path / f"process{i}.npz", i, port) for i in range(2)]
    want: dict[str, Any] = {}
    for name in program.ALGORITHMS:
        want |= program.run(name, "vmap")
    want |= program.few("vmap")
    finished([one, *two])
    with np.load(tmp_path / "devices.npz") as found:
        assert {*found} == {*want}
        for name in found:
            np.testing.assert_allclose(found[name], want[name], rtol=1e-5, atol=1e-6)
    results = [np.load(tmp_path / f"process{i}.npz") for i in range(2)]
    for found in results:
        for name in ("fedadam", "fedadam loss"):
            np.testing.assert_allclose(found[name], want[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(results[0]["fedadam"], results[1]["fedadam"])
