"""The README's code runs, in its order, and does what the text says."""

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_the_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    out = capsys.readouterr().out
    loss = {
        name: float(re.search(rf"^{name}: (\S+)$", out, re.MULTILINE)[1])
        for name in ("federated", "secret-shared", "private")
    }
    batch = {"x": names["x"], "y": names["y"]}
    params = names["start"]
    for _ in range(20):
        params = names["train_step"](params, batch)
    exact = float(names["loss"](params, batch))
    assert loss["federated"] == pytest.approx(exact, rel=0.01)
    assert loss["secret-shared"] == pytest.approx(exact, rel=0.01)
    assert loss["private"] < float(names["loss"](names["start"], batch))
    assert 0.9 < float(re.search(r"^epsilon: (\S+)$", out, re.MULTILINE)[1]) <= 1


@pytest.mark.parametrize(
    "name", ["federated", "secret_shared", "differentially_private"]
)
def test_every_decorator_has_a_short_example(name: str) -> None:
    block = next(b for b in BLOCKS if f"privjax.{name}(" in b)
    assert len([line for line in block.splitlines() if line.strip()]) <= 15


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (README.parent / target).exists(), target
