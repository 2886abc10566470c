"""spdz2k catches a party that changes anything that it sends or holds.

One program with a product, a matrix product, a comparison, a truncation, bits and a loop;
one bit of one message (or of one share, MAC share or correction) is flipped at a random
place, a thousand times and more. Every attempt must fail its check, and no output may
appear; honest runs never fail.
"""

import dataclasses
from functools import cache
from typing import Any

import adversary
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adversary import FLIP, PAIR, REPLACE, SWAP, Attack, Place

import privjax
from privjax.transforms.secret_shared import secret_shared

SILENT = np.zeros(adversary.LONGEST, np.uint64)
NONE = Attack(-1, 0, 0, 0, 0, -1, FLIP, SILENT)


def workload(x: Any, w: Any, flags: Any) -> Any:
    """Products, truncations, comparisons, selection by bits, a matrix product, a loop."""

    def step(carry: Any, row: Any) -> Any:
        carry = carry + jax.nn.relu(row * carry)
        return carry, jnp.sum(carry)

    last, sums = jax.lax.scan(step, x[0], x)
    return x @ w, last, sums, jnp.where(flags, last, -last) > 0


def inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    return [x.astype(np.float32), w.astype(np.float32), np.array([1, 0, 1, 1], bool)]


@cache
def target(parties: int) -> Any:
    # The small ring for more parties, whose program takes longer to compile.
    fixed_point = privjax.FixedPoint() if parties == 2 else privjax.FixedPoint(32, 9)
    shared = secret_shared(workload, parties, "spdz2k", fixed_point)
    program = shared.compiled(*inputs())
    compiled, places = adversary.attacked(program.party, parties, inputs())
    return compiled, places


def drawn(places: list[Place], keep: Any, count: int, parties: int, seed: int) -> Any:
    """`count` attacks, uniform over places that `keep` accepts."""
    rng = np.random.default_rng(seed)
    allowed = [i for i, p in enumerate(places) if keep(p)]
    out = []
    for _ in range(count):
        i = int(rng.choice(allowed))
        p = places[i]
        sender = int(rng.integers(parties))
        if p.domain.startswith("from:"):
            sender = int(p.domain[5:])
        victim = (sender + 1 + int(rng.integers(parties - 1))) % parties
        out.append(
            Attack(
                i,
                int(rng.integers(p.size)),
                int(rng.integers(p.bits)),
                int(rng.integers(p.steps)),
                sender,
                victim,
                FLIP,
                SILENT,
            )
        )
    return out


def attempts(parties: int, attacks: Any, seed: int) -> tuple[list[Any], Any, Any]:
    """(outputs, whether any party's checks held, what was said at the place)."""
    compiled, _ = target(parties)
    *outputs, sound, said = adversary.attempts(compiled, attacks, seed)
    return outputs, sound, said


def seen_by_all(attacks: Any) -> Any:
    return [a._replace(victim=-1) for a in attacks]


def same(outputs: Any, others: Any) -> np.ndarray:
    """For each attempt, whether all outputs are equal, bit for bit."""
    good = np.ones(len(outputs[0]), bool)
    for a, b in zip(outputs, others, strict=True):
        good &= (a == b).all(tuple(range(1, a.ndim)))
    return good


def none_released(outputs: Any, attacks: Any, places: list[Place]) -> None:
    """What was changed before the release kept the outputs closed: they are zeros."""
    first = min(i for i, p in enumerate(places) if p.kind == "release")
    before = np.array([a.place < first for a in attacks])
    for got in outputs:
        assert not got[before].astype(float).any()


@pytest.mark.parametrize("parties", [2, 3])
def test_honest_runs_pass(parties: int) -> None:
    outputs, sound, _ = attempts(parties, [NONE] * 256, 0)
    assert sound.all()
    plain = jax.jit(workload)(*inputs())
    for got, value in zip(outputs, plain, strict=True):
        np.testing.assert_allclose(got, np.broadcast_to(value, got.shape), atol=0.05)


# What a party sends: all but the messages by which an owner chooses its input.
SENT = {
    "shares": lambda p: p.kind != "dealt" and p.domain in ("sum", "xor", "sum128"),
    "commitments and checks": lambda p: p.kind != "dealt" and p.domain[:4] == "each",
}


@pytest.mark.parametrize("parties,count", [(2, 1024), (3, 256)])
@pytest.mark.parametrize("kind", SENT)
def test_a_flipped_bit_of_a_message(kind: str, parties: int, count: int) -> None:
    _, places = target(parties)
    attacks = seen_by_all(drawn(places, SENT[kind], count, parties, 1))
    outputs, sound, _ = attempts(parties, attacks, 2)
    missed = [places[a.place] for a, s in zip(attacks, sound, strict=True) if s.any()]
    assert not missed
    none_released(outputs, attacks, places)


def test_errors_that_could_cancel() -> None:
    """The top bits of two values: their combination is 0 mod 2^k under every second coin,
    so that a check of the low k bits alone would miss them."""
    _, places = target(2)
    attacks = []
    keep = lambda p: p.kind != "dealt" and p.domain == "sum128" and p.size >= 4  # noqa: E731
    for attack in seen_by_all(drawn(places, keep, 256, 2, 10)):
        values = places[attack.place].size // 2  # low words come first
        at = attack.element % (values - 1)
        attacks.append(attack._replace(mode=PAIR, bit=63, element=at))
    outputs, sound, _ = attempts(2, attacks, 11)
    assert not sound.any()
    none_released(outputs, attacks, places)


@pytest.mark.parametrize("mode", [REPLACE, SWAP])
def test_replayed_and_swapped_messages(mode: int) -> None:
    """A message of an earlier session, and elements in another order."""
    _, places = target(2)

    def keep(p: Place) -> bool:
        small = 1 < p.size <= adversary.LONGEST and p.bits > 1
        return small and any(rule(p) for rule in SENT.values())

    attacks = seen_by_all(drawn(places, keep, 256, 2, 3))
    then, now = (
        [
            s[a.party]
            for a, s in zip(attacks, attempts(2, attacks, seed)[2], strict=True)
        ]
        for seed in (4, 5)
    )
    attacks = [
        a._replace(mode=mode, words=words)
        for a, words in zip(attacks, then, strict=True)
    ]
    outputs, sound, _ = attempts(2, attacks, 5)

    def differs(attack: Attack, old: np.ndarray, own: np.ndarray) -> bool:
        """Whether another message was sent at all: short ones may be equal."""
        size = places[attack.place].size
        sent = old[:size] if mode == REPLACE else np.roll(own[:size], 1)
        return not np.array_equal(sent, own[:size])

    wrong = np.array(list(map(differs, attacks, then, now)))
    assert wrong.mean() > 0.7
    assert not sound[wrong].any()
    outputs = [o[wrong] for o in outputs]
    attacks = [a for a, w in zip(attacks, wrong, strict=True) if w]
    none_released(outputs, attacks, places)


def test_different_values_for_different_peers() -> None:
    _, places = target(3)
    attacks = drawn(places, lambda p: p.kind != "dealt", 512, 3, 6)
    _, sound, _ = attempts(3, attacks, 7)
    # Of the two honest parties at least one sees it, and no party goes on alone.
    for a, s in zip(attacks, sound, strict=True):
        honest = [s[i] for i in range(3) if i != a.party]
        assert not all(honest), places[a.place]


@pytest.mark.parametrize("parties,count", [(2, 1024), (3, 256)])
def test_a_flipped_bit_of_a_share_that_is_held(parties: int, count: int) -> None:
    """Shares, MAC shares and corrections. Some bits enter nothing: then all is as in
    the honest run of the same session."""
    _, places = target(parties)
    keep = lambda p: p.kind == "dealt" and not p.domain.startswith("to:")  # noqa: E731
    attacks = drawn(places, keep, count, parties, 8)
    outputs, sound, _ = attempts(parties, attacks, 9)
    honest, _, _ = attempts(parties, [NONE] * count, 9)
    passed = sound.any(1)
    assert same(outputs, honest)[passed].all()
    # Upper bits of bytes that hold one bit, high bits of what a power of two multiplies,
    # and half of the words for a comparison: of three for a digit one or two are chosen.
    assert passed.mean() < 0.3


def test_the_caller_gets_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = privjax.secret_shared(lambda x: x * x, protocol="spdz2k")
    program = shared.compiled(np.ones(3, np.float32))
    honest = program.run

    def failing(*args: Any) -> Any:
        *out, sound = honest(*args)
        return [*out, ~sound]

    object.__setattr__(program, "run", failing)
    with pytest.raises(privjax.errors.MacCheckError):
        shared(np.ones(3, np.float32))
    hidden = jax.jit(lambda x, key: shared(x, key=key))(
        np.ones(3, np.float32), privjax.random.key()
    )
    assert np.isnan(hidden).all()


@pytest.mark.parametrize("bit", [0, 31, 32 * 4 + 3, 32 * 9 + 31])
def test_changed_shares_at_rest(bit: int) -> None:
    """A bit of a stored share, MAC share or key is caught by reveal and by a call."""
    shared = privjax.share(np.array([1.5, -2.0], np.float32), protocol="spdz2k")
    word, at = divmod(bit, 32)
    changed = shared.data.at[1, 0, word].set(
        shared.data[1, 0, word] ^ np.uint32(1 << at)
    )
    wrong = dataclasses.replace(shared, data=changed)
    with pytest.raises(privjax.errors.MacCheckError):
        privjax.reveal(wrong)
    twice = privjax.secret_shared(lambda v: v * 2.0, protocol="spdz2k")
    np.testing.assert_array_equal(twice(shared), [3.0, -4.0])
    with pytest.raises(privjax.errors.MacCheckError):
        twice(wrong)


def test_shares_of_an_aborted_call_are_not_used_again() -> None:
    """Neither those that were changed nor those that were not; others are."""
    good = privjax.share(np.float32([3.0]), protocol="spdz2k")
    other = privjax.share(np.float32([4.0]), protocol="spdz2k")
    bad = dataclasses.replace(good, data=good.data.at[0, 1, 0].add(np.uint32(1)))
    product = privjax.secret_shared(lambda a, b: a * b, protocol="spdz2k")
    np.testing.assert_array_equal(product(good, other), [12.0])
    with pytest.raises(privjax.errors.MacCheckError, match="do not match"):
        product(bad, other)
    for use in (lambda: product(good, other), lambda: privjax.reveal(other)):
        with pytest.raises(privjax.errors.MacCheckError, match="not used again"):
            use()
    assert privjax.reveal(good) == 3.0
    fresh = privjax.share(np.float32([4.0]), protocol="spdz2k")
    np.testing.assert_array_equal(product(good, fresh), [12.0])
