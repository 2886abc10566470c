"""The federated pass: only sums over clients leave them.

`client.py` maps one client's program over clients, `round.py` verifies a program that
is already written over the clients axis and finds where it sums over them: `loops.py` asks
what loops over clients carry, `places.py` whether constants (`known.py`) pick one client,
`columns.py` whether several sums tell one. Clients by index (`indexed.py`), in Python loops
(`unrolled.py`) or over devices by hand (`spread.py`) are first mapped over an axis; what a
loop adds up is put side by side (`stacked.py`) where a method needs all of it.
`survivors.py` leaves out the clients that dropped out.
"""

from privjax.passes.federated.client import (
    ClientProgram,
    choose_strategy,
    client_program,
    mean_over_clients,
    one_client_alone,
    output_name,
)
from privjax.passes.federated.round import RoundProgram, round_program
from privjax.passes.federated.survivors import aggregate

__all__ = [
    "ClientProgram",
    "RoundProgram",
    "aggregate",
    "choose_strategy",
    "client_program",
    "mean_over_clients",
    "one_client_alone",
    "output_name",
    "round_program",
]
