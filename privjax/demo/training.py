"""Train one method, and time it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

import privjax
from privjax.demo.methods import Method, Traffic
from privjax.demo.workloads import Workload

# An epoch takes from 0.1 ms to 0.1 s: repeat it this long for the least time.
_TIMING_SECONDS = 0.3
_LEAST_REPEATS = 3


@dataclass
class Result:
    """One row of the table, and its learning curve.

    Attributes:
      compile_seconds: the first call of an epoch: tracing, rewriting, compiling, running.
      epoch_seconds: the least of several calls after that.
      curve: the metrics before training and after every epoch.
    """

    method: Method
    compile_seconds: float = 0.0
    epoch_seconds: float = 0.0
    traffic: Traffic | None = None
    curve: list[dict[str, float]] = field(default_factory=list)


def train(
    task: Workload,
    method: Method,
    epochs: int,
    seed: int,
    report: Callable[[int, dict[str, float]], None] = lambda done, metrics: None,
) -> Result:
    """Train for some epochs; `report(epochs done, metrics)` is called on the way."""
    result = Result(method)

    def record(state: Any) -> None:
        result.curve.append(task.evaluate(method.clear(state)))
        report(len(result.curve) - 1, result.curve[-1])

    state = method.start(task.init(seed))
    record(state)
    for epoch in range(epochs):
        steps = method.feed()
        before = state
        state, seconds = _timed(method, state, steps)
        if epoch == 0:
            result.compile_seconds = seconds
        record(state)
    result.epoch_seconds = _least_seconds(method, before, steps)
    if method.traffic is not None:
        result.traffic = method.traffic(before, steps)
    return result


def _timed(method: Method, state: Any, steps: Any) -> tuple[Any, float]:
    key = privjax.random.key()
    start = time.perf_counter()
    state = jax.block_until_ready(method.epoch(state, steps, key))
    return state, time.perf_counter() - start


def _least_seconds(method: Method, state: Any, steps: Any) -> float:
    """The results are thrown away: they are no release."""
    seconds: list[float] = []
    while len(seconds) < _LEAST_REPEATS or sum(seconds) < _TIMING_SECONDS:
        seconds.append(_timed(method, state, steps)[1])
    return min(seconds)
