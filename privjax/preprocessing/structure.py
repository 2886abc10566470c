"""What the requests of an spdz2k program have to do with each other, found by a dry run.

An offline program only moves shares about between requests: what is authenticated is
uniform or dealt, what a product is dealt of is authenticated, with a sign. Where each
operand comes from is found by running party 0's part on seeds that everybody knows, and
looking each entry up. A bit is recognised by 64 runs, a number of 64 bits by one, of 32
bits by two. `prepare` tests with the party's own seed that it holds what it should.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.core.interpret import run
from privjax.errors import UnsupportedError
from privjax.preprocessing.host import host, moved, wide
from privjax.preprocessing.offline import PARTIES, Demand, Wanted, matched, requests
from privjax.preprocessing.products import layout
from privjax.protocols import tuples
from privjax.protocols.party import PARTY
from privjax.protocols.spdz2k.tuples import BitMacs, SumMacs
from privjax.runtimes.discharge import Unknown

_RUNS = 64


class _Known(Demand):
    """One party's operands and draws; of what is dealt it holds what it draws."""

    def inside(self, state: Any) -> "_Known":
        return _Known(state[0], self.parties)

    def held(self, draws: Sequence[Any]) -> list[Any]:
        return [Unknown() if s is None else s for s in draws]


@partial(jax.jit, static_argnums=0)
def known(party: Any, index: Any, seed: Any) -> Any:
    """As `offline.demand`, for requests that are about what is dealt as well.

    Party 0 holds its draws of what is dealt, party 1 zeros, to be corrected.
    """

    def one(own: Any) -> Any:
        cx = _Known(own, PARTIES)
        run(cx, party, [Unknown()] * len(party.in_avals))
        return cx.gathered()

    lanes = jax.vmap(one, in_axes=None, out_axes=0, axis_name=PARTY, axis_size=PARTIES)
    return jax.tree.map(lambda x: x[index], lanes(seed))


# -- entries in one row ----------------------------------------------------------------


def limbs(x: Any, lead: int, domain: str) -> Any:
    """An operand mod 2^k or 2^(k+s) as uint64[n, 2]."""
    if domain == "sum128":
        return moved(x, lead, -1).reshape(-1, 2)
    return wide(x.reshape(-1))


@dataclass(frozen=True)
class Structure:
    """Where operands come from.

    Attributes:
      wanted: the requests.
      macs: of requests `SumMacs`, where each entry lies in the row of all MACs: first 0,
        then of uniform values, then of values of the row of what is dealt.
      uniform: of these requests, which entries are uniform; in this order they are
        numbers 1, 2, ... of the row (their negatives are known as -1, -2, ..., zero as 0).
      results: the row of what is dealt as sums, (request, result) by (request, result).
      dealt: which entries of that row have MACs, in the order of the row of MACs.
      operands: of the other requests, number and operand -> entries of that row, or of
        the row of all words of `BitMacs`, from 0.
      products: of `Product` and `Square`, entries of that row to be multiplied and added
        up, [n, terms] each.
      sizes: entries of a request for MACs.
      k: bits of the ring.
    """

    wanted: tuple[Wanted, ...]
    macs: dict[int, np.ndarray]
    uniform: dict[int, np.ndarray]
    results: tuple[tuple[int, int], ...]
    dealt: np.ndarray
    operands: dict[tuple[int, int], np.ndarray]
    products: dict[int, tuple[np.ndarray, np.ndarray]]
    sizes: dict[int, int]
    k: int


# Which operands are numbers with MACs, and which are bits with MACs.
_NUMBERS: dict[str, tuple[int, ...]] = {
    "Product": (0, 1),
    "Square": (0,),
    "Truncation": (0,),
    "BitTimes": (1,),
    "EdaBits": (1,),
    "Comparison": (1,),
}
_BITS: dict[str, tuple[int, ...]] = {"BitToSum": (0,), "BitTimes": (0,)}
KINDS = frozenset({*_NUMBERS, *_BITS, "ToOwner", "SumMacs", "BitMacs", "AndMacs"})


def kind(fun: Any) -> str:
    return type(fun).__name__


def _sign(runs: np.ndarray) -> np.ndarray:
    """[runs, ...] of 0 and 1 -> uint64[n]."""
    flat = runs.reshape(_RUNS, -1).astype(np.uint64) & np.uint64(1)
    return np.bitwise_or.reduce(flat << np.arange(_RUNS, dtype=np.uint64)[:, None], 0)


class _Table:
    """Looks entries up by what they were in the runs."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.rows: dict[int, Any] = {}
        self.count = 0

    def number(self, x: np.ndarray) -> np.ndarray:
        """[runs, ...] mod 2^k -> uint64[n]."""
        flat = x.reshape(x.shape[0], -1)
        mask = np.uint64((1 << self.k) - 1)
        both = flat[:2].astype(np.uint64) & mask
        return both[0] if self.k == 64 else both[0] | (both[1] << np.uint64(32))

    def negative(self, x: np.ndarray) -> np.ndarray:
        flat = x.reshape(x.shape[0], -1)[:2].astype(np.uint64)
        return self.number(np.uint64(0) - flat)

    def extend(self, names: np.ndarray, negatives: np.ndarray | None = None) -> None:
        """The next entries: from 0, or, where they have negatives, from 1."""
        for at, name in enumerate(names.tolist()):
            self._add(name, self.count + at + (negatives is not None))
            if negatives is not None:
                self._add(int(negatives[at]), -(self.count + at + 1))
        self.count += names.size

    def _add(self, name: int, value: int) -> None:
        if self.rows.setdefault(name, value) != value:
            raise UnsupportedError("two random values of a program are the same.")

    def find(self, names: np.ndarray, default: Any = None) -> list[Any]:
        return [self.rows.get(name, default) for name in names.tolist()]


def _refuse(want: Wanted, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"preprocessing='ot' for spdz2k has no protocol for {kind(want.fun)}{what}: use "
        "preprocessing='dealer' or 'sacrifice'."
    )


@lru_cache(maxsize=16)
def structure(party: Any) -> Structure:
    """The structure of a party's program.

    Raises: UnsupportedError for a request that two parties have no protocol for.
    """
    with jax.enable_x64(True):
        return _structure(party)


def _structure(party: Any) -> Structure:
    tree = requests(party)
    seeds = np.zeros((_RUNS, 8), np.uint32)
    seeds[:, 0] = np.arange(_RUNS)
    # One after the other, by what a party's own run compiles as well.
    runs = [host(known(party, np.int32(0), seed)) for seed in seeds]
    pairs = matched(tree, jax.tree.map(lambda *v: np.stack(v), *runs))
    for want, _ in pairs:
        if kind(want.fun) not in KINDS:
            raise _refuse(want, "")
    wanted = tuple(w for w, _ in pairs)
    macs = [i for i, w in enumerate(wanted) if isinstance(w.fun, SumMacs)]
    k = wanted[macs[0]].fun.ring.k if macs else 64
    table, made, results = _Table(k), _Table(k), []
    for i, (want, (_, draws)) in enumerate(pairs):
        for j, domain in enumerate(want.fun.results):
            if domain == "sum" and kind(want.fun) in {*_NUMBERS, *_BITS}:
                made.extend(made.number(draws[j]))
                results.append((i, j))
    uniform: dict[int, np.ndarray] = {}
    found: dict[int, np.ndarray] = {}
    for i in macs:
        want, (operands, _) = pairs[i]
        x = operands[1]
        if want.fun.domain == "sum128":
            x = np.moveaxis(x, 1 + want.lead, 0)[0]
        names = table.number(x)
        found[i] = np.array(made.find(names, -1), np.int64)
        uniform[i] = np.flatnonzero(found[i] < 0)
        table.extend(names[uniform[i]], table.negative(x)[uniform[i]])
    dealt, places, first, second = [], {}, 1, 1 + table.count
    for i in macs:
        places[i] = np.zeros(found[i].shape, np.int64)
        places[i][uniform[i]] = first + np.arange(uniform[i].size)
        others = np.flatnonzero(found[i] >= 0)
        places[i][others] = second + np.arange(others.size)
        dealt.append(found[i][others])
        first, second = first + uniform[i].size, second + others.size
    bit = _Table(k)
    for want, (_, draws) in pairs:
        if isinstance(want.fun, BitMacs):
            bit.extend(_sign(draws[0]))
    table.rows[0] = 0
    entries = {}
    for i, (want, (operands, _)) in enumerate(pairs):
        name = kind(want.fun)
        numbers, bits = _NUMBERS.get(name, ()), _BITS.get(name, ())
        if isinstance(want.fun, tuples.ToOwner):
            numbers, bits = ((0,), ()) if want.fun.domain == "sum" else ((), (0,))
        for j, marks in (
            *((j, table.find(table.number(operands[j]))) for j in numbers),
            *((j, bit.find(_sign(operands[j]))) for j in bits),
        ):
            if any(f is None for f in marks):
                raise _refuse(want, " of sums of random values, or of older shares")
            entries[i, j] = np.array(marks, np.int64)
    products = {
        i: _terms(want, operands, [entries[i, j] for j in range(len(operands))])
        for i, (want, (operands, _)) in enumerate(pairs)
        if kind(want.fun) in ("Product", "Square")
    }
    sizes = {i: _size(w, o[1]) for i, (w, (o, _)) in enumerate(pairs) if len(o) > 1}
    row = np.concatenate(dealt) if dealt else np.zeros((0,), np.int64)
    return Structure(
        wanted, places, uniform, tuple(results), row, entries, products, sizes, k
    )


def _size(want: Wanted, x: Any) -> int:
    planes = 2 if getattr(want.fun, "domain", "") == "sum128" else 1
    return math.prod(x.shape[1:]) // planes


def _terms(
    want: Wanted, operands: Sequence[Any], entries: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The sums of products that a bilinear one is."""
    if isinstance(want.fun, tuples.Square):
        return entries[0][:, None], entries[0][:, None]
    # The places of entries go through the product's layout; 0 is padding.
    marks: list[Any] = []
    for x in operands:
        shape = x.shape[1:]  # without the runs
        each = np.arange(1, 1 + math.prod(shape), dtype=np.uint64)
        marks.append(each.reshape(math.prod(shape[: want.lead]), *shape[want.lead :]))
    found = layout(want.fun.op, *marks)
    left, right = (np.asarray(v).astype(np.int64) for v in (found.left, found.right))
    batch, m, terms = left.shape
    n = right.shape[2]
    order = found.rejoin(
        jnp.arange(batch * m * n, dtype=np.uint64).reshape(batch, m, n)
    )
    pairs = (
        np.broadcast_to(left[:, :, None], (batch, m, n, terms)),
        np.broadcast_to(right.transpose(0, 2, 1)[:, None], (batch, m, n, terms)),
    )
    at = np.asarray(order).astype(np.int64).reshape(-1)
    row = [np.concatenate([[0], e]) for e in entries]
    first, second = (
        r[p.reshape(-1, terms)[at]] for r, p in zip(row, pairs, strict=True)
    )
    return first, second
