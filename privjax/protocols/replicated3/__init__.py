"""replicated3: three parties, no dealer (Araki et al. 2016; ABY3, Mohassel, Rindal 2018).

x = x_0 + x_1 + x_2 mod 2^k, and P_i holds x_i and x_{i+1}; bits alike with XOR. A share's
value is that pair of arrays.

Semi-honest adversary, honest majority: one party alone learns nothing but the outputs,
provided that all follow the protocol; two together know everything. All randomness comes
from keys that two parties have in common (`markers.pairwise`): F_i is known to P_i and
P_{i-1}, so that a fresh pair (F_i, F_{i+1}) is a random share and F_i - F_{i+1} are
shares of zero.
"""

from privjax.protocols.replicated3.protocol import Replicated3

__all__ = ["Replicated3"]
