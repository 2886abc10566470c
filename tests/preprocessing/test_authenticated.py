"""SPDZ2k's authenticated shares and triples: right, checked, and hard to cheat at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_parties import (
    int_to_limbs,
    limbs_to_int,
    play,
    play_tampered,
    sessions,
    uniform,
)

from privjax.errors import MacCheckError
from privjax.preprocessing import authenticated as auth
from privjax.preprocessing.agree import open_together, toss
from privjax.preprocessing.session import cost

TOP = 2 ** (auth.K + auth.S)
COUNT = 2


def added(one, two) -> list[int]:
    pairs = zip(limbs_to_int(one), limbs_to_int(two), strict=True)
    return [(a + b) % TOP for a, b in pairs]


def alpha_of(first: auth.MacKey, second: auth.MacKey) -> int:
    return int(first.alpha[0]) + int(second.alpha[0])


def hold(alpha: int, one: auth.Shares, two: auth.Shares) -> list[int]:
    """The values, after their MACs have been found right."""
    values = added(one.value, two.value)
    assert added(one.mac, two.mac) == [alpha * v % TOP for v in values]
    return values


def with_key(side):
    def whole(me):
        key = yield from auth.mac_key(me)
        return key, (yield from side(me, key))

    return whole


@with_key
def make_triples(me, key):
    return (yield from auth.triples(me, key, COUNT))


VALUES = [0, 1, TOP - 1, 2**64, 12345678901234567890123]


def share_of(party: int):
    shares = [uniform(len(VALUES), 2), None]
    rest = [v - s for v, s in zip(VALUES, limbs_to_int(shares[0]), strict=True)]
    shares[1] = int_to_limbs([r % TOP for r in rest], 2)
    with jax.enable_x64(True):
        return jnp.asarray(shares[party])


@with_key
def make_macs(me, key):
    return (yield from auth.authenticate(me, key, share_of(me.index)))


def test_macs() -> None:
    (k0, one), (k1, two), spent = play(make_macs)
    alpha = alpha_of(k0, k1)
    assert hold(alpha, one, two) == [v % TOP for v in VALUES]
    assert alpha.bit_length() >= 32 and int(k0.alpha[0]) != int(k1.alpha[0])
    per_value = 64 * 24
    keys = cost(auth.mac_key).bytes[0]
    # A coin (commitment, seed, nonce), the mixed value, the opening of z.
    rest = (32 + 32 + 32) + 24 + (32 + 24 + 32)
    assert spent.bytes == (keys + 6 * per_value + rest,) * 2


def test_triples() -> None:
    (k0, t0), (k1, t1), spent = play(make_triples)
    alpha = alpha_of(k0, k1)
    a, b, c = (hold(alpha, x, y) for x, y in zip(t0, t1, strict=True))
    assert [x * y % TOP for x, y in zip(a, b, strict=True)] == c
    values = [*a, *b, *c]
    assert (
        len({v % 2**64 for v in values}) == len({v >> 64 for v in values}) == 3 * COUNT
    )
    assert spent == cost(make_triples)
    more = cost(with_key(lambda me, key: auth.triples(me, key, COUNT + 64)))
    assert (more.bytes[0] - spent.bytes[0]) / 64 == 384 * 32 + 5 * 64 * 24 + 32
    assert more.rounds == spent.rounds == 3 + 20


@functools.cache
def rounds() -> int:
    return cost(make_triples).rounds


def flipped(round_: int, place: int, bit: int):
    """Flip one bit of one element of the message of a round, in its first array."""

    def change(step: int, message):
        if step != round_ or message is None:
            return message
        leaves, tree = jax.tree.flatten(message)
        flat = leaves[0].reshape(-1)
        at = place % flat.shape[0]
        one = flat.dtype.type(1) << flat.dtype.type(bit % (8 * flat.dtype.itemsize))
        leaves[0] = flat.at[at].set(flat[at] ^ one).reshape(leaves[0].shape)
        return jax.tree.unflatten(tree, leaves)

    return change


@pytest.mark.parametrize("round_", range(23))
def test_a_flipped_bit_in_any_round(round_: int) -> None:
    """Caught, or of no effect: a bit of a transfer that was not chosen is never seen."""
    caught = 0
    assert rounds() == 23
    # Even places: the low halves of the elements of Z_2^(k+s), all that is promised.
    for place, bit in ((0, 0), (6, 63), (100, 31)):
        try:
            session = play_tampered(make_triples, 1, flipped(round_, place, bit))
            assert session.ok
        except MacCheckError:
            caught += 1
    # Rounds whose messages are masked by a choice or by Delta may be unseen; a coin of
    # the consistency check is the cheater's own business.
    choosy = {0, 3, 6, 9}
    own = {1, 4}
    if round_ not in choosy | own:
        assert caught == 3


def test_wrong_products_are_caught() -> None:
    """Another b in all transfers of one triple: c is wrong, the sacrifice shows it."""

    def change(step: int, message):
        return message.at[:384, 0].add(np.uint64(1)) if step == 6 else message

    with pytest.raises(MacCheckError):
        play_tampered(make_triples, 1, change)


def test_another_value_for_a_mac_is_caught() -> None:
    """x for half of alpha's bits, x + 1 for the others."""

    def change(step: int, message):
        return message.at[0, ::2, 0].add(np.uint64(1)) if step == 3 else message

    with pytest.raises(MacCheckError):
        play_tampered(make_macs, 0, change)


@pytest.mark.parametrize("error", [1, 2**31, 2**63, 2**127 + 2**63])
def test_opened_values_are_checked(error: int) -> None:
    """A wrong share of an opened value: any change of its low k bits."""

    @with_key
    def side(me, key):
        shares = yield from auth.authenticate(me, key, share_of(me.index))
        opened = yield from auth.open_values(me, shares.value)
        yield from auth.check_opened(me, key, opened, shares.mac)
        return opened

    (_, opened), (_, other), _ = play(side)
    assert limbs_to_int(opened) == limbs_to_int(other) == [v % TOP for v in VALUES]

    def change(step: int, message):
        if step != 9:
            return message
        wrong = jnp.asarray(int_to_limbs([error], 2))
        return message.at[2].set(auth.RING.add(message[2:3], wrong)[0])

    with pytest.raises(MacCheckError):
        play_tampered(side, 0, change)


def test_coins_are_common_and_fresh() -> None:
    def side(me):
        one = yield from toss(me)
        two = yield from toss(me)
        return jnp.concatenate([one, two])

    first, second, _ = play(side)
    np.testing.assert_array_equal(first, second)
    assert np.unique(first).size == 16
    assert not np.any(np.asarray(play(side)[0]) == np.asarray(first))


@pytest.mark.parametrize(
    "change",
    [
        flipped(0, 3, 5),
        flipped(1, 3, 5),
        lambda step, m: (m[0], m[1] ^ np.uint32(1)) if step else m,
    ],
)
def test_a_commitment_binds(change) -> None:
    value = jnp.arange(8, dtype=np.uint32)
    with pytest.raises(MacCheckError):
        play_tampered(lambda me: open_together(me, value, "a test"), 0, change)


def test_a_commitment_cannot_be_sent_back() -> None:
    """Echoing the honest party's messages would make the coin zero."""
    honest = toss(sessions()[0])
    with jax.enable_x64(True):
        message = next(honest)
        message = honest.send(message)
        with pytest.raises(MacCheckError):
            honest.send(message)
