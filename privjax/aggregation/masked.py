"""What a masked sum promises by its options: the graph of masks, its threshold, its cost.

`graph` has the probabilities, `secure` the sum.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from privjax.aggregation import graph
from privjax.aggregation.agreement import TAG_BYTES
from privjax.aggregation.encoding import Encoding
from privjax.aggregation.graph import Circle
from privjax.aggregation.steps import Round
from privjax.errors import InputError
from privjax.prg.chacha20 import KEY_WORDS

_KEY_BITS = 32 * KEY_WORDS


@dataclass(frozen=True, repr=False)
class Masked(Encoding):
    """The options of `secure_sum`."""

    neighbours: int | str | None = None
    threshold: int | None = None
    security: float = 40.0
    correctness: float = 20.0

    made_by: ClassVar[str] = "secure_sum"

    def degree(self, clients: int) -> int:
        """With how many others a client shares masks."""
        return self.round(clients).circle.degree

    def round(self, clients: int) -> Round:
        """Graph and threshold of a round of `clients` clients.

        Raises: InputError where the options cannot be met.
        """
        lost, against = self.lost(clients), self.against(clients)
        if self.neighbours == "auto":
            degree, threshold = graph.plan(
                clients, lost, against, self.security, self.correctness
            )
        else:
            degree = clients - 1 if self.neighbours is None else int(self.neighbours)
            threshold = graph.largest_threshold(clients, degree, lost, self.correctness)
        threshold = self.threshold or threshold
        if lost and not 1 <= threshold <= degree:
            raise InputError(
                f"{degree} neighbours are not enough for {lost} of {clients} clients to "
                f"drop out: with probability more than 2^-{self.correctness:g} some "
                "client would have none left. Give more neighbours=, threshold=, or "
                "neighbours='auto'."
            )
        return Round(Circle(clients, degree), threshold if lost else 0, self.bits)

    def exposure(self, clients: int) -> float:
        """log2 of the probability, at most, that the server learns more than the sum."""
        r, lost = self.round(clients), self.lost(clients)
        against = self.against(clients)
        return graph.exposure(clients, r.circle.degree, r.threshold, lost, against)

    def failure(self, clients: int) -> float:
        """log2 of the probability, at most, that the stated drop-outs end the round."""
        r, lost = self.round(clients), self.lost(clients)
        if not lost:
            return -math.inf
        return graph.failure(clients, r.circle.degree, r.threshold, lost)

    def division(self, clients: int) -> float:
        """The same for a server that lies about who answered, as far as that goes."""
        r = self.round(clients)
        if not r.threshold:
            return -math.inf
        return graph.division(
            clients, r.circle.degree, r.threshold, self.against(clients)
        )

    def check(self, clients: int, weighted: bool) -> None:
        if clients < 2:
            raise InputError(
                f"a secure sum of {clients} client(s) would be that client's update; "
                "at least 2 are needed."
            )
        if isinstance(self.neighbours, int) and self.neighbours >= clients:
            raise InputError(
                f"secure_sum(neighbours={self.neighbours}) with {clients} clients: a "
                f"client has at most {clients - 1} others to share masks with. Leave "
                "neighbours= out for the full graph."
            )
        if self.lost(clients) + self.against(clients) > clients - 2:
            raise InputError(
                f"{self} with {clients} clients: at least two honest clients must stay."
            )
        self.check_bounds("secure_sum", weighted)
        self.check_weights(weighted)
        self.round(clients)
        self.check_room(clients)

    def bits_per_client(self, count: int, clients: int) -> dict[str, int]:
        """What one client sends in each step, in bits, for `count` values."""
        r = self.round(clients)
        k = r.circle.degree
        shares = 2 * _KEY_BITS + 8 * TAG_BYTES
        return {
            "keys": 2 * _KEY_BITS if r.threshold else _KEY_BITS,
            "shares": k * shares if r.threshold else 0,
            "masked input": count * self.bits,
            "unmasking": k * _KEY_BITS if r.threshold else 0,
        }
