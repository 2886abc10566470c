"""Preprocessing by itself: made ahead by a dealer, or by both parties without one."""

from typing import Any

import fast
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import privjax
from privjax.errors import InputError, ProtocolError, TraceError
from privjax.prg import insecure_key, key_words
from privjax.runtimes import material

X = np.array([1.5, -2.25, 0.5], np.float32)


def program(x: Any, y: Any) -> Any:
    return jax.nn.relu(x * y), x @ y


def test_results_are_those_of_the_dealer_for_one_key() -> None:
    key = privjax.random.key()
    dealer = fast.secret_shared(program)
    alone = fast.secret_shared(program, preprocessing="ot")
    for a, b in zip(dealer(X, -X, key=key), alone(X, -X, key=key), strict=True):
        np.testing.assert_array_equal(a, b)
    cost = alone.transfer_cost(X, -X)
    assert cost.rounds > 2 and min(cost.bytes) > 10_000


@pytest.mark.parametrize("protocol", ["semi2k", "replicated3"])
def test_two_programs_give_what_one_does(protocol: str) -> None:
    shared = privjax.secret_shared(program, 3, protocol)
    compiled, words = shared.compiled(X, -X), key_words(insecure_key(0))
    with jax.enable_x64(True):
        dealt = jax.jit(material.offline(compiled.party, 3))(words)[1]
        to_all = jax.tree.map(lambda c: jnp.broadcast_to(c, (3, *c.shape)), dealt)
        later = compiled.run_online(words, to_all, X, -X)
        at_once = compiled.run(words, X, -X)
    for a, b in zip(later, at_once, strict=True):
        np.testing.assert_array_equal(a, b)


def test_where_it_does_not_apply() -> None:
    with pytest.raises(ProtocolError, match="two parties"):
        fast.secret_shared(program, parties=3, preprocessing="ot")
    with pytest.raises(ProtocolError, match="semi2k"):
        fast.secret_shared(
            program, parties=3, protocol="replicated3", preprocessing="ot"
        )
    with pytest.raises(InputError, match="unknown"):
        fast.secret_shared(program, preprocessing="none")
    alone = fast.secret_shared(program, preprocessing="ot")
    with pytest.raises(TraceError, match="cannot run under jit"):
        jax.jit(lambda x, key: alone(x, x, key=key))(X, privjax.random.key())
