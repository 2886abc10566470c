"""A client's own privacy budget: what it may lose in all that it takes part in.

The ledger is a file on the client's side. Nothing of it is kept in memory alone: a round
reads it, adds to it, and has written it before anything that depends on the client's data
is sent. Where it cannot be read or written the client takes no part: a budget that is
forgotten is no budget. So the file is made once, by `OwnBudget.create`, and never by
itself.

What is charged is the release of a sum over the clients of a round, to whoever sees the
sum. The client knows that it is in it, so that nothing is deducted for the chance that it
was not asked. With `CentralGaussian` the noise is the server's: the figure is then about
those who see its results, not about the server.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from privjax.accounting import Budget, Ledger
from privjax.errors import BudgetError, InputError

_NEIGHBOURS = "add_or_remove_one"
_DATA = "this client"


class OwnBudget:
    """One client's budget, in a file that `create` has made.

    Several runs, one after the other or at once, may share it.

    Args:  path: of the file. Keep it where a restart does not take it away, and out of
      backups that could be put back: a file with fewer charges than this process has
      seen is refused, one that was exchanged between two runs cannot be told.

    Raises:
      BudgetError: there is no such file, or it cannot be read: it is not begun anew.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._seen = 0
        self._seen = _releases(self.ledger())

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        epsilon: float,
        delta: float,
        accountant: str = "auto",
    ) -> "OwnBudget":
        """A new budget of (epsilon, delta), when the client is enrolled.

        Raises:
          BudgetError: there is such a file already: it may be of a budget in use.
          InputError: figures out of their range.
        """
        ledger = Ledger(_NEIGHBOURS, Budget(epsilon, delta), accountant)
        try:
            with open(path, "xb") as file:
                file.write(_text(ledger))
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError as error:
            raise BudgetError(
                f"{path} exists: open it with OwnBudget(path), or choose another place "
                "for the budget of another client."
            ) from error
        return cls(path)

    def ledger(self) -> Ledger:
        """What was charged so far.

        Raises: BudgetError where the file cannot be read.
        """
        try:
            raw = json.loads(self.path.read_bytes())
            text = raw["ledger"]
            if hashlib.sha256(text.encode()).hexdigest() != raw["sha256"]:
                raise InputError("its digest differs")
            ledger = Ledger.from_json(text)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BudgetError(
                f"the client's budget {self.path} cannot be read ({error}): it takes no "
                "part. Restore the file; a new client begins with OwnBudget.create."
            ) from error
        if ledger.budget is None or _releases(ledger) < self._seen:
            raise BudgetError(
                f"{self.path} has lost releases that were charged to it: the client "
                "takes no part."
            )
        return ledger

    def admit(self, event: dict[str, Any]) -> None:
        """Raises BudgetError where one release more would exceed the budget."""
        self.ledger().spend(event, data=_DATA)

    def charge(self, event: dict[str, Any]) -> None:
        """One release, written before this returns.

        Raises: BudgetError as `admit`, or where it cannot be written.
        """
        with self._alone():
            ledger = self.ledger()
            ledger.spend(event, data=_DATA)
            part = self.path.with_name(self.path.name + ".part")
            try:
                with open(part, "wb") as file:
                    file.write(_text(ledger))
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self.path)
            except OSError as error:
                raise BudgetError(
                    f"{self.path} cannot be written ({error}): nothing was sent."
                ) from error
            self._seen = _releases(ledger)

    @property
    def epsilon(self) -> float:
        """Spent so far, at the budget's delta."""
        ledger = self.ledger()
        assert ledger.budget is not None
        return ledger.epsilon(ledger.budget.delta)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Between reading and writing no other process of the client does either."""
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError as error:
            raise BudgetError(
                f"{self.path} is being charged by another process, or one ended while it "
                f"did ({error}): nothing was sent. Remove {lock.name} when none runs."
            ) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

    def __str__(self) -> str:
        return str(self.ledger())


def _releases(ledger: Ledger) -> int:
    return sum(entry.count for entry in ledger.entries)


def _text(ledger: Ledger) -> bytes:
    text = ledger.to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"sha256": digest, "ledger": text}).encode()
