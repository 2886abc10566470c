"""Compiling for secret sharing: from a call to the program that parties run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core.interpret import mentions, run
from privjax.core.trace import Call, trace_flat
from privjax.passes import schedule, simplify
from privjax.passes.complex_pairs import Split, split
from privjax.passes.cost import Cost, cost
from privjax.passes.deal import deal
from privjax.passes.decompose import decompose
from privjax.passes.decompose.gates import gates
from privjax.passes.decompose.replaced import recognise
from privjax.passes.merge import merge
from privjax.passes.shared import Boolean, Fixed, Integer, Shared
from privjax.passes.shared.marked import open_values
from privjax.passes.shared.values import SECRET
from privjax.passes.verify import verify
from privjax.prg import chacha20
from privjax.prg.chacha20 import Purpose
from privjax.protocols.exact import ExactTruncation
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.interface import Protocol
from privjax.protocols.party import PARTY
from privjax.runtimes.discharge import MARKERS
from privjax.runtimes.simulate import online, party_keys, simulation
from privjax.transforms.base import named, typed_key, with_inner_key
from privjax.transforms.shared_data import SharedArray, is_shared, together

# What a flat input is: seen by all, a secret that its owner holds in clear, or shares.
PUBLIC, CLEAR, SHARED = "public", "clear", "shared"


@dataclass(frozen=True)
class Options:
    """What a program is compiled for."""

    protocol: Protocol
    fixed_point: FixedPoint
    reveal: bool
    owners: Mapping[str, int]
    max_steps: int | None


@dataclass(frozen=True, eq=False)
class Program:
    """A function compiled for one signature.

    Attributes:
      stages: name -> closed jaxpr, in the order of the passes.
      modes: for each flat input "public", "clear" (a secret given in clear, to be shared
        by its owner) or "shared".
      outs: for each flat output None when it is revealed or public, else its kind.
      cost: communication of the party program.
      checked: whether the party program has one more output, that all checks held.
      notes: what the pass has to say about constants of the program.
      pairs: which inputs and outputs are pairs of reals from "simplified" on.
    """

    stages: dict[str, Any]
    modes: tuple[str, ...]
    outs: tuple[Any, ...]
    out_tree: Any
    out_dtypes: tuple[Any, ...]
    out_weak: tuple[bool, ...]
    cost: Cost
    inner_key: bool
    paths: tuple[str, ...]
    checked: bool
    notes: tuple[str, ...]
    pairs: Split = field(repr=False)
    run: Callable[..., Any] = field(repr=False)
    run_online: Callable[..., Any] = field(repr=False)

    @property
    def party(self) -> Any:
        """What one party runs: the last stage."""
        return self.stages[next(reversed(self.stages))]


def compile_program(call: Call, modes: tuple[str, ...], options: Options) -> Program:
    """Trace a call and rewrite it; `modes` says what each flat input is."""
    inner = with_inner_key(call.fun)
    inner_name = getattr(call.fun, "key_name", "key")
    specs = [spec(x) for x in call.leaves]
    if inner:

        def wrap(extra: Any, args: Any, kwargs: Any) -> Any:
            return call.fun(*args, **kwargs, **{inner_name: typed_key(extra[0])})

        extra = [jax.ShapeDtypeStruct((8,), np.uint32)]
        traced = call.trace(specs, extra, wrap)
    else:
        traced = call.trace(specs)
    secret = [*([False] * inner), *(m != PUBLIC for m in modes)]
    stages = {"traced": traced.closed}
    with jax.enable_x64(True):
        remarks: dict[str, None] = {}
        plain = traced.closed
        if options.fixed_point.ring_bits <= 64:
            plain = recognise(plain, remarks)
        plain = simplify.dce(simplify.inline(plain, remat=True))
        if options.fixed_point.ring_bits <= 64:
            plain = gates(plain, secret, options.fixed_point.max_value)
        pairs = split(plain, secret, options.max_steps)
        plain, secret = pairs.closed, pairs.spread(secret)
        plain = simplify.cse(decompose(plain, secret, options.max_steps, remarks))
        plain = simplify.dce(simplify.inline(plain, remat=True))
        plain = simplify.inline(merge(plain, secret))
        stages["simplified"] = plain
        party, outs, notes = _party_program(
            plain, pairs, call, specs, modes, inner, options
        )
        parties = options.protocol.parties
        axes: Any = {"axis_env": [(PARTY, parties)]}
        stages["shared"] = party
        party = simplify.dce(simplify.inline(party, **axes))
        party = simplify.cse(party, impure=MARKERS, **axes)
        party = schedule.schedule(party, **axes)
        stages["scheduled"] = party
        checked = options.protocol.active and mentions(party, frozenset({"open"}))
        if checked:
            party = verify(party, parties, options.fixed_point.ring_bits, **axes)
            stages["verified"] = party
        party = deal(party, **axes)
        stages["dealt"] = party
    dtypes = tuple(a.dtype for a in traced.out_avals)
    return Program(
        stages,
        modes,
        outs,
        traced.out_tree,
        dtypes,
        tuple(bool(a.weak_type) for a in traced.out_avals),
        cost(party, parties),
        inner,
        call.paths,
        checked,
        (*remarks, *notes),
        pairs,
        *map(
            jax.jit,
            _simulated(party, modes, outs, call.leaves, inner, checked, options),
        ),
    )


def _party_program(
    plain: Any,
    pairs: Split,
    call: Call,
    specs: list[Any],
    modes: tuple[str, ...],
    inner: bool,
    options: Options,
) -> tuple[Any, tuple[Any, ...], tuple[str, ...]]:
    """What one party does, the kind of every output that stays shared, and notes."""
    fp = options.fixed_point
    outs: list[Any] = []
    notes: list[str] = []
    owners = [
        owner_of(options.owners, arg, path)
        for arg, path in zip(call.args, call.paths, strict=True)
    ]

    def party(*inputs: Any) -> list[Any]:
        protocol: Any = options.protocol.begin(fp.ring_bits)
        if fp.truncation == "exact":
            protocol = ExactTruncation(protocol, fp.dtype)
        cx = Shared(protocol, fp)
        values = list(inputs[:inner])
        for x, leaf, mode, owner in zip(
            inputs[inner:], call.leaves, modes, owners, strict=True
        ):
            if mode == CLEAR and jnp.iscomplexobj(x):
                values += [cx.input(part, owner) for part in (x.real, x.imag)]
                continue
            if mode == SHARED and leaf.kind == "complex":
                values += [_wrap(cx, leaf, part) for part in jnp.split(x, 2, -1)]
                continue
            if mode == CLEAR:
                x = cx.input(x, owner)
            elif mode == SHARED:
                x = _wrap(cx, leaf, x)
            values.append(x)
        results = run(cx, plain, values)
        notes[:] = cx.notes
        dtypes = [aval.dtype for aval in plain.out_avals]
        secret = [i for i, v in enumerate(results) if isinstance(v, SECRET)]
        results = [
            v if i in secret else jnp.asarray(v, dtypes[i])
            for i, v in enumerate(results)
        ]
        if not options.reveal:
            kept = list(_kept(cx, results, pairs))
            outs[:] = [kind for kind, _ in kept]
            return [v for _, v in kept]
        outs[:] = [None] * len(pairs.outputs)
        opened = open_values(
            cx, [results[i] for i in secret], [dtypes[i] for i in secret]
        )
        for i, v in zip(secret, opened, strict=True):
            results[i] = v
        return pairs.results(results)

    own = [jax.ShapeDtypeStruct((8,), np.uint32)] * inner
    for x, as_traced, mode in zip(call.leaves, specs, modes, strict=True):
        if mode == SHARED:
            as_traced = jax.ShapeDtypeStruct((*x.shape, x.data.shape[-1]), np.uint32)
        own.append(as_traced)
    closed = trace_flat(
        party, *own, axis_env=[(PARTY, options.protocol.parties)], name=call.name
    )
    return closed, tuple(outs), tuple(notes)


def _simulated(
    party: Any,
    modes: Any,
    outs: Any,
    leaves: Any,
    inner: bool,
    checked: bool,
    options: Options,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Functions (session words, [corrections,] *arrays) -> packed outputs: with a dealer
    in the simulation, and with corrections that were made before."""
    shapes = (
        party,
        options.protocol.parties,
        [*([False] * inner), *(m == SHARED for m in modes)],
        [*(kind is not None for kind in outs), *([False] * checked)],
    )
    whole, later = simulation(*shapes), online(*shapes)
    metas = [x.tree_flatten()[1] if is_shared(x) else None for x in leaves]

    def prepared(words: Any, arrays: Sequence[Any]) -> list[Any]:
        inputs = [
            x if meta is None else SharedArray(x, *meta).words()
            for x, meta in zip(arrays, metas, strict=True)
        ]
        if inner:
            inner_words = chacha20.derive(words, (int(Purpose.CALL), 0, 0))
            inputs = [inner_words, *inputs]
        return inputs

    def packed(flat: list[Any]) -> list[Any]:
        results = [
            x if kind is None else together(x)
            for x, kind in zip(flat, outs, strict=False)
        ]
        return [*results, *flat[len(outs) :]]

    def dealt(words: Any, *arrays: Any) -> list[Any]:
        return packed(whole(words, *prepared(words, arrays)))

    def with_corrections(words: Any, corrections: Any, *arrays: Any) -> list[Any]:
        seeds = party_keys(words, options.protocol.parties)
        return packed(later(seeds, corrections, *prepared(words, arrays)))

    return dealt, with_corrections


def owner_of(owners: Mapping[str, int], arg: str, path: str) -> int:
    """Which party holds a leaf of an argument that is given in clear."""
    name = named(owners, arg, path)
    return 0 if name is None else owners[name]


def spec(x: Any) -> Any:
    """The type with which the function is traced: as JAX would take the argument."""
    if is_shared(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    aval: Any = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    dtype = aval.dtype
    if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        dtype = jax.dtypes.canonicalize_dtype(dtype)  # float64 only with x64 on
    weak = getattr(aval, "weak_type", False)
    return jax.ShapeDtypeStruct(aval.shape, dtype, weak_type=weak)


def _wrap(cx: Shared, leaf: SharedArray, words: Any) -> Any:
    if leaf.kind == "boolean":
        return Boolean(cx.p.unpack_bits(words))
    share = cx.p.unpack_arith(words, cx.fp.dtype)
    if leaf.kind == "integer":
        return Integer(leaf.dtype, share)
    return Fixed.of(share, leaf.scale)


def _kept(
    cx: Shared, results: Sequence[Any], pairs: Split
) -> Iterator[tuple[Any, Any]]:
    """For each output (its kind, packed shares), or (None, itself) where it is public."""
    given = iter(results)
    for two in pairs.outputs:
        parts = [next(given) for _ in range(1 + two)]
        if not any(isinstance(v, SECRET) for v in parts):
            yield None, lax.complex(*parts) if two else parts[0]
        elif two:
            scale = max([cx.f, *(v.scale for v in parts if isinstance(v, Fixed))])
            shares = [cx.scaled(cx.fixed(v, scale), scale) for v in parts]
            packed = [cx.p.pack(share) for share in shares]
            yield ("complex", scale), jnp.concatenate(packed, -1)
        else:
            kind, scale, share = _unwrap(parts[0])
            yield (kind, scale), cx.p.pack(share)


def _unwrap(value: Any) -> tuple[str, int, Any]:
    if isinstance(value, Boolean):
        return "boolean", 0, value.bit
    if isinstance(value, Integer):
        return "integer", 0, value.share
    return "fixed", value.scale, value.share
