"""The secure sum between objects that exchange arrays: drop-outs at every step."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from privjax.aggregation import DistributedGaussian, secure_sum
from privjax.aggregation.clients import Client, Mail, Server, Welcome
from privjax.errors import ProtocolError, RangeError
from privjax.prg.keys import insecure_key

N, SIZE, CONTEXT = 6, 5, b"study 1, round 1"
FULL = secure_sum(dropped=3)
SPARSE = secure_sum(
    32,
    clip=8.0,
    neighbours=4,
    dropped=1,
    threshold=2,
    rotate=True,
    rounding="stochastic",
)
X = np.random.default_rng(0).normal(size=(N, SIZE)).astype("f4")
LIKE = [jax.ShapeDtypeStruct((SIZE,), "float32")]


class Play:
    """All parties of a round; `gone[step]` are the clients that do not take that step."""

    def __init__(self, method: Any, gone: dict[int, list[int]] | None = None) -> None:
        self.gone = gone or {}
        self.clients = [Client(method, insecure_key(i), CONTEXT) for i in range(N)]
        keys = [c.advertise() for c in self.clients]
        self.server = Server(method, insecure_key(99), keys, CONTEXT)
        self.alive = [*range(N)]

    def step(self, number: int) -> list[tuple[int, Client]]:
        self.alive = [i for i in self.alive if i not in self.gone.get(number, [])]
        return [(i, self.clients[i]) for i in self.alive]

    def share(self) -> "Play":
        for i, client in self.step(2):
            self.server.collect(i, client.share(self.server.welcome(i)))
        return self

    def mask(self) -> "Play":
        for i, client in self.step(3):
            self.server.add(i, client.mask(self.server.mail(i), [X[i]]))
        return self

    def unmask(self) -> "Play":
        for i, client in self.step(4):
            self.server.hear(i, client.unmask(self.server.news(i)))
        return self

    def run(self) -> np.ndarray:
        return self.share().mask().unmask().server.open(LIKE)[0]


GONE: dict[str, dict[int, list[int]]] = {
    "nobody": {},
    "before sharing": {2: [1]},
    "before masking": {3: [4]},
    "before unmasking": {4: [0]},
    "one at each step": {2: [5], 3: [0], 4: [3]},
}


@pytest.mark.parametrize("who", GONE)
def test_the_sum_is_that_of_those_who_sent_masked_inputs(who: str) -> None:
    gone = GONE[who]
    sent = [i for i in range(N) if i not in gone.get(2, []) + gone.get(3, [])]
    got = Play(FULL, gone).run()
    np.testing.assert_allclose(got, X[sent].sum(0), rtol=0, atol=1e-6)


def test_sparse_and_rotated() -> None:
    got = Play(SPARSE, {3: [2]}).run()
    want = X[[0, 1, 3, 4, 5]].sum(0)
    np.testing.assert_allclose(got, want, atol=N * 2.0 ** -SPARSE.fraction(N, SIZE))


def test_where_nobody_may_drop_out_there_are_two_steps() -> None:
    play = Play(secure_sum()).share().mask()
    np.testing.assert_allclose(play.server.open(LIKE)[0], X.sum(0), rtol=0, atol=1e-6)
    with pytest.raises(ProtocolError, match="nothing to unmask"):
        play.clients[0].unmask(play.server.news(0))


def test_messages_are_as_long_as_is_said() -> None:
    play = Play(FULL)
    client = play.clients[0]
    said = FULL.bits_per_client(SIZE, N)
    assert 8 * play.server.keys[0].nbytes == said["keys"]
    play.share()
    assert 8 * play.server._sealed[0].nbytes == said["shares"]
    assert 8 * client.mask(play.server.mail(0), [X[0]]).nbytes == said["masked input"]
    answer = client.unmask(np.ones(N - 1, bool))
    assert 8 * answer.nbytes == said["unmasking"]


def test_a_client_answers_once_and_tells_one_secret() -> None:
    play = Play(FULL).share().mask()
    client = play.clients[0]
    first = client.unmask(np.arange(N - 1) != 1)
    with pytest.raises(ProtocolError, match="taken once"):
        client.unmask(np.arange(N - 1) != 2)
    assert first.shape == (N - 1, 8)


def wrong_share(play: Play) -> Any:
    """A client sends another share than it was given of one that dropped out."""
    play.share().mask()
    for i, client in play.step(4):
        play.server.hear(i, client.unmask(play.server.news(i)) ^ np.uint32(i == 3))
    return play.server.open(LIKE)


def again(play: Play) -> Any:
    play.share()
    return play.server.collect(0, np.zeros((N - 1, 80), np.uint8))


def too_early(play: Play) -> Any:
    return play.server.add(0, np.zeros(SIZE, np.uint64))


def too_large(play: Play) -> Any:
    play.share()
    return play.clients[0].mask(play.server.mail(0), [X[0] + 2.0**50])


def altered(play: Play) -> Any:
    mail = play.share().server.mail(0)
    return play.clients[0].mask(Mail(mail.sealed ^ np.uint8(1), mail.present), [X[0]])


def twice_the_same(play: Play) -> Any:
    w = play.server.welcome(0)
    same = np.full(N - 1, 2)
    return play.clients[0].share(Welcome(0, N, same, w.keys, w.public))


def few_neighbours(play: Play) -> Any:
    mail = play.share().server.mail(0)
    return play.clients[0].mask(Mail(mail.sealed, np.arange(N - 1) < 1), [X[0]])


def few_answers(play: Play) -> Any:
    return play.share().mask().clients[0].unmask(np.arange(N - 1) < 1)


def ghosts(play: Play) -> Any:
    """The server says that a client answered which never sent its shares."""
    return play.share().mask().clients[0].unmask(np.ones(N - 1, bool))


def skipped(play: Play) -> Any:
    play.clients[0]._phase = 0
    return play.clients[0].share(play.server.welcome(0))


def another_ring(play: Play) -> Any:
    return play.share().server.add(0, np.zeros(SIZE, np.uint32))


CASES: dict[str, tuple[Callable[[Play], Any], dict[int, list[int]], Any, str]] = {
    "too few": (lambda p: p.run(), {4: [0, 1, 2, 3]}, ProtocolError, "nothing was unm"),
    "wrong share": (
        wrong_share,
        {3: [1]},
        ProtocolError,
        "client 1, which dropped out",
    ),
    "again": (again, {}, ProtocolError, "twice, or out of turn"),
    "too early": (too_early, {}, ProtocolError, "out of turn"),
    "too large": (too_large, {}, RangeError, "nothing was sent"),
    "altered": (altered, {}, ProtocolError, "altered"),
    "twice the same": (twice_the_same, {}, ProtocolError, "no 5 neighbours"),
    "few neighbours": (few_neighbours, {}, ProtocolError, "leave the round"),
    "few answers": (few_answers, {}, ProtocolError, "nothing was sent"),
    "ghosts": (ghosts, {2: [3]}, ProtocolError, "said to have answered"),
    "skipped": (skipped, {}, ProtocolError, "in order"),
    "another ring": (another_ring, {}, ProtocolError, "uint32, not uint64"),
}


@pytest.mark.parametrize("neighbours", [None, 4])
def test_noise_that_is_missing_is_not_made_up_for(neighbours: int | None) -> None:
    """Fewer answers than the noise is calibrated for, though masks can be recovered.

    Where each client knows of all others, it does not help to unmask such a sum.
    """
    method = secure_sum(
        32,
        clip=1.0,
        dropped=1,
        threshold=2,
        neighbours=neighbours,
        noise=DistributedGaussian(1.0),
    )
    play = Play(method, {3: [1, 2]}).share().mask()
    with pytest.raises(ProtocolError, match="counts on for its noise"):
        play.server.check_noise()
    if neighbours is None:
        with pytest.raises(ProtocolError, match="noise of 5 was counted on"):
            play.unmask()
    else:
        play.unmask()
    with pytest.raises(ProtocolError, match="counts on for its noise"):
        play.server.open(LIKE)


@pytest.mark.parametrize("case", CASES)
def test_refuses(case: str) -> None:
    run, gone, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        run(Play(FULL, gone))
