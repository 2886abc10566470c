"""Clients that send few entries, or few bits: what arrives, and what is counted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privjax import fl, spdz
from privjax.aggregation import RandomK, TopK, plain, quantised
from privjax.errors import InputError
from privjax.prg import insecure_key

N, EXAMPLES, SIZE = 4, 5, 10
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, EXAMPLES, SIZE)).astype("f4")
WANTED = RNG.normal(size=SIZE)
Y = (X @ WANTED).astype("f4")
START = {"b": np.zeros((), "f4"), "w": np.zeros(SIZE, "f4")}
RATE = 0.05


def losses(params: Any, batch: Any) -> Any:
    return jnp.square(batch[0] @ params["w"] + params["b"] - batch[1])


def averaging(**options: Any) -> fl.Algorithm:
    return fl.fedavg(losses, client=optax.sgd(RATE), **options)


def run(algorithm: fl.Algorithm, rounds: int, survivors: Any = None) -> Any:
    """The state and the losses of the rounds; `survivors` is bool[rounds, clients]."""
    there = np.ones((rounds, N), bool) if survivors is None else survivors

    def one(state: Any, xs: Any) -> Any:
        key, there = xs
        extra = {"key": key} if algorithm.round.needs_key else {}
        state, found = algorithm.round(
            state, fl.Cohort((X, Y), survivors=there), **extra
        )
        return state, found.get("loss", 0.0)

    keys = jax.random.split(insecure_key(0), rounds)
    start = algorithm.init(START, N)
    return jax.jit(lambda s: jax.lax.scan(one, s, (keys, there)))(start)


def by_hand(fraction: float, rounds: int, there: np.ndarray) -> np.ndarray:
    """Top-k with error feedback in float64, equal weights; w and b side by side."""
    x = np.concatenate([np.ones((N, EXAMPLES, 1)), X.astype("f8")], 2)
    w, memory = np.zeros(SIZE + 1), np.zeros((N, SIZE + 1))
    k = int(np.ceil(fraction * (SIZE + 1)))
    for t in range(rounds):
        total = np.zeros(SIZE + 1)
        for i in np.flatnonzero(there[t]):
            step = -RATE * 2 * x[i].T @ (x[i] @ w - Y[i]) / EXAMPLES
            full = step + memory[i]
            sent = np.zeros_like(full)
            places = np.argsort(-np.abs(full))[:k]
            sent[places] = full[places]
            memory[i] = full - sent
            total += sent
        w = w + total / there[t].sum()
    return w


def test_top_k_is_the_published_update() -> None:
    """With a client that misses a round: its memory stays as it was."""
    there = np.ones((3, N), bool)
    there[1, 2] = False
    state, _ = run(averaging(compress=TopK(0.3)), 3, there)
    got = np.concatenate([state.params["b"][None], state.params["w"]])
    np.testing.assert_allclose(got, by_hand(0.3, 3, there), atol=1e-6)


# By name: an algorithm, and one whose rounds it repeats.
SAME: dict[str, tuple[Callable[[], Any], Callable[[], Any], float]] = {
    "all entries": (
        lambda: averaging(compress=RandomK(1.0)),
        lambda: averaging(),
        1e-6,
    ),
    "places in a secure sum": (
        lambda: averaging(compress=RandomK(0.3), aggregate="secure"),
        lambda: averaging(compress=RandomK(0.3)),
        1e-5,
    ),
    "clipped": (
        lambda: averaging(compress=RandomK(0.3), aggregate=plain(clip=1e3)),
        lambda: averaging(compress=RandomK(0.3), weigh="clients"),
        1e-6,
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_rounds(case: str) -> None:
    one, other, atol = SAME[case]
    found, wanted = (run(make(), 3)[0].params for make in (one, other))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=atol), found, wanted
    )


def test_what_was_left_out_arrives() -> None:
    """A fifth of the entries a round: the loss goes on falling all the same."""
    _, found = run(averaging(compress=RandomK(0.2)), 400)
    assert found[-1] < 1e-3 * found[0]


COHORT = fl.Cohort((X, Y))
ENTRIES = SIZE + 1
BITS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    # weight, examples and loss beside the change.
    "plain": ({}, {"update": 32 * (ENTRIES + 3)}),
    "top": (
        {"compress": TopK(0.3)},
        {"update": 32 * 3, "values": 32 * 4, "places": 4 * 4},
    ),
    "random": ({"compress": RandomK(0.3)}, {"update": 32 * (4 + 3)}),
    "quantised": (
        {"aggregate": quantised(4)},
        # The entry `b` of the change is a number that stands alone too.
        {"update": 4 * SIZE, "step": 32, "alone": 32 * 4},
    ),
    "random, masked": (
        {"compress": RandomK(0.3), "aggregate": "secure"},
        {"keys": 256, "shares": 0, "masked input": 64 * (4 + 3), "unmasking": 0},
    ),
    "rows": (
        {"robust": fl.coordinate_median()},
        {"update": 32 * 3, "row": 32 * ENTRIES},
    ),
}


@pytest.mark.parametrize("case", BITS)
def test_bits_are_counted(case: str) -> None:
    options, wanted = BITS[case]
    algorithm = averaging(**options)
    state = algorithm.init(START, N)
    assert algorithm.round.bits_per_client(state, COHORT) == wanted


def test_counts_are_exact_beside_few_bits() -> None:
    algorithm = averaging(aggregate=quantised(2))
    _, metrics = algorithm.round(algorithm.init(START), COHORT, key=insecure_key(0))
    assert metrics["examples"] == N * EXAMPLES


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "places of hidden updates": (
        lambda: averaging(compress=TopK(0.1), aggregate="secure"),
        "Use RandomK",
    ),
    "shared": (lambda: averaging(compress=TopK(0.1), aggregate=spdz()), "Use RandomK"),
    "robust": (
        lambda: averaging(compress=TopK(0.1), robust=fl.coordinate_median()),
        "whole updates",
    ),
    "neither": (lambda: averaging(compress=0.1), "choose TopK"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    make, words = ERRORS[case]
    with pytest.raises(InputError, match=words):
        make()
