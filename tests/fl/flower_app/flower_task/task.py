"""What both sides run, and the faults of two of the clients."""

import os
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from privjax import fl
from privjax.aggregation import secure_sum
from privjax.aggregation.remote import Step

CLIENTS, EXAMPLES, RATE = 3, 6, 0.1
SECONDS = 35.0
KILLED, LATE = 1, 2
PARAMS = np.zeros(3, "f4")
TRACED: list[str] = []


def data(i: int) -> Any:
    """The examples of client i."""
    x = np.random.default_rng(i).normal(size=(EXAMPLES, 3)).astype("f4")
    return x, (x @ np.array([1.0, -2.0, 0.5])).astype("f4")


def losses(params: Any, batch: Any) -> Any:
    TRACED.append("traced")
    return jnp.square(batch[0] @ params - batch[1])


ALGORITHM = fl.fedavg(
    losses, client=optax.sgd(RATE), aggregate=secure_sum(dropped=0.34, threshold=1)
)


class Faulty:
    """A client that says what it does, and is late or waits to be killed."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.folder = number, folder
        own = data(number)
        self.inner = fl.participant(ALGORITHM, PARAMS, own, clients=CLIENTS)

    def handle(self, message: Any) -> Any:
        step, round_ = Step(int(message["step"])), int(message["number"])
        if (self.number, step, round_) == (KILLED, Step.MASK, 2):
            (self.folder / "kill").touch()
            time.sleep(600)
        if (self.number, step, round_) == (LATE, Step.TRAIN, 1):
            rounds = self.folder / "rounds.jsonl"
            while not rounds.exists() or not rounds.read_text():
                time.sleep(0.2)
        answer = self.inner.handle(message)
        with open(self.folder / f"client{self.number}", "a") as file:
            file.write(f"{os.getpid()} {round_} {step.name} {len(TRACED)}\n")
        return answer


def client(config: dict[str, Any]) -> Faulty:
    """The client of a node."""
    return Faulty(int(config["partition-id"]), Path(config["folder"]))
