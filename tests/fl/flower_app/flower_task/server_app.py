"""The server's side."""

from pathlib import Path
from typing import Any

import numpy as np

from flower_task.task import ALGORITHM, CLIENTS, PARAMS, SECONDS, data
from privjax import fl
from privjax.runtimes.flower import server_app


def main(network: Any, config: dict[str, Any]) -> None:
    """Two rounds; the model and a row per round go to the folder of the test."""
    folder = Path(config["folder"])
    found = fl.serve(
        ALGORITHM,
        PARAMS,
        network,
        like=data(0),
        rounds=2,
        clients=CLIENTS,
        least=CLIENTS,
        train_seconds=SECONDS,
        step_seconds=20.0,
        callbacks=[lambda report: np.save(folder / "params", report.state.params)],
        log=folder / "rounds.jsonl",
    )
    assert found.stopped == "rounds"
    (folder / "done").touch()


app = server_app(main)
