"""Who shares masks with whom, and how many neighbours and shares that takes.

Clients sit on a circle, in random order, and each has the k nearest as its neighbours,
k / 2 on either side (a Harary graph; Bell, Bonawitz, Gascon, Lepoint and Raykova, "Secure
Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020, section 3). With
k = clients - 1 that is the full graph of Bonawitz et al. 2017.

What can go wrong, with c clients that collude with the server and d that drop out, both
independent of the random order (Bell et al., definition 3.1 and section 3.4):

1. Some honest client has `threshold` colluding neighbours, who reconstruct its secrets.
2. Honest clients that stay are not connected: the server learns a sum per component. On
   a circle that takes two runs of k / 2 consecutive clients that collude or drop.
3. Some client has fewer than `threshold` neighbours that stay: the round fails.

A neighbourhood is a sample without replacement, so that 1 and 3 are tails of the
hypergeometric law, times the number of clients; 2 is a union over pairs of runs. These
are the bounds that `exposure` and `failure` compute; `plan` searches the smallest k.
"""

import functools
import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from scipy import special, stats  # type: ignore[import-untyped]

from privjax._typing import Array
from privjax.errors import InputError


@dataclass(frozen=True)
class Circle:
    """The graph on `clients` places; slot a of a client is the neighbour at offset a."""

    clients: int
    degree: int

    @property
    def full(self) -> bool:
        return self.degree == self.clients - 1

    @property
    def offsets(self) -> np.ndarray:
        """int32[degree]: steps round the circle from a client to each neighbour."""
        if self.full:
            return np.arange(1, self.clients, dtype=np.int32)
        half = np.arange(1, self.degree // 2 + 1, dtype=np.int32)
        return np.concatenate([half, self.clients - half[::-1]])

    @property
    def back(self) -> np.ndarray:
        """int32[degree]: in which slot the neighbour in slot a has this client."""
        return np.arange(self.degree, dtype=np.int32)[::-1]

    def neighbours(self, order: Array) -> Array:
        """int32[clients, degree]: who is in each slot; order[p] is the client at p."""
        here = np.arange(self.clients, dtype=np.int32)
        places = (here[:, None] + self.offsets) % self.clients
        rows = order.astype(np.int32)[places]
        return jnp.zeros_like(rows).at[order].set(rows)

    def edges(self, order: Array) -> tuple[Array, Array]:
        """Every pair once, as clients i < j: two uint32 arrays."""
        t = np.arange(self.clients * self.degree // 2)
        a = t % self.clients
        b = (a + 1 + t // self.clients) % self.clients
        one, other = order[a].astype(np.uint32), order[b].astype(np.uint32)
        return jnp.minimum(one, other), jnp.maximum(one, other)


# -- what the numbers guarantee --------------------------------------------------------


def failure(clients: int, degree: int, threshold: int, dropped: int) -> float:
    """log2 of the probability, at most, that a round with `dropped` dropped fails."""
    if degree == clients - 1:
        return 0.0 if clients - 1 - dropped < threshold else -math.inf
    # Of the others of a client that stays, `dropped` are gone.
    tail = stats.hypergeom.logsf(
        degree - threshold, clients - 1, min(dropped, clients - 1), degree
    )
    return _union(clients, float(tail))


def exposure(
    clients: int, degree: int, threshold: int, dropped: int, colluding: int
) -> float:
    """log2 of the probability, at most, that more than the sum is learnt."""
    if degree == clients - 1:
        return 0.0 if dropped and colluding >= threshold else -math.inf
    gone = min(dropped + colluding, clients)
    apart = -math.inf
    if gone >= degree:  # two runs of degree / 2
        pairs = math.log(clients * (clients - 1) / 2)
        chosen = _log_choose(clients - degree, gone - degree)
        apart = _union(1, pairs + chosen - _log_choose(clients, gone))
    if not dropped:  # then no secret is shared
        return apart
    tail = stats.hypergeom.logsf(threshold - 1, clients - 1, colluding, degree)
    surrounded = _union(clients - colluding, float(tail))
    return min(0.0, float(np.logaddexp2(apart, surrounded)))


def division(clients: int, degree: int, threshold: int, colluding: int) -> float:
    """log2 of the probability, at most, that lies can get both secrets of some client.

    A server that tells clients different things about who answered gets shares of either
    kind, but one from each honest neighbour: enough of both take 2 threshold - degree
    colluding neighbours.
    """
    needed = 2 * threshold - degree
    if needed <= 0:
        return 0.0
    if degree == clients - 1:
        return 0.0 if colluding >= needed else -math.inf
    tail = stats.hypergeom.logsf(needed - 1, clients - 1, colluding, degree)
    return _union(clients - colluding, float(tail))


def _union(events: int, log_probability: float) -> float:
    if events <= 0:
        return -math.inf
    return min(0.0, (math.log(events) + log_probability) / math.log(2))


def _log_choose(n: int, k: int) -> float:
    return float(
        special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    )


@functools.lru_cache(maxsize=256)
def largest_threshold(
    clients: int, degree: int, dropped: int, correctness: float
) -> int:
    """The most shares that `dropped` drop-outs leave but with probability 2^-correctness.

    0 if not even one is left.
    """
    if degree == clients - 1:
        return max(0, clients - 1 - dropped)
    low, high = 0, degree
    while low < high:
        middle = (low + high + 1) // 2
        fits = failure(clients, degree, middle, dropped) <= -correctness
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


@functools.lru_cache(maxsize=256)
def plan(
    clients: int, dropped: int, colluding: int, security: float, correctness: float
) -> tuple[int, int]:
    """The smallest degree, and its threshold, that reach the stated bounds.

    Args:
      dropped, colluding: how many clients may drop out, and collude with the server.
      security: more than the sum is learnt with probability at most 2^-security.
      correctness: the round fails with probability at most 2^-correctness.

    Raises: InputError where fewer than two honest clients would stay.
    """
    if colluding + dropped >= clients - 1:
        raise InputError(
            f"of {clients} clients {dropped} may drop out and {colluding} collude: at "
            "least two honest ones must stay, or their sum is one client's value."
        )
    for degree in range(2, clients - 1, 2):
        threshold = largest_threshold(clients, degree, dropped, correctness)
        if threshold < 1:
            continue
        if exposure(clients, degree, threshold, dropped, colluding) <= -security:
            return degree, threshold
    # More honest clients stay than collude with the last one that is needed: certain.
    return clients - 1, clients - 1 - dropped
