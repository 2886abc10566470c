"""What a party program costs, counted on its jaxpr before anything runs.

Loops are multiplied through; of branches the dearest counts; a while loop counts one
iteration and is marked as unbounded.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from privjax import _compat
from privjax.core import markers
from privjax.core.interpret import sub_jaxprs


@dataclass(frozen=True)
class Cost:
    """Communication of one run.

    Attributes:
      rounds: openings that wait for each other.
      sent_bits: bits that all parties together send to each other.
      dealt_bits: bits that the dealer sends to the parties (corrections).
      random_bytes: pseudorandom bytes that each party expands from its seed.
      unbounded: whether a while loop makes these figures one iteration's.
    """

    rounds: int = 0
    sent_bits: int = 0
    dealt_bits: int = 0
    random_bytes: int = 0
    unbounded: bool = False

    @property
    def sent_megabytes(self) -> float:
        return self.sent_bits / 8e6

    @property
    def dealt_megabytes(self) -> float:
        return self.dealt_bits / 8e6

    def __add__(self, other: "Cost") -> "Cost":
        return self._each(lambda n: getattr(self, n) + getattr(other, n), other)

    def times(self, n: int) -> "Cost":
        return self._each(lambda name: getattr(self, name) * n, self)

    def _each(self, fun: Callable[[str], int], other: "Cost") -> "Cost":
        counts: dict[str, Any] = {f.name: fun(f.name) for f in fields(self)[:-1]}
        return Cost(**counts, unbounded=self.unbounded or other.unbounded)


def cost(closed: Any, parties: int) -> Cost:
    """Count the markers of a party program for `parties` parties."""
    jaxpr, _ = _compat.open_jaxpr(closed)
    total = Cost()
    for eqn in jaxpr.eqns:
        total += _equation(eqn, parties)
    return total


def _equation(eqn: Any, parties: int) -> Cost:
    name = eqn.primitive.name
    if name == "open":
        return Cost(rounds=1, sent_bits=_sent(eqn, parties))
    if name in ("uniform", "pairwise"):
        return Cost(random_bytes=_bytes(eqn.outvars))
    if name == "dealt":
        return Cost(
            dealt_bits=8 * _bytes(eqn.outvars), random_bytes=_bytes(eqn.outvars)
        )
    inner = [cost(sub, parties) for sub in sub_jaxprs(eqn)]
    if not inner:
        return Cost()
    if name == "scan":
        return inner[0].times(eqn.params["length"])
    if name == "cond":
        return max(inner, key=lambda c: (c.rounds, c.sent_bits))
    summed = sum(inner, Cost())
    if name == "while" and summed != Cost():
        return replace(summed, unbounded=True)
    return summed


def _sent(eqn: Any, parties: int) -> int:
    bits = 0
    domains = eqn.params["domains"]
    for v, width, domain in zip(
        eqn.invars[: len(domains)], eqn.params["bits"], domains, strict=True
    ):
        # Packed as a wire would carry it: `width` bits of each word mean anything.
        size = v.aval.size // (2 if domain.endswith(":pairs") else 1)
        bits += size * width * markers.messages(domain, parties)
    return bits


def _bytes(variables: Any) -> int:
    return sum(int(v.aval.size) * np.dtype(v.aval.dtype).itemsize for v in variables)
