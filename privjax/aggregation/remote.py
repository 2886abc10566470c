"""A round between a server and clients that are processes elsewhere, both sides.

What carries the messages is not decided here: a message is a dictionary of NumPy arrays,
and the server is given a function `exchange(messages by node, seconds, enough) -> replies
by node` that leaves out who did not answer in time, and need not wait for more than
`enough` of them (None: for all).

    step       the server sends                       a client answers
    train      the public arrays                      its parts of the sums (or their few
                                                      bits), or, where sums are secure,
                                                      two public keys (one, for `spdz`)
    share      who its neighbours are, their keys     a sealed share for each of them
               (`spdz`: the dealer's sealed mask)     (for each aggregator)
    mask       the shares that are for it             its parts under all masks
    unmask     which neighbours answered              one share per neighbour

The last three are those of `clients` (Bonawitz et al. 2017); with `spdz` there is no
step after `share`, and the server goes on with the aggregators (`panel`). Clients train
first, so that who is slow at it is left out before masks are agreed upon: after that a
round counts on all but the method's `dropped`. Whoever is late or gone in a step is left
out of the later ones; what it kept for itself is then forgotten, as if it had not been
asked.

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

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from privjax.aggregation.clients import Client, Mail, Welcome
from privjax.aggregation.entry import Entry
from privjax.aggregation.few_bits import few_bits
from privjax.aggregation.messages import Message, listed, named, need, whole
from privjax.aggregation.methods import Plain
from privjax.aggregation.quantised import Quantised
from privjax.aggregation.secure import SecureSum
from privjax.aggregation.spdz import Spdz
from privjax.errors import InputError, ProtocolError, UnsupportedError
from privjax.prg.keys import key as random_key


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
      aggregators: with `spdz`, public keys of those who hold shares (see `entry`).

    Attributes: `kept`, its state; `rounds`, in how many it was counted.
    """

    def __init__(self, work: Work, fewest: int = 2, aggregators: Any = None) -> None:
        supported(work.method, aggregators)
        self.work, self.fewest, self._aggregators = work, fewest, aggregators
        self.kept = work.first()
        self.rounds = 0
        self._run, self._number = b"", -1
        self._pending: tuple[int, Any] | None = None
        self._client: Client | Entry | None = None
        self._parts: list[Any] = []
        self._among = 0

    def handle(self, message: Message) -> Message:
        """The answer to one message of the server.

        Raises: ProtocolError for a message of another round or form, or of another plan;
          RangeError for an update that cannot be summed. Then nothing is sent.
        """
        number, found = whole(message, "number"), whole(message, "step")
        if found not in {*Step}:
            raise ProtocolError(f"a message of a step {found}, which there is not.")
        step = Step(found)
        run = need(message, "run").tobytes()
        if step is Step.TRAIN:
            return self._train(message, run, number)
        if self._client is None or (run, number) != (self._run, self._number):
            raise ProtocolError(
                f"round {number} is not the one that this client trained for: it was "
                "started anew, or left behind. Nothing was sent."
            )
        if step is Step.SHARE:
            clients = whole(message, "clients")
            # More than planned would each add less of the noise.
            if not self.fewest <= clients <= self.work.clients:
                raise ProtocolError(
                    f"a sum of {clients} clients, not of {self.fewest} to "
                    f"{self.work.clients}: nothing was sent."
                )
            self.work.admit(clients)
            self._among = clients
            if isinstance(self._client, Entry):
                return self._entered(self._client, message, clients)
            names = ("neighbours", "keys", "public")
            place = (whole(message, "i"), clients)
            welcome = Welcome(*place, *(need(message, n) for n in names))
            return {"sealed": self._client.share(welcome)}
        if isinstance(self._client, Entry):
            raise ProtocolError(
                f"{self.work.method} has no step {step.name.lower()!r}."
            )
        if step is Step.MASK:
            mail = Mail(need(message, "sealed"), need(message, "present"))
            masked = self._client.mask(mail, self._parts)
            self.work.charge(self._among)
            return {"masked": masked}
        return {"response": self._client.unmask(need(message, "answered"))}

    def _entered(self, client: Entry, message: Message, clients: int) -> Message:
        """A sealed message for each aggregator."""
        sealed = client.share(clients, message.get("mask"), self._parts)
        self.work.charge(clients)
        return named("sealed", sealed)

    def _train(self, message: Message, run: bytes, number: int) -> Message:
        if need(message, "plan").tobytes() != self.work.plan:
            raise ProtocolError(
                "the server runs another program, or forms its sums otherwise, than this "
                "client does: leave the run."
            )
        if run == self._run and number <= self._number:
            raise ProtocolError(f"round {number} of this run was already taken.")
        self._settle(run, whole(message, "counted"))
        self._run, self._number = run, number
        self._client, self._parts = None, []
        self.work.admit(self.work.clients)
        parts, rows, kept = self.work.train(listed(message, "public"), self.kept)
        self._pending = number, kept
        context = run + struct.pack("<q", number)
        if not isinstance(self.work.method, SecureSum | Spdz):
            self.work.charge(self.work.clients)
        if isinstance(self.work.method, Plain):
            return named("part", parts) | named("row", rows)
        if isinstance(self.work.method, Quantised):
            return few_bits(self.work.method, parts, context)
        self._parts = parts
        if isinstance(self.work.method, Spdz):
            self._client = Entry(self.work.method, self._aggregators, context)
        else:
            self._client = Client(self.work.method, random_key(), context)
        return {"keys": self._client.advertise()}

    def _settle(self, run: bytes, counted: int) -> None:
        """Keep what an earlier round changed if that round counted this client."""
        if self._pending is not None and run == self._run:
            number, kept = self._pending
            if counted == number:
                self.kept, self.rounds = kept, self.rounds + 1
        self._pending = None


def supported(method: Any, aggregators: Any) -> None:
    """Whether separate processes can play a method.

    Args:  aggregators: their keys, or what asks them; None for a single server.

    Raises: UnsupportedError for another method; InputError where aggregators are missing.
    """
    if not isinstance(method, Plain | Quantised | SecureSum | Spdz):
        raise UnsupportedError(
            f"aggregate={method}: between processes sums are formed by plain(...), "
            "quantised(...), secure_sum(...) or spdz(...)."
        )
    if isinstance(method, Spdz) and aggregators is None:
        raise InputError(
            f"aggregate={method}: its {method.parties} aggregators are processes of their "
            "own. Start them (privjax.fl.aggregators) and give aggregators= to serve, and "
            "their keys to each participant; or use secure_sum(dropped=...), which needs "
            "no party but the server."
        )
