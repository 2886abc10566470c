"""What the demo prints: one table per data set, and what the reader must know."""

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table

from privjax.demo.methods import BATCH, CLIENTS, DELTA
from privjax.demo.training import Result
from privjax.demo.workloads import Workload

NOTES = (
    "One process simulates all parties and clients: it computes what they would "
    "compute, and protects nobody.",
    "Compile: the first call, with tracing and rewriting. Epoch: the least of several "
    "calls after it. MB: all that parties send each other; a federated step is one "
    "round trip.",
    f"ε at δ = {DELTA:g} covers one example added or removed, over all epochs. In the "
    "last row each client's own noise gives it, also against the server and the "
    "other client.",
    "Not covered by ε: the statistics that standardise the features, and the choice of "
    "step sizes. Private rows are one random run each and differ from run to run.",
)


def result_table(task: Workload, results: Sequence[Result], epochs: int) -> Table:
    """The first result is what the others are compared with."""
    rows, sizes = len(task.x_train), "-".join(map(str, task.sizes))
    table = Table(
        title=f"{task.title}: MLP {sizes}, {rows} training and {len(task.x_test)} test "
        f"rows,\n{epochs} epoch{'s' * (epochs != 1)} of SGD, batch {BATCH}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        # All columns fit into the 80 characters of the narrowest usual terminal.
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    metrics = [name.replace(" ", "\n") for name in task.metrics]
    columns = ["compile\ns", "epoch\nms", "times\nplain", "rounds\na step"]
    for column in [*metrics, *columns, "MB an\nepoch", "ε"]:
        table.add_column(column, justify="right", vertical="bottom", no_wrap=True)
    for result in results:
        table.add_row(result.method.name, *_cells(result, results[0]))
    return table


def _cells(result: Result, plain: Result) -> list[str]:
    traffic = result.traffic
    return [
        *(f"{value:.{2 if value > 1 else 3}f}" for value in result.curve[-1].values()),
        f"{result.compile_seconds:.1f}",
        _digits(1000 * result.epoch_seconds, 3),
        _digits(result.epoch_seconds / plain.epoch_seconds, 3),
        "" if traffic is None else f"{traffic.rounds:.1f}",
        "" if traffic is None else _digits(traffic.megabytes, 2),
        "" if result.method.epsilon is None else f"{result.method.epsilon:.2f}",
    ]


def _digits(value: float, digits: int) -> str:
    """So many significant digits, at most 3 behind the point: cells stay narrow."""
    before = math.floor(math.log10(value)) + 1 if value > 0 else 1
    return f"{value:.{min(max(digits - before, 0), 3)}f}"


def notes(task: Workload, results: Sequence[Result]) -> list[str]:
    """Remarks that belong to one table."""
    steps = len(task.x_train) // CLIENTS // (BATCH // CLIENTS)
    out = [f"An epoch has {steps} steps.", *task.notes]
    for result in results:
        if result.traffic is not None and result.traffic.dealt_megabytes:
            out.append(
                f"{result.method.name}: the dealer sends "
                f"{result.traffic.dealt_megabytes:.3g} MB an epoch ahead of time. The "
                "model stays shared; it is opened after each epoch for the curve only."
            )
    return out
