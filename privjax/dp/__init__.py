"""Differential privacy beyond one step: `privjax.dp`.

- training: `fit`; `correlated` makes a `CorrelatedStep`, whose noise is correlated over
  steps; `privatize` for Optax
- sampling: `FullBatch`, `Poisson`, `FixedSize`, `BallsInBins`, `Shuffled`, `Streamed`,
  `BlockCyclicPoisson`
- clipping: `Grouped`, `Automatic`, `Adaptive`, for `clipping=`
- accounting: `Ledger`, `Budget`, `BudgetError`
- mechanisms: `Gaussian`, `RoundedGaussian`, `DiscreteGaussian`, `DiscreteLaplace`,
  `Skellam`, `ReportNoisyMax`, `Exponential`, `AboveThreshold`, `RandomizedResponse`,
  `TreeAggregation`, `BandedToeplitz`; applied by `noised` and `chosen`
- auditing: `audit`, `distinguish`, `one_run`
"""

from privjax.accounting import Budget, BudgetError, Ledger
from privjax.dp.auditing import Audit, audit, distinguish, one_run
from privjax.dp.correlated import BandedToeplitz, TreeAggregation
from privjax.dp.cyclic import BlockCyclicPoisson
from privjax.dp.epochs import BallsInBins, Shuffled, Streamed
from privjax.dp.ftrl import CorrelatedStep, correlated
from privjax.dp.gradients import clipped_sum, privatize
from privjax.dp.release import chosen, noised
from privjax.dp.sampling import FixedSize, FullBatch, Poisson, Sampler
from privjax.dp.selection import (
    AboveThreshold,
    Exponential,
    RandomizedResponse,
    ReportNoisyMax,
)
from privjax.dp.training import Fitted, Report, fit
from privjax.passes.dp.mechanisms import (
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    RoundedGaussian,
    Skellam,
)
from privjax.passes.dp.modes import Adaptive, Automatic, Grouped

__all__ = [
    "AboveThreshold",
    "Adaptive",
    "Audit",
    "Automatic",
    "BallsInBins",
    "BandedToeplitz",
    "BlockCyclicPoisson",
    "Budget",
    "BudgetError",
    "CorrelatedStep",
    "DiscreteGaussian",
    "DiscreteLaplace",
    "Exponential",
    "Fitted",
    "FixedSize",
    "FullBatch",
    "Gaussian",
    "Grouped",
    "Ledger",
    "Poisson",
    "RandomizedResponse",
    "Report",
    "ReportNoisyMax",
    "RoundedGaussian",
    "Sampler",
    "Shuffled",
    "Skellam",
    "Streamed",
    "TreeAggregation",
    "audit",
    "chosen",
    "clipped_sum",
    "correlated",
    "distinguish",
    "fit",
    "noised",
    "one_run",
    "privatize",
]
