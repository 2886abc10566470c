"""Time everything: `python -m benchmarks [--only NAME] [--json OUT]`.

A suite is a module of this folder with a function `rows()` that returns one plain
dictionary per measurement, first of all its name. The result goes to a table and to a
JSON file together with what is needed to compare it with another one: the device, the
versions and the commit. A suite that is missing or fails ends the run with its error.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

SUITES = (
    "kernels",
    "protocols",
    "secret_shared",
    "dp",
    "federated",
    "federated_aggregation",
    "federated_algorithms",
)
# Longer, or with other systems: run by name.
ON_REQUEST = ("dp_accuracy", "dp_peers", "federated_peers")
HERE = Path(__file__).resolve().parent

Row = dict[str, Any]


def device() -> Row:
    """Where the figures were taken."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "devices": jax.device_count(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }


def processor() -> str:
    """The processor's own name on Linux, the architecture elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "privjax")
    return {"python": platform.python_version(), **{n: version(n) for n in names}}


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed, run from its folder"


def git(*arguments: str) -> str | None:
    """What git answers, or None where there is no git, repository or commit."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=HERE, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def run_suite(name: str) -> list[Row]:
    rows: list[Row] = importlib.import_module(f"benchmarks.{name}").rows()
    if not rows:
        raise ValueError(f"benchmarks.{name}.rows() returned no measurement")
    return rows


def table(name: str, rows: Sequence[Row]) -> Table:
    """One column per key of any row, in order of first appearance."""
    result = Table(title=name)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        is_text = any(isinstance(row.get(column), str) for row in rows)
        result.add_column(column, justify="left" if is_text else "right")
    for row in rows:
        result.add_row(*(cell(row.get(column)) for column in columns))
    return result


def cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=(*SUITES, *ON_REQUEST),
        help="run this suite alone; may be given several times",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        default=HERE / "results" / "latest.json",
        help="the file to write (default: %(default)s)",
    )
    options = parser.parse_args()
    console = Console()
    report: Row = {
        "device": device(),
        "versions": versions(),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain")),
        "suites": {},
    }
    for name in options.only or SUITES:
        with console.status(f"timing {name} ..."):
            report["suites"][name] = run_suite(name)
        console.print(table(name, report["suites"][name]))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, allow_nan=False, default=lambda x: x.item())
    options.json.write_text(text + "\n", encoding="utf-8")
    console.print(f"written: {options.json}")


if __name__ == "__main__":
    main()
