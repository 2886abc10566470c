"""The learning curves as a PNG."""

import importlib.util
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
    """The plot cannot be drawn: the optional matplotlib is not installed."""


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def check_available() -> None:
    """Raises `PlotError` where matplotlib is missing."""
    if not available():
        raise PlotError(MISSING)


def draw(runs: Sequence[tuple[Workload, Sequence[Result]]], path: Path) -> None:
    """Write one panel per data set to `path`.

    Raises:
      PlotError: matplotlib is not installed.
    """
    check_available()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(runs), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (task, results) in zip(
        figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True
    ):
        _panel(axes, task, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _panel(axes: Any, task: Workload, results: Sequence[Result]) -> None:
    metric = next(iter(task.metrics))
    for result, style in zip(results, _STYLES, strict=True):
        curve = [point[metric] for point in result.curve]
        axes.plot(range(len(curve)), curve, label=result.method.label, **style)
    axes.set_title(task.title, loc="left", fontweight="bold")
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric)
    axes.set_xlim(0, None)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
