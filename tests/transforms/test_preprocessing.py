"""`preprocessing="ot"`: two parties without a dealer, the same results."""

from typing import Any

import fast
import jax
import numpy as np
import pytest

import privjax
from privjax.errors import InputError, ProtocolError, TraceError

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


def test_where_it_does_not_apply() -> None:
    with pytest.raises(ProtocolError, match="two parties"):
        fast.secret_shared(program, parties=3, preprocessing="ot")
    with pytest.raises(ProtocolError, match="semi2k"):
        fast.secret_shared(program, protocol="spdz2k", preprocessing="ot")
    with pytest.raises(InputError, match="unknown"):
        fast.secret_shared(program, preprocessing="none")
    alone = fast.secret_shared(program, preprocessing="ot")
    with pytest.raises(TraceError, match="cannot run under jit"):
        jax.jit(lambda x, key: alone(x, x, key=key))(X, privjax.random.key())
