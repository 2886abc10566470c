"""Clients in this process, reached by bytes: what a network between parties would carry."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from privjax import fl
from privjax.aggregation.remote import Step
from privjax.errors import PrivacyError
from privjax.runtimes.flower import wire

N, EXAMPLES = 4, 6
X = np.random.default_rng(0).normal(size=(N, EXAMPLES, 3)).astype("f4")
Y = (X @ np.array([1.0, -2.0, 0.5])).astype("f4")
PARAMS = np.zeros(3, "f4")


class Loopback:
    """Nodes 10, 11, ...; `gone[round, step]` do not answer."""

    def __init__(
        self,
        algorithm: fl.Algorithm,
        gone: Any = None,
        params: Any = PARAMS,
        clients: int = N,
        budgets: Any = (None,) * N,
        aggregators: Any = None,
    ) -> None:
        self.gone = gone or {}
        self.clients = [
            fl.participant(
                algorithm,
                params,
                (X[i], Y[i]),
                clients=clients,
                budget=budgets[i],
                aggregators=aggregators,
            )
            for i in range(N)
        ]
        self.seen: list[dict[str, np.ndarray]] = []
        self.asked: list[tuple[Step, tuple[int, ...]]] = []
        self.errors: list[PrivacyError] = []

    def nodes(self) -> list[int]:
        return [10 + i for i in range(N)]

    def __call__(
        self, messages: Mapping[int, Any], seconds: float, enough: int | None
    ) -> Any:
        replies: dict[int, Any] = {}
        step = Step(int(next(iter(messages.values()))["step"]))
        self.asked.append((step, tuple(messages)))
        for node, message in messages.items():
            if len(replies) == enough:
                break
            if node in self.gone.get((int(message["number"]), step), []):
                continue
            arrived = wire.unpack(wire.pack(message))
            try:
                reply = wire.pack(self.clients[node - 10].handle(arrived))
            except PrivacyError as error:
                self.errors.append(error)
                continue
            replies[node] = wire.unpack(reply)
            self.seen.append(replies[node])
        return replies


def served(
    algorithm: fl.Algorithm,
    network: Any,
    rounds: int,
    params: Any = PARAMS,
    **options: Any,
) -> Any:
    like = (X[0], Y[0])
    given = {"rounds": rounds, "clients": N, **options}
    return fl.serve(algorithm, params, network, like=like, **given)
