"""Handwritten digits: 1,797 images of 8 x 8 pixels. Their provenance is in README.md."""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from privjax.datasets.tables import Floats, read_table, split

SIDE = 8
_COLUMNS = [f"p{row}{column}" for row in range(SIDE) for column in range(SIDE)]
_BRIGHTEST = 16


@dataclass(frozen=True, eq=False)
class Digits:
    """Images and labels, cut into training and test rows; all arrays are read-only.

    `x_*` have shape (rows, 64), float32 in [0, 1], an image's rows one after the other;
    `y_*` have shape (rows,), int32 from 0 to 9.
    """

    x_train: Floats
    y_train: NDArray[np.int32]
    x_test: Floats
    y_test: NDArray[np.int32]


def digits(*, train: int = 1437, seed: int = 0) -> Digits:
    """Optical recognition of handwritten digits: 1,797 images by 13 people.

    Args:
      train: how many of the rows are for training.
      seed: of the NumPy permutation that splits the rows.

    Raises:
      DatasetError: the package's file is missing or damaged.
    """
    file = files("privjax.datasets") / "digits.csv"
    table = read_table(file, [*_COLUMNS, "digit"], rows=1797)

    def cut(part: NDArray[np.float64]) -> tuple[Floats, NDArray[np.int32]]:
        x = (part[:, :-1] / _BRIGHTEST).astype(np.float32)
        y = part[:, -1].astype(np.int32)
        x.flags.writeable = y.flags.writeable = False
        return x, y

    first, rest = split(table, train, seed)
    return Digits(*cut(first), *cut(rest))
