"""The server's side."""

from typing import Any

from privjax import fl
from privjax.runtimes.flower import Network, server_app

from .task import ALGORITHM, CLIENTS, accuracy, own, parameters


def main(network: Network, config: dict[str, Any]) -> None:
    """Train, and say how it goes."""
    fl.serve(
        ALGORITHM,
        parameters(),
        network,
        like=own(0),
        rounds=int(config["rounds"]),
        clients=CLIENTS,
        least=3,
        train_seconds=120.0,
        evaluate=accuracy,
        callbacks=[lambda report: print(report.metrics)],
    )


app = server_app(main)
