"""Partitioners: who holds which rows, for experiments on one data set.

Each returns a list with one array of row numbers per client, for `ClientData`. They draw
from NumPy's generator by `seed`: a partition is part of an experiment's description and
protects nothing.

=================  ====================================================================
`iid`              a random split into equal parts
`dirichlet`        label skew: a client's mix of labels is Dirichlet (Hsu et al. 2019)
`shards`           label skew: each client gets a few runs of the sorted labels (McMahan
                   et al. 2017, section 3)
`quantity_skew`    a random split into parts of Dirichlet sizes (Li et al. 2022)
`population`       many clients who draw their rows from the data with repetition
`by_column`        features instead of rows, for vertical learning
=================  ====================================================================
"""

from collections.abc import Sequence

import numpy as np

from privjax.errors import InputError

Rows = list[np.ndarray]


def iid(examples: int, clients: int, *, seed: int = 0) -> Rows:
    """A random split of `examples` rows into parts whose sizes differ by one at most."""
    _enough(examples, clients)
    order = np.random.default_rng(seed).permutation(examples)
    return [np.sort(part) for part in np.array_split(order, clients)]


def dirichlet(
    labels: np.ndarray,
    clients: int,
    alpha: float,
    *,
    equal: bool = True,
    smallest: int = 1,
    seed: int = 0,
) -> Rows:
    """Label skew of strength alpha, in one of the two ways of the literature.

    Args:
      labels: int[examples], any values.
      alpha: 0.1 gives clients of one or two labels, 100 almost the same mix to all.
      equal: all clients get equally many rows, each with its own mix of labels, drawn
        from Dirichlet(alpha p) where p are the labels' shares of all rows (Hsu, Qi and
        Brown 2019, section 3.1). A label that has run out leaves the mixes of those who
        come later. False: the rows of each label are divided among the clients by
        Dirichlet(alpha), so that sizes are skewed too (Yurochkin et al. 2019).
      smallest: the least rows per client; only with equal=False, which draws again
        until all clients have as many.

    Raises: InputError when the rows do not suffice, or alpha is not positive.
    """
    if not alpha > 0:
        raise InputError(f"alpha={alpha} is not positive.")
    labels = np.asarray(labels)
    _enough(len(labels), clients * smallest)
    rng = np.random.default_rng(seed)
    kinds, inverse = np.unique(labels, return_inverse=True)
    if not equal:
        return _divided(inverse, clients, alpha, smallest, rng)
    pools = [
        list(rng.permutation(np.flatnonzero(inverse == k))) for k in range(len(kinds))
    ]
    left = np.array([len(pool) for pool in pools], np.float64)
    mixes = rng.dirichlet(alpha * left / left.sum(), clients)
    sizes = [len(part) for part in np.array_split(labels, clients)]
    out = []
    for mix, size in zip(mixes, sizes, strict=True):
        mine = []
        for _ in range(size):
            open_ = np.where(left > 0, mix, 0.0)
            if open_.sum() <= 0:  # all of this client's labels have run out
                open_ = left
            kind = int(rng.choice(len(kinds), p=open_ / open_.sum()))
            mine.append(pools[kind].pop())
            left[kind] -= 1
        out.append(np.sort(np.array(mine, np.int64)))
    return out


_TRIES = 1000


def _divided(
    kinds: np.ndarray,
    clients: int,
    alpha: float,
    smallest: int,
    rng: np.random.Generator,
) -> Rows:
    for _ in range(_TRIES):
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for kind in range(kinds.max() + 1):
            rows = rng.permutation(np.flatnonzero(kinds == kind))
            ends = np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1]
            pieces = np.split(rows, np.round(ends * len(rows)).astype(np.int64))
            for part, piece in zip(parts, pieces, strict=True):
                part.append(piece)
        out = [np.sort(np.concatenate(part)) for part in parts]
        if min(map(len, out)) >= smallest:
            return out
    raise InputError(
        f"{_TRIES} draws of Dirichlet({alpha}) gave some client fewer than {smallest} "
        "rows each time: choose fewer clients, a larger alpha, or equal=True."
    )


def shards(labels: np.ndarray, clients: int, *, each: int = 2, seed: int = 0) -> Rows:
    """Rows sorted by label, cut into clients * each shards, `each` of them per client."""
    labels = np.asarray(labels)
    _enough(len(labels), clients * each)
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    pieces = np.array_split(order, clients * each)
    deal = rng.permutation(len(pieces)).reshape(clients, each)
    return [np.sort(np.concatenate([pieces[i] for i in row])) for row in deal]


def quantity_skew(
    examples: int, clients: int, alpha: float, *, smallest: int = 1, seed: int = 0
) -> Rows:
    """A random split into parts whose sizes are Dirichlet(alpha), `smallest` or more."""
    if not alpha > 0:
        raise InputError(f"alpha={alpha} is not positive.")
    _enough(examples, clients * smallest)
    rng = np.random.default_rng(seed)
    spare = examples - clients * smallest
    ends = np.round(np.cumsum(rng.dirichlet(np.full(clients, alpha))) * spare)
    sizes = np.diff(ends.astype(np.int64), prepend=0) + smallest
    cuts = np.cumsum(sizes)[:-1]
    return [np.sort(part) for part in np.split(rng.permutation(examples), cuts)]


def population(
    labels: np.ndarray,
    clients: int,
    each: int,
    *,
    alpha: float | None = None,
    seed: int = 0,
) -> Rows:
    """`clients` clients with `each` rows, drawn from the data with repetition.

    For simulations of more clients than a data set has rows: rows are shared.

    Args:
      alpha: label skew as in `dirichlet`; None draws uniformly.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(seed)
    if alpha is None:
        return list(rng.integers(0, len(labels), (clients, each)))
    kinds, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.cumsum(counts) - counts
    mixes = rng.dirichlet(alpha * counts / len(labels), clients)
    edges = np.cumsum(mixes, axis=1)
    kind = (rng.random((clients, each, 1)) > edges[:, None, :-1]).sum(axis=2)
    place = (rng.random((clients, each)) * counts[kind]).astype(np.int64)
    return list(order[starts[kind] + place])


def by_column(
    features: int, parties: int | Sequence[int], *, seed: int | None = None
) -> Rows:
    """Feature numbers of each party, for `privjax.fl.vertical`.

    Args:
      parties: how many parties, or how many features each of them has.
      seed: shuffle the features first; None keeps neighbours together.
    """
    order = np.arange(features)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(features)
    if isinstance(parties, int):
        _enough(features, parties)
        return [np.sort(part) for part in np.array_split(order, parties)]
    if sum(parties) != features or min(parties) < 1:
        raise InputError(f"parties of {list(parties)} features do not make {features}.")
    return [np.sort(part) for part in np.split(order, np.cumsum(parties)[:-1])]


def _enough(examples: int, wanted: int) -> None:
    if not 1 <= wanted <= examples:
        raise InputError(f"{examples} rows do not make {wanted} parts with a row each.")
