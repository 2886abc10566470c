"""Bundled data: the two tables of Ryffel et al. (2018), and digits; see README.md."""

from privjax.datasets.bundled import boston_housing, pima_diabetes
from privjax.datasets.digits import Digits, digits
from privjax.datasets.tables import Dataset

__all__ = ["Dataset", "Digits", "boston_housing", "digits", "pima_diabetes"]
