"""The parties of `spdz` as processes on this machine: `Aggregators`.

Each is a process of its own that stays, with the messages and the local sockets of the
clients' processes (`privjax.runtimes.flower.resident`); what it answers is in
`privjax.aggregation.aggregators`. On one machine this separates memory, not people: where
the parties belong to different ones, each starts its own, and anything that carries
messages to them can take the place of this class.
"""

import contextlib
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np

from privjax.aggregation.aggregators import Aggregator, Dealer, Setting, Step
from privjax.aggregation.messages import Message, number
from privjax.aggregation.panel import PartyLost
from privjax.aggregation.spdz import Spdz
from privjax.errors import InputError
from privjax.runtimes.flower.resident import Address, Task, ask, start
from privjax.runtimes.flower.wire import pack, unpack

# How long a process may take to say who it is.
_HELLO_SECONDS = 120.0


class Aggregators:
    """Starts the aggregators of a method, and its dealer; a context manager.

        with fl.Aggregators(spdz(parties=3)) as parties:
            fl.serve(algorithm, params, network, aggregators=parties, ...)

    Args:
      method: from `privjax.spdz`.
      idle: a process ends when it was not asked for so many seconds; all end with this one.

    Attributes:
      keys: public keys, uint32[parties (+ 1), 8], for `participant(aggregators=)`.
      processes: their numbers at the operating system, the dealer's last.
    """

    def __init__(self, method: Spdz, *, idle: float = 3600.0) -> None:
        if not isinstance(method, Spdz):
            raise InputError(f"{method} has no aggregators; privjax.spdz(...) has.")
        self.method, self.idle = method, idle
        self._addresses: list[Address] = []
        setting = Setting.of(method)
        try:
            if setting.dealt:
                dealer = self._started(asdict(setting))
                (key,) = self._hello([dealer])
                config = {"dealer": key.tolist(), **asdict(setting)}
            else:
                config = {"dealer": None, **asdict(setting)}
            configs = [{"number": p, **config} for p in range(setting.parties)]
            with ThreadPoolExecutor(setting.parties) as pool:
                self._addresses += pool.map(self._started, configs)
            keys = self._hello(self._addresses)
            if setting.dealt:
                self._addresses.append(dealer)
                about = {"step": number(Step.HELLO), "aggregators": np.stack(keys)}
                keys += [unpack(ask(dealer, pack(about)))["key"]]
        except BaseException:
            self.close()
            raise
        self.keys = np.stack(keys)

    @property
    def processes(self) -> tuple[int, ...]:
        return tuple(a.pid for a in self._addresses)

    def _started(self, config: dict[str, Any]) -> Address:
        return start(Task(f"{__name__}:made", config, os.getpid(), self.idle))

    def _hello(self, addresses: list[Address]) -> list[np.ndarray]:
        about = pack({"step": number(Step.HELLO)})
        with ThreadPoolExecutor(len(addresses)) as pool:
            found = list(pool.map(lambda a: ask(a, about), addresses))
        return [unpack(data)["key"] for data in found]

    def __call__(
        self, messages: Mapping[int, Message], seconds: float
    ) -> dict[int, Message]:
        """The replies of all that are asked.

        Raises:
          PartyLost: one has ended, or does not answer in time.
          ProtocolError: one refused.
        """
        pool = ThreadPoolExecutor(len(messages))
        asked = {
            p: pool.submit(ask, self._addresses[p], pack(message))
            for p, message in messages.items()
        }
        pool.shutdown(wait=False)
        replies = {}
        for p, answer in asked.items():
            who = f"{self._name(p)} (process {self._addresses[p].pid})"
            try:
                replies[p] = unpack(answer.result(seconds))
            except (OSError, EOFError) as error:
                if isinstance(error, TimeoutError):
                    raise PartyLost(
                        f"{who} did not answer in {seconds:g} s: every share is needed, "
                        "and nothing was opened. Give it more time with step_seconds=."
                    ) from error
                raise PartyLost(
                    f"{who} has ended: every share is needed, and nothing was opened. "
                    "Start all aggregators anew, give the clients their new keys, and go "
                    "on from the last checkpoint."
                ) from error
        return replies

    def _name(self, p: int) -> str:
        if p == self.method.parties:
            return "the dealer"
        return f"aggregator {p} of {self.method.parties}"

    def close(self) -> None:
        """End the processes."""
        for address in self._addresses:
            with contextlib.suppress(ProcessLookupError):
                os.kill(address.pid, signal.SIGTERM)

    def __enter__(self) -> "Aggregators":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def made(config: dict[str, Any]) -> Aggregator | Dealer:
    """What a process is; it has a "number" unless it is the dealer."""
    names = ("parties", "protocol", "bits", "dropped")
    setting = Setting(**{name: config[name] for name in names})
    if "number" not in config:
        return Dealer(setting)
    return Aggregator(setting, config["number"], config["dealer"])
