"""What can be computed on secrets: every primitive of JAX, ruled or refused.

`examples` is the one table of uses, from which `table` measures the rounds and bytes that
the command `privjax operators` prints and the page OPERATORS.md holds.
"""

from privjax.operators.examples import EXAMPLES, Example
from privjax.operators.names import GROUPS
from privjax.operators.table import Row, line, page, rows

__all__ = ["EXAMPLES", "GROUPS", "Example", "Row", "line", "page", "rows"]
