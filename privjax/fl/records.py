"""Metrics of a run, round by round: in a file, and as a plot."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from privjax.errors import InputError

Row = dict[str, Any]
FORMATS = (".csv", ".jsonl")


def flat(round_: int, metrics: dict[str, Any]) -> Row:
    """A row of plain numbers: arrays become one column per entry, `name_0` and so on."""
    out: Row = {"round": int(round_)}
    for name, value in jax.device_get(metrics).items():
        x = np.asarray(value)
        if x.ndim == 0:
            out[name] = x.item()
        else:
            out.update({f"{name}_{i}": v.item() for i, v in enumerate(x.ravel())})
    return out


class Records:
    """Rows of a run, appended to a CSV or JSON lines file as they come.

    Args:
      path: ends in .csv or .jsonl; None keeps them in memory only.
      done: a resumed run keeps the file's rows up to this round.

    Attributes: `rows`, all of them.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, done: int = 0
    ) -> None:
        self.path = None if path is None else Path(path)
        self.rows: list[Row] = []
        if self.path is None:
            return
        if self.path.suffix not in FORMATS:
            raise InputError(f"log={str(path)!r} must end in one of {list(FORMATS)}.")
        if done and self.path.exists():
            self.rows = [r for r in read(self.path) if r["round"] <= done]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite()

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows, and write them."""
        new = list(rows)
        known = _columns(self.rows)
        self.rows += new
        if self.path is None or not new:
            return
        if self.path.suffix == ".csv" and set(_columns(new)) - set(known):
            self._rewrite()
            return
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(self._text(new, known))

    def _rewrite(self) -> None:
        assert self.path is not None
        columns = _columns(self.rows)
        text = self._text(self.rows, columns)
        if self.path.suffix == ".csv" and columns:
            text = _csv([columns]) + text
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(self.path)

    def _text(self, rows: Sequence[Row], columns: Sequence[str]) -> str:
        assert self.path is not None
        if self.path.suffix == ".csv":
            return _csv([[row.get(c, "") for c in columns] for row in rows])
        return "".join(json.dumps(row) + "\n" for row in rows)


def read(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a file that `Records` wrote."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InputError(f"{str(path)!r} must end in one of {list(FORMATS)}.")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return [
        {k: _number(v) for k, v in row.items() if v != ""}
        for row in csv.DictReader(io.StringIO(text))
    ]


def plot(
    runs: dict[str, Any],
    path: str | os.PathLike[str],
    metrics: Sequence[str] | None = None,
) -> None:
    """Curves over rounds, one panel per metric, as a PNG, PDF or SVG file.

    Args:
      runs: by name, rows (`Fitted.history`) or the path of a log.
      metrics: which; by default all that the first run has, other than counts.

    Raises: InputError where matplotlib (the extra `plots`) is missing, or a metric.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "plot needs matplotlib: pip install 'privjax[plots]'."
        ) from error
    found = {
        name: list(rows) if isinstance(rows, (list, tuple)) else read(rows)
        for name, rows in runs.items()
    }
    if not found or not all(found.values()):
        raise InputError("plot needs at least one run with at least one round.")
    known = _columns(next(iter(found.values())))
    if metrics is None:
        metrics = [m for m in known if m not in ("round", "clients", "examples")]
    missing = [m for m in metrics if m not in known]
    if missing or not metrics:
        raise InputError(f"no metric {missing} among {known}.")
    figure = Figure(figsize=(4.8 * len(metrics), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for name, rows in found.items():
            points = [(r["round"], r[metric]) for r in rows if metric in r]
            axes.plot(*zip(*points, strict=True), label=name)
        axes.set_xlabel("round")
        axes.set_ylabel(metric)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if len(found) > 1:
        panels[0].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
