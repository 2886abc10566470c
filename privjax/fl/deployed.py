"""An algorithm between a server and real clients: `participant` and `serve`.

Both are made of the three functions of one `Algorithm`: the client's is traced and
checked as in a simulated round, compiled once per client, and its sums leave by the
algorithm's `aggregate=`: in the clear, in a few bits, or masked, with the server's noise or
with noise of which each client adds a part, so that nobody is trusted with the exact sum.
What carries the messages is a function (see
`privjax.aggregation.remote`), such as `privjax.runtimes.flower.Network`.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from privjax import random
from privjax._typing import PyTree
from privjax.accounting import Ledger
from privjax.aggregation.coordinator import Coordinator
from privjax.aggregation.messages import Message
from privjax.aggregation.panel import Ask, PartyLost
from privjax.aggregation.remote import Participant
from privjax.dp.checkpoints import load_ledger, load_state, save_ledger, save_state
from privjax.dp.sampling import FullBatch
from privjax.errors import BudgetError, InputError, ProtocolError
from privjax.fl import mapping
from privjax.fl.budgets import OwnBudget
from privjax.fl.records import Records, flat
from privjax.fl.rounds import Algorithm
from privjax.fl.states import Client, State
from privjax.fl.training import Account, Fitted, Metrics, Report
from privjax.prg.keys import key_words

_LOG = logging.getLogger(__name__)


class Nodes(Protocol):
    """The clients that are connected, and how to ask them."""

    def nodes(self) -> Sequence[int]: ...

    def __call__(
        self, messages: Mapping[int, Message], seconds: float, enough: int | None
    ) -> Mapping[int, Message]: ...


class _Program:
    """The client's program of an algorithm for one client's data."""

    def __init__(
        self, algorithm: Algorithm, params: PyTree, own: Client, clients: int
    ) -> None:
        kept = jax.eval_shape(algorithm.enrol, params)
        words = jax.ShapeDtypeStruct((8,), np.uint32) if algorithm.draws else None
        public = jax.eval_shape(
            lambda p: algorithm.offer(p, algorithm.start(p)), params
        )
        mine = own._replace(state=kept, key=words)
        wide = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((1, *np.shape(x)), jnp.result_type(x)), mine
        )
        client = algorithm.client
        if algorithm.clips:
            client = partial(client, clients=clients)
        self.program = mapping.trace(client, public, wide, algorithm.name)
        self.update = mapping.client_update(self.program)
        sent = self.program.sent
        self.types = mapping.summed(jax.tree.leaves(sent.sums))
        self.rows = jax.tree.leaves(sent.rows)
        parts = [(x.shape, str(x.dtype)) for x in (*self.types, *self.rows)]
        text = f"{algorithm.name} {algorithm.round.method} {clients} {parts}"
        self.plan = hashlib.sha256(text.encode()).digest()


class _Work:
    """What a client does in a round, see `privjax.aggregation.remote.Work`."""

    def __init__(
        self,
        algorithm: Algorithm,
        params: PyTree,
        own: Client,
        clients: int,
        budget: OwnBudget | None = None,
    ) -> None:
        self.algorithm, self.own, self.clients = algorithm, own, clients
        self.method, self.budget = algorithm.round.method, budget
        self._params = params
        if budget is not None and self._event(clients) is None:
            raise InputError(
                f"a client's budget, and {algorithm.name} with {self.method} adds no "
                "noise: a round would cost more than any budget. Give aggregate= a "
                "method with noise=."
            )
        self._program = _Program(algorithm, params, own, clients)
        self.plan = self._program.plan

    def first(self) -> Any:
        return jax.tree.map(jnp.asarray, self.algorithm.enrol(self._params))

    def train(
        self, public: Sequence[np.ndarray], kept: Any
    ) -> tuple[list[Any], list[Any], Any]:
        words = key_words(random.key()) if self.algorithm.draws else None
        own = self.own._replace(state=kept, key=words)
        program = self._program
        wanted = list(program.program.closed.in_avals)[: program.program.public]
        found = [(x.shape, x.dtype) for x in public]
        if found != [(x.shape, x.dtype) for x in wanted]:
            raise ProtocolError(
                f"the server sent arrays {found[:3]}, and {self.algorithm.name} takes "
                f"{[(x.shape, x.dtype) for x in wanted][:3]}. Nothing was computed."
            )
        sent = program.update(list(public), jax.tree.leaves(own))
        parts = mapping.summed(jax.tree.leaves(sent.sums))
        to_host = lambda tree: [np.asarray(x) for x in jax.tree.leaves(tree)]  # noqa: E731
        return to_host(parts), to_host(sent.rows), sent.kept

    def _event(self, clients: int) -> Any:
        return self.algorithm.event(clients, self._params)

    def admit(self, clients: int) -> None:
        if self.budget is not None:
            self.budget.admit(self._event(clients))

    def charge(self, clients: int) -> None:
        if self.budget is not None:
            self.budget.charge(self._event(clients))


def participant(
    algorithm: Algorithm,
    params: PyTree,
    data: PyTree,
    *,
    clients: int,
    fewest: int = 2,
    mask: Any = None,
    steps: Any = None,
    budget: OwnBudget | None = None,
    aggregators: Any = None,
) -> Participant:
    """One real client of an algorithm.

    Args:
      algorithm: the server's too.
      params: arrays like the model (where some stay with the client, their first values).
      data: the client's, a pytree of [examples, ...].
      clients: for how many clients a round is planned, as at the server.
      fewest: with fewer it takes part in no secure sum.
      mask: bool[examples], which are real; None: all.
      steps: the most local steps of a round; None: all.
      budget: the client's own, `OwnBudget`: it takes part in no round past it. Each sum
        that it sends its part of is charged in full.
      aggregators: with `spdz`, the public keys of its parties, uint32[...], which the
        client must have from somebody else than the server.

    Returns: an object with `handle(message) -> message`; the program is traced here, and
      compiled in the first round.

    Raises:
      LeakError: the program hands the client's data to the host.
      UnsupportedError: an `aggregate=` that only a simulation can play.
      InputError: a budget, where nothing adds noise.
    """
    params = jax.tree.map(jnp.asarray, params)
    own = Client((), *jax.tree.map(jnp.asarray, (data, mask, steps)))
    work = _Work(algorithm, params, own, clients, budget)
    return Participant(work, fewest, aggregators)


def serve(
    algorithm: Algorithm,
    params: PyTree,
    network: Nodes,
    *,
    like: PyTree,
    rounds: int,
    clients: int,
    least: int = 2,
    wait: float = 600.0,
    train_seconds: float = 600.0,
    step_seconds: float = 60.0,
    goal: int | None = None,
    retries: int = 3,
    evaluate: Callable[[State], Metrics] | None = None,
    ledger: Ledger | None = None,
    delta: float | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callable[[Report], Any]] = (),
    aggregators: Ask | None = None,
) -> Fitted:
    """Train with real clients.

    Args:
      algorithm: as at the clients.
      params: the model before the first round.
      network: who is connected, and how to ask them.
      like: a pytree of arrays or types [examples, ...] like a client's data; the number of
        examples may be another at each client.
      rounds: how many in all, those before a checkpoint included.
      clients: how many are asked in a round at most, drawn at random from those who are
        connected.
      least: a round begins when so many are connected.
      wait: for them, in seconds.
      train_seconds, step_seconds: how long clients have to train, and for each step of
        a secure sum after it; who is late is left out of the round.
      goal: a round goes on as soon as so many have trained, without the slower ones;
        None: with all who are in time. Ask more `clients` than are needed.
      retries: how often a round that failed, as too few answered, is run again.
      evaluate: state -> metrics for the log.
      ledger, delta: as for `fit`; needed where the algorithm is private. **No
        amplification by sampling is claimed**, however many are connected: every sum is
        charged as one that every client is in. Whom a round asks is known to the network
        and to those who are asked, who is connected is chosen by nobody, and a round that
        failed draws again; none of it is the sampling that a theorem speaks of. `fit`
        with a `Poisson` or `FixedSize` sampler is charged by its sampling. A sum is
        charged for as many clients as it is over, before they send their parts of it,
        and again when the round is run again after that.
      checkpoints: a folder to save to after every round, and to resume from, with clients
        that went on running or with new ones.
      log: a .csv or .jsonl file with a row per round.
      callbacks: called with a `Report`; True ends the run.
      aggregators: with `spdz`, asks its parties, such as `privjax.fl.Aggregators`.

    Raises:
      ProtocolError: an aggregator has ended; or too few connected, or answered, more often
        than `retries`.
      BudgetError: the budget admits no further round.
      InputError: arguments that do not fit together.
    """
    if not 1 <= least <= clients:
        raise InputError(f"least={least} is not in 1 ... clients={clients}.")
    if goal is not None and not 1 <= goal <= clients:
        raise InputError(f"goal={goal} is not in 1 ... clients={clients}.")
    params = jax.tree.map(jnp.asarray, params)
    state = State(params, algorithm.start(params), (), jnp.int32(0))
    program = _Program(algorithm, params, Client((), like), clients)
    server = Coordinator(
        algorithm.round.method,
        program.plan,
        network,
        program.types,
        program.rows,
        clients,
        train_seconds,
        step_seconds,
        goal,
        aggregators=aggregators,
    )
    done = 0
    if checkpoints is not None:
        ledger = load_ledger(checkpoints) or ledger
        if found := load_state(checkpoints, state):
            state, done = found.state, found.step
            server.resume(found.notes)
    name = "clients"
    everybody = FullBatch(clients)
    account = Account.of(algorithm, state, everybody, ledger, delta, name)

    def charge(answered: int) -> None:
        """One sum over so many: its event is another where fewer add noise."""
        if account is None:
            return
        event = algorithm.event(answered, params)
        assert event is not None
        replace(account, event=event).charge(done, 1)
        if checkpoints is not None:
            save_ledger(checkpoints, account.ledger)

    server.charge = charge
    records = Records(log, done=done)
    finish = _finish(algorithm, program, clients)
    stopped = "rounds"
    while done < rounds:
        if account is not None:
            if account.affordable(done, done + 1) <= done:
                if not done:
                    raise BudgetError(f"the budget admits no round: {account.ledger}")
                stopped = "budget"
                break
        begun = time.monotonic()
        public = jax.tree.leaves(algorithm.offer(state.params, state.server))
        ask = partial(_connected, network, clients, least, wait)
        try:
            answers, tries = _tried(server, ask, public, retries)
        except BudgetError:
            # Tries that failed were charged too.
            if not done:
                raise
            stopped = "budget"
            break
        state, metrics = finish(state, answers.sums, answers.rows, len(answers.nodes))
        done += 1
        for node, why in answers.lost.items():
            _LOG.warning("round %d: node %d is left out: %s", done, node, why)
        row = {
            **metrics,
            "lost": len(answers.lost),
            "tries": tries,
            "seconds": time.monotonic() - begun,
            **({} if evaluate is None else evaluate(state)),
        }
        records.add([flat(done, row)])
        if checkpoints is not None:
            save_state(checkpoints, state, done, server.notes())
        spent = None if account is None else account.epsilon()
        report = Report(done, rounds, state, records.rows[-1], spent)
        if any([callback(report) is True for callback in callbacks]):
            stopped = "callback"
            break
    return Fitted.of(state, records.rows, stopped, account, delta)


def _tried(
    server: Coordinator, ask: Callable[[], list[int]], public: Any, retries: int
) -> tuple[Any, int]:
    for tries in range(1, retries + 2):
        try:
            return server.round(ask(), [np.asarray(x) for x in public]), tries
        except PartyLost:
            raise  # it is needed in every round
        except ProtocolError as error:
            if tries > retries:
                raise
            _LOG.warning("a round failed, and is run again: %s", error)
    raise AssertionError


def _connected(network: Nodes, clients: int, least: int, wait: float) -> list[int]:
    """Some of the nodes that are there, at least `least` and at most `clients`."""
    until = time.monotonic() + wait
    while len(nodes := list(network.nodes())) < least:
        if time.monotonic() > until:
            raise InputError(
                f"{len(nodes)} clients are connected after {wait:g} s, and a round needs "
                f"least={least}."
            )
        time.sleep(0.2)
    seed = int.from_bytes(os.urandom(16), "little")
    drawn = np.random.default_rng(seed).permutation(len(nodes))[:clients]
    return [nodes[i] for i in sorted(drawn)]


def _finish(algorithm: Algorithm, program: _Program, clients: int) -> Any:
    """The server's arithmetic, compiled once."""
    work = algorithm.finish
    if algorithm.clips:
        work = partial(work, clients=clients)
    tree = jax.tree.structure(program.program.sent.sums)
    rows_tree = jax.tree.structure(program.program.sent.rows)

    def finish(state: State, parts: Any, rows: Any, answered: Any) -> Any:
        sums = {**jax.tree.unflatten(tree, parts), "clients": answered}
        extra = []
        if algorithm.robust is not None:
            there = jnp.ones(rows[0].shape[0], bool)
            listed = jax.tree.unflatten(rows_tree, rows)
            totals = lambda xs: [jnp.sum(x, 0, dtype=x.dtype) for x in xs]  # noqa: E731
            extra = [algorithm.robust(listed, there, totals)]
        params, server, metrics = work(state.params, state.server, sums, *extra)
        metrics = {"clients": answered, **metrics}
        return State(params, server, (), state.rounds + 1), metrics

    compiled = jax.jit(finish)
    return lambda state, parts, rows, n: compiled(state, parts, rows, jnp.float32(n))
