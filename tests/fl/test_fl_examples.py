"""The examples of federated learning run and reach what they promise."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from privjax import fl

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def module(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_vertical_diabetes() -> None:
    accuracy = module("vertical_diabetes")["main"](["--epochs", "1"])
    assert accuracy["plain"] > 0.6
    # One of the 154 test rows may fall on the other side of the boundary.
    assert accuracy["shared"] == pytest.approx(accuracy["plain"], abs=0.01)


def test_federated_digits(capsys: pytest.CaptureFixture[str]) -> None:
    main = module("federated_digits")["main"]
    # Secure sums and robust statistics have tests of their own.
    chosen = ("FedAvg", "FedAdam", "private")
    every = main.__globals__["algorithms"]()
    assert {*chosen} < {*every}
    main.__globals__["algorithms"] = lambda: {k: every[k] for k in chosen}
    found = main(["--rounds", "12"])
    assert found["FedAdam"] > 0.8 and found["FedAvg"] > 0.5
    out = capsys.readouterr().out
    assert "epsilon" in out and "a sum over 200 clients" in out


def test_the_flower_app_without_flower() -> None:
    """Its clients and its server's rounds, in one process; test_flower_loopback has all."""
    task = module("federated_flower/digits_app/task")
    clients = {i: task["client"]({"partition-id": i}) for i in range(task["CLIENTS"])}

    class Network:
        def nodes(self) -> list[int]:
            return list(clients)

        def __call__(
            self, messages: Mapping[int, Any], seconds: float, enough: Any
        ) -> Any:
            return {i: clients[i].handle(m) for i, m in messages.items()}

    found = fl.serve(
        task["ALGORITHM"],
        task["parameters"](),
        Network(),
        like=task["own"](0),
        rounds=3,
        clients=len(clients),
        evaluate=task["accuracy"],
    )
    assert found.history[-1]["accuracy"] > 0.5
