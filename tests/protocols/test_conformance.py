"""One suite for every protocol: kernels x parties x rings x ways to run, exactly.

All cases of one configuration and mode are one program, compiled once; each case is a
test. Protocols are those of `privjax.protocols.table`: a new one joins by being
registered.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import harness
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from kernels import BY, CASES, clear, edges, signed

from privjax.core.interpret import mentions
from privjax.errors import ProtocolError
from privjax.passes.cost import cost
from privjax.protocols import elements
from privjax.protocols.elements import ring_dtype
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.table import PROTOCOLS, protocol_for
from privjax.protocols.tuples import MUL

MODES = tuple(harness.MODES)


def parties_of(name: str) -> list[int]:
    """2, 3 and 5 parties, as far as the protocol allows."""
    p = PROTOCOLS[name]
    return [n for n in (2, 3, 5) if p.min_parties <= n <= (p.max_parties or n)]


def covered() -> list[tuple[str, int, int, str]]:
    """(protocol, parties, ring bits, mode): what is tested of the cross product.

    Every number of parties in all rings under jit (128 bits: two and three parties);
    each other mode once.
    """
    out = []
    for name in PROTOCOLS:
        few = parties_of(name)[0]
        out += [(name, n, k, "jit") for n in parties_of(name) for k in (32, 64)]
        out += [
            (name, few, 32, "eager"),
            (name, few, 64, "vmap"),
            (name, few, 32, "scan"),
        ]
        if 128 in PROTOCOLS[name].rings:
            out += [(name, n, 128, "jit") for n in (2, 3)]
    return out


def lanes_of(xs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """The inputs as they are, and with entries in another order."""
    return [list(xs), [np.roll(x, 1, axis=0) for x in xs]]


@cache
def results(name: str, parties: int, bits: int, mode: str) -> dict[str, list[Any]]:
    """case -> what each lane (or step, or the one call) opens to; one program."""
    names = list(CASES)
    lanes = [lanes_of(CASES[n].inputs(bits)) for n in names]
    batched = mode in ("vmap", "scan")
    flat = [
        harness.to_planes(np.stack(x) if batched else x[0])
        for case in lanes
        for x in zip(*case, strict=True)
    ]
    counts = [len(case[0]) for case in lanes]

    def program(*args: Any) -> list[Any]:
        p = PROTOCOLS[name](parties).begin(bits)
        left, out = list(args), []
        for i, (kernel, count) in enumerate(zip(names, counts, strict=True)):
            inputs, left = left[:count], left[count:]
            shares = [
                p.share_bits(x, i % parties)
                if x.dtype == np.uint8
                else p.share_input(harness.element(x, bits), i % parties)
                for x in inputs
            ]
            result = CASES[kernel].body(p, ring_dtype(bits), *shares)
            opening = p.open_bits if isinstance(result, Bit) else p.open_arith
            out += map(harness.array, opening([result]))
        return out

    opened = harness.in_mode(program, parties, mode, *flat)
    if bits == 128:
        two = (x.dtype == np.uint64 for x in opened)
        opened = [
            harness.from_planes(x) if t else x for x, t in zip(opened, two, strict=True)
        ]
    return {n: list(x) if batched else [x] for n, x in zip(names, opened, strict=True)}


# The first decorator varies fastest: tests of one program lie together, and are not
# shared out among workers that would each compile it.
@pytest.mark.parametrize("kernel", CASES)
@pytest.mark.parametrize(
    "configuration", covered(), ids=lambda c: "-".join(map(str, c))
)
def test_kernel(kernel: str, configuration: tuple[str, int, int, str]) -> None:
    case, bits = CASES[kernel], configuration[2]
    got = results(*configuration)[kernel]
    for inputs, value in zip(lanes_of(case.inputs(bits)), got, strict=False):
        with np.errstate(over="ignore"):
            case.compare(value, case.oracle(*inputs))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_truncation_is_unbiased(name: str) -> None:
    parties, n = parties_of(name)[0], 1 << 12
    x = np.repeat(np.array([3, -3, 9, -15], np.int64) << 12, n // 4) + (1 << 40)
    program = harness.on_shares(
        PROTOCOLS[name](parties), lambda p, v: [p.truncate(v, 16)]
    )
    (got,) = harness.opened(program, parties, x.astype(np.uint64))
    error = (signed(got) - x / 2**16).reshape(4, -1).mean(1)
    if name == "reference":  # the nearest, always
        np.testing.assert_array_equal(np.abs(error) <= 0.5, True)
    else:  # a mean of 2^10 Bernoulli variables: five standard deviations
        assert np.all(np.abs(error) < 5 * 0.5 / 32)


@pytest.mark.parametrize(
    "bits,by", [(32, 1), (32, 24), (64, 18), (64, 41), (128, 40), (128, 85)]
)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_truncation_at_any_place(name: str, bits: int, by: int) -> None:
    parties = parties_of(name)[0]
    if bits not in PROTOCOLS[name].rings:
        with pytest.raises(ProtocolError, match="32 or 64 bits"):
            protocol_for(name, parties).check_ring(bits)
        return
    x = signed(edges(bits))
    x = x[(x > -(2 ** (bits - 2))) & (x < 2 ** (bits - 2))]
    program = harness.on_shares(
        PROTOCOLS[name](parties), lambda p, v: [p.truncate(v, by)], bits
    )
    shared = clear([int(v) % 2**bits for v in x], bits)
    (got,) = harness.opened(program, parties, harness.to_planes(shared))
    got = harness.from_planes(got) if bits == 128 else got
    assert set(np.unique(signed(got) - (x >> by))) <= {0, 1}


# -- shares at rest ----------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_combine(name: str, bits: int) -> None:
    """All parties' words give the value; words that were changed do not pass as it."""
    p, x = PROTOCOLS[name](parties_of(name)[0]), edges(bits)[:16]
    flags = (x % 2).astype(np.uint8)

    def program(x: Any, b: Any) -> list[Any]:
        q = p.begin(bits)
        return [q.pack(q.share_input(x, 0)), q.pack(q.share_bits(b, 1))]

    with jax.enable_x64(True):
        closed = harness.trace(program, p.parties, [x, flags])
        words, bit_words = harness.simulate(closed, p.parties, [x, flags])
        value, sound = p.combine_arith(words, x.dtype)
        assert np.all(sound)
        np.testing.assert_array_equal(value, x)
        value, sound = p.combine_bits(bit_words)
        assert np.all(sound)
        np.testing.assert_array_equal(value, flags)
        assert words.dtype == bit_words.dtype == np.uint32
        value, sound = p.combine_arith(words.at[0, 3, 0].add(1), x.dtype)
        assert not np.all(sound) or value[3] != x[3]


# -- costs -------------------------------------------------------------------------------

N = 3  # elements
Body = Callable[..., Any]


def zeros(p: Any) -> Arith:
    return p.public(jnp.zeros(N, np.uint64))


# kernel -> (body on a share and a bit, rounds that interface.py promises for k = 64)
KERNELS: dict[str, tuple[Body, int]] = {
    "share_input": (lambda p, x, b: p.share_input(np.arange(N, dtype="u8"), 0), 1),
    "share_bits": (lambda p, x, b: p.share_bits(np.ones(N, "u1"), 1), 1),
    "open_arith": (lambda p, x, b: p.open_arith([x])[0], 1),
    "open_bits": (lambda p, x, b: p.open_bits([b])[0], 1),
    "add": (lambda p, x, b: p.add(x, x), 0),
    "mul_public": (lambda p, x, b: p.mul_public(x, 3), 0),
    "product": (lambda p, x, b: p.product(MUL, x, p.additive(jnp.flip, x)), 1),
    "square": (lambda p, x, b: p.square(x), 1),
    "square twice": (lambda p, x, b: p.add(p.square(x), p.product(MUL, x, x)), 1),
    "truncate": (lambda p, x, b: p.truncate(x, BY), 1),
    "xor": (lambda p, x, b: p.xor(b, b), 0),
    "and_": (lambda p, x, b: p.and_(b, b.moved(jnp.flip)), 1),
    "prefix_or": (lambda p, x, b: p.bits_at(p.prefix_or(p.bits_of(x)), 5), 13),
    "msb": (lambda p, x, b: p.msb(x), 7),
    "is_zero": (lambda p, x, b: p.is_zero(x), 7),
    "bits_of": (lambda p, x, b: p.bits_at(p.bits_of(x), 5), 7),
    "to_arith": (lambda p, x, b: p.to_arith(b, "uint64"), 1),
    "bit_times": (lambda p, x, b: p.bit_times(b, x), 1),
}

# protocol -> kernel -> rounds, where they are not those of the interface.
ROUNDS: dict[str, dict[str, int]] = {
    "reference": dict.fromkeys(KERNELS, 0),
    "replicated3": {"truncate": 2, "bit_times": 2},
    # The first level of their circuits is local.
    **dict.fromkeys(
        ("semi2k", "spdz2k"), {"msb": 6, "is_zero": 6, "bits_of": 6, "prefix_or": 12}
    ),
}

# protocol -> kernel -> bits that all parties send for each element, k = 64, with the
# fewest parties. An AND of w bits opens 2w bits per party in semi2k, w in replicated3.
SEMI2K_TREE = 3 * (16 + 8 + 4 + 2) + 2
REPLICATED3_TREE = 2 * (32 + 16 + 8 + 4 + 2) + 1
BITS: dict[str, dict[str, int]] = {
    "semi2k": {
        "share_input": 64,
        "share_bits": 1,
        "open_arith": 2 * 64,
        "open_bits": 2,
        "product": 2 * 2 * 64,
        "square": 2 * 64,
        "square twice": 2 * 64,
        "truncate": 2 * 64,
        "and_": 2 * 2,
        "prefix_or": 2 * (64 + (4 * 3 + 2) * 64) + 2 * 6 * 2 * 64,
        "msb": 2 * (64 + SEMI2K_TREE),
        "is_zero": 2 * (64 + 2 * 31),
        "bits_of": 2 * (64 + (4 * 3 + 2) * 64),
        "to_arith": 2,
        "bit_times": 2 * (1 + 64),
    },
    "replicated3": {
        "share_input": 64,
        "share_bits": 1,
        "open_arith": 3 * 64,
        "open_bits": 3,
        "product": 3 * 64,
        "square": 3 * 64,
        "square twice": 2 * 3 * 64,
        "truncate": 4 * 64 + 2 * (BY + 1),
        "and_": 3,
        "prefix_or": 64 + 3 * (5 * 2 + 1) * 64 + 3 * 6 * 64,
        "msb": 64 + 3 * REPLICATED3_TREE,
        "is_zero": 64 + 3 * 63,
        "bits_of": 64 + 3 * (5 * 2 + 1) * 64,
        "to_arith": 6 * 64,
        "bit_times": 6 * 64 + 3 * 64,
    },
    "reference": {},
}
# Sums that are opened: of these spdz2k sends the high 64 bits as well. What authenticates
# a value is not sent: the check comes once, for all.
SUMS = dict.fromkeys(BITS["semi2k"], 1) | {"product": 2}
SUMS |= dict.fromkeys(["share_input", "share_bits", "open_bits", "and_", "to_arith"], 0)
BITS["spdz2k"] = {k: n + 2 * 64 * SUMS[k] for k, n in BITS["semi2k"].items()}
# Sixteen pairs of digits: a bit and a state of each, then a state for each that is left.
BITS["spdz2k"]["msb"] = 2 * (2 * 64 + 3 * 16 + 2 * (16 + 8 + 4 + 2))


# The same at k = 128, semi2k: one more level of circuits, and words twice as long.
WIDE_TREE = 3 * (32 + 16 + 8 + 4 + 2) + 2
WIDE_ROUNDS = {k: n + 1 for k, n in ROUNDS["semi2k"].items()} | {"prefix_or": 14}
WIDE_BITS = {k: n * (1 if n < 64 else 2) for k, n in BITS["semi2k"].items()} | {
    "prefix_or": 2 * (128 + (5 * 3 + 2) * 128) + 2 * 7 * 2 * 128,
    "msb": 2 * (128 + WIDE_TREE),
    "is_zero": 2 * (128 + 2 * 63),
    "bits_of": 2 * (128 + (5 * 3 + 2) * 128),
    "bit_times": 2 * (1 + 128),
}

WIDE_BODIES: dict[str, Body] = {
    "to_arith": lambda p, x, b: p.to_arith(b, ring_dtype(128)),
    "share_input": lambda p, x, b: p.share_input(
        elements.full((N,), 5, ring_dtype(128)), 0
    ),
}

ARGS = [np.zeros(N, np.uint64), np.zeros(N, np.uint8)]


@cache
def program_of(name: str, kernel: str) -> tuple[Any, int]:
    """The kernel on shares of two arguments, as one party's jaxpr; number of parties."""
    parties = parties_of(name)[0]

    def program(x: Any, b: Any) -> Any:
        p = PROTOCOLS[name](parties).begin(64)
        return jax.tree.leaves(KERNELS[kernel][0](p, p.public(x), p.public_bits(b)))

    with jax.enable_x64(True):
        return harness.trace(program, parties, ARGS), parties


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_declared_rounds(name: str, kernel: str) -> None:
    closed, _ = program_of(name, kernel)
    assert harness.rounds(closed) == ROUNDS.get(name, {}).get(
        kernel, KERNELS[kernel][1]
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", BITS)
def test_declared_bits(name: str, kernel: str) -> None:
    closed, parties = program_of(name, kernel)
    assert cost(closed, parties).sent_bits == N * BITS[name].get(kernel, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_declared_costs_of_128_bits(kernel: str) -> None:
    body, rounds = KERNELS[kernel]
    body = WIDE_BODIES.get(kernel, body)

    def program(b: Any) -> Any:
        p = PROTOCOLS["semi2k"](2)
        x = p.public(elements.full((N,), 0, ring_dtype(128)))
        return jax.tree.leaves(body(p, x, p.public_bits(b)))

    with jax.enable_x64(True):
        closed = harness.trace(program, 2, ARGS[1:])
    assert harness.rounds(closed) == WIDE_ROUNDS.get(kernel, rounds)
    assert cost(closed, 2).sent_bits == N * WIDE_BITS.get(kernel, 0)


def test_no_two_masks_coincide_in_128_bits() -> None:
    """Of both words of all that parties expand from their keys, in several kernels."""
    names = ("share_input", "product", "truncate", "msb", "to_arith", "bit_times")

    def program(b: Any) -> Any:
        p = PROTOCOLS["semi2k"](3)
        x = p.public(elements.full((N,), 0, ring_dtype(128)))
        bodies = [WIDE_BODIES.get(k, KERNELS[k][0]) for k in names]
        return jax.tree.leaves([body(p, x, p.public_bits(b)) for body in bodies])

    with jax.enable_x64(True):
        closed = harness.trace(program, 3, ARGS[1:])
        run = jax.jit(harness.recorder(closed, 3))
        records = run(harness.ROOT_KEY, np.zeros((3, N), np.uint8))
    own = [np.asarray(r.data).ravel() for r in records if r.domain == harness.OWN]
    words = np.concatenate([x for x in own if x.dtype == np.uint64])
    words = words[words != 0]  # the last party expands nothing of what is dealt
    assert words.size > 100
    assert np.unique(words).size == words.size


@pytest.mark.parametrize("name", PROTOCOLS)
def test_bits_of_the_jaxpr_are_those_that_move(name: str) -> None:
    """A recording run of all kernels as one program sends what was counted."""
    parties = parties_of(name)[0]
    programs = [program_of(name, kernel) for kernel in KERNELS]

    def together(*xs: Any) -> list[Any]:
        return [jax.jit(jax.extend.core.jaxpr_as_fun(c))(*xs) for c, _ in programs]

    with jax.enable_x64(True):
        closed = harness.trace(together, parties, ARGS)
        stacked = [np.broadcast_to(x, (parties, *x.shape)) for x in ARGS]
        records = jax.eval_shape(
            harness.recorder(closed, parties), harness.ROOT_KEY, *stacked
        )
    sent = sum(r.sent_bits() for r in records if r.domain != harness.OWN and r.bits)
    assert sent == cost(closed, parties).sent_bits
    assert sent == sum(cost(c, parties).sent_bits for c, _ in programs)


def test_replicated3_has_no_dealer() -> None:
    for kernel in KERNELS:
        closed, _ = program_of("replicated3", kernel)
        assert not mentions(closed, frozenset({"dealt", "uniform"}))


# -- one program, three discharges -------------------------------------------------------


def looped(p: Any, x: Any, y: Any) -> list[Any]:
    """A product, a truncation and a comparison in a scan, and a branch in it."""
    a, b = p.share_input(x, 0), p.share_input(y, 1)

    def step(carry: Any, row: Arith) -> Any:
        acc, at = carry
        value = p.truncate(p.product(MUL, acc, row), 8)
        relu = p.bit_times(p.xor_public(p.msb(value), np.uint8(1)), value)
        both = lax.cond(
            at % 2 == 0,
            p.square,
            lambda v: p.bit_times(p.bits_at(p.bits_of(v), 0), v),
            relu,
        )
        return (acc, at + 1), both

    start = (a.moved(lambda v: v[0]), jnp.uint32(0))
    _, rows = lax.scan(step, start, b)
    inner = jax.jit(p.square)(a)
    return p.open_arith([rows, inner])


THREE_WAYS = [*((name, parties_of(name)[0]) for name in PROTOCOLS), ("semi2k", 3)]


def test_offline_and_online_equal_simulation_in_128_bits() -> None:
    clear_x = np.arange(-6, 6).reshape(3, 4)
    x = harness.to_planes(clear([int(v) % 2**128 for v in clear_x.ravel()], 128))
    x = x.reshape(3, 4, 2)
    x = np.stack([x[..., 0] << np.uint64(8), x[..., 1]], -1)

    def program(*xs: Any) -> list[Any]:
        p = PROTOCOLS["semi2k"](2)
        return [
            harness.array(v) for v in looped(p, *(harness.element(v, 128) for v in xs))
        ]

    with jax.enable_x64(True):
        closed = harness.trace(program, 2, [x, x[::-1].copy()])
        args = [x, x[::-1].copy()]
        together = harness.simulate(closed, 2, args)
        apart = harness.online(closed, 2, args, harness.ahead(closed, 2))
        for a, b in zip(together, apart, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        inner = signed(harness.from_planes(np.asarray(together[1])[0]))
    np.testing.assert_array_equal(inner, (clear_x.astype(object) << 8) ** 2)


@pytest.mark.parametrize("name,parties", THREE_WAYS)
def test_offline_and_online_equal_simulation(name: str, parties: int) -> None:
    x = np.arange(-6, 6).reshape(3, 4).astype(np.uint64) << np.uint64(8)
    args = [x, x[::-1].copy()]
    with jax.enable_x64(True):
        closed = harness.trace(
            lambda *xs: looped(PROTOCOLS[name](parties).begin(64), *xs), parties, args
        )
        together = harness.simulate(closed, parties, args)
        material = harness.ahead(closed, parties)
        apart = harness.online(closed, parties, args, material)
        for a, b in zip(together, apart, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        rows, inner = (np.asarray(v)[0] for v in together)
    clear = signed(x)
    relu = np.maximum(clear[0] * clear[::-1] >> 8, 0)
    np.testing.assert_array_equal(signed(rows)[::2], (relu * relu)[::2])
    np.testing.assert_array_equal(signed(rows)[1::2], (relu * (relu & 1))[1::2])
    np.testing.assert_array_equal(inner, x * x)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_number_of_parties(name: str) -> None:
    p = PROTOCOLS[name]
    too_many = [] if p.max_parties is None else [p.max_parties + 1]
    for wrong in (0, 1, 2.0, None, p.min_parties - 1, *too_many):
        with pytest.raises(ProtocolError, match="at (least|most)"):
            protocol_for(name, wrong)
    with pytest.raises(ProtocolError, match="choose one of"):
        protocol_for("no such", 2)
