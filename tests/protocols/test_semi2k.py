"""Every kernel of semi2k against plain NumPy integers: one table, all configurations.

All cases of one configuration are one program, compiled once; each case is a test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from privjax.errors import ProtocolError
from privjax.protocols.semi2k import Semi2k
from privjax.protocols.shares import Arith, Bit, Word
from privjax.protocols.tuples import MUL, Bilinear

PARTIES = (2, 3, 5)
CONFIGURATIONS = ((2, 32), (2, 64), (3, 64), (5, 32))
DOT = Bilinear("dot_general", (("dimension_numbers", (((1,), (0,)), ((), ()))),))
CONV = Bilinear(
    "conv_general_dilated",
    (
        ("window_strides", (1, 1)),
        ("padding", ((0, 0), (1, 1))),
        (
            "dimension_numbers",
            lax.conv_dimension_numbers((2, 2, 4, 4), (3, 2, 2, 2), None),
        ),
    ),
)


def edges(bits: int) -> np.ndarray:
    """Values where carries, signs and leading bits change, and some others."""
    powers = [1 << j for j in range(bits)]
    rng = np.random.default_rng(bits)
    drawn = [int(v) for v in rng.integers(0, 2**32, 32)]
    drawn = [(v * 0x9E3779B97F4A7C15) % 2**bits for v in drawn]
    values = [v for b in powers for v in (b - 1, b, b + 1, -b)] + drawn
    return np.array([v % 2**bits for v in values], f"uint{bits}")


def draw(bits: int, seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits, shape, f"uint{bits}")


@dataclass(frozen=True)
class Case:
    """`body` on one party's shares of `inputs`, and what it must open to.

    `body` returns an `Arith` or a `Bit`; `oracle` gets clear unsigned arrays.
    """

    body: Callable[..., Any]
    oracle: Callable[..., Any]
    inputs: Callable[[int], Sequence[np.ndarray]]


def one(bits: int) -> list[np.ndarray]:
    return [edges(bits)]


def two(bits: int) -> list[np.ndarray]:
    return [edges(bits), edges(bits)[::-1].copy()]


def signed(x: np.ndarray) -> np.ndarray:
    return x.astype(f"int{8 * x.itemsize}")


def top(x: np.ndarray) -> np.ndarray:
    return (x >> np.array(8 * x.itemsize - 1, x.dtype)).astype(np.uint8)


def np_conv(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)))
    out = np.zeros((2, 3, 3, 5), x.dtype)
    for i in range(3):
        for j in range(5):
            patch = x[:, :, i : i + 2, j : j + 2]
            out[:, :, i, j] = (patch[:, None] * y[None]).sum((2, 3, 4), dtype=x.dtype)
    return out


def bit0(x: np.ndarray) -> np.ndarray:
    return (x & np.array(1, x.dtype)).astype(np.uint8)


def low(p: Any, x: Arith) -> Bit:
    """The lowest bit."""
    return p.bits_at(p.bits_of(x), 0)


def all_bits(p: Any, word: Any, bits: int) -> Bit:
    """All bits of a shared word, on a trailing axis."""
    return p.bits_at(word, np.arange(bits))


def np_bits(word: np.ndarray) -> np.ndarray:
    at = np.arange(8 * word.itemsize, dtype=word.dtype)
    return ((word[..., None] >> at) & np.array(1, word.dtype)).astype(np.uint8)


def np_prefix_or(x: np.ndarray) -> np.ndarray:
    for step in (1, 2, 4, 8, 16, 32):
        if step < 8 * x.itemsize:
            x = x | (x >> np.array(step, x.dtype))
    return x


def reused(p: Any, x: Arith, y: Arith) -> Arith:
    """x^T y with x's mask opened for another product already."""
    flipped = x.rearranged(lambda v: v.T)
    first = p.product(MUL, x, x)
    return p.add(p.product(DOT, flipped, y), p.product(DOT, flipped, first))


def bit_reused(p: Any, x: Arith) -> Arith:
    """One bit in three conversions, one of them of a copy of it along a new axis."""
    b = low(p, x)
    wide = b.rearranged(lambda v: jnp.broadcast_to(v, (2, *v.shape)))
    once = p.bit_times(b, x)
    twice = p.to_arith(wide, x.value.dtype).rearranged(lambda v: v[1])
    return p.add(p.add(once, twice), p.bit_times(b, once))


def both_flipped(p: Any, x: Arith, y: Arith) -> Bit:
    """The words of x and y, XORed, shifted and flipped where y is negative."""
    a, b = p.bits_of(x), p.bits_of(y)
    word = p.xor_all(p.shift_right(p.xor_words(a, b), 3), p.msb(y))
    return all_bits(p, word, 8 * x.value.dtype.itemsize)


def np_both_flipped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    word = (x ^ y) >> np.array(3, x.dtype)
    return np_bits(np.where(signed(y) < 0, ~word, word))


CASES: dict[str, Case] = {
    "share and open": Case(lambda p, x: x, lambda x: x, one),
    "add": Case(lambda p, x, y: p.add(x, y), lambda x, y: x + y, two),
    "add_public": Case(
        lambda p, x: p.add_public(x, jnp.asarray(7, x.value.dtype)),
        lambda x: x + np.array(7, x.dtype),
        one,
    ),
    "mul_public": Case(
        lambda p, x: p.mul_public(x, 5), lambda x: x * np.array(5, x.dtype), one
    ),
    "public": Case(
        lambda p, x: p.add(p.public(jnp.full(x.shape, 3, x.value.dtype)), x),
        lambda x: x + np.array(3, x.dtype),
        one,
    ),
    "mul": Case(lambda p, x, y: p.product(MUL, x, y), lambda x, y: x * y, two),
    "mul, one mask": Case(lambda p, x: p.product(MUL, x, x), lambda x: x * x, one),
    "dot_general": Case(
        lambda p, x, y: p.product(DOT, x, y),
        lambda x, y: x @ y,
        lambda bits: [draw(bits, 1, 3, 4), draw(bits, 2, 4, 2)],
    ),
    "conv": Case(
        lambda p, x, y: p.product(CONV, x, y),
        np_conv,
        lambda bits: [draw(bits, 3, 2, 2, 4, 4), draw(bits, 4, 3, 2, 2, 2)],
    ),
    "mask reuse": Case(
        reused,
        lambda x, y: x.T @ y + x.T @ (x * x),
        lambda bits: [draw(bits, 5, 3, 3), draw(bits, 6, 3, 3)],
    ),
    "square": Case(lambda p, x: p.square(x), lambda x: x * x, one),
    "xor": Case(
        lambda p, x, y: p.xor(low(p, x), low(p, y)), lambda x, y: bit0(x ^ y), two
    ),
    "xor_public": Case(
        lambda p, x: p.xor_public(low(p, x), np.uint8(1)), lambda x: 1 ^ bit0(x), one
    ),
    "and_public": Case(
        lambda p, x: p.and_public(low(p, x), np.uint8(1)), lambda x: bit0(x), one
    ),
    "and_": Case(
        lambda p, x, y: p.and_(low(p, x), low(p, y)), lambda x, y: bit0(x & y), two
    ),
    "and_ of outer product": Case(
        lambda p, x, y: p.and_(
            low(p, x).rearranged(lambda v: v[:, None]),
            low(p, y).rearranged(lambda v: v[None, :]),
        ),
        lambda x, y: bit0(x[:, None] & y[None, :]),
        lambda bits: [draw(bits, 7, 3), draw(bits, 8, 4)],
    ),
    "words": Case(both_flipped, np_both_flipped, two),
    "prefix_or": Case(
        lambda p, x: all_bits(p, p.prefix_or(p.bits_of(x)), 8 * x.value.dtype.itemsize),
        lambda x: np_bits(np_prefix_or(x)),
        lambda bits: [np.concatenate([edges(bits), np.zeros(1, f"uint{bits}")])],
    ),
    "msb": Case(lambda p, x: p.msb(x), top, one),
    "is_zero": Case(
        lambda p, x: p.is_zero(x), lambda x: (x == 0).astype(np.uint8), one
    ),
    "bits_of": Case(
        lambda p, x: all_bits(p, p.bits_of(x), 8 * x.value.dtype.itemsize), np_bits, one
    ),
    "to_arith": Case(
        lambda p, x: p.to_arith(low(p, x), x.value.dtype),
        lambda x: x & np.array(1, x.dtype),
        one,
    ),
    "bit_times": Case(
        lambda p, x, y: p.bit_times(low(p, x), y), lambda x, y: bit0(x) * y, two
    ),
    "bit reuse": Case(
        bit_reused, lambda x: bit0(x) * (x + x + np.array(1, x.dtype)), one
    ),
}


@cache
def results(parties: int, bits: int) -> dict[str, np.ndarray]:
    """What every case opens to, from one compiled program."""
    p = Semi2k(parties)
    inputs = {name: case.inputs(bits) for name, case in CASES.items()}
    flat, tree = jax.tree.flatten(inputs)

    def program(*args: Any) -> list[Any]:
        out = []
        for i, (name, xs) in enumerate(jax.tree.unflatten(tree, args).items()):
            shares = [p.share_input(x, i % parties) for x in xs]
            result = CASES[name].body(p, *shares)
            opening = p.open_bits if isinstance(result, Bit) else p.open_arith
            out += opening([result])
        return out

    names = list(jax.tree.unflatten(tree, flat))
    return dict(zip(names, harness.opened(program, parties, *flat), strict=True))


@pytest.mark.parametrize("parties,bits", CONFIGURATIONS)
@pytest.mark.parametrize("name", CASES)
def test_kernel(name: str, parties: int, bits: int) -> None:
    case = CASES[name]
    with np.errstate(over="ignore"):
        expected = case.oracle(*case.inputs(bits))
    got = results(parties, bits)[name]
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


# -- truncation: the one kernel with a random result --------------------------------------


def in_range(bits: int, by: int) -> np.ndarray:
    """Signed values below 2^(bits-2), with fractions that fill [0, 1)."""
    values = signed(edges(bits))
    limit = 2 ** (bits - 2)
    values = values[(values >= -limit) & (values < limit)]
    ends = [-limit, limit - 1, 0, 1 << by, -(1 << by)]
    return np.concatenate([values, np.array(ends, values.dtype)])


@pytest.mark.parametrize("bits,by", [(32, 8), (32, 1), (64, 18), (64, 41)])
@pytest.mark.parametrize("parties", PARTIES)
def test_truncate(parties: int, bits: int, by: int) -> None:
    p = Semi2k(parties)
    x = in_range(bits, by)
    program = harness.on_shares(p, lambda v: [p.truncate(v, by)])
    (got,) = harness.opened(program, parties, x.astype(f"uint{bits}"))
    floor = x >> by
    extra = signed(got) - floor
    exact = (x & ((1 << by) - 1)) == 0
    assert set(np.unique(extra)) <= {0, 1}
    np.testing.assert_array_equal(extra[exact], 0)


def test_truncate_is_unbiased() -> None:
    p, n = Semi2k(2), 1 << 14
    x = np.repeat(np.array([3, -3, 9, -15], np.int64) << 12, n // 4) >> 0
    x = x + (1 << 40)
    program = harness.on_shares(p, lambda v: [p.truncate(v, 16)])
    (got,) = harness.opened(program, 2, x.astype(np.uint64))
    error = signed(got) - x / 2**16
    # A mean of 2^12 Bernoulli variables: five standard deviations.
    assert np.all(np.abs(error.reshape(4, -1).mean(1)) < 5 * 0.5 / 64)


# -- costs: what interface.py promises ---------------------------------------------------

ROUNDS: dict[str, tuple[Callable[..., Any], int]] = {
    "product": (lambda p, x: p.product(MUL, x, x), 1),
    "square": (lambda p, x: p.square(x), 1),
    "truncate": (lambda p, x: p.truncate(x, 9), 1),
    "msb": (lambda p, x: p.msb(x), 7),
    "is_zero": (lambda p, x: p.is_zero(x), 7),
    "bits_of": (lambda p, x: p.bits_of(x), 7),
    "prefix_or": (lambda p, x: p.prefix_or(Word(x.value)), 6),
    "to_arith": (lambda p, x: p.to_arith(Bit(x.value.astype(np.uint8)), "uint64"), 1),
    "bit_times": (lambda p, x: p.bit_times(Bit(x.value.astype(np.uint8)), x), 1),
    "square twice": (lambda p, x: p.add(p.square(x), p.product(MUL, x, x)), 1),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds(name: str) -> None:
    body, expected = ROUNDS[name]
    with jax.enable_x64(True):
        closed = harness.trace(
            lambda x: [body(Semi2k(2), Arith(x)).value], 2, [np.zeros(3, np.uint64)]
        )
    assert harness.rounds(closed) == expected


def test_one_mask_is_opened_once() -> None:
    p, x = Semi2k(2), np.zeros((4, 4), np.uint64)
    with jax.enable_x64(True):
        closed = harness.trace(
            lambda x, y: [reused(p, Arith(x), Arith(y)).value], 2, [x, x]
        )
    opened, _ = harness.traffic(closed)
    assert opened == 3 * x.nbytes  # x, y and x * x


# -- one program, three discharges -------------------------------------------------------


def looped(p: Any) -> Callable[..., Any]:
    """A product, a truncation and a comparison in a scan, and a branch in it."""

    def program(x: Any, y: Any) -> list[Any]:
        a, b = p.share_input(x, 0), p.share_input(y, 1)

        def step(carry: Any, row: Any) -> Any:
            acc, at = carry
            value = p.truncate(p.product(MUL, Arith(acc), Arith(row)), 8)
            positive = p.xor_public(p.msb(value), np.uint8(1))
            relu = p.bit_times(positive, value)
            both = lax.cond(
                at % 2 == 0,
                lambda v: p.square(Arith(v)).value,
                lambda v: p.bits_of(Arith(v)).value & v.dtype.type(0) | v,
                relu.value,
            )
            return (acc, at + 1), both

        start = (a.value[0], jnp.uint32(0))
        (_, _), rows = lax.scan(step, start, b.value)
        inner = jax.jit(lambda v: p.square(Arith(v)).value)(a.value)
        return [rows, inner]

    return program


@pytest.mark.parametrize("parties", PARTIES)
def test_offline_and_online_equal_simulation(parties: int) -> None:
    x = np.arange(-6, 6).reshape(3, 4).astype(np.uint64) << np.uint64(8)
    with jax.enable_x64(True):
        closed = harness.trace(looped(Semi2k(parties)), parties, [x, x[::-1].copy()])
        args = [x, x[::-1].copy()]
        together = harness.simulate(closed, parties, args)
        material = harness.ahead(closed, parties)
        apart = harness.online(closed, parties, args, material)
        for a, b in zip(together, apart, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        rows = np.asarray(together[0]).sum(0, dtype=np.uint64)
    clear = signed(x)
    relu = np.maximum(clear[0] * clear[::-1] >> 8, 0)
    np.testing.assert_array_equal(signed(rows)[::2], (relu * relu)[::2])
    np.testing.assert_array_equal(signed(rows)[1::2], relu[1::2])


def test_masks_differ_between_iterations_and_calls() -> None:
    p = Semi2k(2)

    def program(x: Any) -> list[Any]:
        def step(carry: Any, _: Any) -> Any:
            return carry, p.square(Arith(x)).value

        _, rows = lax.scan(step, None, None, length=3)
        once = [jax.jit(lambda v: p.square(Arith(v)).value)(x) for _ in range(2)]
        return [rows, *once]

    x = np.zeros(2, np.uint64)
    with jax.enable_x64(True):
        rows, a, b = harness.simulate(harness.trace(program, 2, [x]), 2, [x])
        shares = np.concatenate([np.asarray(rows)[0].ravel(), a[0], b[0]])
    assert len(np.unique(shares)) == shares.size


@pytest.mark.parametrize("parties", [0, 1, 2.0, None])
def test_number_of_parties(parties: Any) -> None:
    with pytest.raises(ProtocolError, match="at least 2"):
        Semi2k(parties)
