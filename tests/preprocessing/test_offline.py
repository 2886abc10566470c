"""Corrections made by two parties against the dealer's, for whole programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fast import secret_shared
from jax import lax
from two_parties import play, sessions

from privjax.errors import ProtocolError, UnsupportedError
from privjax.preprocessing import cost, offline, prepare, run, together
from privjax.runtimes import material


def network(x, w):
    """A matrix product, relu and truncation, then a loop with products of its own."""
    h = jax.nn.relu(x @ w)

    def step(carry, row):
        return carry * row + 1.0, carry.sum()

    return lax.scan(step, jnp.ones((2,)), h)


def branches(x, n):
    return lax.cond(n > 0, lambda y: y * y, lambda y: jnp.abs(y), x)


def spec(*shape: int, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


PROGRAMS = [
    (network, (spec(3, 2), spec(2, 2))),
    (branches, (spec(2), spec(dtype=np.int32))),
]


def program_of(fun, specs, protocol="semi2k"):
    return secret_shared(fun, protocol=protocol).compiled(*specs).party


@pytest.mark.parametrize(("fun", "specs"), PROGRAMS)
def test_corrections_are_those_of_the_dealer(fun, specs) -> None:
    """For equal seeds bit for bit; and each party has only what is meant for it."""
    party = program_of(fun, specs)
    words = jnp.arange(8, dtype=np.uint32)
    with jax.enable_x64(True):
        seeds, expected = jax.jit(material.offline(party, 2))(words)
    owners = material.receivers(party, 2)
    *made, spent = run(*(prepare(me, party, seeds[me.index]) for me in sessions()))
    assert jax.tree.structure(made[0]) == jax.tree.structure(expected)
    assert jax.tree.structure(made[1]) == jax.tree.structure(owners)
    rows = zip(*map(jax.tree.leaves, (expected, owners, *made)), strict=True)
    for value, owner, *found in rows:
        np.testing.assert_array_equal(found[owner], value)
        assert found[owner].dtype == value.dtype
        assert not np.any(np.asarray(found[1 - owner]))
    assert spent == cost(lambda me: prepare(me, party, seeds[me.index]))


def test_what_has_macs_is_not_made_semi_honestly() -> None:
    party = program_of(lambda x: x * x, (spec(2),), "spdz2k")
    with pytest.raises(UnsupportedError):
        play(lambda me: offline.prepare(me, party, jnp.zeros((8,), np.uint32)))


def test_together_takes_the_rounds_of_the_longest() -> None:
    def count(me, rounds: int):
        total = me.index
        for _ in range(rounds):
            total += yield jnp.asarray(total)
        return int(total)

    def side(me):
        return together([count(me, n) for n in (0, 1, 3)])

    first, second, spent = play(side)
    assert (first, second) == ([0, 1, 4], [1, 1, 4])
    assert spent.rounds == 3
    with pytest.raises(ProtocolError):
        play(lambda me: together([count(me, 1) for _ in range(1 + me.index)]))
