"""The command line: what it accepts, what it refuses, and one run from end to end."""

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import privjax
from privjax import cli, demo

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], dict]]:
    """Calls of the demo, which is not run."""
    made: list[Any] = []
    monkeypatch.setattr(demo, "run", lambda names, **kw: made.append((names, kw)))
    return made


DEFAULTS = {
    "epochs": 10,
    "quick": False,
    "drop_b": False,
    "seed": 0,
    "plot_path": cli.DEFAULT_PLOT,
}
ACCEPTED: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("", ("boston", "pima"), {}),
    ("--data all", ("boston", "pima"), {}),
    ("--data pima", ("pima",), {}),
    ("--data boston --drop-b", ("boston",), {"drop_b": True}),
    ("--epochs 3 --seed 7", ("boston", "pima"), {"epochs": 3, "seed": 7}),
    ("--quick", ("boston", "pima"), {"quick": True, "epochs": 1}),
    ("--quick --epochs 2", ("boston", "pima"), {"quick": True, "epochs": 2}),
    ("--plot a/b.PNG", ("boston", "pima"), {"plot_path": Path("a/b.PNG")}),
]


@pytest.mark.parametrize(("line", "names", "changed"), ACCEPTED)
def test_arguments(
    line: str, names: tuple[str, ...], changed: dict[str, Any], calls: list[Any]
) -> None:
    assert cli.main(["demo", *line.split()]) == 0
    assert calls == [(names, DEFAULTS | changed)]


REFUSED: list[tuple[Sequence[str], str]] = [
    ([], "required: command"),
    (["train"], "invalid choice: 'train'"),
    (["demo", "--data", "mnist"], "invalid choice: 'mnist'"),
    (["demo", "--epochs", "0"], "0 is not at least 1"),
    (["demo", "--epochs", "-1"], "-1 is not at least 1"),
    (["demo", "--epochs", "2.5"], "invalid"),
    (["demo", "--seed", "-3"], "-3 is negative"),
    (["demo", "--plot", "curves.pdf"], "does not end in .png"),
    (["demo", "--plot"], "expected one argument"),
    (["demo", "--frobnicate"], "unrecognized arguments"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_bad_usage(
    line: Sequence[str],
    message: str,
    calls: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(line)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert calls == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"privjax {privjax.__version__}\n"


def test_the_module_runs_the_same_command() -> None:
    command = [sys.executable, "-m", "privjax", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"privjax {privjax.__version__}\n"


def test_missing_matplotlib_is_said_and_the_demo_goes_on(
    calls: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo"]) == 0
    assert calls[0][1]["plot_path"] is None
    assert "pip install 'privjax[plots]'" in capsys.readouterr().err


def test_a_plot_asked_for_without_matplotlib_stops_before_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo", "--plot", str(tmp_path / "x" / "y.png")]) == 1
    assert "pip install 'privjax[plots]'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_plot_that_cannot_be_written_stops_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--plot", str(tmp_path / "file" / "y.png")]) == 1
    assert "the plot cannot be written to" in capsys.readouterr().err


def test_quick_demo_prints_a_table_and_writes_the_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = tmp_path / "new" / "curves.png"
    line = ["demo", "--quick", "--data", "boston", "--plot", str(png)]
    assert cli.main(line) == 0
    out = capsys.readouterr().out
    assert "Boston Housing: MLP 13-6-1" in out
    table = [row for row in out.splitlines() if not row.startswith("✓")]
    names = ("plain JAX", "federated, 2 clients", "secret-shared, 2-party", "DP-SGD")
    assert [sum(row.startswith(f"{name} ") for row in table) for name in names] == [
        1,
        1,
        1,
        2,
    ]
    assert sum(row.endswith(" 0.50") for row in table) == 1
    assert sum(row.endswith(" 3.00") for row in table) == 2
    assert "protects nobody" in out
    assert png.read_bytes().startswith(b"\x89PNG\r\n")
