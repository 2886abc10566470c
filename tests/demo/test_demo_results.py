"""What the demo prints and draws, from results made up for the purpose."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from privjax.demo import plot, tables, workloads
from privjax.demo.methods import Method, Traffic
from privjax.demo.training import Result
from privjax.demo.workloads import Workload


def made_up(task: Workload, seconds: float, traffic: Traffic) -> list[Result]:
    """Six rows like the real ones, the first ten times faster than the others."""
    rows: list[tuple[str, float | None, Traffic | None]] = [
        ("plain JAX", None, None),
        ("federated, 2 clients", None, traffic),
        ("secret-shared, 2-party", None, traffic),
        ("DP-SGD", 0.49999, None),
        ("DP-SGD", 3.0, None),
        ("federated, secure, DP", 3.0, traffic),
    ]
    curve = [dict.fromkeys(task.metrics, value) for value in (64.0, 14.204, 0.8023)]
    return [
        Result(
            Method(name, dict, lambda state, steps, key: state, epsilon=epsilon),
            compile_seconds=12.34,
            epoch_seconds=seconds * (10 if i else 1),
            traffic=moved,
            curve=curve,
        )
        for i, (name, epsilon, moved) in enumerate(rows)
    ]


def printed(task: Workload, results: list[Result]) -> str:
    out = StringIO()
    Console(file=out, width=80).print(tables.result_table(task, results, epochs=10))
    return out.getvalue()


@pytest.mark.parametrize("name", sorted(workloads.WORKLOADS))
@pytest.mark.parametrize(
    ("seconds", "traffic"),
    [(2e-5, Traffic(2, 0.0021)), (1e-4, Traffic(49.05, 5.8912)), (0.2, Traffic(9, 99))],
)
def test_tables_fit_into_80_characters(
    name: str, seconds: float, traffic: Traffic
) -> None:
    task = workloads.load([name])[0]
    out = printed(task, made_up(task, seconds, traffic))
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_cells() -> None:
    task = workloads.load(["pima"])[0]
    out = printed(task, made_up(task, 1.5e-4, Traffic(49.1, 3.472)))
    row = next(r for r in out.splitlines() if r.startswith("secret-shared"))
    assert row.split()[2:] == "0.802 0.802 12.3 1.50 10.0 49.1 3.5".split()
    first = next(r for r in out.splitlines() if r.startswith("DP-SGD"))
    assert first.split() == "DP-SGD 0.802 0.802 12.3 1.50 10.0 0.50".split()


def test_notes_name_what_is_not_protected() -> None:
    task = workloads.load(["boston"])[0]
    results = made_up(task, 1e-3, Traffic(34, 5.9, 3.8))
    text = " ".join([*tables.notes(task, results), *tables.NOTES])
    for words in ("3.8 MB", "encodes race", "protects nobody", "standardise", "public"):
        assert words in text


@pytest.mark.parametrize("names", [["boston"], ["boston", "pima"]])
def test_plot(names: list[str], tmp_path: Path) -> None:
    runs = [
        (task, made_up(task, 1e-3, Traffic(2, 1.0))) for task in workloads.load(names)
    ]
    path = tmp_path / "curves.png"
    plot.draw(runs, path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    width = int.from_bytes(data[16:20], "big")
    assert width == 960 * len(names)
