"""Four devices, and two processes with two each, give the result of one device.

A process that dies ends the run with an error, and the run goes on from its checkpoint.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fl_device_process as program
import numpy as np

HERE = Path(__file__).parent
SCRIPT, LOST = HERE / "fl_device_process.py", HERE / "fl_lost_process.py"


def start(devices: int, *arguments: Any, script: Path = SCRIPT) -> Any:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        text=True,
    )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def finished(processes: list[subprocess.Popen[str]]) -> None:
    logs = [p.communicate(timeout=300)[0] for p in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), "\n".join(logs)


def test_four_devices_and_two_processes(tmp_path: Path) -> None:
    port = free_port()
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


def test_a_killed_process_ends_the_run_which_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    """Process 1 kills itself after round 3: an error within the heartbeat's 20 s.

    Started again, both give the bits of a run that nothing happened to.
    """
    port = free_port()
    two = [start(1, tmp_path, i, port, 1, script=LOST) for i in range(2)]
    assert two[1].wait(timeout=120) == -signal.SIGKILL
    killed = time.time()
    log = two[0].communicate(timeout=60)[0]
    two[1].communicate()
    assert two[0].returncode == 3, log
    said = log.splitlines()[-1]
    assert "another process of this run has ended" in said
    assert float(said.split()[0]) - killed < 20
    port = free_port()
    finished([start(1, tmp_path, i, port, 0, script=LOST) for i in range(2)])
    for i in range(2):
        with np.load(tmp_path / f"result{i}.npz") as found:
            np.testing.assert_array_equal(found["resumed"], found["whole"])
            assert found["rounds"].tolist() == [4, 5, 6]
