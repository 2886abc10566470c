"""Federated learning beyond one round: `privjax.fl`.

- algorithms: `fedavg`, `fedprox`, `fedavgm`, `fedadam`, `fedyogi`, `fedadagrad`,
  `scaffold`, `fednova`, `mime_lite`, `qfedavg`, `ifca`, `fine_tuning`, with `Options`;
  `repeated` for a `privjax.federated` round; made of `Algorithm`, `Client`, `Sent`,
  `State`; `named` for parameters that stay with their clients
- pieces for Optax: `proximal`, `frozen`, `adaptive`
- robust statistics: `coordinate_median`, `trimmed_mean`, `krum`, `multi_krum`,
  `geometric_median`
- clients: `ClientData`, `Cohort`, `partition`
- samplers: `FixedSize`, `Poisson`, `FullBatch`, `Weighted`, `Cyclic`; `Faults`
- where clients run: `Chunks`, `Sharded`
- questions: `evaluation`, `histogram`, `quantile`, `heavy_hitters`
- runs: `fit`, `plot`, `read_log`
- real clients: `participant` and `serve`, over Flower (`privjax.runtimes.flower`) or any
  other network; `OwnBudget`, past which a client takes no part; `Aggregators`, the
  processes of `spdz`
- features at different parties: `vertical`
"""

from privjax.fl import partition, vertical
from privjax.fl.adaptive import adaptive, fedadagrad, fedadam, fedyogi
from privjax.fl.aggregators import Aggregators
from privjax.fl.analytics import heavy_hitters, histogram, quantile, spelled, word
from privjax.fl.averaging import fedavg, fedavgm, fedprox
from privjax.fl.budgets import OwnBudget
from privjax.fl.cohorts import ClientData, Cohort
from privjax.fl.common import Options
from privjax.fl.deployed import participant, serve
from privjax.fl.evaluation import evaluation, fine_tuning
from privjax.fl.groups import ifca, qfedavg
from privjax.fl.local import frozen, proximal
from privjax.fl.mapping import Sent
from privjax.fl.personal import named
from privjax.fl.records import plot
from privjax.fl.records import read as read_log
from privjax.fl.repeated import repeated
from privjax.fl.robust import (
    coordinate_median,
    geometric_median,
    krum,
    multi_krum,
    trimmed_mean,
)
from privjax.fl.rounds import Algorithm
from privjax.fl.runtime import Chunks, Sharded
from privjax.fl.samplers import (
    Cyclic,
    Faults,
    FixedSize,
    FullBatch,
    Poisson,
    Sampler,
    Weighted,
)
from privjax.fl.states import Client, State
from privjax.fl.training import Fitted, Report, fit
from privjax.fl.variance import fednova, mime_lite, scaffold

__all__ = [
    "Aggregators",
    "Algorithm",
    "Chunks",
    "Client",
    "ClientData",
    "Cohort",
    "Cyclic",
    "Faults",
    "FixedSize",
    "FullBatch",
    "Options",
    "OwnBudget",
    "Poisson",
    "Report",
    "Sampler",
    "Sent",
    "Sharded",
    "State",
    "Fitted",
    "Weighted",
    "adaptive",
    "coordinate_median",
    "evaluation",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fednova",
    "fedprox",
    "fedyogi",
    "fine_tuning",
    "fit",
    "frozen",
    "geometric_median",
    "heavy_hitters",
    "histogram",
    "ifca",
    "krum",
    "mime_lite",
    "multi_krum",
    "named",
    "participant",
    "partition",
    "plot",
    "proximal",
    "qfedavg",
    "quantile",
    "read_log",
    "repeated",
    "scaffold",
    "serve",
    "spelled",
    "trimmed_mean",
    "vertical",
    "word",
]
