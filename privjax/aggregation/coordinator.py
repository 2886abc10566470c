"""The server of rounds with clients that are processes elsewhere; see `remote`."""

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.aggregation.clients import Server
from privjax.aggregation.few_bits import common, quanta
from privjax.aggregation.messages import (
    Exchange,
    Message,
    finite,
    listed,
    named,
    need,
    number,
    typed,
)
from privjax.aggregation.methods import Plain
from privjax.aggregation.panel import Ask, Panel
from privjax.aggregation.quantised import Played, Quantised
from privjax.aggregation.remote import Step, supported
from privjax.aggregation.replies import (
    Answers,
    advertised,
    mail,
    reasons,
    too_few,
    welcome,
)
from privjax.aggregation.spdz import Spdz
from privjax.errors import InputError, PrivacyError, ProtocolError
from privjax.prg.keys import key as random_key
from privjax.prg.keys import key_words

# A client takes no round twice: a server that was ended goes on behind all it may have
# begun since its notes.
_AHEAD = 2**20


@dataclass
class Coordinator:
    """The server in all rounds.

    Attributes:
      method, plan: as at the clients.
      exchange: carries messages; see the module's docstring.
      types, rows: shapes and types of what one client sends.
      clients: for how many clients rounds are planned; fewer may be asked.
      train_seconds, step_seconds: how long the first step may take, and each later one.
      goal: with how many a round goes on that have trained; None: with all, or when the
        time is over.
      charge: called with the number of clients before what they send could become a sum
        over them; what it raises ends the round.
      aggregators: asks the parties of `spdz` (see `panel`).
    """

    method: Any
    plan: bytes
    exchange: Exchange
    types: Sequence[Any]
    rows: Sequence[Any]
    clients: int
    train_seconds: float = 600.0
    step_seconds: float = 60.0
    goal: int | None = None
    charge: Callable[[int], None] = lambda clients: None
    aggregators: Ask | None = None
    run: bytes = field(default_factory=lambda: os.urandom(16))
    number: int = 0
    _counted: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        supported(self.method, self.aggregators)
        self.method.check(self.clients, False)
        if self.rows and not isinstance(self.method, Plain):
            raise InputError(
                f"{self.method} forms sums, and no statistics of what clients send one "
                "by one: these need plain()."
            )

    def notes(self) -> dict[str, Any]:
        """What a server that is started again needs to go on with the same clients."""
        counted = {str(node): number for node, number in self._counted.items()}
        return {"run": self.run.hex(), "number": self.number, "counted": counted}

    def resume(self, notes: Mapping[str, Any]) -> None:
        """Go on from `notes`; rounds that they do not know of are left out."""
        self.run = bytes.fromhex(notes["run"])
        self.number = int(notes["number"]) + _AHEAD
        self._counted = {int(node): n for node, n in notes["counted"].items()}

    def round(self, nodes: Sequence[int], public: Sequence[Any]) -> Answers:
        """One round with these nodes.

        Raises: ProtocolError where too few answered; nothing was unmasked, and the next
          call is a new round.
        """
        if not 1 <= len(nodes) <= self.clients:
            raise InputError(
                f"{len(nodes)} nodes; rounds are planned for {self.clients}."
            )
        self.number += 1
        if isinstance(self.method, Spdz):
            self._panel().hello()
        shown = named("public", public)
        shown["plan"] = np.frombuffer(self.plan, np.uint8)
        lost = dict.fromkeys(nodes, "no answer in time after training")
        messages = {
            node: shown | {"counted": number(self._counted.get(node, -1))}
            for node in nodes
        }
        replies = self._ask(Step.TRAIN, messages, self.train_seconds, self.goal)
        if isinstance(self.method, Plain):
            answers = self._added(replies, lost)
        elif isinstance(self.method, Quantised):
            answers = self._rounded(replies, lost)
        elif isinstance(self.method, Spdz):
            answers = self._shared(replies, lost)
        else:
            answers = self._masked(replies, lost)
        self._counted |= dict.fromkeys(answers.nodes, self.number)
        return answers

    def _ask(
        self,
        step: Step,
        messages: Mapping[int, Message],
        seconds: float,
        enough: int | None = None,
    ) -> dict[int, Message]:
        about: Message = {
            "step": number(step),
            "number": number(self.number),
            "run": np.frombuffer(self.run, np.uint8),
        }
        whole = {node: message | about for node, message in messages.items()}
        replies = self.exchange(whole, seconds, enough) if whole else {}
        return {node: replies[node] for node in sorted(replies) if node in whole}

    def _added(self, replies: dict[int, Message], lost: dict[int, str]) -> Answers:
        """Sums in the clear."""
        parts: dict[int, list[np.ndarray]] = {}
        rows: dict[int, list[np.ndarray]] = {}
        for node, reply in replies.items():
            try:
                part = finite(typed(listed(reply, "part"), self.types))
                row = finite(typed(listed(reply, "row"), self.rows))
            except PrivacyError as error:
                lost[node] = str(error)
                continue
            parts[node], rows[node] = part, row
            del lost[node]
        if not parts:
            raise ProtocolError(f"no client answered: {reasons(lost)}.")
        self.charge(len(parts))
        stacked = [np.stack(column) for column in zip(*parts.values(), strict=True)]
        words = key_words(random_key()) if self.method.needs_key else None
        sums = self.method.combine(words, [jnp.asarray(x) for x in stacked])
        stood = [np.stack(column) for column in zip(*rows.values(), strict=True)]
        return Answers([np.asarray(s) for s in sums], stood, tuple(parts), lost)

    def _rounded(self, replies: dict[int, Message], lost: dict[int, str]) -> Answers:
        """Sums in the clear of updates of a few bits."""
        method, public = self.method, common(self._context())
        total: Any = None
        nodes = []
        for node, reply in replies.items():
            try:
                sent = method.stands_for(quanta(method, reply, self.types))
            except PrivacyError as error:
                lost[node] = str(error)
                continue
            total = sent if total is None else method.add(total, sent)
            nodes.append(node)
            del lost[node]
        if not nodes:
            raise ProtocolError(f"no client answered: {reasons(lost)}.")
        sums = method.finish(
            Played(public, public), total, True, self.types, len(nodes), None
        )
        return Answers([np.asarray(s) for s in sums], [], tuple(nodes), lost)

    def _context(self) -> bytes:
        return self.run + struct.pack("<q", self.number)

    def _masked(self, replies: dict[int, Message], lost: dict[int, str]) -> Answers:
        """Steps 1 to 4 of a secure sum."""
        keys = advertised(replies, (2, 8), lost)
        nodes = list(keys)
        try:
            known = list(keys.values())
            server = Server(self.method, random_key(), known, self._context())
        except InputError as error:
            raise too_few(self.method, len(nodes), error, lost) from error

        step = partial(self._stepped, nodes, lost)
        take = lambda name, f: lambda i, reply: f(i, need(reply, name))  # noqa: E731
        everybody = np.ones(len(nodes), bool)
        step(Step.SHARE, everybody, welcome(server), take("sealed", server.collect))
        self._noised(server, lost)
        self.charge(len(nodes))
        add = take("masked", self._take(server))
        step(Step.MASK, server.shared, mail(server), add)
        self._noised(server, lost)
        if server.round.threshold:
            news = lambda i: {"answered": server.news(i)}  # noqa: E731
            step(Step.UNMASK, server.answered, news, take("response", server.hear))
        try:
            sums = server.open(self.types)
        except ProtocolError as error:
            raise ProtocolError(f"{error} ({reasons(lost)})") from error
        # Who did not answer the last step is in the sum all the same.
        there = tuple(nodes[i] for i in np.flatnonzero(server.answered))
        gone = {node: why for node, why in lost.items() if node not in there}
        return Answers(sums, [], there, gone)

    def _stepped(
        self,
        nodes: Sequence[int],
        lost: dict[int, str],
        step: Step,
        there: np.ndarray,
        message: Callable[[int], Message],
        take: Callable[[int, Message], None],
    ) -> None:
        """One step with the clients that are there, by their numbers among the nodes."""
        asked = {nodes[i]: message(i) for i in np.flatnonzero(there).tolist()}
        replies = self._ask(step, asked, self.step_seconds)
        for node in asked:
            try:
                if node not in replies:
                    raise ProtocolError("no answer in time")
                take(nodes.index(node), replies[node])
            except PrivacyError as error:
                lost.setdefault(node, f"step `{step.name.lower()}`: {error}")

    def _panel(self) -> Panel:
        size = sum(int(np.prod(x.shape, dtype=np.int64)) for x in self.types)
        assert self.aggregators is not None
        return Panel(
            self.method, self.aggregators, self.step_seconds, self._context(), size
        )

    def _shared(self, replies: dict[int, Message], lost: dict[int, str]) -> Answers:
        """A sum among aggregators."""
        keys = advertised(replies, (8,), lost)
        nodes, clients = list(keys), len(keys)
        try:
            self.method.check(clients, False)
        except InputError as error:
            raise too_few(self.method, clients, error, lost) from error
        panel = self._panel()
        masks = panel.deal(np.stack(list(keys.values())))
        self.charge(clients)

        def asked(i: int) -> Message:
            mask = {} if masks is None else {"mask": masks[i]}
            return {"i": number(i), "clients": number(clients), **mask}

        sealed: dict[int, list[np.ndarray]] = {}

        def take(i: int, reply: Message) -> None:
            found = listed(reply, "sealed")
            if len(found) != self.method.parties:
                raise ProtocolError(f"{len(found)} messages for aggregators.")
            sealed[i] = found

        self._stepped(nodes, lost, Step.SHARE, np.ones(clients, bool), asked, take)
        counted = panel.admit(sealed)
        for i in set(sealed) - set(np.flatnonzero(counted).tolist()):
            lost[nodes[i]] = "step `share`: an aggregator could not read its message"
        fewest = panel.setting.fewest(clients)
        if counted.sum() < fewest:
            raise ProtocolError(
                f"{counted.sum()} of {clients} clients answered, and {self.method} opens "
                f"no sum of fewer than {fewest} ({reasons(lost)}); nothing was opened."
            )
        sums = panel.decoded(clients, self.types, panel.open(counted))
        there = tuple(nodes[i] for i in np.flatnonzero(counted).tolist())
        return Answers(sums, [], there, lost)

    def _noised(self, server: Server, lost: Mapping[int, str]) -> None:
        try:
            server.check_noise()
        except ProtocolError as error:
            raise ProtocolError(f"{error} ({reasons(lost)})") from error

    def _take(self, server: Server) -> Callable[[int, Any], None]:
        size = sum(int(np.prod(x.shape, dtype=np.int64)) for x in self.types)

        def take(i: int, masked: np.ndarray) -> None:
            if masked.shape != (size,):
                raise ProtocolError(f"{masked.shape} masked words, not ({size},).")
            server.add(i, masked)

        return take
