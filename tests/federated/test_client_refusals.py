"""What a client-level round refuses, and what it makes of values out of range."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from federated_update import make, update

from privjax.errors import (
    InputError,
    LeakError,
    RandomKeyError,
    RangeError,
    UnsupportedError,
)
from privjax.prg.keys import insecure_key
from privjax.transforms.federated import federated

PARAMS, DATA = make()
KEY = insecure_key(0)
ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "unequal clients": (
        lambda: federated(update)(PARAMS, (DATA[0], DATA[1][:3])),
        InputError,
        r"`data\[1\]` has 3 clients.*`data\[0\]` has 4",
    ),
    "scalar leaf": (
        lambda: federated(update)(PARAMS, (DATA[0], 1.0)),
        InputError,
        r"`data\[1\]`.*scalar",
    ),
    "no arrays": (lambda: federated(update)(PARAMS, None), InputError, "no arrays"),
    "no clients": (
        lambda: federated(lambda data: data)(jnp.zeros((0, 2))),
        InputError,
        "no clients",
    ),
    "collective over clients": (
        lambda: federated(lambda data: jax.lax.psum(data, "clients"))(jnp.ones(2)),
        UnsupportedError,
        r"over 'clients' \(.*test_client_refusals.py:\d+.*level='round'",
    ),
    "unknown argument": (
        lambda: federated(update, clients="dta"),
        InputError,
        "no argument 'dta'",
    ),
    "unknown position": (lambda: federated(update, 2), InputError, "no argument 2"),
    "wrong call": (lambda: federated(update)(PARAMS), InputError, "missing"),
    "level": (lambda: federated(update, level="user"), InputError, "level='user'"),
    "strategy": (lambda: federated(update, strategy="x"), InputError, "strategy='x'"),
    "aggregate": (
        lambda: federated(update, aggregate="secret"),
        InputError,
        "aggregate='secret'",
    ),
    "all weight on one": (
        lambda: federated(update, aggregate="secure")(
            PARAMS, DATA, weights=np.array([0.0, 2.0, 0.0, 0.0]), key=KEY
        ),
        LeakError,
        "only client 1 has a weight in weights=",
    ),
    "aggregate object": (
        lambda: federated(update, aggregate=3),
        InputError,
        "no aggregation method",
    ),
    "not a function": (lambda: federated(3.0), InputError, "expected a function"),
    "weights length": (
        lambda: federated(update)(PARAMS, DATA, weights=np.ones(3)),
        InputError,
        r"shape \(3,\); 4 clients",
    ),
    "weights negative": (
        lambda: federated(update)(PARAMS, DATA, weights=[1, -1, 1, 1]),
        InputError,
        "nonnegative",
    ),
    "weights nan": (
        lambda: federated(update)(PARAMS, DATA, weights=[1, np.nan, 1, 1]),
        InputError,
        "finite",
    ),
    "weights zero": (
        lambda: federated(update)(PARAMS, DATA, weights=np.zeros(4)),
        InputError,
        "sum to zero",
    ),
    "weights complex": (
        lambda: federated(update)(PARAMS, DATA, weights=np.ones(4) * 1j),
        InputError,
        "real numbers",
    ),
    "integer result": (
        lambda: federated(lambda data: {"n": [jnp.sum(data > 0)]})(jnp.ones((2, 3))),
        InputError,
        r"`\['n'\]\[0\]` has dtype int32",
    ),
    "boolean result": (
        lambda: federated(lambda data: data > 0)(jnp.ones(2)),
        InputError,
        r"\(the only one\) has dtype bool",
    ),
    "one secure client": (
        lambda: federated(update, aggregate="secure")(*make(clients=1)),
        InputError,
        "at least 2",
    ),
    "missing key": (
        lambda: jax.jit(federated(update, aggregate="secure"))(PARAMS, DATA),
        RandomKeyError,
        "without key=",
    ),
    "constant key": (
        lambda: jax.jit(
            lambda d: federated(update, aggregate="secure")(PARAMS, d, key=KEY)
        )(DATA),
        RandomKeyError,
        "constant of the traced program",
    ),
    "out of range": (
        lambda: federated(lambda data: data, aggregate="secure")(
            jnp.array([1.0, 2.0**40])
        ),
        RangeError,
        "too large",
    ),
    "not finite": (
        lambda: federated(lambda data: data, aggregate="secure")(
            jnp.array([1.0, jnp.nan])
        ),
        RangeError,
        "not finite",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        run()


def prints(data: Any) -> Any:
    jax.debug.print("{}", data)
    return data


def calls_back(data: Any) -> Any:
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), "f4"), data)


def prints_in_a_loop(data: Any) -> Any:
    def body(i: Any, x: Any) -> Any:
        jax.debug.print("{}", x)
        return x

    return jax.lax.fori_loop(0, 2, body, data)


@pytest.mark.parametrize("fun", [prints, calls_back, prints_in_a_loop])
def test_client_data_is_not_handed_to_the_host(fun: Any) -> None:
    with pytest.raises(LeakError, match=r"test_client_refusals.py:\d+"):
        federated(fun)(jnp.ones(2))


def test_public_values_may_be_printed(capsys: Any) -> None:
    @federated
    def f(step: Any, data: Any) -> Any:
        jax.debug.print("step {}", step)
        return data

    jax.block_until_ready(f(7, jnp.ones(2)))
    jax.effects_barrier()
    assert "step 7" in capsys.readouterr().out


def test_out_of_range_under_jit_is_nan_not_a_wrong_number() -> None:
    f = jax.jit(federated(lambda data: (data, data[0] * 0), aggregate="secure"))
    out = f(jnp.array([[1.0], [2.0**40]]), key=insecure_key(0))
    assert all(np.all(np.isnan(x)) for x in jax.tree.leaves(out))


def test_lanes_of_a_closed_over_value_are_masked_apart() -> None:
    """An eager vmap over a value that reaches the round only through a closure."""

    def lane(shift: Any) -> Any:
        f = federated(lambda data: data + shift, aggregate="secure")
        return f(jnp.arange(3.0), key=insecure_key(0))

    np.testing.assert_allclose(jax.vmap(lane)(jnp.arange(2.0)), [1.0, 2.0], atol=1e-6)
