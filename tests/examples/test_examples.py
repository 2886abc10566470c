"""The examples run, use public names only, and reach what they promise."""

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))


def results(name: str, epochs: int) -> dict[str, Any]:
    """What the example's main returns; run in this process."""
    module = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    return module["main"](["--epochs", str(epochs)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_public_names_and_readable_length(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert 60 <= len(text.splitlines()) <= 120
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                assert not any(n.name.startswith("privjax.") for n in names)
            case ast.ImportFrom(module=module):
                assert not (module or "").startswith("privjax")


def test_boston_housing() -> None:
    mse = results("boston_housing", epochs=1)
    plain = mse["plain JAX"]
    assert mse["federated, 2 clients"] == pytest.approx(plain, rel=0.01)
    assert mse["secret-shared, 2 parties"] == pytest.approx(plain, rel=0.01)
    assert plain < mse["DP-SGD, epsilon 3"] < 1000


def test_pima_diabetes(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = results("pima_diabetes", epochs=1)
    # One of the 154 test rows may fall on the other side of a boundary.
    assert accuracy["on secret shares"] == pytest.approx(
        accuracy["secure aggregation"], abs=0.01
    )
    out = capsys.readouterr().out
    assert all(name in out for name in accuracy)
