"""Extension: correct transfers, bytes as promised, fresh masks, cheaters caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_parties import limbs_to_int, play, play_tampered, sessions, setups, uniform

from privjax.errors import MacCheckError, ProtocolError
from privjax.preprocessing import consistency
from privjax.preprocessing.exchange import drive, run
from privjax.preprocessing.extension import bucket, correlated, extend, random_transfers
from privjax.preprocessing.groups import BITS, RING32, RING64, Group, Wide
from privjax.preprocessing.session import cost, open_session

M = 70


def bits(party: int, m: int = M) -> jax.Array:
    return jnp.asarray(uniform(m, dtype=np.uint8, seed=party) & 1)


def values(group: Group, party: int, *shape: int) -> jax.Array:
    words = uniform(*shape, group.words, dtype=np.uint32, seed=10 + party)
    with jax.enable_x64(True):
        return group.from_words(jnp.asarray(words))


def both_ways(group: Group, shape: tuple[int, ...], active: bool):
    def side(me):
        mine, offers = bits(me.index), values(group, me.index, *shape)
        return correlated(me, group, mine, offers, shape, active=active)

    return side


CASES = [
    (group, (M, *rest), active)
    for group, rest in [
        (BITS, ()),
        (BITS, (3,)),
        (RING32, ()),
        (RING64, ()),
        (RING64, (5,)),
        (Wide(2), ()),
        (Wide(3), (2,)),
    ]
    for active in (False, True)
]


@pytest.mark.parametrize(("group", "shape", "active"), CASES, ids=str)
def test_correlated_transfers(group: Group, shape: tuple, active: bool) -> None:
    """The shares add up to bit * value, and the bytes are those of the formula."""
    (a_of, a_my), (b_of, b_my), spent = play(both_ways(group, shape, active))
    with jax.enable_x64(True):
        for chooser, shares in ((0, (a_of, b_my)), (1, (b_of, a_my))):
            bit = bits(chooser).reshape(-1, *(1 for _ in shape[1:]))
            expected = group.select(bit, values(group, 1 - chooser, *shape))
            np.testing.assert_array_equal(group.add(*shares), expected)
    columns = 4 * (2 if active else 0) + 12 + (4 if active else 0)
    size = int(np.prod(shape))
    corrections = 4 * -(-size // 32) if group == BITS else 4 * group.words * size
    check = 32 + 8 * 129 if active else 0
    assert spent.bytes == (128 * columns + check + corrections,) * 2
    assert spent.rounds == (4 if active else 2)
    assert spent == cost(both_ways(group, shape, active))


@pytest.mark.parametrize("chooser", [0, 1])
@pytest.mark.parametrize("active", [False, True])
def test_one_direction(chooser: int, active: bool) -> None:
    offers = values(RING64, 0, M)

    def side(me):
        if me.index == chooser:
            return correlated(me, RING64, bits(0), None, (M,), active=active)
        return correlated(me, RING64, None, offers, None, active=active)

    *outs, spent = play(side)
    shares = outs[chooser][0], outs[1 - chooser][1]
    assert outs[chooser][1] is None and outs[1 - chooser][0] is None
    total = np.asarray(shares[0]) + np.asarray(shares[1])
    np.testing.assert_array_equal(total, np.asarray(offers) * np.asarray(bits(0)))
    assert spent.bytes[chooser] > spent.bytes[1 - chooser] > 0


@pytest.mark.parametrize("words", [1, 8, 20])
def test_random_transfers(words: int) -> None:
    def side(me):
        return random_transfers(me, bits(me.index), words)

    (mine, pairs), (other, others), _ = play(side)
    for chosen, offered, party in ((mine, others, 0), (other, pairs, 1)):
        picked = np.asarray(offered)[np.asarray(bits(party)), np.arange(M)]
        np.testing.assert_array_equal(chosen, picked)
        assert np.all(np.any(offered[0] != offered[1], axis=-1))
    rows = np.concatenate([np.asarray(x).reshape(-1, words) for x in (pairs, others)])
    assert np.unique(rows, axis=0).shape[0] >= rows.shape[0] - (words == 1)


def test_masks_are_fresh_and_sessions_repeat_only_themselves() -> None:
    """All pads of several calls and sessions differ; one session can be recomputed."""

    def side(me):
        one = yield from random_transfers(me, bits(me.index), 4)
        two = yield from random_transfers(me, bits(me.index), 4)
        return jnp.concatenate([one[1], two[1]], axis=1)

    outs = [play(side, number)[:2] for number in (10**6, 10**6 + 1, 10**6)]
    np.testing.assert_array_equal(outs[0], outs[2])
    pads = np.asarray(outs[:2]).reshape(-1, 4)
    assert np.unique(pads, axis=0).shape == pads.shape
    draws = np.concatenate(
        [np.asarray(me.draw((16,), np.uint32)) for me in (*sessions(), *sessions())]
    )
    assert np.unique(draws).size == draws.size


def test_what_travels_looks_uniform() -> None:
    """Messages for constant choices and offers: each bit is set about half the time."""
    seen = []

    def side(me):
        ones = jnp.ones((4096,), np.uint8)
        inner = correlated(me, BITS, ones, ones, (4096,))
        message = next(inner)
        while True:
            seen.append(np.asarray(message))
            try:
                message = inner.send((yield message))
            except StopIteration as end:
                return end.value

    play(side, 77)
    for message in seen:
        n = message.size * 32
        ones = int(np.unpackbits(message.view(np.uint8)).sum())
        assert abs(ones - n / 2) < 5 * np.sqrt(n) / 2


def test_the_whole_run_can_be_jitted() -> None:
    """With the session's number traced: one program, other masks for every number."""
    side = both_ways(RING64, (M,), True)

    @jax.jit
    def both(keys, number):
        pair = [open_session(i, k, number) for i, k in enumerate(keys)]
        one, two, _ = run(*(side(me) for me in pair))
        return one, two, pair[0].ok & pair[1].ok

    with jax.enable_x64(True):
        results = [both(setups(), np.uint32(n)) for n in (501, 502)]
    one, two, ok = results[0]
    assert ok
    eager = play(side, 501)
    np.testing.assert_array_equal(one[0], eager[0][0])
    np.testing.assert_array_equal(two[1], eager[1][1])
    assert not np.any(np.asarray(one[0]) == np.asarray(results[1][0][0]))


def test_two_drivers_carry_the_messages() -> None:
    """`drive` with a recorded peer gives what `run` gives."""
    side = both_ways(RING64, (M,), True)
    sent = []

    def recording(me):
        inner = side(me)
        message = next(inner)
        while True:
            sent.append(message)
            try:
                message = inner.send((yield message))
            except StopIteration as end:
                return end.value

    first, second = sessions(901)
    expected = run(side(first), recording(second))[0]
    replies = iter(sent)
    again = drive(side(sessions(901)[0]), lambda _: next(replies))
    np.testing.assert_array_equal(again[0], expected[0])


def test_sides_of_different_lengths() -> None:
    def side(rounds: int):
        for _ in range(rounds):
            yield None

    with pytest.raises(ProtocolError):
        run(side(1), side(2))


@pytest.mark.parametrize("words", [0, 1, 2, 3, 5, 2048, 2049, 4097, 40_000, 10**6])
def test_buckets(words: int) -> None:
    assert max(words, 1) <= bucket(words) <= max(64, 2 * words)
    if words > 2048:
        assert bucket(words) <= 1.125 * words + 1
    assert bucket(bucket(words)) == bucket(words)


# -- the check -------------------------------------------------------------------------


def gf_times(a: int, b: int) -> int:
    out = 0
    for i in range(64):
        if b >> i & 1:
            out ^= a << i
    for i in range(127, 63, -1):
        if out >> i & 1:
            out ^= (1 << 64 | 0x1B) << (i - 64)
    return out


def test_the_hash_against_python_integers() -> None:
    body, mask = uniform(3, 6, dtype=np.uint32), uniform(3, 2, dtype=np.uint32)
    coin = jnp.asarray(uniform(8, dtype=np.uint32))
    with jax.enable_x64(True):
        found = consistency.universal_hash(body, mask, coin)
        units = jnp.asarray(np.eye(3, dtype=np.uint32).repeat(2, axis=1))
        units = units * jnp.asarray([1, 0] * 3, np.uint32)
        factors = consistency.universal_hash(units, jnp.zeros_like(units[:, :2]), coin)
        wider = jnp.pad(body, ((0, 0), (0, 4)))
        np.testing.assert_array_equal(
            found, consistency.universal_hash(wider, mask, coin)
        )
    blocks = body.view(np.uint64).tolist()
    for row, last, got in zip(
        blocks, limbs_to_int(mask.view(np.uint64)), found, strict=True
    ):
        expected = last
        for x, chi in zip(row, np.asarray(factors).tolist(), strict=True):
            expected ^= gf_times(x, chi)
        assert int(got) == expected
    assert gf_times(1 << 63, 2) == 0x1B


def flip_bit(round_: int, column: int | slice, word: int, bit: int):
    def change(step: int, message):
        if step != round_ or message is None:
            return message
        return message.at[column, word].set(message[column, word] ^ np.uint32(1 << bit))

    return change


def all_of(me):
    return extend(me, bits(me.index), M, active=True)


@pytest.mark.parametrize("word", [0, 2, 4, 5])
def test_inconsistent_columns_are_caught(word: int) -> None:
    """One bit in 40 columns: unnoticed only where Delta is 0 in all of them, 2^-40."""
    change = flip_bit(0, slice(3, 43), word, word + 7)
    with pytest.raises(MacCheckError):
        play_tampered(all_of, 1, change)


@pytest.mark.parametrize("column", range(0, 128, 9))
def test_one_changed_column_is_caught_unless_delta_is_zero_there(column: int) -> None:
    """The leak that the proof allows: a guess of one bit of Delta, at the risk of 1/2."""
    delta = int(setups()[0].delta[column // 32]) >> column % 32 & 1
    change = flip_bit(0, column, 1, 4)
    if delta:
        with pytest.raises(MacCheckError):
            play_tampered(all_of, 1, change)
    else:
        assert play_tampered(all_of, 1, change).ok


def test_the_same_change_in_all_columns_is_another_choice() -> None:
    """Flipping a row is choosing the other bit: allowed, and of no use to a cheater."""
    change = flip_bit(0, slice(None), 0, 0)
    with pytest.raises(MacCheckError):  # the claim about x is then the wrong one
        play_tampered(all_of, 1, change)


@pytest.mark.parametrize("place", [0, 64, 127, 128])
def test_a_false_claim_is_caught(place: int) -> None:
    def change(step: int, message):
        if step != 2:
            return message
        return message.at[place].set(message[place] ^ np.uint64(1 << 63))

    with pytest.raises(MacCheckError):
        play_tampered(all_of, 0, change)


def test_a_failed_session_is_dead() -> None:
    me = sessions()[0]
    with pytest.raises(MacCheckError):
        me.require(jnp.asarray(False), "a check")
    with pytest.raises(MacCheckError):
        me.call()
    with pytest.raises(MacCheckError):
        me.require(jnp.asarray(True), "another check")


@pytest.mark.parametrize(
    "change",
    [
        lambda step, m: None,
        lambda step, m: m[:-1] if m is not None else m,
        lambda step, m: m.astype(np.uint8) if m is not None else m,
    ],
)
def test_malformed_messages_are_refused(change) -> None:
    with pytest.raises(ProtocolError):
        play_tampered(all_of, 1, change)
