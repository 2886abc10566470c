"""`fit`: round after round, with a log, checkpoints, and a budget that ends the run."""

import contextlib
import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from privjax import random
from privjax._typing import Array
from privjax.accounting import Ledger
from privjax.dp.checkpoints import load_ledger, load_state, save_ledger, save_state
from privjax.errors import BudgetError, InputError
from privjax.fl import runtime as runtimes
from privjax.fl.records import Records, Row, flat
from privjax.fl.rounds import Algorithm
from privjax.fl.samplers import Faults, Sampler
from privjax.fl.states import State
from privjax.prg.keys import key_words

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What callbacks get.

    Attributes: `round` of `rounds`, the `state`, the last round's `metrics` as plain
    numbers, and `epsilon` so far (None where nothing is private).
    """

    round: int
    rounds: int
    state: State
    metrics: Row
    epsilon: float | None


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`.

    Attributes:
      state: after the last round.
      history: a row of metrics per round, plain numbers by name.
      stopped: why the run ended: "rounds", "budget" or "callback".
      epsilon, delta: the guarantee for a client by the ledger; None where the algorithm
        is not private.
      ledger: what was released, or None.
    """

    state: State
    history: list[Row]
    stopped: str
    epsilon: float | None
    delta: float | None
    ledger: Ledger | None

    @classmethod
    def of(
        cls,
        state: State,
        history: list[Row],
        stopped: str,
        account: "Account | None",
        delta: float | None,
    ) -> "Fitted":
        """The end of a run that was charged to `account`, None where nothing was."""
        if account is None:
            return cls(state, history, stopped, None, delta, None)
        spent = account.epsilon()
        return cls(state, history, stopped, spent, delta, account.ledger)


def fit(
    algorithm: Algorithm,
    state: State,
    data: Any,
    *,
    sampler: Sampler,
    rounds: int,
    evaluate: Callable[[State], Metrics] | None = None,
    every: int = 10,
    faults: Faults | None = None,
    bucketed: bool = False,
    ledger: Ledger | None = None,
    delta: float | None = None,
    data_name: str = "clients",
    checkpoints: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callable[[Report], Any]] = (),
    progress: bool = True,
    key: Any = None,
) -> Fitted:
    """Train over many rounds.

    Args:
      algorithm: `privjax.fl.fedavg(...)` and so on.
      state: `algorithm.init(...)`; it stays as it is.
      data: `ClientData`, or anything with a length and its methods `cohort` and
        `buckets`.
      sampler: who is asked in each round, and what a release on them costs.
      rounds: how many in all, those before a checkpoint included.
      evaluate: state -> metrics, added to the log every `every` rounds. What it reads
        from private data is covered by no epsilon.
      every: rounds between evaluations, checkpoints and calls of `callbacks`.
      faults: clients that drop out or are slow, drawn anew for every round.
      bucketed: pad clients to powers of two (`ClientData.buckets`).
      ledger: what was released before; its budget ends the run before the round that
        would exceed it. A new one by default where the algorithm is private.
      delta: at which epsilon is stated; needed where the algorithm is private.
      data_name: the clients' name in the ledger.
      checkpoints: a folder to save to, and to resume from. With the same `key` a resumed
        run gives the bits that an uninterrupted one would have given. Several processes
        need a folder each.
      log: a .csv or .jsonl file with a row of metrics per round.
      callbacks: called with a `Report`; True ends the run.
      progress: show a progress bar.
      key: draws cohorts, faults and what a round needs; from the operating system by
        default.

    Raises:
      BudgetError: the budget admits not even one round.
      InputError: arguments that do not fit together, or a checkpoint of another run.
      ProtocolError: with several processes, another one is gone.
    """
    if every < 1 or rounds < 0:
        raise InputError(f"every={every}, rounds={rounds}: no run.")
    if len(data) != sampler.units:
        raise InputError(
            f"the sampler is for {sampler.units} clients, not {len(data)}."
        )
    own_key = key is None
    key = random.key() if own_key else key
    mark = None if own_key else _fingerprint(key)
    start = 0
    if checkpoints is not None:
        ledger = load_ledger(checkpoints) or ledger
        if found := load_state(checkpoints, state):
            state, start = found.state, found.step
            if mark is not None and found.notes.get("key") not in (None, mark):
                raise InputError(
                    f"the run in {checkpoints} was begun with another key=: it can be "
                    "resumed with that one, or without any."
                )
    account = Account.of(algorithm, state, sampler, ledger, delta, data_name)
    total, stopped = rounds, "rounds"
    if account is not None:
        affordable = account.affordable(start, rounds)
        if affordable < rounds:
            total, stopped = affordable, "budget"
        if total <= start < rounds:
            raise BudgetError(
                f"the budget admits no further round after {start} of them: "
                f"{account.ledger}"
            )
    records = Records(log, done=start)
    ask = data.buckets if bucketed else data.cohort
    draw_key, fault_key, round_key = jax.random.split(key, 3)
    asked = islice(sampler.rows(draw_key, total), start, None)
    state = jax.tree.map(jnp.copy, state)
    done = start
    runtime = algorithm.round.runtime
    with _bar(progress, rounds, done) as show, runtimes.others(runtime):
        while done < total:
            now = min(every - done % every, total - done)
            if account is not None:
                account.charge(done, now)
                if checkpoints is not None:
                    save_ledger(checkpoints, account.ledger)
            rows: list[tuple[int, dict[str, Array]]] = []
            for ids, present in islice(asked, now):
                extra = _faults(faults, fault_key, done, len(ids))
                whole = present.all() and not sampler.padded
                cohort = ask(ids, present=None if whole else present, **extra)
                own = {}
                if algorithm.round.needs_key:
                    own["key"] = jax.random.fold_in(round_key, done)
                state, metrics = algorithm.round.in_place(state, cohort, **own)
                done += 1
                rows.append((done, metrics))
            if evaluate is not None:
                last, metrics = rows[-1]
                rows[-1] = last, {**metrics, **evaluate(state)}
            records.add(flat(n, m) for n, m in rows)
            spent = None if account is None else account.epsilon()
            show(done, records.rows[-1], spent)
            if checkpoints is not None:
                save_state(checkpoints, state, done, {"key": mark})
            if callbacks:
                # The next round is computed in the memory of this one's state.
                mine = jax.tree.map(jnp.copy, state)
                report = Report(done, rounds, mine, records.rows[-1], spent)
                if any([callback(report) is True for callback in callbacks]):
                    stopped = "callback"
                    break
    return Fitted.of(state, records.rows, stopped, account, delta)


@dataclass
class Account:
    """What rounds cost: the algorithm's event, as the sampler charges it."""

    ledger: Ledger
    delta: float
    event: dict[str, Any]
    values: int
    sampler: Sampler
    name: str

    @classmethod
    def of(
        cls,
        algorithm: Algorithm,
        state: State,
        sampler: Sampler,
        ledger: Ledger | None,
        delta: float | None,
        name: str,
    ) -> "Account | None":
        event = algorithm.event(sampler.room, state.params)
        if event is None:
            if ledger is not None:
                raise InputError(
                    f"a ledger is given, and {algorithm.name} with "
                    f"{algorithm.round.method} adds no noise: nothing is private. Give "
                    "aggregate= a method with noise=."
                )
            return None
        if delta is None or not 0 < delta < 1:
            raise InputError(
                f"{algorithm.name} is private: give delta=, between 0 and 1, to state "
                "its epsilon at."
            )
        ledger = Ledger(sampler.neighbours[0]) if ledger is None else ledger
        if ledger.neighbours not in sampler.neighbours:
            raise InputError(
                f"{type(sampler).__name__} is accounted for "
                f"{list(sampler.neighbours)}, and the ledger is about "
                f"{ledger.neighbours!r}."
            )
        values = sum(int(np.size(x)) for x in jax.tree.leaves(state.params))
        return cls(ledger, delta, event, values, sampler, name)

    def _count(self, rounds: int) -> int:
        """How many events the first `rounds` rounds are."""
        if rounds == 0:
            return 0
        return sum(n for _, n in self.sampler.charge(self.event, rounds, self.values))

    def _one(self) -> dict[str, Any]:
        return self.sampler.charge(self.event, 1, self.values)[0][0]

    def affordable(self, start: int, rounds: int) -> int:
        """The round at which the budget ends, `rounds` if it does not before."""
        if self.ledger.budget is None or start >= rounds:
            return rounds
        left = self.ledger.steps(self._one(), data=self.name)
        most = self._count(start) + left
        return bisect_right(range(rounds + 1), most, key=self._count) - 1

    def charge(self, done: int, now: int) -> None:
        count = self._count(done + now) - self._count(done)
        self.ledger.spend(self._one(), count, data=self.name)

    def epsilon(self) -> float:
        return self.ledger.epsilon(self.delta)


def _fingerprint(key: Any) -> str:
    """Tells whether a key is the same, and nothing about it."""
    words = np.asarray(key_words(key)).tobytes()
    return hashlib.sha256(b"privjax.fl.fit" + words).hexdigest()


def _faults(
    faults: Faults | None, key: Any, round_: int, clients: int
) -> dict[str, Any]:
    if faults is None:
        return {}
    survivors, steps = faults.draw(jax.random.fold_in(key, round_), clients)
    return {"survivors": survivors} | ({} if steps is None else {"steps": steps})


@contextlib.contextmanager
def _bar(progress: bool, total: int, done: int) -> Iterator[Any]:
    columns = (
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("", total=total, completed=done, text="")

        def show(done: int, row: Row, spent: float | None) -> None:
            names = [k for k in row if k not in ("round", "clients", "examples")]
            words = [f"{k} {row[k]:.4g}" for k in names[:4]]
            if spent is not None:
                words.append(f"epsilon {spent:.3g}")
            bar.update(task, completed=done, text="  ".join(words))

        yield show
