"""The two tables that come with the package. Their provenance is in README.md."""

from importlib.resources import files

import numpy as np

from privjax.datasets.tables import (
    Dataset,
    read_table,
    split,
    standardised,
    zeros_to_median,
)

_HERE = files("privjax.datasets")

_BOSTON = "crim zn indus chas nox rm age dis rad tax ptratio b lstat medv".split()
_PIMA = "pregnant glucose pressure triceps insulin mass pedigree age diabetes".split()
_PIMA_ZERO_IS_MISSING = ("glucose", "pressure", "triceps", "insulin", "mass")


def boston_housing(*, drop_b: bool = False, seed: int = 0) -> Dataset:
    """Boston Housing: median home values of 506 census tracts, 404 train / 102 test.

    Column `b` encodes race: 1000 (Bk - 0.63)^2 with Bk the proportion of Black
    residents, by an assumption of the data's authors that was never tested. A model
    that is given it prices homes by race. It is on by default because published results
    include it; drop it for every other purpose than comparing with them.

    Args:
      drop_b: leave column `b` out.
      seed: of the NumPy permutation that splits the rows.

    Returns:
      13 features (12 without `b`), standardised by the training rows' mean and
      deviation, except the binary column `chas`; the target `medv` in 1000 USD. The
      statistics are exact: no privacy guarantee covers them.

    Raises:
      DatasetError: the package's file is missing or damaged.
    """
    names = _BOSTON
    table = read_table(_HERE / "boston_housing.csv", names, rows=506)
    if drop_b:
        table = np.delete(table, names.index("b"), axis=1)
        names = [name for name in names if name != "b"]
    train, test = split(table, 404, seed)
    return standardised(train, test, names, keep=("chas",))


def pima_diabetes(*, impute: bool = True, seed: int = 0) -> Dataset:
    """Pima Indians Diabetes: 768 women, 614 train / 154 test, target 0 or 1.

    A zero in `glucose`, `pressure`, `triceps`, `insulin` or `mass` means that nothing
    was measured.

    Args:
      impute: put the median of the measured training values in place of such zeros;
        otherwise they stay as they are in the file.
      seed: of the NumPy permutation that splits the rows.

    Returns:
      8 features, standardised by the training rows' mean and deviation after the zeros
      were replaced; the target `diabetes`. Medians, means and deviations are exact: no
      privacy guarantee covers them.

    Raises:
      DatasetError: the package's file is missing or damaged.
    """
    train, test = split(
        read_table(_HERE / "pima_diabetes.csv", _PIMA, rows=768), 614, seed
    )
    if impute:
        columns = [_PIMA.index(name) for name in _PIMA_ZERO_IS_MISSING]
        train, test = zeros_to_median(train, test, columns)
    return standardised(train, test, _PIMA)
