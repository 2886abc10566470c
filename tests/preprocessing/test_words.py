"""Bit packing, transposition and the groups, against NumPy and Python integers."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_parties import int_to_limbs, limbs_to_int, uniform

from privjax.preprocessing import bitmatrix
from privjax.preprocessing.groups import BITS, RING32, RING64, Wide


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 100])
def test_packing(n: int) -> None:
    bits = uniform(3, n, dtype=np.uint8) & 1
    words = bitmatrix.pack(bits)
    assert words.shape == (3, bitmatrix.words_for(n)) and words.dtype == np.uint32
    expected = [sum(int(b) << i for i, b in enumerate(row)) for row in bits]
    assert limbs_of_32(words) == expected
    np.testing.assert_array_equal(bitmatrix.unpack(words, n), bits)


def limbs_of_32(words) -> list[int]:
    rows = np.asarray(words).tolist()
    return [sum(w << 32 * i for i, w in enumerate(row)) for row in rows]


@pytest.mark.parametrize("words", [1, 2, 5])
def test_transposition(words: int) -> None:
    columns = uniform(128, words, dtype=np.uint32)
    rows = bitmatrix.rows(columns)
    bits = bitmatrix.unpack(jnp.asarray(columns), 32 * words)
    np.testing.assert_array_equal(bitmatrix.unpack(rows, 128), bits.T)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64])
def test_bits_of_words(dtype) -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(uniform(2, 3, dtype=dtype))
        bits = bitmatrix.bits_of(x)
        width = x.dtype.itemsize * 8
        expected = [[int(v) >> i & 1 for i in range(width)] for v in x.reshape(-1)]
        np.testing.assert_array_equal(bits.reshape(-1, width), expected)
        np.testing.assert_array_equal(bitmatrix.from_bits(bits, x.dtype), x)


def cases(limbs: int) -> list[int]:
    draw = random.Random(limbs)
    top = 2 ** (64 * limbs)
    edges = [
        0,
        1,
        2**32 - 1,
        2**64 - 1,
        top - 1,
        top - 2,
        top // 2,
        2 ** (top.bit_length() - 2),
    ]
    return edges + [draw.randrange(top) for _ in range(24)]


@pytest.mark.parametrize("limbs", [1, 2, 3])
def test_wide_arithmetic(limbs: int) -> None:
    ring, top = Wide(limbs), 2 ** (64 * limbs)
    a = cases(limbs)
    b = a[::-1]
    with jax.enable_x64(True):
        x, y = (jnp.asarray(int_to_limbs(v, limbs)) for v in (a, b))
        table = [
            (ring.add(x, y), [p + q for p, q in zip(a, b, strict=True)]),
            (ring.sub(x, y), [p - q for p, q in zip(a, b, strict=True)]),
            (ring.negate(x), [-p for p in a]),
            (ring.mul(x, y), [p * q for p, q in zip(a, b, strict=True)]),
            (
                ring.mul(x, y[:, :1]),
                [p * (q % 2**64) for p, q in zip(a, b, strict=True)],
            ),
            (ring.sum(x, 0)[None], [sum(a)]),
            (ring.resize(x[:, :1]), [p % 2**64 for p in a]),
            (Wide(1).resize(x), [p % 2**64 for p in a]),
            (ring.select(jnp.uint8(1), x), a),
            (ring.select(jnp.uint8(0), x), [0] * len(a)),
        ]
    for found, expected in table:
        assert limbs_to_int(found) == [v % top for v in expected]


@pytest.mark.parametrize("group", [BITS, RING32, RING64, Wide(2), Wide(3)], ids=str)
def test_every_group_is_one(group) -> None:
    """Subtraction undoes addition, packing is undone, pads are uniform words."""
    with jax.enable_x64(True):
        a, b = (
            group.from_words(
                jnp.asarray(uniform(5, 3, group.words, dtype=np.uint32, seed=i))
            )
            for i in (0, 1)
        )
        assert a.dtype == group.dtype
        np.testing.assert_array_equal(group.sub(group.add(a, b), b), a)
        np.testing.assert_array_equal(group.unpack(group.pack(a), a.shape), a)
