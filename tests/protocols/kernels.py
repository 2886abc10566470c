"""The kernels of a protocol as a table: inputs, what to compute, what must come out.

`CASES` holds everything that the interface offers, in a form that any protocol can run.
A case's inputs are clear arrays: ring words are shared as such, uint8 arrays as bits.
Elements of 128 bits are Python integers in clear arrays of dtype object.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.protocols import elements
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.tuples import MUL, Bilinear

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
    drawn = [(v * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**bits for v in drawn]
    values = [v for b in powers for v in (b - 1, b, b + 1, -b)] + drawn
    return clear([v % 2**bits for v in values], bits)


def clear(values: Any, bits: int) -> np.ndarray:
    """Integers in [0, 2^bits) as an array."""
    return np.array(values, object if bits > 64 else f"uint{bits}")


def size(x: np.ndarray) -> int:
    """Bits of an element."""
    return 128 if x.dtype == object else 8 * x.itemsize


def draw(bits: int, seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if bits > 64:
        high, low = rng.integers(0, 2**64, (2, *shape), "uint64").astype(object)
        return high * 2**64 + low
    return rng.integers(0, 2**bits, shape, f"uint{bits}")


def equal(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype
    if got.dtype == object:
        expected = expected % 2**128
    np.testing.assert_array_equal(got, expected)


@dataclass(frozen=True)
class Case:
    """`body` on one party's shares of `inputs(bits)`, and what it must open to.

    `body(p, dtype, *shares)` returns an `Arith` or a `Bit`; `oracle` gets the clear
    arrays; `compare(got, expected)` raises when the two do not fit.
    """

    body: Callable[..., Any]
    oracle: Callable[..., Any]
    inputs: Callable[[int], Sequence[np.ndarray]]
    compare: Callable[..., None] = equal


def one(bits: int) -> list[np.ndarray]:
    return [edges(bits)]


def two(bits: int) -> list[np.ndarray]:
    return [edges(bits), edges(bits)[::-1].copy()]


def matrices(*shapes: tuple[int, ...]) -> Callable[[int], list[np.ndarray]]:
    return lambda bits: [draw(bits, i, *s) for i, s in enumerate(shapes)]


def flags(bits: int) -> list[np.ndarray]:
    """All pairs of bits."""
    return [np.array(v, np.uint8) for v in ([0, 0, 1, 1], [0, 1, 0, 1])]


def flag_and_word(bits: int) -> list[np.ndarray]:
    x = edges(bits)
    return [draw(8, bits, x.size) & np.uint8(1), x]


def signed(x: np.ndarray) -> np.ndarray:
    if x.dtype == object:
        return (x + 2**127) % 2**128 - 2**127
    return x.astype(f"int{8 * x.itemsize}")


def np_bits(word: np.ndarray) -> np.ndarray:
    at = np.arange(size(word)).astype(word.dtype)
    return ((word[..., None] >> at) & np.array(1, word.dtype)).astype(np.uint8)


def np_conv(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    between = np.zeros((*x.shape[:-1], 1), x.dtype)
    x = np.concatenate([between, x, between], -1)
    out = np.zeros((2, 3, 3, 5), x.dtype)
    for i in range(3):
        for j in range(5):
            patch = x[:, :, i : i + 2, j : j + 2]
            out[:, :, i, j] = (patch[:, None] * y[None]).sum((2, 3, 4), dtype=x.dtype)
    return out


def np_prefix_or(x: np.ndarray) -> np.ndarray:
    for step in (1, 2, 4, 8, 16, 32, 64):
        if step < size(x):
            x = x | (x >> np.array(step, x.dtype))
    return x


def np_scatter_add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    out = x.copy()
    np.add.at(out, np.array([2, 0, 2]), y)
    return out


def all_bits(p: Any, word: Any, dtype: Any) -> Bit:
    """All bits of a shared word, on a trailing axis."""
    return p.bits_at(word, np.arange(8 * dtype.itemsize))


def reused(p: Any, dtype: Any, x: Arith, y: Arith) -> Arith:
    """x^T y with x's mask opened for another product already."""
    flipped = x.rearranged(lambda v: v.T)
    first = p.product(MUL, x, x)
    return p.add(p.product(DOT, flipped, y), p.product(DOT, flipped, first))


def bit_reused(p: Any, dtype: Any, b: Bit, x: Arith) -> Arith:
    """One bit in three conversions, one of them of a copy of it along a new axis."""
    wide = b.rearranged(lambda v: jnp.broadcast_to(v, (2, *v.shape)))
    once = p.bit_times(b, x)
    twice = p.to_arith(wide, dtype).rearranged(lambda v: v[1])
    return p.add(p.add(once, twice), p.bit_times(b, once))


def both_flipped(p: Any, dtype: Any, x: Arith, y: Arith) -> Bit:
    """The words of x and y, XORed, shifted and flipped where y is negative."""
    a, b = p.bits_of(x), p.bits_of(y)
    word = p.xor_all(p.shift_right(p.xor_words(a, b), 3), p.msb(y))
    return all_bits(p, word, dtype)


def np_both_flipped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    word = (x ^ y) >> np.array(3, x.dtype)
    return np_bits(np.where(signed(y) < 0, ~word, word))


def np_contraction_public(x: np.ndarray) -> np.ndarray:
    return x @ np.arange(8).astype(x.dtype).reshape(4, 2)


def outer_and(p: Any, dtype: Any, a: Bit, b: Bit) -> Bit:
    return p.and_(
        a.rearranged(lambda v: v[:, None]), b.rearranged(lambda v: v[None, :])
    )


# -- truncation: the one kernel with a random result --------------------------------------

BY = 9


def in_range(bits: int) -> list[np.ndarray]:
    """Signed values below 2^(bits-2), with fractions that fill [0, 1)."""
    values = signed(edges(bits))
    limit = 2 ** (bits - 2)
    values = values[(values >= -limit) & (values < limit)]
    ends = [-limit, limit - 1, 0, 1 << BY, -(1 << BY)]
    both = [*values, *ends]
    return [clear([int(v) % 2**bits for v in both], bits)]


def rounded(got: np.ndarray, x: np.ndarray) -> None:
    """Down or up by less than one unit, and exact where nothing is cut off."""
    extra = (signed(got) - (signed(x) >> BY)).astype(np.int64)
    exact = (x & np.array((1 << BY) - 1, x.dtype)) == 0
    assert set(np.unique(extra)) <= {0, 1}
    np.testing.assert_array_equal(extra[exact], 0)


CASES: dict[str, Case] = {
    "share_input": Case(lambda p, d, x: x, lambda x: x, one),
    "share_bits": Case(lambda p, d, a, b: a, lambda a, b: a, flags),
    "public_bits": Case(
        lambda p, d, a, b: p.and_(p.public_bits(np.array([0, 1, 0, 1], np.uint8)), a),
        lambda a, b: a & np.array([0, 1, 0, 1], np.uint8),
        flags,
    ),
    "pack": Case(lambda p, d, x: p.unpack_arith(p.pack(x), d), lambda x: x, one),
    "pack of bits": Case(
        lambda p, d, a, b: p.unpack_bits(p.pack(a)), lambda a, b: a, flags
    ),
    "add": Case(lambda p, d, x, y: p.add(x, y), lambda x, y: x + y, two),
    "add_public": Case(
        lambda p, d, x: p.add_public(x, elements.constants(7, d)),
        lambda x: x + np.array(7, x.dtype),
        one,
    ),
    "mul_public": Case(
        lambda p, d, x: p.mul_public(
            p.mul_public(x, -5), elements.constants(range(x.shape[0]), d)
        ),
        lambda x: x * -np.array(5, x.dtype) * np.arange(x.size).astype(x.dtype),
        one,
    ),
    "additive, sum": Case(
        lambda p, d, x: p.additive(lambda v: jnp.sum(v, 0, dtype=v.dtype), x),
        lambda x: x.sum(0, dtype=x.dtype),
        matrices((3, 4)),
    ),
    "additive, cumsum": Case(
        lambda p, d, x: p.additive(lambda v: lax.cumsum(v, 1), x),
        lambda x: x.cumsum(1, dtype=x.dtype),
        matrices((3, 4)),
    ),
    "additive, scatter-add": Case(
        lambda p, d, x, y: p.additive(
            lambda u, v: u.at[np.array([2, 0, 2])].add(v), x, y
        ),
        np_scatter_add,
        matrices((3, 2), (3, 2)),
    ),
    "product_public": Case(
        lambda p, d, x: p.product_public(
            DOT, x, elements.constants(np.arange(8).reshape(4, 2), d)
        ),
        np_contraction_public,
        matrices((3, 4)),
    ),
    "mul": Case(lambda p, d, x, y: p.product(MUL, x, y), lambda x, y: x * y, two),
    "mul, one mask": Case(lambda p, d, x: p.product(MUL, x, x), lambda x: x * x, one),
    "dot_general": Case(
        lambda p, d, x, y: p.product(DOT, x, y),
        lambda x, y: x @ y,
        matrices((3, 4), (4, 2)),
    ),
    "conv": Case(
        lambda p, d, x, y: p.product(CONV, x, y),
        np_conv,
        matrices((2, 2, 4, 4), (3, 2, 2, 2)),
    ),
    "mask reuse": Case(
        reused, lambda x, y: x.T @ y + x.T @ (x * x), matrices((3, 3), (3, 3))
    ),
    "square": Case(lambda p, d, x: p.square(x), lambda x: x * x, one),
    "truncate": Case(lambda p, d, x: p.truncate(x, BY), lambda x: x, in_range, rounded),
    "xor": Case(lambda p, d, a, b: p.xor(a, b), lambda a, b: a ^ b, flags),
    "xor_public": Case(
        lambda p, d, a, b: p.xor_public(a, np.array([0, 0, 1, 1], np.uint8)),
        lambda a, b: a ^ np.array([0, 0, 1, 1], np.uint8),
        flags,
    ),
    "and_public": Case(
        lambda p, d, a, b: p.and_public(a, np.array([0, 0, 1, 1], np.uint8)),
        lambda a, b: a & np.array([0, 0, 1, 1], np.uint8),
        flags,
    ),
    "and_": Case(lambda p, d, a, b: p.and_(a, b), lambda a, b: a & b, flags),
    "and_ of outer product": Case(
        outer_and, lambda a, b: a[:, None] & b[None, :], flags
    ),
    "words": Case(both_flipped, np_both_flipped, two),
    "prefix_or": Case(
        lambda p, d, x: all_bits(p, p.prefix_or(p.bits_of(x)), d),
        lambda x: np_bits(np_prefix_or(x)),
        lambda bits: [np.concatenate([edges(bits), clear([0], bits)])],
    ),
    "msb": Case(
        lambda p, d, x: p.msb(x), lambda x: (signed(x) < 0).astype(np.uint8), one
    ),
    "is_zero": Case(
        lambda p, d, x: p.is_zero(x), lambda x: (x == 0).astype(np.uint8), one
    ),
    "bits_of": Case(lambda p, d, x: all_bits(p, p.bits_of(x), d), np_bits, one),
    "to_arith": Case(
        lambda p, d, b, x: p.to_arith(b, d),
        lambda b, x: b.astype(x.dtype),
        flag_and_word,
    ),
    "bit_times": Case(
        lambda p, d, b, x: p.bit_times(b, x), lambda b, x: b * x, flag_and_word
    ),
    "bit reuse": Case(
        bit_reused, lambda b, x: b * (x + x + np.array(1, x.dtype)), flag_and_word
    ),
}
