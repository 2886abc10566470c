"""Noise of parameters that are divided over devices, in a process that has four."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found() -> Any:
    script = str(HERE / "divided_process.py")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_clipped_sums_are_those_of_one_device(found: Any) -> None:
    assert found["error"] < 1e-6


def test_nothing_of_the_parameters_size_is_exchanged(found: Any) -> None:
    """Weights have 30,720 and 25,600 elements, of which the hash is an eighth."""
    assert 8 * 256 < found["exchanged"] <= 4096


def test_law(found: Any) -> None:
    assert abs(found["deviation"] - 1) < 0.02
    assert found["p"] > 1e-3


def test_parts_draw_independent_noise(found: Any) -> None:
    """Four parts of 7,680 values: a correlation has a deviation of 0.0114."""
    assert found["between parts"] < 0.05


def test_values_do_not_depend_on_the_division(found: Any) -> None:
    assert found["same"] == [True, True, True]
    assert found["distinct"]
