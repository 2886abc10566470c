"""What rounds refuse: leaks, with their lines, and arguments that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fl_by_hand as hand
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privjax import federated, fl, secure_sum
from privjax.errors import (
    InputError,
    LeakError,
    ProtocolError,
    RandomKeyError,
    RangeError,
)
from privjax.prg import insecure_key

DATA = hand.clients()
COHORT = hand.cohort(DATA)
START = jnp.array([0.5, -0.25, 0.125])
KEY = insecure_key(0)
SGD = optax.sgd(hand.RATE)


PLAIN = hand.averaging()


def prints(params: Any, batch: Any) -> Any:
    jax.debug.print("{}", batch[1])  # LEAK
    return hand.losses(params, batch)


def calls_back(params: Any, batch: Any) -> Any:
    x, y = batch
    same = jax.ShapeDtypeStruct(y.shape, y.dtype)
    y = jax.pure_callback(lambda y: y, same, y)  # LEAK
    return hand.losses(params, (x, y))


@pytest.mark.parametrize("loss", [prints, calls_back])
def test_a_loss_that_hands_examples_to_the_host_is_refused_with_its_line(
    loss: Any,
) -> None:
    algorithm = fl.fedavg(loss, client=SGD)
    with pytest.raises(LeakError) as caught:
        algorithm.round(algorithm.init(START), COHORT)
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = int(str(caught.value).split("test_fl_round_refusals.py:")[1].split(":")[0])
    assert "# LEAK" in lines[number - 1]


LEAKS: dict[str, Callable[..., Any]] = {
    "a raw example": lambda state, data: (one_round(state, data), data[0][0, 0]),
    "a loss per client": lambda state, data: jax.vmap(mean, (None, 0))(state, data),
    "the worst client": lambda state, data: jnp.max(
        jax.vmap(mean, (None, 0))(state, data)
    ),
}


def mean(params: Any, data: Any) -> Any:
    return jnp.mean(hand.losses(params, data))


def one_round(params: Any, data: Any) -> Any:
    grads = jax.vmap(jax.grad(mean), (None, 0))(params, data)
    return params - 0.1 * jnp.mean(grads, axis=0)


@pytest.mark.parametrize("name", LEAKS)
def test_a_round_of_ones_own_that_leaks_is_refused_with_its_line(name: str) -> None:
    data = tuple(a[:, :2] for a in COHORT.data)
    with pytest.raises(LeakError, match=r"test_fl_round_refusals.py:\d+"):
        federated(LEAKS[name], clients="data", level="round")(START, data)


def scalar(params: Any, batch: Any) -> Any:
    return jnp.mean(hand.losses(params, batch))


X, Y = COHORT.data
ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a scalar loss and padding": (
        lambda: _first(fl.fedavg(scalar, client=SGD)),
        InputError,
        "one loss per example",
    ),
    "losses of another shape": (
        lambda: _first(fl.fedavg(lambda p, b: jnp.zeros(3) * p[0], client=SGD), (X, Y)),
        InputError,
        r"shape \(3,\) for 6 examples",
    ),
    "examples differ": (
        lambda: _first(PLAIN, (X, Y[:, :3])),
        InputError,
        r"`data\[1\]` has shape \(4, 3\).*`data\[0\]`",
    ),
    "no axis of examples": (
        lambda: _first(PLAIN, np.zeros(4)),
        InputError,
        r"\[clients, examples, ...\]",
    ),
    "mask": (
        lambda: _first(PLAIN, fl.Cohort((X, Y), mask=np.ones(4, bool))),
        InputError,
        r"mask= has shape \(4,\).*\(4, 6\)",
    ),
    "no clients": (
        lambda: _first(PLAIN, np.zeros((0, 2))),
        InputError,
        "no clients",
    ),
    "states without a number": (
        lambda: fl.scaffold(hand.losses, rate=0.1, clients=4).init(START),
        InputError,
        "clients=N",
    ),
    "states without ids": (
        lambda: _first(fl.scaffold(hand.losses, rate=0.1, clients=9), clients=9),
        InputError,
        r"Cohort\(ids=\)",
    ),
    "a clip norm that would clip everything": (
        lambda: fl.fednova(hand.losses, rate=0.1, aggregate=secure_sum(clip=1.0)).round,
        InputError,
        "clip all of it together",
    ),
    "a key is missing": (
        lambda: jax.jit(lambda s: hand.averaging(aggregate="secure").round(s, COHORT))(
            PLAIN.init(START)
        ),
        RandomKeyError,
        "without key=",
    ),
    "too large for the ring": (
        lambda: _first(hand.averaging(aggregate="secure"), (1e9 * X, 1e9 * Y)),
        RangeError,
        "too large",
    ),
    "too few survivors": (
        lambda: _first(
            hand.averaging(aggregate=secure_sum(dropped=1)),
            COHORT._replace(survivors=np.arange(4) < 2),
        ),
        ProtocolError,
        "dropped",
    ),
    "weigh": (lambda: hand.averaging(weigh="equal"), InputError, "weigh='equal'"),
    "runtime": (
        lambda: hand.averaging(runtime="gpu").round,
        InputError,
        "runtime='gpu'",
    ),
    "chunks": (lambda: fl.Chunks(0), InputError, "at least 1"),
    "epochs": (lambda: hand.averaging(epochs=0), InputError, "epochs=0"),
    "a mesh without the axis": (
        lambda: fl.Sharded(jax.make_mesh((1,), ("x",))),
        InputError,
        "'clients'",
    ),
    "ifca without models": (
        lambda: fl.ifca(hand.losses, client=SGD, clusters=2).init(START),
        InputError,
        "leading axis of 2",
    ),
    "nothing is local": (
        lambda: hand.averaging(local=fl.named("bn")).init({"w": START}, 3),
        InputError,
        "none or all",
    ),
}


def _first(algorithm: Any, cohort: Any = COHORT, clients: int | None = None) -> Any:
    return algorithm.round(algorithm.init(START, clients), cohort)


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        run()
