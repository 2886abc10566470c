"""What two parties make for semi2k, against the dealer's own functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_parties import join, play, uniform

from privjax.errors import InputError, UnsupportedError
from privjax.preprocessing import bits, products
from privjax.preprocessing.make import MAKERS, Request, make
from privjax.preprocessing.session import cost
from privjax.protocols import tuples as T

U8, U32, U64 = np.uint8, np.uint32, np.uint64


def dot(contracting: tuple, batch: tuple = ((), ())) -> T.Bilinear:
    return T.Bilinear("dot_general", (("dimension_numbers", (contracting, batch)),))


def conv(**options) -> T.Bilinear:
    return T.Bilinear("conv_general_dilated", tuple(options.items()))


MATMUL = dot(((1,), (0,)))
STRIDED = conv(
    window_strides=(2, 1),
    padding=((1, 0), (0, 1)),
    lhs_dilation=(1, 1),
    rhs_dilation=(1, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)
PLAIN = conv(window_strides=(1,), padding=((1, 0),))
# Function, operands (dtype, shape).
REQUESTS = [
    (T.Product(T.MUL), (U64, 3, 2), (U64, 3, 2)),
    (T.Product(T.MUL), (U32,), (U32,)),
    (T.Product(T.MUL), (U64, 0), (U64, 0)),
    (T.Product(MATMUL), (U64, 4, 3), (U64, 3, 2)),
    (T.Product(MATMUL), (U32, 2, 3), (U32, 3, 4)),
    (T.Product(dot(((2,), (1,)), ((0,), (0,)))), (U64, 2, 3, 2), (U64, 2, 2, 2)),
    (T.Product(dot(((0, 1), (1, 0)))), (U64, 2, 3), (U64, 3, 2)),
    (T.Product(STRIDED), (U64, 2, 4, 3, 2), (U64, 2, 2, 2, 3)),
    (T.Product(PLAIN), (U32, 1, 2, 4), (U32, 2, 2, 2)),
    (T.Square(), (U64, 5)),
    (T.Square(), (U32,)),
    (T.Truncation(18), (U64, 2, 3)),
    (T.Truncation(0), (U64, 3)),
    (T.Truncation(9), (U32, 3)),
    (T.BitsOf("tree"), (U64, 3)),
    (T.BitsOf("prefix"), (U32, 2, 2)),
    (T.And(1), (U64, 3), (U64, 3)),
    (T.And(2), (U8, 2, 2), (U8, 2, 2), (U8, 2, 2)),
    (T.And(1), (U8, 2, 3, 1), (U8, 2, 1, 2)),
    (T.And(2), (U8, 2, 1), (U8, 2, 2), (U8, 2, 1)),
    (T.BitToSum(np.dtype(U64)), (U8, 5)),
    (T.BitToSum(np.dtype(U32)), (U8,)),
    (T.BitTimes(), (U8, 4), (U64, 4)),
    (T.BitTimes(), (U8, 2, 1), (U32, 2, 3)),
]  # fmt: skip


def operands(forms) -> list[list]:
    """Shares of every operand: [party 0's, party 1's]."""
    with jax.enable_x64(True):
        return [
            [jnp.asarray(uniform(*shape, dtype=t, seed=2 * i + p)) for p in (0, 1)]
            for i, (t, *shape) in enumerate(forms)
        ]


def test_requests_are_met_as_by_the_dealer() -> None:
    """All requests of the table, in one list: as many rounds as the longest takes."""
    shares = [operands(forms) for _, *forms in REQUESTS]

    def side(me):
        known = [[s[me.index] for s in each] for each in shares]
        return make(
            me, [Request(r[0], own) for r, own in zip(REQUESTS, known, strict=True)]
        )

    *outs, spent = play(side)
    for (fun, *_), each, one, two in zip(REQUESTS, shares, *outs, strict=True):
        with jax.enable_x64(True):
            kinds = zip(each, fun.operands, strict=True)
            clear = fun.clear(*(jnp.asarray(join(*s, kind)) for s, kind in kinds))
        for a, b, kind, value in zip(one, two, fun.results, clear, strict=True):
            found = join(a, b, kind)
            np.testing.assert_array_equal(found, value, err_msg=str(fun))
            assert found.dtype == value.dtype
    assert spent.rounds == 2 + 2 * 6 + 2
    assert spent == cost(side)


@pytest.mark.parametrize("lead", [1, 2])
def test_repetitions_of_a_request(lead: int) -> None:
    """Leading axes repeat it, as the iterations of a scan do."""
    axes = (2, 1)[:lead]
    forms = [(U64, *axes, 2, 3), (U64, *axes, 3, 2)]
    shares = operands(forms)

    def side(me):
        return make(
            me, [Request(T.Product(MATMUL), [s[me.index] for s in shares], lead)]
        )

    *outs, _ = play(side)
    a, b = (join(*s) for s in shares)
    np.testing.assert_array_equal(join(outs[0][0][0], outs[1][0][0]), a @ b)


def test_every_function_is_there_or_needs_a_dealer() -> None:
    functions = {
        cls
        for cls in vars(T).values()
        if isinstance(cls, type)
        and hasattr(cls, "clear")
        and cls.__module__ == T.__name__
    }
    assert {*MAKERS} <= functions
    with pytest.raises(UnsupportedError):
        play(lambda me: make(me, [Request(T.Noise(None, 1, 1, U64), [])]))


@pytest.mark.parametrize("owner", [0, 1])
def test_to_the_owner_alone(owner: int) -> None:
    (shares,) = operands([(U64, 3)])
    fun = T.ToOwner(owner)
    *outs, spent = play(lambda me: make(me, [Request(fun, [shares[me.index]])]))
    np.testing.assert_array_equal(outs[owner][0][0], join(*shares))
    assert not np.any(outs[1 - owner][0][0])
    assert spent.bytes[owner] == 0 and spent.bytes[1 - owner] == 24


def test_groups_of_channels_are_refused() -> None:
    op = conv(window_strides=(1,), padding=((0, 0),), feature_group_count=2)
    x, y = (uniform(*s, dtype=U32) for s in ((1, 2, 3), (2, 1, 2)))
    with pytest.raises(UnsupportedError):
        play(lambda me: products.product(me, op, x, y))
    with pytest.raises(InputError):
        play(lambda me: products.product(me, T.MUL, x, y))


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        # 64 transfers of 16 + 8 bytes per product.
        (lambda me: products.triples(me, T.MUL, (10,), (10,), U64), 10 * 64 * 24),
        (lambda me: products.triples(me, T.MUL, (10,), (10,), U32), 10 * 32 * 20),
        # k min(m, n) w transfers with max(m, n) words each.
        (
            lambda me: products.triples(me, MATMUL, (5, 3), (3, 2), U64),
            3 * 2 * 64 * (16 + 5 * 8),
        ),
        (
            lambda me: products.triples(me, MATMUL, (2, 3), (3, 5), U64),
            3 * 2 * 64 * (16 + 5 * 8),
        ),
        (lambda me: bits.and_triples(me, 640), 640 * 16),
    ],
)
def test_bytes_as_the_docstrings_say(side, expected: int) -> None:
    assert cost(side).bytes == (expected, expected)


def test_triples_are_triples_and_differ() -> None:
    def side(me):
        one = yield from products.triples(me, T.MUL, (6,), (6,), U64)
        two = yield from products.triples(me, T.MUL, (6,), (6,), U64)
        return [jnp.concatenate(pair) for pair in zip(one, two, strict=True)]

    first, second, _ = play(side)
    a, b, c = (join(x, y) for x, y in zip(first, second, strict=True))
    np.testing.assert_array_equal(a * b, c)
    everything = np.concatenate([*first, *second])
    assert np.unique(everything).size == everything.size


@pytest.mark.parametrize("count", [1, 100])
def test_and_triples(count: int) -> None:
    first, second, _ = play(lambda me: bits.and_triples(me, count))
    a, b, c = (join(x, y, "xor") for x, y in zip(first, second, strict=True))
    np.testing.assert_array_equal(a & b, c)
    assert all(np.asarray(x).max() <= 1 for x in (*first, *second))
    if count == 100:  # each of the bits takes both values, on either side
        assert all(0 < np.mean(np.asarray(x)) < 1 for x in (*first, *second))


EDGES = [0, 1, 2**63, 2**64 - 1, 2**63 - 1, 2**18 - 1, 0x5555555555555555]


def test_extreme_shares() -> None:
    """Carries through the whole word, and none at all."""
    pairs = np.array([(a, b) for a in EDGES for b in EDGES], U64).T
    for fun in (T.Truncation(18), T.BitsOf("prefix")):

        def side(me, fun=fun):
            with jax.enable_x64(True):
                mine = jnp.asarray(pairs[me.index])
            return make(me, [Request(fun, [mine])])

        (first,), (second,), _ = play(side)
        with jax.enable_x64(True):
            clear = fun.clear(jnp.asarray(pairs[0] + pairs[1]))
        for a, b, kind, value in zip(first, second, fun.results, clear, strict=True):
            np.testing.assert_array_equal(join(a, b, kind), value)


def test_shares_alone_are_not_the_result() -> None:
    """Results of equal operands in two sessions: shares fresh, sums equal."""
    (a, b) = operands([(U64, 8), (U64, 8)])
    outs = [
        play(lambda me: products.product(me, T.MUL, a[me.index], b[me.index]))
        for _ in (0, 1)
    ]
    np.testing.assert_array_equal(*(join(*out[:2]) for out in outs))
    assert not np.any(np.asarray(outs[0][0]) == np.asarray(outs[1][0]))
