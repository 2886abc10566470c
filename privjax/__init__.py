"""privjax: rewrite ordinary JAX functions into private ones.

Three transformations, each a decorator and a function: `federated`, `secret_shared`,
`differentially_private`. They compose, inner first.
"""

from privjax import datasets, dp, fl, random
from privjax.aggregation import (
    AdaptiveClip,
    CentralGaussian,
    DistributedGaussian,
    DistributedSkellam,
    secure_sum,
    spdz,
)
from privjax.errors import (
    BudgetError,
    DatasetError,
    DifferentiationError,
    InputError,
    LeakError,
    MacCheckError,
    PreprocessingError,
    PrivacyError,
    ProtocolError,
    RandomKeyError,
    RangeError,
    RangeWarning,
    TraceError,
    UnsupportedError,
)
from privjax.passes.dp.release import release
from privjax.protocols.fixedpoint import FixedPoint
from privjax.runtimes.distributed import distributed
from privjax.transforms.differentially_private import differentially_private
from privjax.transforms.federated import federated
from privjax.transforms.report import Report, explain, stages
from privjax.transforms.secret_shared import secret_shared
from privjax.transforms.shared_data import SharedArray, reveal, share
from privjax.transforms.statements import declassify, owned

__version__ = "0.1.0"

__all__ = [
    "AdaptiveClip",
    "BudgetError",
    "CentralGaussian",
    "DatasetError",
    "DifferentiationError",
    "DistributedGaussian",
    "DistributedSkellam",
    "FixedPoint",
    "InputError",
    "LeakError",
    "MacCheckError",
    "PreprocessingError",
    "PrivacyError",
    "ProtocolError",
    "RandomKeyError",
    "RangeError",
    "RangeWarning",
    "Report",
    "SharedArray",
    "TraceError",
    "UnsupportedError",
    "datasets",
    "declassify",
    "differentially_private",
    "distributed",
    "dp",
    "explain",
    "federated",
    "fl",
    "owned",
    "random",
    "release",
    "reveal",
    "secret_shared",
    "secure_sum",
    "share",
    "spdz",
    "stages",
]
