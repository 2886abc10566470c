"""From a CSV file to training and test arrays: read, check, split, standardise."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import numpy as np
from numpy.typing import NDArray

from privjax.errors import DatasetError

Table = NDArray[np.float64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A table cut into training and test rows.

    `x_*` have shape (rows, features) and are standardised; `y_*` have shape (rows,) and
    are in the units of the file. All are float32 and read-only. A model whose output
    has shape (rows, 1) must drop that axis before it is compared with `y_*`: the two
    would broadcast to (rows, rows).
    """

    x_train: Floats
    y_train: Floats
    x_test: Floats
    y_test: Floats
    feature_names: tuple[str, ...]
    target_name: str


def read_table(file: Traversable, columns: Sequence[str], rows: int) -> Table:
    """The numbers of a CSV file as float64 of shape (rows, len(columns)).

    Raises:
      DatasetError: the file is missing or unreadable, its header is not `columns`, its
        shape is not the stated one, or a value is not a finite number.
    """
    try:
        header, *lines = file.read_text(encoding="utf-8").splitlines()
        table = np.array([line.split(",") for line in lines], dtype=np.float64)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{file.name} cannot be read as a table of numbers ({error}). "
            "Install privjax again."
        ) from error
    damage = (
        f"its header is {header!r}"
        if header.split(",") != list(columns)
        else f"its shape is {table.shape}, not {(rows, len(columns))}"
        if table.shape != (rows, len(columns))
        else f"line {_first_bad_line(table)} has a value that is not finite"
        if not np.isfinite(table).all()
        else None
    )
    if damage:
        raise DatasetError(f"{file.name} is damaged: {damage}. Install privjax again.")
    return table


def _first_bad_line(table: Table) -> int:
    """Line number in the file, counted from 1 with the header."""
    return int(np.argmin(np.isfinite(table).all(axis=1))) + 2


def split(table: Table, n_train: int, seed: int) -> tuple[Table, Table]:
    """Training and test rows: the first `n_train` of a permutation, and the others.

    The permutation is `numpy.random.default_rng(seed).permutation(rows)`.
    """
    order = np.random.default_rng(seed).permutation(len(table))
    return table[order[:n_train]], table[order[n_train:]]


def zeros_to_median(
    train: Table, test: Table, columns: Collection[int]
) -> tuple[Table, Table]:
    """Replace zeros in `columns` by the median of the non-zero training values."""
    train, test = train.copy(), test.copy()
    for j in columns:
        median = np.median(train[train[:, j] != 0, j])
        for part in (train, test):
            part[part[:, j] == 0, j] = median
    return train, test


def standardised(
    train: Table, test: Table, names: Sequence[str], keep: Collection[str] = ()
) -> Dataset:
    """A `Dataset` from rows whose last column is the target.

    Each feature is moved and scaled to mean 0 and (population) deviation 1 over the
    training rows, the ones named in `keep` excepted. Computed in float64.
    """
    *features, target = names
    mean = train[:, :-1].mean(axis=0)
    deviation = train[:, :-1].std(axis=0)
    kept = np.isin(features, list(keep))
    mean[kept], deviation[kept] = 0, 1

    def cut(part: Table) -> tuple[Floats, Floats]:
        x = ((part[:, :-1] - mean) / deviation).astype(np.float32)
        y = part[:, -1].astype(np.float32)
        x.flags.writeable = y.flags.writeable = False
        return x, y

    return Dataset(*cut(train), *cut(test), tuple(features), target)
