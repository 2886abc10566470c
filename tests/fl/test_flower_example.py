"""The example app under `flwr run`: a SuperLink and four SuperNodes on this machine."""

import contextlib
import re
import shutil
from pathlib import Path

import pytest
from fl_flower import deployment, environment, port, running, until

APP = Path(__file__).resolve().parents[2] / "examples" / "federated_flower"

flwr = pytest.importorskip("flwr", reason="Flower is not installed: privjax[flower]")


def test_a_round_of_the_example(tmp_path: Path) -> None:
    log, said = tmp_path / "log", tmp_path / "run"
    shutil.copytree(APP, tmp_path / "app")
    link = port()
    env = environment(tmp_path, link)
    with contextlib.ExitStack() as stack:
        start = lambda *a: stack.enter_context(running(log, env, *a))  # noqa: E731
        deployment(start, link, 4, log)
        run = ("flwr", "run", str(tmp_path / "app"), "here", "--stream")
        said.touch()
        stack.enter_context(running(said, env, *run, "-c", "rounds=1"))
        until(lambda: "'accuracy'" in said.read_text(), 400, said)
    (row,) = [x for x in said.read_text().splitlines() if "'accuracy'" in x]
    assert float(re.findall(r"'accuracy': ([0-9.]+)", row)[0]) > 0.2
    assert "'clients': 4.0" in row or "'clients': 3.0" in row
