"""Who takes part in a round, and with what: `Cohort`, and `ClientData` to take it from.

Everything about a cohort that changes from round to round is an array of a static shape
(who answered, how many examples are real, how much work was done in time), so that one
compiled program serves all rounds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import PyTree
from privjax.errors import InputError

Rows = np.ndarray


class Cohort(NamedTuple):
    """The clients of one round.

    Attributes:
      data: a pytree of arrays [clients, examples, ...].
      mask: bool[clients, examples], which examples are real; None: all.
      ids: int[clients], which clients these are, each at most once; None: all clients
        of the state in their order.
      survivors: bool[clients], who answers; None: everybody. What the others computed
        is thrown away, and their states stay as they were.
      steps: int[clients], the most local steps that a client gets done in time (a
        straggler's partial work, as in FedProx and FedNova); None: all.
      present: bool[clients], which are clients and no padding of a cohort of varying
        size; None: all. Padding does not answer (`survivors` says so too). A secure sum
        counts it as nobody's drop-out, but where each client adds a part of the noise:
        there state enough of `dropped=`, as padding adds none.
    """

    data: PyTree
    mask: Any = None
    ids: Any = None
    survivors: Any = None
    steps: Any = None
    present: Any = None

    @property
    def clients(self) -> int:
        """How many there are, survivors or not."""
        return int(np.shape(jax.tree.leaves(self.data)[0])[0])


def as_cohorts(cohort: Any) -> tuple[Cohort, ...]:
    """A cohort, several of them (buckets of clients of like size), or bare arrays.

    Raises: InputError naming the array whose shape does not fit.
    """
    if isinstance(cohort, Cohort):
        found: tuple[Any, ...] = (cohort,)
    elif isinstance(cohort, (tuple, list)) and any(
        isinstance(c, Cohort) for c in cohort
    ):
        found = tuple(cohort)
    else:
        found = (Cohort(cohort),)
    for one in found:
        _check(one)
    return found


def _check(cohort: Any) -> None:
    if not isinstance(cohort, Cohort):
        raise InputError(f"buckets are all Cohorts, not {type(cohort).__name__}.")
    named, _ = jax.tree_util.tree_flatten_with_path(cohort.data)
    if not named:
        raise InputError("a cohort needs data: a pytree of [clients, examples, ...].")
    shapes = {
        "data" + jax.tree_util.keystr(path): tuple(np.shape(x)) for path, x in named
    }
    name, first = next(iter(shapes.items()))
    lead = first[:2]
    for path, shape in shapes.items():
        if len(shape) < 2 or shape[:2] != lead:
            raise InputError(
                f"`{path}` has shape {shape}; every array of a cohort has axes "
                f"[clients, examples, ...], and `{name}` has {first}."
            )
    if 0 in lead:
        raise InputError(f"`{name}` has shape {first}: no clients, or no examples.")
    each = ("ids", "survivors", "steps", "present")
    wanted = {"mask": lead} | dict.fromkeys(each, lead[:1])
    for field, shape in wanted.items():
        value = getattr(cohort, field)
        if value is not None and tuple(np.shape(value)) != shape:
            raise InputError(
                f"{field}= has shape {tuple(np.shape(value))}; a cohort of {lead[0]} "
                f"clients with {lead[1]} examples needs {shape}."
            )


class ClientData:
    """Examples of all clients in flat arrays, and which rows are whose.

    Two lists of integers say who has what, so that 100,000 clients cost no more than
    their examples. Rows may belong to several clients (in simulated populations).

    Args:
      arrays: a pytree of arrays with examples on axis 0, NumPy's or JAX's (then rows
        are gathered on the device).
      rows: for every client the numbers of its rows (see `privjax.fl.partition`).

    Attributes: `arrays`; `sizes`, int64[clients]; `capacity`, the largest of them.
    """

    def __init__(self, arrays: PyTree, rows: Sequence[Rows]) -> None:
        leaves = jax.tree.leaves(arrays)
        lengths = {np.shape(x)[0] if np.ndim(x) else None for x in leaves}
        if len(lengths) != 1 or None in lengths:
            raise InputError(
                "data must have examples on axis 0 of every array, equally many: "
                f"{[np.shape(x) for x in leaves]}."
            )
        if not len(rows):
            raise InputError("there are no clients.")
        self.arrays = arrays
        self.sizes = np.array([len(r) for r in rows], np.int64)
        self._rows = np.concatenate([np.asarray(r, np.int64) for r in rows])
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self.capacity = int(self.sizes.max(initial=0))
        if self.capacity == 0:
            raise InputError("no client has any example.")
        examples = lengths.pop() or 0
        if self._rows.min() < 0 or self._rows.max() >= examples:
            raise InputError(f"a client's row is not one of the {examples} examples.")

    def __len__(self) -> int:
        return len(self.sizes)

    def rows(self, client: int) -> Rows:
        """The numbers of one client's rows."""
        return self._rows[self._starts[client] : self._starts[client + 1]]

    def cohort(
        self,
        ids: Any = None,
        *,
        present: Any = None,
        capacity: int | None = None,
        survivors: Any = None,
        steps: Any = None,
    ) -> Cohort:
        """These clients' examples, padded to one length with zeros.

        Args:
          ids: int[clients]; all clients by default.
          present: bool[clients], which of `ids` are clients and no padding.
          capacity: examples per client; that of the largest client of all by default,
            so that all cohorts have one shape. A client with more keeps its first ones.
          survivors, steps: see `Cohort`.
        """
        ids = np.arange(len(self)) if ids is None else np.asarray(ids)
        room = self.capacity if capacity is None else int(capacity)
        if room < 1:
            raise InputError(f"capacity={capacity} is not at least 1.")
        if ids.size and (ids.min() < 0 or ids.max() >= len(self)):
            raise InputError(f"ids= names a client that is none of the {len(self)}.")
        alive = here = None
        if present is not None:
            alive = here = np.asarray(present).astype(bool)
        if survivors is not None:
            answered = np.asarray(survivors).astype(bool)
            alive = answered if alive is None else alive & answered
        sizes = np.minimum(self.sizes[ids], room)
        if present is not None:
            sizes = np.where(np.asarray(present) != 0, sizes, 0)
        place = np.arange(room)
        mask = place < sizes[:, None]
        at = np.where(mask, self._starts[ids][:, None] + place, 0)
        rows = self._rows[at]
        full = bool(
            (self.sizes >= room).all()
        )  # a fact about all cohorts, not this one

        def gather(x: Any) -> Any:
            found = x[rows]
            if full and present is None:
                return found
            zero = np.zeros((), found.dtype)
            keep = mask.reshape(*mask.shape, *[1] * (found.ndim - 2))
            if isinstance(found, np.ndarray):
                return np.where(keep, found, zero)
            return jnp.where(keep, found, zero)

        data = jax.tree.map(gather, self.arrays)
        return Cohort(data, None if full else mask, ids, alive, steps, here)

    def buckets(
        self,
        ids: Any = None,
        *,
        present: Any = None,
        survivors: Any = None,
        steps: Any = None,
        smallest: int = 8,
    ) -> tuple[Cohort, ...]:
        """The same in several cohorts, each padded to a power of two of examples.

        Padding to the largest client wastes work where sizes are skewed; here a client
        is padded to at most twice its size. The number of clients of a bucket is rounded
        up to a power of two with absent ones, so that few shapes are ever compiled.

        Args:
          ids, present, survivors, steps: see `cohort`.
          smallest: the shortest padded length.
        """
        ids = np.arange(len(self)) if ids is None else np.asarray(ids)
        here = np.ones(len(ids), bool) if present is None else np.asarray(present) != 0
        alive = here if survivors is None else here & np.asarray(survivors).astype(bool)
        sizes = np.maximum(self.sizes[ids], smallest)
        exponents = np.ceil(np.log2(sizes)).astype(int)
        out = []
        for exponent in np.unique(exponents[here]):
            chosen = np.flatnonzero((exponents == exponent) & here)
            room = 1 << (len(chosen) - 1).bit_length()
            padding = (0, room - len(chosen))
            full = room == len(chosen)
            cohort = self.cohort(
                np.pad(ids[chosen], padding),
                present=None if full else np.arange(room) < len(chosen),
                survivors=None if survivors is None else np.pad(alive[chosen], padding),
                steps=None if steps is None else np.pad(steps[chosen], padding),
                capacity=1 << int(exponent),
            )
            out.append(cohort)
        if not out:
            nobody = np.zeros(1, bool)
            return (self.cohort(ids[:1], present=nobody, capacity=smallest),)
        return tuple(out)
