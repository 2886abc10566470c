"""The tutorials run from top to bottom, and are stored without outputs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def test_there_are_two_tutorials() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["secret_matmul", "tour"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path: Path) -> None:
    nbformat.validate(read(path))
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path) -> None:
    """Started in the checkout, so that its package is the one imported."""
    notebook = read(path)
    where = {"metadata": {"path": str(ROOT)}}
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources=where
    ).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)
