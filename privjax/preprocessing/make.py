"""What the dealer would compute for semi2k, made by the two parties themselves.

`make` answers `dealt` requests: functions of `protocols.tuples` on shares of uniform
values that the parties drew from their own keys. `corrections` brings the shares of the
results into the form in which a dealer hands them out. Semi-honest.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from privjax._typing import Array
from privjax.errors import PreprocessingError, UnsupportedError
from privjax.preprocessing import bitmatrix, bits, products
from privjax.preprocessing.exchange import Side, together
from privjax.preprocessing.extension import received_as
from privjax.preprocessing.session import Session
from privjax.protocols import tuples

Shapes = tuple[tuple[int, ...], ...]
Results = Side[list[list[Array]]]


@dataclass(frozen=True)
class Request:
    """A function to compute, this party's shares of its operands, and how many leading
    axes of all of them only repeat the request (the iterations of loops)."""

    fun: Any
    shares: Sequence[Array]
    lead: int = 0


# -- several requests as one: elementwise functions do not mind what lies beside what --


@jax.jit
def _flat(arrays: Sequence[Array]) -> Array:
    return jnp.concatenate([x.reshape(-1) for x in arrays])


@partial(jax.jit, static_argnames="shapes")
def _cut(flat: Array, *, shapes: Shapes) -> list[Array]:
    """The inverse of `_flat`; further axes of `flat` stay behind each array's."""
    out, at = [], 0
    for shape in shapes:
        size = math.prod(shape)
        part = flat[at : at + size]
        out.append(part.reshape(*shape, *flat.shape[1:]))
        at += size
    return out


def _shapes(arrays: Sequence[Array]) -> Shapes:
    return tuple(x.shape for x in arrays)


def _aligned(request: Request) -> list[Array]:
    """All operands in their common shape, repetitions in front."""
    lead, xs = request.lead, request.shares
    rank = max(x.ndim for x in xs)
    padded = [
        x.reshape(*x.shape[:lead], *(1,) * (rank - x.ndim), *x.shape[lead:]) for x in xs
    ]
    shape = jnp.broadcast_shapes(*_shapes(padded))
    return [jnp.broadcast_to(x, shape) for x in padded]


def _products(me: Session, batch: Sequence[Request]) -> Results:
    if len(batch) == 1:
        (one,) = batch
        out = yield from products.product(me, one.fun.op, *one.shares, lead=one.lead)
        return [[out]]
    a, b = (_flat([r.shares[i] for r in batch]) for i in (0, 1))
    out = yield from products.product(me, tuples.MUL, a, b)
    return [[x] for x in _cut(out, shapes=_shapes([r.shares[0] for r in batch]))]


def _squares(me: Session, batch: Sequence[Request]) -> Results:
    xs = [r.shares[0] for r in batch]
    out = yield from products.square(me, _flat(xs))
    return [[x] for x in _cut(out, shapes=_shapes(xs))]


def _sums(me: Session, batch: Sequence[Request]) -> Results:
    """BitsOf and Truncation: one adder for all."""
    rs = [r.shares[0] for r in batch]
    total, carry = yield from bits.sum_bits(me, _flat(rs))
    pairs = zip(*(_cut(x, shapes=_shapes(rs)) for x in (total, carry)), strict=True)
    found: list[list[Array]] = []
    wanted = []
    neighbours = []
    for request, r, (t, c) in zip(batch, rs, pairs, strict=True):
        if isinstance(request.fun, tuples.BitsOf):
            # Shares of bits: their order and their neighbours are those of the value.
            word = request.fun.word(bitmatrix.from_bits(t, r.dtype))
            found.append([word])
            both = request.fun.neighbours(word)
            neighbours.append(Request(tuples.And(1), both, request.lead))
        else:
            wanted.append(bits.bits_for_truncation(t, c, request.fun.bits))
            found.append([])
    ands: Results = _all_ands(me, neighbours)
    numbers = bits.bit_to_sum(me, _flat(wanted), rs[0].dtype) if wanted else _nothing()
    products_of, sums = yield from together([ands, numbers])
    both = iter(products_of)
    parts = iter(_cut(sums, shapes=_shapes(wanted)) if wanted else ())
    for i, request in enumerate(batch):
        if isinstance(request.fun, tuples.BitsOf):
            found[i] += next(both)
        else:
            found[i] = [*bits.truncated(rs[i], next(parts), request.fun.bits)]
    return found


def _nothing() -> Side[Any]:
    """A protocol without messages."""
    yield from ()
    return None


def _all_ands(me: Session, requests: Sequence[Request]) -> Results:
    """`_ands` for words of any type, type by type in a fixed order."""
    out: list[list[Array]] = [[] for _ in requests]
    for dtype in sorted({str(r.shares[0].dtype) for r in requests}):
        mine = [i for i, r in enumerate(requests) if str(r.shares[0].dtype) == dtype]
        made = yield from _ands(me, [requests[i] for i in mine])
        for i, results in zip(mine, made, strict=True):
            out[i] = results
    return out


def _ands(me: Session, batch: Sequence[Request]) -> Results:
    """All words' bits in one row, whatever the words' widths."""
    if _and_key(batch[0]) is None:
        # Results of several shapes: as many requests with one result.
        a, *bs = batch[0].shares
        each = [Request(tuples.And(1), [a, b], batch[0].lead) for b in bs]
        return [[z for (z,) in (yield from _ands(me, each))]]
    words = [_aligned(r) for r in batch]
    rows = [
        _flat([bitmatrix.bits_of(w[i]) for w in words]) for i in range(len(words[0]))
    ]
    both = yield from bits.and_bits(me, rows[0], jnp.stack(rows[1:], axis=1))
    widths = tuple((*w[0].shape, w[0].dtype.itemsize * 8) for w in words)
    out = []
    for w, planes in zip(words, _cut(both, shapes=widths), strict=True):
        out.append(
            [bitmatrix.from_bits(p, w[0].dtype) for p in jnp.moveaxis(planes, -1, 0)]
        )
    return out


def _bits_to_sums(me: Session, batch: Sequence[Request]) -> Results:
    ts = [r.shares[0] for r in batch]
    out = yield from bits.bit_to_sum(me, _flat(ts), batch[0].fun.dtype)
    return [[x] for x in _cut(out, shapes=_shapes(ts))]


def _bits_times(me: Session, batch: Sequence[Request]) -> Results:
    pairs = [_aligned(r) for r in batch]
    t, a = (_flat([pair[i] for pair in pairs]) for i in (0, 1))
    out = yield from bits.bit_times(me, t, a)
    return [[x] for x in _cut(out, shapes=_shapes([a for _, a in pairs]))]


def _to_owners(me: Session, batch: Sequence[Request]) -> Results:
    """The other party sends its shares: the owner learns r, who else nothing.

    The result of who is not the owner is zero.
    """
    fun = batch[0].fun
    rs = [r.shares[0] for r in batch]
    received = yield (None if me.index == fun.owner else _flat(rs))
    if me.index != fun.owner:
        return [[jnp.zeros_like(r)] for r in rs]
    flat = _flat(rs)
    theirs = received_as(received, flat.shape, flat.dtype)
    clear = flat + theirs if fun.operands == ("sum",) else flat ^ theirs
    return [[x] for x in _cut(clear, shapes=_shapes(rs))]


@dataclass(frozen=True)
class Maker:
    """How requests of a kind are met, and which of them together (equal keys).

    A key of None: alone.
    """

    run: Callable[[Session, Sequence[Request]], Results]
    key: Callable[[Request], Hashable]


def _dtype(request: Request) -> Hashable:
    return request.shares[0].dtype


def _and_key(request: Request) -> Hashable:
    """Results have the common shape of a and each b: alike for all b, or alone."""
    first, *others = request.shares
    shapes = {jnp.broadcast_shapes(first.shape, b.shape) for b in others}
    return len(others) if len(shapes) == 1 else None


MAKERS: dict[type, Maker] = {
    tuples.Product: Maker(
        _products, lambda r: _dtype(r) if r.fun.op == tuples.MUL else None
    ),
    tuples.Square: Maker(_squares, _dtype),
    tuples.Truncation: Maker(_sums, _dtype),
    tuples.BitsOf: Maker(_sums, _dtype),
    tuples.And: Maker(_ands, _and_key),
    tuples.BitToSum: Maker(_bits_to_sums, lambda r: r.fun.dtype),
    tuples.BitTimes: Maker(_bits_times, lambda r: r.shares[1].dtype),
    tuples.ToOwner: Maker(_to_owners, lambda r: (r.fun, _dtype(r))),
}


def make(me: Session, wanted: Sequence[Request]) -> Results:
    """This party's shares of what each function gives for the shared operands.

    All requests in the same rounds, and like ones as one: the parties must list the
    same requests in the same order.

    Raises: UnsupportedError for a function that two parties cannot compute here
      (noise of a mechanism, a tuple with MACs).
    """
    batches: dict[Hashable, tuple[Maker, list[int]]] = {}
    for i, request in enumerate(wanted):
        maker = MAKERS.get(type(request.fun))
        if maker is None:
            raise UnsupportedError(
                f"{type(request.fun).__module__.removeprefix('privjax.')}."
                f"{type(request.fun).__name__} needs a dealer: two parties have no "
                "protocol by transfers for it."
            )
        key = maker.key(request)
        name = (maker.run, key) if key is not None else i
        batches.setdefault(name, (maker, []))[1].append(i)
    found = yield from together(
        [maker.run(me, [wanted[i] for i in at]) for maker, at in batches.values()]
    )
    out: list[list[Array]] = [[] for _ in wanted]
    for (_, at), results in zip(batches.values(), found, strict=True):
        for i, result in zip(at, results, strict=True):
            out[i] = result
    return out


def corrections(
    me: Session, wanted: Sequence[Request], draws: Sequence[Sequence[Array | None]]
) -> Results:
    """What a dealer would send this party, made with the other party.

    A party's share of a result is what it draws from its seed, plus for party 1 a
    correction. Party 0 tells by how much its share z_0 from `make` differs from its
    draw s_0, which is uniform; the correction is z_1 + (z_0 - s_0) - s_1. One round more
    than `make`.

    Args:
      draws: this party's draw for each result of each request, None for a result that
        is told to one party in clear.

    Returns: one array per result; zeros where nothing is meant for this party.
    """
    results = yield from make(me, wanted)
    missing = {}
    for i, request in enumerate(wanted):
        rows = zip(results[i], draws[i], request.fun.results, strict=True)
        for j, (z, s, domain) in enumerate(rows):
            if s is not None:
                missing[i, j] = _COMBINE[domain][1](z, s)
    received = yield ([*missing.values()] if me.index == 0 else None)
    if me.index == 1 and (type(received) is not list or len(received) != len(missing)):
        raise PreprocessingError("the other party made other corrections.")
    for at, (place, own) in enumerate(missing.items()):
        i, j = place
        if me.index == 0:
            results[i][j] = jnp.zeros_like(own)
            continue
        theirs = received_as(received[at], own.shape, own.dtype)
        results[i][j] = _COMBINE[wanted[i].fun.results[j]][0](own, theirs)
    return results


# How shares of a domain are added and subtracted.
_COMBINE: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "sum": (jnp.add, jnp.subtract),
    "xor": (jnp.bitwise_xor, jnp.bitwise_xor),
}
