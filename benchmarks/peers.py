"""Other systems beside ours: each row from a process, and if need be an environment, of
its own.

A benchmark of peers is a script, `PYTHON SCRIPT SYSTEM WORKLOAD`, that prints one JSON
row. `PEERS="NAME=/path/to/python,..."` says which Python runs what needs NAME; nothing of
privjax but this folder need be importable there.
"""

import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
SECONDS, FEWEST, MOST = 3.0, 3, 200
TURNS, OURS = 3, (None, "privjax")
LIMIT = 600.0


def pythons() -> dict[str, str]:
    """Interpreters by the distribution they are for."""
    pairs = [p.partition("=") for p in os.environ.get("PEERS", "").split(",") if p]
    return {name: python for name, _, python in pairs}


def repeated(step: Callable[[], Any]) -> Row:
    """Milliseconds of a step that has run before, for a few seconds."""
    taken: list[float] = []
    until = time.perf_counter() + SECONDS
    while len(taken) < FEWEST or (time.perf_counter() < until and len(taken) < MOST):
        begun = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begun)
    return summary(taken)


def summary(seconds: list[float]) -> Row:
    """The least and the median."""
    return {"ms": 1e3 * min(seconds), "median ms": 1e3 * float(np.median(seconds))}


def measured(script: str, system: str, workload: str, needs: str | None) -> Row:
    """The row that a process of its own prints, or a note that says why there is none."""
    root = str(Path(__file__).resolve().parent.parent)
    python = pythons().get(needs or "", sys.executable)
    try:
        done = subprocess.run(
            [python, script, system, workload],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            env={**os.environ, "PYTHONPATH": root},
        )
    except subprocess.TimeoutExpired:
        return {"note": f"not finished in {LIMIT:.0f} s"}
    if done.returncode:
        error = done.stderr.strip().splitlines()[-1:] or ["no output"]
        return {"note": f"failed: {error[0][:80]}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def in_turns(
    script: str, systems: dict[str, str | None], workload: str
) -> dict[str, Row]:
    """A row for every system, of `TURNS` the best; what each needs is in `systems`.

    Ours and what is written by hand take turns, so that a busy minute of the machine is
    nobody's alone; peers, which are far off, have one.
    """
    found: dict[str, Row] = {}
    for turn in range(TURNS):
        for system, needs in systems.items():
            if turn == 0 or needs in OURS:
                row = measured(script, system, workload, needs)
                best = min(row, found.get(system, row), key=_milliseconds)
                found[system] = best
    return found


def _milliseconds(row: Row) -> float:
    return float(row.get("ms", math.inf))


def one(needs: str | None, run: Callable[[], Row]) -> Row:
    """This process's row: what `run` measures, and the version of the distribution."""
    if needs is None:
        return run()
    if importlib.util.find_spec(needs) is None:
        return {"note": "not installed"}
    try:
        version = importlib.metadata.version(needs)
    except importlib.metadata.PackageNotFoundError:
        version = "a checkout"
    return {**run(), "version": version}


def beside(found: dict[str, Row], base: str) -> list[Row]:
    """The rows of one workload, with their ratio to the row `base`."""
    least = found[base].get("ms")
    for row in found.values():
        if least and "ms" in row:
            row[f"to {base}"] = row["ms"] / least
    return list(found.values())
