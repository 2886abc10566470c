"""The ledger: what was released, what that costs, and a budget it does not step past.

Entries are plain data, so a ledger is saved with a checkpoint as JSON and loaded without
running code.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privjax.accounting import events
from privjax.accounting.compose import Entry, epsilon_of, least, quickly
from privjax.accounting.events import NEIGHBOURS, Event
from privjax.errors import BudgetError, InputError

VERSION = 1
ACCOUNTANTS = ("auto", "pld", "rdp", "gdp_approximation")


@dataclass(frozen=True)
class Budget:
    """(epsilon, delta), which a ledger refuses to exceed."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise InputError(f"epsilon={self.epsilon} is not a positive number.")
        _check_delta(self.delta)


class Ledger:
    """Composes what was actually run.

    Args:
      neighbours: "add_or_remove_one", "replace_one" or "zero_out"; all entries speak of
        the same relation.
      budget: refuse what would exceed it.
      accountant: "pld" (privacy loss distributions, tight), "rdp" (Renyi, an upper
        bound), "auto" (the first where dp-accounting has it for all entries, else the
        second), or "gdp_approximation" (a central limit, *no* bound).

    Attributes: `entries`, in order, equal neighbours merged.
    """

    def __init__(
        self,
        neighbours: str = "add_or_remove_one",
        budget: Budget | None = None,
        accountant: str = "auto",
    ) -> None:
        if neighbours not in NEIGHBOURS:
            raise InputError(
                f"neighbours={neighbours!r} is none of {sorted(NEIGHBOURS)}."
            )
        _check_accountant(accountant)
        self.neighbours = neighbours
        self.budget = budget
        self.accountant = accountant
        self.entries: list[Entry] = []

    # -- spending ----------------------------------------------------------------------

    def spend(
        self,
        mechanism: Any,
        count: int = 1,
        *,
        data: str = "data",
        neighbours: str | None = None,
    ) -> None:
        """Charge `count` releases, before they are made.

        Args:
          mechanism: an event, or anything with `event()`.
          data: the name of the data set. Sets with different names have no unit in
            common; what happens to one costs the units of another nothing.
          neighbours: the relation that the mechanism's sensitivity speaks of, where the
            caller knows; it must be the ledger's.

        Raises:
          BudgetError: the budget would be exceeded. Nothing is charged.
          InputError: no event, or one that speaks of other neighbours.
        """
        event = as_event(mechanism)
        if neighbours not in (None, self.neighbours):
            raise InputError(
                f"this ledger is about neighbours={self.neighbours!r} and the mechanism "
                f"about {neighbours!r}. They do not compose: keep two ledgers, or state "
                "the mechanism's sensitivity for the ledger's relation."
            )
        events.check(event, self.neighbours)
        _check_count(count)
        if count == 0:
            return
        after = [*self.entries, Entry(data, event, int(count))]
        if self.budget is not None:
            would = epsilon_of(
                after, self.budget.delta, data, self.neighbours, self.accountant
            )
            if would > self.budget.epsilon:
                left = self.steps(event, self.budget, data=data)
                raise BudgetError(
                    f"{count} more of {_words(event)} would make epsilon {would:.4g} at "
                    f"delta {self.budget.delta:g}; the budget is "
                    f"{self.budget.epsilon:g}. It has room for {left} of them: stop "
                    "there, add more noise (Ledger.calibrate), or decide on a larger "
                    "budget before looking at results."
                )
        last = self.entries[-1] if self.entries else None
        if last is not None and last.data == data and last.event == event:
            self.entries[-1] = Entry(data, event, last.count + int(count))
        else:
            self.entries = after

    # -- figures -----------------------------------------------------------------------

    def epsilon(
        self, delta: float, *, data: str | None = None, accountant: str | None = None
    ) -> float:
        """Epsilon at `delta` for any one unit (of the data set `data`, if named).

        Raises: InputError where the accountant has no figure for an entry.
        """
        _check_delta(delta)
        chosen = accountant or self.accountant
        _check_accountant(chosen)
        names = [data] if data is not None else sorted({e.data for e in self.entries})
        found = [
            epsilon_of(self.entries, delta, n, self.neighbours, chosen) for n in names
        ]
        return max(found, default=0.0)

    def steps(
        self, mechanism: Any, budget: Budget | None = None, *, data: str = "data"
    ) -> int:
        """How many more releases of `mechanism` the budget (or the ledger's) admits.

        2^40 when they cost nothing.
        """
        budget = budget or self.budget
        if budget is None:
            raise InputError("steps needs a budget: Ledger(budget=...) or budget=.")
        event = as_event(mechanism)
        events.check(event, self.neighbours)

        def fits(n: int, accountant: str = self.accountant) -> bool:
            entries = [*self.entries, Entry(data, event, n)]
            found = epsilon_of(entries, budget.delta, data, self.neighbours, accountant)
            return found <= budget.epsilon

        def most(fits: Callable[[int], bool], low: int) -> int:
            high = low + max(1, low // 16)
            while fits(high):
                low, high = high, 2 * high
                if high > 2**40:
                    return low
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if fits(middle) else (low, middle)
            return low

        if not fits(1):
            return 0
        # Renyi figures take milliseconds: begin where they say, if they say anything.
        low = max(1, quickly(lambda: most(lambda n: fits(n, "quick"), 1)) or 1)
        if self.accountant in ("auto", "pld"):
            better = quickly(lambda: most(lambda n: fits(n, "coarse"), low))
            low = better or low
        return most(fits, low if fits(low) else 1)

    def calibrate(
        self,
        make: Callable[[float], Any],
        count: int,
        budget: Budget | None = None,
        *,
        data: str = "data",
        tolerance: float = 1e-3,
    ) -> float:
        """The least noise so that `count` releases of `make(noise)` keep to the budget.

        What has been spent already is taken into account. The answer is within a factor
        of 1 + tolerance of the least, on the safe side.

        Raises: BudgetError when the budget is spent.
        """
        budget = budget or self.budget
        if budget is None:
            raise InputError("calibrate needs a budget: Ledger(budget=...) or budget=.")
        _check_count(count)

        def fits(noise: float, accountant: str = self.accountant) -> bool:
            event = as_event(make(noise))
            events.check(event, self.neighbours)
            entries = [*self.entries, Entry(data, event, count)]
            found = epsilon_of(entries, budget.delta, data, self.neighbours, accountant)
            return found <= budget.epsilon

        start = quickly(lambda: least(lambda z: fits(z, "quick"), 1.0, 2.0, 1e-2))
        factor = 1.25 if start else 2.0
        if self.accountant in ("auto", "pld"):
            coarse = quickly(
                lambda: least(
                    lambda z: fits(z, "coarse"), start or 1.0, factor, tolerance
                )
            )
            start, factor = coarse or start, 1 + tolerance if coarse else factor
        found = least(fits, start or 1.0, factor, tolerance)
        if found is None:
            raise BudgetError(
                f"no noise keeps {count} releases within epsilon {budget.epsilon:g} "
                f"at delta {budget.delta:g}: what was released before, or a step "
                "that has no noise to choose, takes all of it."
            )
        return found

    def __str__(self) -> str:
        lines = [f"neighbours: {self.neighbours}, accountant: {self.accountant}"]
        if self.accountant == "gdp_approximation":
            lines.append("its figures are approximations and no bounds")
        lines += [f"{e.count} x {_words(e.event)} on {e.data}" for e in self.entries]
        if self.budget is not None:
            spent = self.epsilon(self.budget.delta)
            lines.append(
                f"epsilon {spent:.4g} of {self.budget.epsilon:g} at delta "
                f"{self.budget.delta:g}"
            )
        return "\n".join(lines)

    # -- saving ------------------------------------------------------------------------

    def to_json(self) -> str:
        """The ledger as JSON text, for `from_json`."""
        return json.dumps(
            {
                "version": VERSION,
                "neighbours": self.neighbours,
                "accountant": self.accountant,
                "budget": None
                if self.budget is None
                else {"epsilon": self.budget.epsilon, "delta": self.budget.delta},
                "entries": [
                    {"data": e.data, "event": e.event, "count": e.count}
                    for e in self.entries
                ],
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> "Ledger":
        """Raises: InputError on damaged text, or one of another version."""
        try:
            raw = json.loads(text)
            if raw["version"] != VERSION:
                raise InputError(
                    f"this ledger has version {raw['version']}, not {VERSION}."
                )
            budget = raw["budget"] and Budget(**raw["budget"])
            out = cls(raw["neighbours"], budget, raw["accountant"])
            for e in raw["entries"]:
                events.check(e["event"], out.neighbours)
                _check_count(e["count"])
                out.entries.append(Entry(str(e["data"]), e["event"], int(e["count"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"this is no ledger: {error!r}.") from error
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file, which is replaced at once or not at all."""
        part = Path(f"{path}.part")
        part.write_text(self.to_json(), encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ledger":
        """The ledger that `save` wrote."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def as_event(mechanism: Any) -> Event:
    """The event of a mechanism, a sampler's charge, or an event itself."""
    event = getattr(mechanism, "event", None)
    return _plain(event() if callable(event) else mechanism)


def _plain(event: Any) -> Event:
    """With Python's numbers in place of NumPy's, which JSON does not know."""
    if not isinstance(event, dict):
        raise InputError(f"{type(event).__name__} is no event and has no event().")
    return {
        k: _plain(v) if isinstance(v, dict) else v.item() if hasattr(v, "item") else v
        for k, v in event.items()
    }


def _words(event: Event) -> str:
    inner = event.get("event")
    values = ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in event.items()
        if k not in ("kind", "event", "distance")
    )
    text = event["kind"] + (f"({values})" if values else "")
    return f"{text} of {_words(inner)}" if inner else text


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise InputError(f"delta={delta} is not between 0 and 1.")


def _check_count(count: int) -> None:
    if count < 0 or count != int(count):
        raise InputError(f"count={count} is not a whole number.")


def _check_accountant(accountant: str) -> None:
    if accountant not in ACCOUNTANTS:
        raise InputError(f"accountant={accountant!r} is none of {list(ACCOUNTANTS)}.")
