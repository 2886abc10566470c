"""A client that counts, for the process that stays."""

import os
from typing import Any

import numpy as np


class Echo:
    """Says who it is, how often it was asked, and what it was given."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.asked, self.config = 0, config

    def handle(self, message: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked += 1
        if "bad" in message:
            raise ValueError(f"an example: {message['bad']}")
        about = {"pid": os.getpid(), "asked": self.asked, "id": self.config["id"]}
        return {**message, **{k: np.asarray(v) for k, v in about.items()}}


def client(config: dict[str, Any]) -> Echo:
    return Echo(config)


def broken(config: dict[str, Any]) -> Echo:
    raise RuntimeError("no data here")
