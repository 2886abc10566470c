"""The two data sets of Ryffel et al. (2018), split and standardised; see README.md."""

from privjax.datasets.bundled import boston_housing, pima_diabetes
from privjax.datasets.tables import Dataset

__all__ = ["Dataset", "boston_housing", "pima_diabetes"]
