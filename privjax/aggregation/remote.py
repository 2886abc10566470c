"""A round between a server and clients that are processes elsewhere, both sides.

What carries the messages is not decided here: a message is a dictionary of NumPy arrays,
and the server is given a function `exchange(messages by node, seconds, enough) -> replies
by node` that leaves out who did not answer in time, and need not wait for more than
`enough` of them (None: for all).

    step       the server sends                       a client answers
    train      the public arrays                      its parts of the sums (or their few
                                                      bits), or, where sums are secure,
                                                      two public keys
    share      who its neighbours are, their keys     a sealed share for each of them
    mask       the shares that are for it             its parts under all masks
    unmask     which neighbours answered              one share per neighbour

The last three are those of `clients` (Bonawitz et al. 2017). Clients train first, so that
who is slow at it is left out before masks are agreed upon: after that a round counts
on all but the method's `dropped`. Whoever is late or gone in a step is left out of the
later ones; what it kept for itself is then forgotten, as if it had not been asked.

Where each client adds a part of the noise (`noise=DistributedGaussian` or
`DistributedSkellam`), a sum without enough of them is never unmasked: the server does not
ask for it, and a client that shares masks with all others sees by itself whether enough of
them answered.

A client may have a budget of its own (`Work.admit`, `Work.charge`): it refuses a round
past it, and is charged before anything that depends on its data leaves it.

A client runs its own program on what the server sends: the server can choose public
arrays and whom it asks, not what leaves the client. Both state what they run (`plan`), and
a client refuses a round of another one.
"""

import functools
import hashlib
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from privjax.aggregation.clients import Client, Mail, Server, Welcome
from privjax.aggregation.methods import Plain
from privjax.aggregation.quantised import Played, Quanta, Quantised
from privjax.aggregation.secure import SecureSum
from privjax.aggregation.spdz import Spdz
from privjax.errors import InputError, PrivacyError, ProtocolError, UnsupportedError
from privjax.prg.keys import key as random_key
from privjax.prg.keys import key_words

# A client takes no round twice: a server that was ended goes on behind all it may have
# begun since its notes.
_AHEAD = 2**20

Message = dict[str, np.ndarray]
Exchange = Callable[[Mapping[int, Message], float, int | None], Mapping[int, Message]]


class Step(IntEnum):
    """The steps of a round."""

    TRAIN = 0
    SHARE = 1
    MASK = 2
    UNMASK = 3


class Work(Protocol):
    """What a client does in a round.

    Attributes: `method`, how sums are formed; `plan`, bytes that name what is run;
    `clients`, for how many a round is planned.
    """

    @property
    def method(self) -> Any: ...

    @property
    def plan(self) -> bytes: ...

    @property
    def clients(self) -> int: ...

    def first(self) -> Any:
        """What it keeps before its first round."""

    def train(
        self, public: Sequence[np.ndarray], kept: Any
    ) -> tuple[list[Any], list[Any], Any]:
        """Parts of the sums, rows that leave as they are, and what it keeps."""

    def admit(self, clients: int) -> None:
        """Raises BudgetError where a sum over so many is more than the client allows."""

    def charge(self, clients: int) -> None:
        """Note, for good, that its part of such a sum leaves; raises as `admit`."""


class Participant:
    """One client in all rounds: what it answers to each message.

    It holds the client's state between rounds, and the secrets of one round at most.

    Args:
      work: what it does.
      fewest: with fewer clients it takes part in no secure sum: what a sum of two tells
        one of them is the other's part. The server says how many there are; that they
        are who they claim to be is for the network to know.

    Attributes: `kept`, its state; `rounds`, in how many it was counted.
    """

    def __init__(self, work: Work, fewest: int = 2) -> None:
        supported(work.method)
        self.work, self.fewest = work, fewest
        self.kept = work.first()
        self.rounds = 0
        self._run, self._number = b"", -1
        self._pending: tuple[int, Any] | None = None
        self._client: Client | None = None
        self._parts: list[Any] = []
        self._among = 0

    def handle(self, message: Message) -> Message:
        """The answer to one message of the server.

        Raises: ProtocolError for a message of another round or form, or of another plan;
          RangeError for an update that cannot be summed. Then nothing is sent.
        """
        number, found = _whole(message, "number"), _whole(message, "step")
        if found not in {*Step}:
            raise ProtocolError(f"a message of a step {found}, which there is not.")
        step = Step(found)
        run = _need(message, "run").tobytes()
        if step is Step.TRAIN:
            return self._train(message, run, number)
        if self._client is None or (run, number) != (self._run, self._number):
            raise ProtocolError(
                f"round {number} is not the one that this client trained for: it was "
                "started anew, or left behind. Nothing was sent."
            )
        if step is Step.SHARE:
            names = ("neighbours", "keys", "public")
            clients = _whole(message, "clients")
            # More than planned would each add less of the noise.
            if not self.fewest <= clients <= self.work.clients:
                raise ProtocolError(
                    f"a sum of {clients} clients, not of {self.fewest} to "
                    f"{self.work.clients}: nothing was sent."
                )
            self.work.admit(clients)
            self._among = clients
            place = (_whole(message, "i"), clients)
            welcome = Welcome(*place, *(_need(message, n) for n in names))
            return {"sealed": self._client.share(welcome)}
        if step is Step.MASK:
            mail = Mail(_need(message, "sealed"), _need(message, "present"))
            masked = self._client.mask(mail, self._parts)
            self.work.charge(self._among)
            return {"masked": masked}
        return {"response": self._client.unmask(_need(message, "answered"))}

    def _train(self, message: Message, run: bytes, number: int) -> Message:
        if _need(message, "plan").tobytes() != self.work.plan:
            raise ProtocolError(
                "the server runs another program, or forms its sums otherwise, than this "
                "client does: leave the run."
            )
        if run == self._run and number <= self._number:
            raise ProtocolError(f"round {number} of this run was already taken.")
        self._settle(run, _whole(message, "counted"))
        self._run, self._number = run, number
        self._client, self._parts = None, []
        self.work.admit(self.work.clients)
        parts, rows, kept = self.work.train(_listed(message, "public"), self.kept)
        self._pending = number, kept
        context = run + struct.pack("<q", number)
        if not isinstance(self.work.method, SecureSum):
            self.work.charge(self.work.clients)
        if isinstance(self.work.method, Plain):
            return _named("part", parts) | _named("row", rows)
        if isinstance(self.work.method, Quantised):
            return _few_bits(self.work.method, parts, context)
        self._parts = parts
        self._client = Client(self.work.method, random_key(), context)
        return {"keys": self._client.advertise()}

    def _settle(self, run: bytes, counted: int) -> None:
        """Keep what an earlier round changed if that round counted this client."""
        if self._pending is not None and run == self._run:
            number, kept = self._pending
            if counted == number:
                self.kept, self.rounds = kept, self.rounds + 1
        self._pending = None


@dataclass(frozen=True)
class Answers:
    """What a round gave.

    Attributes:
      sums: over the clients that were counted.
      rows: what they sent as it is, [clients, ...] each.
      nodes: who they are.
      lost: by node, in words, why the others that were asked were not.
    """

    sums: list[np.ndarray]
    rows: list[np.ndarray]
    nodes: tuple[int, ...]
    lost: dict[int, str]


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
    run: bytes = field(default_factory=lambda: os.urandom(16))
    number: int = 0
    _counted: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        supported(self.method)
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
        shown = _named("public", public)
        shown["plan"] = np.frombuffer(self.plan, np.uint8)
        lost = dict.fromkeys(nodes, "no answer in time after training")
        messages = {
            node: shown | {"counted": _number(self._counted.get(node, -1))}
            for node in nodes
        }
        replies = self._ask(Step.TRAIN, messages, self.train_seconds, self.goal)
        if isinstance(self.method, Plain):
            answers = self._added(replies, lost)
        elif isinstance(self.method, Quantised):
            answers = self._rounded(replies, lost)
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
            "step": _number(step),
            "number": _number(self.number),
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
                part = _finite(_typed(_listed(reply, "part"), self.types))
                row = _finite(_typed(_listed(reply, "row"), self.rows))
            except PrivacyError as error:
                lost[node] = str(error)
                continue
            parts[node], rows[node] = part, row
            del lost[node]
        if not parts:
            raise ProtocolError(f"no client answered: {_reasons(lost)}.")
        self.charge(len(parts))
        stacked = [np.stack(column) for column in zip(*parts.values(), strict=True)]
        words = key_words(random_key()) if self.method.needs_key else None
        sums = self.method.combine(words, [jnp.asarray(x) for x in stacked])
        listed = [np.stack(column) for column in zip(*rows.values(), strict=True)]
        return Answers([np.asarray(s) for s in sums], listed, tuple(parts), lost)

    def _rounded(self, replies: dict[int, Message], lost: dict[int, str]) -> Answers:
        """Sums in the clear of updates of a few bits."""
        method, public = self.method, _common(self._context())
        total: Any = None
        nodes = []
        for node, reply in replies.items():
            try:
                sent = method.stands_for(_quanta(method, reply, self.types))
            except PrivacyError as error:
                lost[node] = str(error)
                continue
            total = sent if total is None else method.add(total, sent)
            nodes.append(node)
            del lost[node]
        if not nodes:
            raise ProtocolError(f"no client answered: {_reasons(lost)}.")
        sums = method.finish(
            Played(public, public), total, True, self.types, len(nodes), None
        )
        return Answers([np.asarray(s) for s in sums], [], tuple(nodes), lost)

    def _context(self) -> bytes:
        return self.run + struct.pack("<q", self.number)

    def _masked(self, replies: dict[int, Message], lost: dict[int, str]) -> Answers:
        """Steps 1 to 4 of a secure sum."""
        keys: dict[int, np.ndarray] = {}
        wanted = jax.ShapeDtypeStruct((2, 8), np.uint32)
        for node, reply in replies.items():
            try:
                (keys[node],) = _typed([_need(reply, "keys")], [wanted])
                del lost[node]
            except PrivacyError as error:
                lost[node] = str(error)
        nodes = list(keys)
        try:
            known = list(keys.values())
            server = Server(self.method, random_key(), known, self._context())
        except InputError as error:
            raise ProtocolError(
                f"only {len(nodes)} clients answered, which {self.method} does not allow "
                f"({error}); {_reasons(lost)}. Run the round again."
            ) from error

        def step(
            step: Step,
            name: str,
            there: np.ndarray,
            message: Callable[[int], Message],
            take: Callable[[int, Any], None],
        ) -> None:
            asked = {nodes[i]: message(int(i)) for i in np.flatnonzero(there)}
            replies = self._ask(step, asked, self.step_seconds)
            for node in asked:
                try:
                    if node not in replies:
                        raise ProtocolError("no answer in time")
                    take(nodes.index(node), _need(replies[node], name))
                except PrivacyError as error:
                    lost.setdefault(node, f"step `{step.name.lower()}`: {error}")

        everybody = np.ones(len(nodes), bool)
        step(Step.SHARE, "sealed", everybody, _welcome(server), server.collect)
        self._noised(server, lost)
        self.charge(len(nodes))
        step(Step.MASK, "masked", server.shared, _mail(server), self._take(server))
        self._noised(server, lost)
        if server.round.threshold:
            news = lambda i: {"answered": server.news(i)}  # noqa: E731
            step(Step.UNMASK, "response", server.answered, news, server.hear)
        try:
            sums = server.open(self.types)
        except ProtocolError as error:
            raise ProtocolError(f"{error} ({_reasons(lost)})") from error
        # Who did not answer the last step is in the sum all the same.
        there = tuple(nodes[i] for i in np.flatnonzero(server.answered))
        gone = {node: why for node, why in lost.items() if node not in there}
        return Answers(sums, [], there, gone)

    def _noised(self, server: Server, lost: Mapping[int, str]) -> None:
        try:
            server.check_noise()
        except ProtocolError as error:
            raise ProtocolError(f"{error} ({_reasons(lost)})") from error

    def _take(self, server: Server) -> Callable[[int, Any], None]:
        size = sum(int(np.prod(x.shape, dtype=np.int64)) for x in self.types)

        def take(i: int, masked: np.ndarray) -> None:
            if masked.shape != (size,):
                raise ProtocolError(f"{masked.shape} masked words, not ({size},).")
            server.add(i, masked)

        return take


def supported(method: Any) -> None:
    """Raises UnsupportedError for a method that separate processes cannot play."""
    if isinstance(method, Spdz):
        raise UnsupportedError(
            f"aggregate={method}: {method.parties} aggregators who do not trust each other "
            "are as many processes, and real clients have one server here. "
            "secure_sum(dropped=..., noise=DistributedGaussian(...)) hides updates from "
            "that server, without any party to be trusted in its place; "
            f"{method.made_by}(...) is for simulated rounds."
        )
    if not isinstance(method, Plain | Quantised | SecureSum):
        raise UnsupportedError(
            f"aggregate={method}: between processes sums are formed by plain(...), "
            "quantised(...) or secure_sum(...)."
        )


# -- updates of a few bits -------------------------------------------------------------


def _common(context: bytes) -> Any:
    """uint32[8], the same at all parties of a round and no secret: for the rotation."""
    return jnp.asarray(np.frombuffer(hashlib.sha256(context).digest(), "<u4"))


def _few_bits(method: Quantised, parts: Sequence[Any], context: bytes) -> Message:
    own = jnp.asarray(key_words(random_key()))
    values = [jnp.asarray(x) for x in parts]
    sent = _sent(method, own, values, _common(context))
    return {
        "bits": method.packed(sent.whole),
        "scale": np.asarray(sent.step),
        "alone": np.asarray(sent.alone),
    }


@functools.partial(jax.jit, static_argnums=0)
def _sent(method: Quantised, own: Any, xs: Sequence[Any], public: Any) -> Quanta:
    return method.sent(own, xs, public)


def _quanta(method: Quantised, reply: Message, types: Sequence[Any]) -> Quanta:
    """A client's message, checked."""
    sizes = [int(np.prod(x.shape, dtype=np.int64)) for x in types]
    alone = sizes.count(1)
    wanted = [jax.ShapeDtypeStruct(s, np.float32) for s in ((), (alone,))]
    found = [_need(reply, "scale"), _need(reply, "alone")]
    step, rest = _finite(_typed(found, wanted))
    whole = method.unpacked(_need(reply, "bits"), sum(sizes) - alone)
    return Quanta(jnp.asarray(whole), jnp.asarray(step), jnp.asarray(rest))


# -- the steps of a secure sum ---------------------------------------------------------


def _welcome(server: Server) -> Callable[[int], Message]:
    def message(i: int) -> Message:
        found = server.welcome(i)
        return {
            "i": _number(found.number),
            "clients": _number(found.clients),
            "neighbours": found.neighbours,
            "keys": found.keys,
            "public": found.public,
        }

    return message


def _mail(server: Server) -> Callable[[int], Message]:
    def message(i: int) -> Message:
        mail = server.mail(i)
        return {"sealed": mail.sealed, "present": mail.present}

    return message


def _reasons(lost: Mapping[int, str]) -> str:
    return "; ".join(f"node {n}: {why}" for n, why in lost.items()) or "nobody is lost"


# -- what messages are made of ---------------------------------------------------------


def _need(message: Message, name: str) -> np.ndarray:
    if name not in message:
        raise ProtocolError(f"a message without `{name}`.")
    return message[name]


def _number(n: int) -> np.ndarray:
    return np.asarray(n, np.int64)


def _whole(message: Message, name: str) -> int:
    x = _need(message, name)
    if x.shape != () or x.dtype.kind not in "iu":
        raise ProtocolError(f"`{name}` of a message is no integer.")
    return int(x)


def _named(name: str, xs: Sequence[Any]) -> Message:
    return {f"{name}/{k}": np.asarray(x) for k, x in enumerate(xs)}


def _listed(message: Message, name: str) -> list[np.ndarray]:
    count = sum(key.startswith(f"{name}/") for key in message)
    return [_need(message, f"{name}/{k}") for k in range(count)]


def _typed(xs: Sequence[np.ndarray], types: Sequence[Any]) -> list[np.ndarray]:
    found = [(x.shape, x.dtype) for x in xs]
    wanted = [(tuple(t.shape), np.dtype(t.dtype)) for t in types]
    if found != wanted:
        raise ProtocolError(f"sent {found[:3]}, not {wanted[:3]}.")
    return list(xs)


def _finite(xs: list[np.ndarray]) -> list[np.ndarray]:
    if not all(np.isfinite(x).all() for x in xs):
        raise ProtocolError("sent values that are not finite")
    return xs
