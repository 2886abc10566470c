"""How sums over clients are formed.

The choices for `privjax.federated(..., aggregate=)`: `methods` (in the clear), `secure`
(one server, masks between clients), `spdz` (a few aggregators that hold shares),
`quantised` (in the clear, a few bits per value). `sparse` sends a few entries.

What they are made of: `clipping` and `noise` bound and hide one client's part,
`encoding` and `rotation` take updates to a ring and back. `steps` is the protocol of the
masks, with its `graph`, `shamir` sharing over a `field`, and `agreement` on keys.

Between separate processes: `remote` (a client) and `coordinator` (the server) of a round,
their `messages` and `replies`; `clients`, who mask; `entry`, `aggregators` with what is
`dealt` to them, and their `panel`, for `spdz`; `few_bits`.
"""

from privjax.aggregation.clipping import AdaptiveClip
from privjax.aggregation.methods import Plain, plain
from privjax.aggregation.noise import (
    CentralGaussian,
    DistributedGaussian,
    DistributedSkellam,
)
from privjax.aggregation.quantised import Quantised, quantised
from privjax.aggregation.secure import SecureSum, secure_sum
from privjax.aggregation.sparse import RandomK, TopK
from privjax.aggregation.spdz import Spdz, spdz

__all__ = [
    "AdaptiveClip",
    "CentralGaussian",
    "DistributedGaussian",
    "DistributedSkellam",
    "Plain",
    "Quantised",
    "RandomK",
    "SecureSum",
    "Spdz",
    "TopK",
    "plain",
    "quantised",
    "secure_sum",
    "spdz",
]
