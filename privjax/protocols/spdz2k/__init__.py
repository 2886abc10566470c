"""spdz2k: authenticated additive shares, active security with abort, n >= 2 parties.

Cramer, Damgard, Escudero, Scholl and Xing, "SPDZ2k: Efficient MPC mod 2^k for dishonest
majority" (CRYPTO 2018); comparison and bits after Damgard et al. (S&P 2019) with edaBits
(Escudero et al. 2020). Up to n-1 parties may deviate in any way: a wrong value that they
open is caught with probability 1 - 2^(-s + log2(s + 1)) or better before any output is
released, and the computation ends. Preprocessing comes from a dealer whom nobody else
controls; see SECURITY.md.

`extended` is the ring Z_2^(k+s), `authenticated` shares with MACs, `check` the batch
check of what was opened.
"""

from privjax.protocols.spdz2k.protocol import Spdz2k

__all__ = ["Spdz2k"]
