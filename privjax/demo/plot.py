"""The learning curves as a PNG."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from privjax.demo.training import Result
from privjax.demo.workloads import Workload
from privjax.errors import PrivacyError

# Colours of Okabe and Ito (2008), which readers with colour-blindness can tell apart.
# The three exact methods lie on top of each other: a broad line, a ring and a dot.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#bbbbbb", "linewidth": 7, "solid_capstyle": "round"},
    {"color": "#0072b2", "marker": "o", "markersize": 9, "markerfacecolor": "none"},
    {"color": "#000000", "marker": ".", "markersize": 6, "linestyle": ":"},
    {"color": "#d55e00", "marker": "^", "markersize": 5},
    {"color": "#e69f00", "marker": "v", "markersize": 5},
    {"color": "#009e73", "marker": "s", "markersize": 4.5, "linestyle": "--"},
)


MISSING = "the plot needs matplotlib: pip install 'privjax[plots]'"


class PlotError(PrivacyError):
    """The plot cannot be drawn: matplotlib is missing, or the file cannot be written."""


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def prepare(path: Path) -> None:
    """Make the folder of `path`; call it before a long computation.

    Raises:
      PlotError: matplotlib is missing, or nothing can be written there.
    """
    if not available():
        raise PlotError(MISSING)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlotError(f"the plot cannot be written to {path}: {error}") from error
    if not os.access(path.parent, os.W_OK):
        raise PlotError(f"the plot cannot be written: {path.parent} is read-only")


def draw(runs: Sequence[tuple[Workload, Sequence[Result]]], path: Path) -> None:
    """Write one panel per data set to `path`. Raises `PlotError` as `prepare` does."""
    prepare(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(runs), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (task, results) in zip(
        figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True
    ):
        _panel(axes, task, results)
    figure.savefig(path, dpi=150)


def _panel(axes: Any, task: Workload, results: Sequence[Result]) -> None:
    metric = next(iter(task.metrics))
    for result, style in zip(results, _STYLES, strict=True):
        curve = [point[metric] for point in result.curve]
        axes.plot(range(len(curve)), curve, label=result.method.label, **style)
    axes.set_title(task.title, loc="left", fontweight="bold")
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
