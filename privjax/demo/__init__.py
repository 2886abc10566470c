"""The demo: train on two real data sets under every technique, print what it costs.

`workloads` and `batches` hold the tasks, `methods` the rows, `training` the loop,
`tables` and `plot` the results.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from privjax.demo import plot, tables
from privjax.demo.methods import Method, all_methods
from privjax.demo.training import Result, train
from privjax.demo.workloads import Workload, load

__all__ = ["run"]

# A smoke test: enough rows for two steps, and one small hidden layer.
_QUICK_ROWS, _QUICK_WIDTH = 64, 6


def run(
    names: Sequence[str],
    *,
    epochs: int = 10,
    quick: bool = False,
    drop_b: bool = False,
    seed: int = 0,
    plot_path: Path | None = None,
    console: Console | None = None,
) -> dict[str, list[Result]]:
    """Train on the named data sets, print a table for each, and draw the curves.

    Args:
      names: of `workloads.WORKLOADS`.
      epochs: for every method.
      quick: shrink rows and model to see that everything runs; the metrics mean nothing.
      drop_b: leave Boston's column `b` out.
      seed: of initial parameters and shuffled batches. Masks, noise and Poisson samples
        always come from the operating system's randomness.
      plot_path: where the PNG goes; None draws none.

    Returns:
      The rows of each data set's table.

    Raises:
      PlotError: a plot is asked for and cannot be made; before anything runs.
    """
    console = console or Console()
    if plot_path is not None:
        plot.prepare(plot_path)
    runs = []
    for task in load(names, drop_b):
        if quick:
            task = task.shrunk(_QUICK_ROWS, _QUICK_WIDTH)
        console.print(f"[bold]{task.title}[/bold]")
        results = _train_all(task, epochs, seed, console)
        console.print(tables.result_table(task, results, epochs))
        for note in tables.notes(task, results):
            console.print(Padding(note, (0, 0, 0, 2)), style="dim", highlight=False)
        console.print()
        runs.append((task, results))
    for note in tables.NOTES:
        console.print(note, highlight=False)
    if plot_path is not None:
        plot.draw(runs, plot_path)
        console.print(f"Learning curves: {plot_path}", highlight=False)
    return {task.name: results for task, results in runs}


def _train_all(
    task: Workload, epochs: int, seed: int, console: Console
) -> list[Result]:
    """Every method in turn, with a line of progress for each."""
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<30}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console) as progress:

        def follow(method: Method, line: TaskID) -> Result:
            def report(done: int, metrics: dict[str, float]) -> None:
                name, value = next(iter(metrics.items()))
                state = f"{name} {value:.4g}" if done else "compiling"
                progress.update(line, completed=done, state=state)

            progress.update(line, description=method.label)
            return train(task, method, epochs, seed, report)

        results: list[Result] = []
        methods = all_methods(task, epochs, seed)
        while True:
            # Finding the noise for an epsilon takes seconds: show that something runs.
            line = progress.add_task("", total=epochs, state="preparing")
            method = next(methods, None)
            if method is None:
                progress.remove_task(line)
                return results
            results.append(follow(method, line))
