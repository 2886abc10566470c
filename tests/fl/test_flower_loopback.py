"""A SuperLink and three SuperNodes on this machine.

In the first of two rounds one client trains for too long; in the second one another is
killed with its SuperNode after masks were agreed upon. Secure sums are those of the rest.
"""

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from fl_flower import deployment, environment, port, running, until

APP = Path(__file__).parent / "flower_app"
CLIENTS, KILLED, LATE, RATE = 3, 1, 2, 0.1

flwr = pytest.importorskip("flwr", reason="Flower is not installed: privjax[flower]")


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def data(i: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(i).normal(size=(6, 3)).astype("f4")
    return x, (x @ np.array([1.0, -2.0, 0.5])).astype("f4")


def trained(params: np.ndarray, i: int) -> np.ndarray:
    x, y = data(i)
    return params - RATE * 2 * x.T @ (x @ params - y) / len(y)


def test_clients_over_flower(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shutil.copytree(APP, tmp_path / "app")
    link = port()
    env = environment(tmp_path, link)
    with contextlib.ExitStack() as stack:
        start = lambda *a: stack.enter_context(running(log, env, *a))  # noqa: E731
        nodes = deployment(start, link, CLIENTS, log)
        folder = f'folder="{tmp_path}"'
        start("flwr", "run", str(tmp_path / "app"), "here", "-c", folder)
        until((tmp_path / "kill").exists, 240, log)
        os.killpg(nodes[KILLED], signal.SIGKILL)
        until((tmp_path / "done").exists, 180, log)
        rows = [json.loads(x) for x in lines_of(tmp_path / "rounds.jsonl")]
    assert [row["clients"] for row in rows] == [2, 2]
    assert [row["tries"] for row in rows] == [1, 1]
    want = np.zeros(3)
    for there in ((0, KILLED), (0, LATE)):
        want = np.mean([trained(want, i) for i in there], 0)
    np.testing.assert_allclose(np.load(tmp_path / "params.npy"), want, atol=1e-5)
    for i in range(CLIENTS):
        lines = [x.split() for x in lines_of(tmp_path / f"client{i}")]
        # One process for both rounds, and nothing is traced after the client is made.
        assert len({pid for pid, *_ in lines}) == 1
        assert len({count for *_, count in lines}) == 1
        assert {step for _, _, step, _ in lines} >= {"TRAIN", "SHARE"}
    # The clients' processes end with their SuperNodes.
    ended = {
        int((tmp_path / f"client{i}").read_text().split()[0]) for i in range(CLIENTS)
    }
    until(lambda: not any(map(alive, ended)), 30, log)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
