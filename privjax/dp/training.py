"""`fit`: a private training loop that charges what it runs.

The step is one that `privjax.differentially_private` made; the sampler draws batches and
says what a release on them costs; the ledger is charged for an epoch before the epoch is
run, and saved first where there are checkpoints.
"""

import contextlib
import copy
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import jax
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from privjax import random
from privjax.accounting import Budget, Ledger
from privjax.dp.batches import with_mask
from privjax.dp.checkpoints import load_ledger, load_state, save_ledger, save_state
from privjax.dp.epochs import Streamed
from privjax.dp.ftrl import CorrelatedStep
from privjax.dp.sampling import Sampler
from privjax.errors import InputError
from privjax.transforms.differentially_private import DifferentiallyPrivate


@dataclass(frozen=True)
class Report:
    """What callbacks get after every epoch.

    Attributes: `step` steps done of `steps`, the `state`, `epsilon` so far at `delta`.
    """

    step: int
    steps: int
    state: Any
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

    Attributes:
      state: as the step returned it last.
      steps: how many steps are behind it.
      noise_multiplier: that of each step.
      epsilon, delta: the guarantee by the ledger, everything in it included.
      ledger: what was released.
    """

    state: Any
    steps: int
    noise_multiplier: float
    epsilon: float
    delta: float
    ledger: Ledger


Callback = Callable[[Report], Any]


def fit(
    step: DifferentiallyPrivate,
    state: Any,
    data: Any,
    *,
    sampler: Sampler,
    delta: float,
    epochs: float | None = None,
    steps: int | None = None,
    epsilon: float | None = None,
    ledger: Ledger | None = None,
    data_name: str = "data",
    mask: str | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoints: str | os.PathLike[str] | None = None,
    progress: bool = True,
    key: Any = None,
) -> Fitted:
    """Train privately and say at what epsilon.

    Args:
      step: `privjax.differentially_private(...)` of a function (state, batch) -> state,
        or `privjax.dp.correlated(...)` of that: then the noise starts anew after every
        run, and checkpoints are written between runs.
        Where it has several arguments besides the private one, `state` is the tuple of
        them, and so is the result. Rows that only fill up a batch count as no unit. A
        loss that is a mean divides by the room of a batch, unless the step was made with
        `expected_units=sampler.expected`.
      data: a pytree of arrays with units on axis 0, a random-access source of units, or
        an iterator for `Streamed`.
      sampler: draws the batches, and says what a release on them costs.
      delta: at which epsilon is stated.
      epochs, steps: how long; with neither, as long as the ledger's budget lasts.
      epsilon: choose the noise so that everything in the ledger and this run stay
        within it. None: the step's own noise.
      ledger: what has been released before, and the neighbouring relation; a new one
        for the first relation that the sampler's charge holds for by default.
      data_name: the data set, in the ledger.
      mask: also put the mask into the batch, under this name, for a loss that uses it.
      callbacks: called with a `Report` after every epoch; True ends the run. What a
        callback reads from private data is not covered by epsilon.
      checkpoints: a folder to save to after every epoch, and to resume from.
      progress: show a progress bar with epsilon so far.
      key: for batches and noise; from the operating system by default.

    Raises:
      BudgetError: the ledger's budget does not admit the run; nothing has been run.
      InputError: arguments that do not fit together.
      LeakError: see `differentially_private`.
    """
    if not isinstance(step, DifferentiallyPrivate):
        raise InputError(
            "fit takes a step made by privjax.differentially_private, not "
            f"{type(step).__name__}: nothing else is known to be private."
        )
    if not 0 < delta < 1:
        raise InputError(f"delta={delta} is not between 0 and 1.")
    if ledger is None:
        ledger = Ledger(sampler.neighbours[0])
    start, notes = 0, {}
    if checkpoints is not None:
        ledger = load_ledger(checkpoints) or ledger
        if found := load_state(checkpoints, state):
            state, start, notes = found.state, found.step, found.notes
    if ledger.neighbours not in sampler.neighbours:
        raise InputError(
            f"{type(sampler).__name__} is accounted for {list(sampler.neighbours)}, and "
            f"the ledger is about {ledger.neighbours!r}."
        )
    if "noise_multiplier" in notes:
        # A run goes on with the noise that it was begun with.
        step = with_noise(step, float(notes["noise_multiplier"]))
        epsilon = None

    trial, data = _trial(sampler, data)
    caller = _Caller(step, mask, notes.get("clip_norm"))
    values = caller.check(state, *trial)

    run = 0  # the length of a run of correlated noise
    if isinstance(step, CorrelatedStep):
        run, mechanism = step.steps, caller.mechanism(state, *trial)

    def charge(noise: float, steps: int, begin: int = start) -> list[tuple[Any, int]]:
        if run:
            of_run = dataclasses.replace(mechanism, noise_multiplier=noise)
            found = [
                sampler.charge_run(of_run, begin + at, mechanism.count)
                for at in range(0, steps, run)
            ]
            return _merged(chain(*found))
        # All releases of a step share this multiplier: they are one Gaussian release.
        event = {"kind": "gaussian", "noise_multiplier": noise}
        return sampler.charge(event, steps, values)

    total = _steps(epochs, steps, sampler, ledger, step, charge, data_name)
    left = max(total - start, 0)
    if epsilon is not None and left:
        ((_, count),) = charge(1.0, left)
        noise = ledger.calibrate(
            lambda z: charge(z, left)[0][0],
            count,
            Budget(epsilon, delta),
            data=data_name,
        )
        caller.step = step = with_noise(step, noise)
    rehearsal = copy.copy(ledger)
    rehearsal.entries = list(ledger.entries)
    for event, count in charge(step.noise_multiplier, left):
        rehearsal.spend(event, count, data=data_name)

    # An epoch is charged at once, a stream or a run of correlated noise as a whole.
    chunk = left if isinstance(sampler, Streamed) else sampler.steps_per_epoch
    chunk = run or chunk
    batch_key, noise_key = jax.random.split(random.key() if key is None else key)
    # A run that goes on, also with the key of before, draws batches of its own: what a
    # sampler charges takes every draw for a new one.
    feed = sampler.masked(data, left, jax.random.fold_in(batch_key, start))
    done = start
    with _bar(progress, total, done) as show:
        while done < total:
            now = min(chunk, total - done)
            for event, count in charge(step.noise_multiplier, now, done):
                ledger.spend(event, count, data=data_name)
            if checkpoints is not None:
                save_ledger(checkpoints, ledger)
            if run:
                # Of one run only, whatever other runs begin with the same key.
                mine = jax.random.fold_in(jax.random.fold_in(noise_key, done), 1)
                caller.start(state, *trial, mine)
            for batch, keep in islice(feed, now):
                state = caller(state, batch, keep, jax.random.fold_in(noise_key, done))
                done += 1
                show(done, None)
            spent = ledger.epsilon(delta)
            show(done, spent)
            if checkpoints is not None:
                save_state(checkpoints, state, done, caller.notes())
            report = Report(done, total, state, spent, delta)
            if any([callback(report) is True for callback in callbacks]):
                break
            if isinstance(sampler, Streamed) and not run:
                break
    return Fitted(
        state, done, step.noise_multiplier, ledger.epsilon(delta), delta, ledger
    )


def with_noise(step: DifferentiallyPrivate, noise: float) -> DifferentiallyPrivate:
    """The same private function with another noise multiplier."""
    if isinstance(step, CorrelatedStep):
        return step.with_noise(float(noise))
    options = dataclasses.replace(step.options, noise_multiplier=float(noise))
    return DifferentiallyPrivate(step.fun, step.private, options)


class _Caller:
    """Calls the step: arguments by name, the mask, and a clip norm that adapts."""

    def __init__(
        self, step: DifferentiallyPrivate, mask: str | None, clip_norm: float | None
    ) -> None:
        if len(step.private) != 1:
            raise InputError(
                f"fit feeds one private argument, not {list(step.private)}."
            )
        self.step = step
        self.mask = mask
        self.clip_norm = clip_norm
        self.noise: Any = None
        self.names = [n for n in step.signature.parameters if n not in step.private]

    def arguments(self, state: Any, batch: Any, keep: Any) -> tuple[Any, ...]:
        parts = (state,) if len(self.names) == 1 else tuple(state)
        if len(parts) != len(self.names):
            raise InputError(
                f"{self.step.__name__} has the arguments {self.names} besides the batch: "
                f"the state must be a tuple of so many parts, not of {len(parts)}."
            )
        bound = dict(zip(self.names, parts, strict=True))
        bound[self.step.private[0]] = with_mask(batch, keep, self.mask)
        return tuple(bound[n] for n in self.step.signature.parameters)

    def _extra(self, keep: Any) -> dict[str, Any]:
        own = self.step.signature.parameters
        name = lambda word: f"privacy_{word}" if word in own else word  # noqa: E731
        extra = {name("mask"): np.asarray(keep) != 0}
        if self.step.options.adapts and self.clip_norm is not None:
            extra[name("clip_norm")] = np.float32(self.clip_norm)
        return extra

    def check(self, state: Any, batch: Any, keep: Any) -> int:
        """Raises what a call would; at most how many values a call releases."""
        self.step.releases(*self.arguments(state, batch, keep))
        return sum(math.prod(np.shape(x)) for x in jax.tree.leaves(state))

    def mechanism(self, state: Any, batch: Any, keep: Any) -> Any:
        """The correlated noise of a run."""
        assert isinstance(self.step, CorrelatedStep)
        return self.step.mechanism(*self.arguments(state, batch, keep))

    def start(self, state: Any, batch: Any, keep: Any, key: Any) -> None:
        """Begin a run of correlated noise."""
        assert isinstance(self.step, CorrelatedStep)
        arguments = self.arguments(state, batch, keep)
        self.noise = self.step.start(*arguments, **{self.step.key_name: key})

    def __call__(self, state: Any, batch: Any, keep: Any, key: Any) -> Any:
        extra = self._extra(keep)
        if isinstance(self.step, CorrelatedStep):
            extra[self.step.noise_name] = self.noise
            out, self.noise = self.step(*self.arguments(state, batch, keep), **extra)
            return out
        if self.step.needs_key:
            extra[self.step.key_name] = key
        out = self.step(*self.arguments(state, batch, keep), **extra)
        if self.step.options.adapts:
            out, clip_norm = out
            self.clip_norm = float(clip_norm)
        return out

    def notes(self) -> dict[str, Any]:
        """What a checkpoint has to say besides the state."""
        out: dict[str, Any] = {"noise_multiplier": self.step.noise_multiplier}
        return out if self.clip_norm is None else out | {"clip_norm": self.clip_norm}


def _steps(
    epochs: float | None,
    steps: int | None,
    sampler: Sampler,
    ledger: Ledger,
    step: DifferentiallyPrivate,
    charge: Any,
    data_name: str,
) -> int:
    if epochs is not None and steps is not None:
        raise InputError("give epochs= or steps=, not both.")
    if steps is not None:
        return int(steps)
    if epochs is not None:
        return round(epochs * sampler.steps_per_epoch)
    if ledger.budget is None:
        raise InputError("give epochs=, steps=, or a ledger with a budget to use up.")
    epoch = sampler.steps_per_epoch
    if isinstance(step, CorrelatedStep):
        epoch = step.steps
    ((event, count),) = charge(step.noise_multiplier, epoch)
    each = epoch // count
    return ledger.steps(event, data=data_name) * each


def _merged(charged: Iterable[tuple[Any, int]]) -> list[tuple[Any, int]]:
    """Equal events of several runs with their number."""
    found: list[tuple[Any, int]] = []
    for event, count in charged:
        if found and found[-1][0] == event:
            count += found.pop()[1]
        found.append((event, count))
    return found


def _trial(sampler: Sampler, data: Any) -> tuple[tuple[Any, np.ndarray], Any]:
    """A batch for tracing, and the data with what was taken of a stream put back."""
    if not isinstance(sampler, Streamed):
        return next(sampler.masked(data, 1, random.key())), data
    stream = iter(data)
    first = list(islice(stream, sampler.room))
    if not first:
        raise InputError("the stream of units is empty.")
    return next(sampler.masked(first, 1)), chain(first, stream)


@contextlib.contextmanager
def _bar(progress: bool, total: int, done: int) -> Any:
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("epsilon {task.fields[spent]}"),
    )
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("", total=total, completed=done, spent="-")

        def show(step: int, spent: float | None) -> None:
            bar.update(task, completed=step)
            if spent is not None:
                bar.update(task, spent=f"{spent:.3g}")

        yield show
