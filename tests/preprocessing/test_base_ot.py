"""Base transfers: who gets which key, what is refused, and that messages look alike."""

import jax
import numpy as np
import pytest
from two_parties import ORDER, times

from privjax.errors import InputError, ProtocolError, RandomKeyError
from privjax.preprocessing import base_ot, curve, session
from privjax.preprocessing.exchange import run

CHOICES = np.array([0, 1, 1, 0, 1], bool)


def transfer(
    choices=CHOICES, change=lambda m: m, reply=lambda m: m, names=(b"s", b"s")
):
    state, message = base_ot.choose(choices, names[0])
    keys, answer = base_ot.send(change(message.copy()), choices.size, names[1])
    return keys, base_ot.chosen(state, reply(answer.copy()))


def picked(keys, choices) -> np.ndarray:
    return keys[np.arange(choices.size), choices.astype(int)]


def test_the_chooser_gets_what_it_chose_and_nothing_else() -> None:
    keys, mine = transfer()
    np.testing.assert_array_equal(mine, picked(keys, CHOICES))
    assert np.unique(keys.reshape(-1, 8), axis=0).shape[0] == 2 * CHOICES.size


def test_runs_and_sessions_give_unrelated_keys() -> None:
    assert not np.any(transfer()[0] == transfer()[0])
    keys, mine = transfer(names=(b"s", b"t"))
    assert not np.any(np.all(mine == picked(keys, CHOICES), axis=-1))


def test_both_directions_at_once() -> None:
    sides = [
        base_ot.base_transfers(c, i, b"x") for i, c in enumerate((CHOICES, ~CHOICES))
    ]
    (mine, pairs), (other, others), cost = run(*sides)
    np.testing.assert_array_equal(mine, picked(others, CHOICES))
    np.testing.assert_array_equal(other, picked(pairs, ~CHOICES))
    assert (cost.rounds, cost.bytes) == (2, (2 * 5 * 64,) * 2)


def test_what_is_sent_does_not_depend_on_the_choice() -> None:
    """Both points of a message are in the prime-order group, whichever was chosen."""
    _, message = base_ot.choose(CHOICES, b"s")
    for pair in message:
        for data in pair:
            assert times(ORDER, curve.decode(data.tobytes())) == curve.NEUTRAL


def test_replies_in_another_order_give_unrelated_keys() -> None:
    keys, mine = transfer(reply=lambda m: np.roll(m, 1, axis=0))
    assert not np.any(np.all(mine == picked(keys, CHOICES), axis=-1))


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("u", [0, 1, curve.P - 1, curve.P])
def test_small_order_is_met_whichever_was_chosen(position: int, u: int) -> None:
    def change(reply: np.ndarray) -> np.ndarray:
        data = np.frombuffer(u.to_bytes(32, "little"), np.uint8)
        reply[:, position] = data
        return reply

    for choice in (False, True):
        with pytest.raises(ProtocolError):
            transfer(np.array([choice]), reply=change)


@pytest.mark.parametrize(
    "call",
    [
        lambda: transfer(change=lambda m: m[:3]),
        lambda: transfer(change=lambda m: m.astype(np.int32)),
        lambda: transfer(reply=lambda m: m[:, :1]),
        lambda: transfer(change=lambda m: np.full_like(m, 2)),
    ],
)
def test_malformed_messages_are_refused(call) -> None:
    with pytest.raises(ProtocolError):
        call()


def test_wrong_arguments() -> None:
    with pytest.raises(InputError):
        base_ot.choose(np.array([0, 1]), b"s")
    with pytest.raises(ProtocolError):
        next(session.setup(2, b"s"))


def test_setup_refuses_to_be_traced() -> None:
    with pytest.raises(RandomKeyError):
        jax.eval_shape(lambda: next(session.setup(0, b"s")) and None)
