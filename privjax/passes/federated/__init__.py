"""The federated pass: only sums over clients leave them.

`client.py` maps one client's program over clients, `round.py` verifies a program that
is already written over the clients axis and finds where it sums over them, `survivors.py`
leaves out the clients that dropped out.
"""

from privjax.passes.federated.client import (
    ClientProgram,
    choose_strategy,
    client_program,
    mean_over_clients,
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
    "output_name",
    "round_program",
]
