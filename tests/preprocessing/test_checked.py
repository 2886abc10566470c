"""spdz2k without a dealer: programs run on what two parties made, and cheats are caught."""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from two_parties import play, sessions

import privjax
from privjax.errors import MacCheckError, ProtocolError
from privjax.preprocessing import authenticated_bits as bits_module
from privjax.preprocessing import checked, delivered, offline, prepare
from privjax.preprocessing import structure as structure_module
from privjax.preprocessing.program import ready
from privjax.preprocessing.session import cost
from privjax.preprocessing.structure import structure
from privjax.prg import insecure_key, key_words
from privjax.runtimes.simulate import party_keys

WORDS = key_words(insecure_key(3))


def everything(x: Any, w: Any, flag: Any) -> Any:
    """A matrix product, relu, truncation, choice by a shared bit, two steps of a scan."""
    h = jax.nn.relu(x @ w)
    chosen = jnp.where(flag, h, x[:, 0])

    def step(carry: Any, row: Any) -> Any:
        return carry * row + 1.0, carry

    return lax.scan(step, jnp.float32(0.5), h), chosen, chosen == 1.5


ARGS = (
    np.array([[1.5, -2.0], [0.25, 3.0]], np.float32),
    np.array([0.75, 0.5], np.float32),
    np.array([True, False]),
)


def small(x: Any) -> Any:
    """One truncation, one comparison."""
    return jnp.where(x > 0, x * x * 0.5, x)


@functools.cache
def compiled(name: str) -> tuple[Any, Any, tuple[Any, ...]]:
    fun, args, ring = {
        "everything": (everything, ARGS, (64, 18)),
        "small": (small, (np.array([1.5], np.float32),), (32, 8)),
    }[name]
    shared = privjax.secret_shared(
        fun, fixed_point=privjax.FixedPoint(*ring), preprocessing="ot"
    )
    return shared, shared.compiled(*args), args


def side(name: str, party: int | None = None) -> Callable[[Any], Any]:
    program = compiled(name)[1]
    ready(program.party)
    with jax.enable_x64(True):
        seeds = party_keys(jnp.asarray(WORDS), 2)
    return lambda me: prepare(me, program.party, seeds[me.index])


def online(name: str, made: list[Any]) -> Any:
    """The results of a program that runs on these corrections, if its checks pass."""
    shared, program, args = compiled(name)
    with jax.enable_x64(True):
        both = jax.tree.map(lambda *v: jnp.stack(v), *made)
        flat = program.run_online(jnp.asarray(WORDS), both, *map(jnp.asarray, args))
        return shared.unflatten(program, shared._sound(program, flat))


def test_a_program_runs_on_what_two_parties_made() -> None:
    *made, spent = play(side("everything"))
    results = online("everything", made)
    for found, expected in zip(
        jax.tree.leaves(results), jax.tree.leaves(everything(*ARGS)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2**-12)
    assert spent == cost(side("everything"))
    # Nothing is meant for party 0 but the masks of its inputs; no mask is used twice.
    masks = [
        np.unique(leaf[leaf > 2**40])
        for leaf in map(np.asarray, jax.tree.leaves(made[1]))
        if leaf.dtype == np.uint64
    ]
    every = np.concatenate(masks)
    assert np.unique(every).size == every.size > 500


def test_by_the_decorator() -> None:
    """In the ring of 32 bits; what travels is what is counted without running it."""
    shared, _, args = compiled("small")
    key = privjax.random.key()
    np.testing.assert_allclose(shared(*args, key=key), small(*args), atol=2**-6)
    spent = shared.transfer_cost(*args)
    assert spent == cost(side("small")) and 10**5 < min(spent.bytes) < 10**6


# -- cheating --------------------------------------------------------------------------


def attacked(change: Callable[[int, Any], Any], cheater: int) -> list[Any] | None:
    """What both have in the end where one changes its messages; None if it is caught."""
    sides = [side("small")(me) for me in sessions()]
    made: list[Any] = [None, None]
    with jax.enable_x64(True):
        messages = [next(s) for s in sides]
        for step in range(1000):
            said = jax.tree.map(jnp.asarray, messages[cheater])
            messages[cheater] = change(step, said)
            sent = list(messages)
            for who in (1 - cheater, cheater):
                try:
                    messages[who] = sides[who].send(sent[1 - who])
                except StopIteration as end:
                    made[who] = end.value
                except MacCheckError:
                    return None
            if any(m is not None for m in made):
                return made
    raise AssertionError("a protocol of a thousand rounds")


def harmless(made: list[Any] | None) -> bool:
    """Whether nobody was caught, also not online, and the results are right."""
    if made is None:
        return False
    try:
        found = online("small", made)
    except MacCheckError:
        return False
    np.testing.assert_allclose(found, small(compiled("small")[2][0]), atol=2**-6)
    return True


@functools.cache
def rounds() -> int:
    return cost(side("small")).rounds


def flipped(round_: int, place: int, bit: int) -> Callable[[int, Any], Any]:
    """One bit of the largest array of the message of a round."""

    def change(step: int, message: Any) -> Any:
        leaves, tree = jax.tree.flatten(message)
        if step != round_ or not leaves:
            return message
        which = max(range(len(leaves)), key=lambda i: leaves[i].size)
        flat = leaves[which].reshape(-1)
        one = flat.dtype.type(1) << flat.dtype.type(bit % (8 * flat.dtype.itemsize))
        at = place % flat.size
        leaves[which] = flat.at[at].set(flat[at] ^ one).reshape(leaves[which].shape)
        return jax.tree.unflatten(tree, leaves)

    return change


@pytest.mark.parametrize("cheater", [0, 1])
def test_a_flipped_bit_in_any_round(cheater: int) -> None:
    """Caught before or while the program runs, or without any effect."""
    assert harmless(attacked(lambda step, message: message, cheater))
    last, draw = rounds() - 1, np.random.default_rng(cheater)
    caught = 0
    for round_ in {*range(cheater * 5, last, 17), *range(last - 4, last + 1)}:
        place, bit = (int(v) for v in draw.integers(0, 2**16, 2))
        caught += not harmless(attacked(flipped(round_, place, bit), cheater))
    assert caught >= 8


def of_form(form: Callable[[Any], bool], alter: Callable[[Any], Any]) -> Any:
    """Alter the first message of some form."""
    done: list[int] = []

    def change(step: int, message: Any) -> Any:
        if done or not form(message):
            return message
        done.append(step)
        return alter(message)

    return change


def array_of(dtype: Any, *shape: int | None) -> Callable[[Any], bool]:
    def form(message: Any) -> bool:
        return (
            isinstance(message, jax.Array)
            and message.dtype == dtype
            and message.ndim == len(shape)
            and all(n in (None, m) for n, m in zip(shape, message.shape, strict=True))
        )

    return form


@functools.cache
def plan() -> checked.Plan:
    return checked.Plan.of(structure(compiled("small")[1].party))


def proof_bits() -> int:
    return 128 * (plan().numbers.size + 1) + plan().dabits


def first_raised(message: Any) -> Any:
    """The first array that somebody hears, plus 1 in its first entry."""
    leaves, tree = jax.tree.flatten(message)
    flat = leaves[0].reshape(-1)
    leaves[0] = flat.at[0].add(flat.dtype.type(1)).reshape(leaves[0].shape)
    return jax.tree.unflatten(tree, leaves)


CHEATS = {
    # Words of AND triples that depend on the other party's bits.
    "garbled": lambda: of_form(
        array_of(np.uint32, None, 6), lambda m: m.at[:64].add(np.uint32(1))
    ),
    # Another key for one bit in the proof about bits: its prover must not answer.
    "key of a proof": lambda: of_form(
        array_of(np.uint64, proof_bits(), 2), lambda m: m.at[3, 0].add(np.uint64(1))
    ),
    "key shown": lambda: of_form(
        lambda m: isinstance(m, tuple) and len(m) == 2 and m[0].shape == (4,),
        lambda m: (m[0] ^ np.uint32(1), m[1]),
    ),
    "sum of a proof": lambda: of_form(
        lambda m: isinstance(m, tuple) and len(m) == 3,
        lambda m: (m[0].at[0].add(np.uint64(1)), *m[1:]),
    ),
    # Other corrections: values, and what is told to the owner of an input.
    "corrections": lambda: of_form(
        lambda m: isinstance(m, tuple) and isinstance(m[1], list), first_raised
    ),
    # Shares of MACs, when all is over: the program itself finds out.
    "MACs": lambda: of_form(lambda m: isinstance(m, list) and len(m) > 0, first_raised),
}


@pytest.mark.parametrize(
    ("name", "cheater"),
    [(n, c) for n in CHEATS for c in (0, 1) if (n, c) != ("MACs", 1)],
)
def test_a_cheat_is_caught(name: str, cheater: int) -> None:
    assert not harmless(attacked(CHEATS[name](), cheater))


def entries() -> dict[str, tuple[int, int]]:
    """(call of `authenticate`, entry) of values that have to be what something says."""
    s = structure(compiled("small")[1].party)
    sources = sum(at.size for at in s.uniform.values())
    decomposed = int(abs(plan().numbers[0])) - 1
    return {
        "a mask": (0, decomposed),
        "its high bits": (0, sources),
        "a bit as a number": (0, sources + len(plan().cut)),
        "a dealt value": (1, 0),
        "what an owner was told": (1, s.dealt.size),
    }


@pytest.mark.parametrize(
    "name",
    [
        "a mask",
        "its high bits",
        "a bit as a number",
        "a dealt value",
        "what an owner was told",
    ],
)
@pytest.mark.parametrize("error", [1, 2**31])
def test_other_values_with_good_macs(monkeypatch: Any, name: str, error: int) -> None:
    """A party that gets MACs of other values than it is bound to, and goes on so."""
    at, entry = entries()[name]
    calls = [0, 0]
    honest = checked.authenticate

    def authenticate(me: Any, key: Any, x: Any) -> Any:
        calls[me.index] += 1
        if me.index == 1 and calls[1] == at + 1:
            x = np.array(x)
            x[entry : entry + 1, 0] += np.uint64(error)
        return honest(me, key, x)

    for where in (checked, delivered):
        monkeypatch.setattr(where, "authenticate", authenticate)
    assert not harmless(attacked(lambda step, message: message, 1))


def test_triples_of_bits() -> None:
    """x AND y = z under the key, and as many triples in a bucket as it takes."""

    def made(me: Any) -> Any:
        party = checked._Party(me, structure(compiled("small")[1].party), known(me))
        yield from party.keys()
        return party.open.delta, (
            yield from bits_module.and_triples(me, party.long, party.open, 40)
        )

    def known(me: Any) -> Any:
        program = compiled("small")[1]
        tree = offline.requests(program.party)
        with jax.enable_x64(True):
            own = structure_module.known(program.party, np.int32(me.index), WORDS)
        return [k for _, k in offline.matched(tree, own)]

    (d0, one), (d1, two), _ = play(made)
    delta = np.asarray(d0) ^ np.asarray(d1)
    x, y, z = (np.asarray(a) ^ np.asarray(b) for a, b in zip(one, two, strict=True))
    for words in (x, y, z):
        assert set(words.tolist()) <= {0, int(delta)}
    np.testing.assert_array_equal(x & y, z)
    assert 0 < np.count_nonzero(x) < 40 and 0 < np.count_nonzero(y) < 40


def test_bucket_sizes() -> None:
    """Against all numbers of touched triples, in exact arithmetic."""
    for count in (1, 2, 10, 1000):
        size = bits_module.bucket_size(count)
        for b, enough in ((size, True), (size - 1, False)):
            ways = math.comb(count * b, b)
            worst = max(
                Fraction(count * math.comb(t, b), ways * 2**t)
                for t in range(b, min(count * b, 300) + 1)
            )
            assert (worst <= Fraction(1, 2**64)) == enough
    assert bits_module.bucket_size(1) == 64


def test_what_it_does_not_make() -> None:
    shared = privjax.secret_shared(small, preprocessing="ot", reveal=False)
    x = np.array([1.5], np.float32)
    kept = privjax.share(x, key=privjax.random.key())
    with pytest.raises(ProtocolError, match="another call kept"):
        shared(kept, key=privjax.random.key())
