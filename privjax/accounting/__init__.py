"""Privacy accounting, by Google's dp-accounting: never our own.

`gaussian.py` has epsilon and calibration for the repeated, subsampled Gaussian
mechanism, `events.py` what dp-accounting says of one event, `compose.py` of several,
`ledger.py` keeps what was run and refuses to exceed a budget.
"""

from privjax.accounting.compose import Entry
from privjax.accounting.gaussian import calibrate, epsilon
from privjax.accounting.ledger import Budget, BudgetError, Ledger, as_event

__all__ = [
    "Budget",
    "BudgetError",
    "Entry",
    "Ledger",
    "as_event",
    "calibrate",
    "epsilon",
]
