"""Every algorithm against its paper's update, written out in NumPy, for three rounds."""

from collections.abc import Callable
from typing import Any

import fl_by_hand as hand
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privjax import fl
from privjax.prg import insecure_key

DATA = hand.clients()
COHORT = hand.cohort(DATA)
HERE = [i for i, there in enumerate(hand.THERE) if there]
START = np.array([0.5, -0.25, 0.125])
LOCAL = {"epochs": hand.EPOCHS, "batch_size": hand.BATCH}
SGD = optax.sgd(hand.RATE)

Rounds = Callable[[np.ndarray], list[np.ndarray]]


def mean_delta(x: np.ndarray, by_examples: bool = True, **options: Any) -> np.ndarray:
    deltas = [hand.sgd(x, *DATA[i], **options)[0] - x for i in HERE]
    sizes = [hand.SIZES[i] for i in HERE] if by_examples else None
    return np.average(deltas, axis=0, weights=sizes)


def averaging(step: Callable[..., Any], state: Any = None, **options: Any) -> Rounds:
    """Rounds of x, state = step(x, state, mean change)."""

    def run(x: np.ndarray) -> list[np.ndarray]:
        out, s = [], state
        for _ in range(3):
            x, s = step(x, s, mean_delta(x, **options))
            out.append(x)
        return out

    return run


def plainly(x: Any, s: Any, d: Any) -> Any:
    return x + d, s


def with_momentum(x: Any, s: Any, d: Any) -> Any:
    s = 0.8 * s + d
    return x + 0.5 * s, s


def reddi(second: Callable[[Any, Any], Any], b1: float) -> Callable[..., Any]:
    def step(x: Any, s: Any, d: Any) -> Any:
        m, v = s
        m = b1 * m + (1 - b1) * d
        v = second(v, d)
        return x + 0.1 * m / (np.sqrt(v) + 1e-2), (m, v)

    return step


FLAT = (np.zeros(3), np.full(3, 1e-4))


def scaffold(x: np.ndarray) -> list[np.ndarray]:
    c, own, out = np.zeros(3), np.zeros((4, 3)), []
    for _ in range(3):
        deltas, changes = [], np.zeros(3)
        for i in HERE:
            y, k = hand.sgd(x, *DATA[i], shift=c - own[i])
            new = own[i] - c + (x - y) / (k * hand.RATE)
            deltas.append(y - x)
            changes += new - own[i]
            own[i] = new
        x = x + 0.9 * np.mean(deltas, axis=0)
        c = c + changes / 4
        out.append(x)
    return out


def fednova(momentum: float) -> Rounds:
    def run(x: np.ndarray) -> list[np.ndarray]:
        out = []
        shares = np.array([hand.SIZES[i] for i in HERE], float)
        shares /= shares.sum()
        for _ in range(3):
            norms, directions = [], []
            for i in HERE:
                y, k = hand.sgd(x, *DATA[i], momentum=momentum)
                # The weight of the j-th gradient: how often momentum hands it on.
                a = [sum(momentum**t for t in range(k - j)) for j in range(k)]
                norms.append(sum(a))
                directions.append((y - x) / sum(a))
            x = x + (shares @ norms) * (shares @ np.array(directions))
            out.append(x)
        return out

    return run


def mime_lite(x: np.ndarray) -> list[np.ndarray]:
    m, out = np.zeros(3), []
    for _ in range(3):
        sizes = [hand.SIZES[i] for i in HERE]
        delta = mean_delta(x, momentum=0.7, trace=m)
        full = np.average([hand.gradient(x, *DATA[i]) for i in HERE], 0, sizes)
        x, m = x + delta, full + 0.7 * m
        out.append(x)
    return out


def qfedavg(x: np.ndarray) -> list[np.ndarray]:
    q, lipschitz, out = 1.5, 1 / hand.RATE, []
    for _ in range(3):
        top, bottom = np.zeros(3), 0.0
        for i in HERE:
            y, _ = hand.sgd(x, *DATA[i])
            f, move = hand.value(x, *DATA[i]), lipschitz * (x - y)
            top += f**q * move
            bottom += q * f ** (q - 1) * np.sum(move**2) + lipschitz * f**q
        x = x - top / bottom
        out.append(x)
    return out


def ifca(models: np.ndarray) -> list[np.ndarray]:
    out = []
    for _ in range(3):
        chosen: dict[int, list[tuple[np.ndarray, int]]] = {0: [], 1: []}
        for i in HERE:
            k = int(np.argmin([hand.value(w, *DATA[i]) for w in models]))
            y, _ = hand.sgd(models[k], *DATA[i])
            chosen[k].append((y, hand.SIZES[i]))
        models = np.stack(
            [
                np.average([y for y, _ in c], 0, [n for _, n in c]) if c else w
                for c, w in zip(chosen.values(), models, strict=True)
            ]
        )
        out.append(models)
    return out


ALGORITHMS: dict[str, tuple[Any, Rounds]] = {
    "fedavg": (fl.fedavg(hand.losses, client=SGD, **LOCAL), averaging(plainly)),
    "fedavg, equal weights": (
        fl.fedavg(hand.losses, client=SGD, weigh="clients", **LOCAL),
        averaging(plainly, by_examples=False),
    ),
    "fedprox": (
        fl.fedprox(hand.losses, client=SGD, mu=0.6, **LOCAL),
        averaging(plainly, pull=0.6),
    ),
    "fedavgm": (
        fl.fedavgm(hand.losses, client=SGD, rate=0.5, momentum=0.8, **LOCAL),
        averaging(with_momentum, np.zeros(3)),
    ),
    "fedadagrad": (
        fl.fedadagrad(hand.losses, client=SGD, rate=0.1, tau=1e-2, **LOCAL),
        averaging(reddi(lambda v, d: v + d**2, 0.0), FLAT),
    ),
    "fedadam": (
        fl.fedadam(hand.losses, client=SGD, rate=0.1, b1=0.8, tau=1e-2, **LOCAL),
        averaging(reddi(lambda v, d: 0.99 * v + 0.01 * d**2, 0.8), FLAT),
    ),
    "fedyogi": (
        fl.fedyogi(hand.losses, client=SGD, rate=0.1, b1=0.8, tau=1e-2, **LOCAL),
        averaging(reddi(lambda v, d: v - 0.01 * d**2 * np.sign(v - d**2), 0.8), FLAT),
    ),
    "scaffold": (
        fl.scaffold(
            hand.losses, rate=hand.RATE, clients=4, server=optax.sgd(0.9), **LOCAL
        ),
        scaffold,
    ),
    "fednova": (fl.fednova(hand.losses, rate=hand.RATE, **LOCAL), fednova(0.0)),
    "fednova, momentum": (
        fl.fednova(hand.losses, rate=hand.RATE, momentum=0.6, **LOCAL),
        fednova(0.6),
    ),
    "mime_lite": (
        fl.mime_lite(
            hand.losses, optimiser=optax.sgd(hand.RATE, momentum=0.7), **LOCAL
        ),
        mime_lite,
    ),
    "qfedavg": (fl.qfedavg(hand.losses, rate=hand.RATE, q=1.5, **LOCAL), qfedavg),
    "ifca": (fl.ifca(hand.losses, client=SGD, clusters=2, **LOCAL), ifca),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_three_rounds_by_hand(name: str) -> None:
    algorithm, rounds = ALGORITHMS[name]
    start = np.stack([START, -START]) if name == "ifca" else START
    state = algorithm.init(jnp.asarray(start, "f4"), 4)
    for want in rounds(start):
        state, metrics = algorithm.round(state, COHORT)
        np.testing.assert_allclose(state.params, want, rtol=2e-5, atol=2e-6)
        assert float(metrics["clients"]) == len(HERE)
        assert float(metrics["examples"]) == sum(hand.SIZES[i] for i in HERE)
    assert int(state.rounds) == 3


def test_a_straggler_does_a_part_of_its_steps() -> None:
    limits = np.array([1, 2, 3, 0], np.int32)
    algorithm = ALGORITHMS["fednova"][0]
    state = algorithm.init(jnp.asarray(START, "f4"))
    late = hand.cohort(DATA, None, steps=limits)
    got, metrics = algorithm.round(state, late)
    found = [hand.sgd(START, *DATA[i], limit=k) for i, k in enumerate(limits)]
    shares = np.array(hand.SIZES[:3], float) / sum(hand.SIZES[:3])
    directions = np.array([(y - START) / k for y, k in found[:3]])
    want = START + (shares @ limits[:3]) * (shares @ directions)
    np.testing.assert_allclose(got.params, want, rtol=1e-5)
    np.testing.assert_allclose(metrics["effective_steps"], shares @ limits[:3], 1e-6)


def test_scaffold_keeps_the_states_of_those_who_did_not_take_part() -> None:
    algorithm = ALGORITHMS["scaffold"][0]
    state = algorithm.init(jnp.asarray(START, "f4"), 10)
    ids = np.array([7, 2, 9, 4])
    state, _ = algorithm.round(state, COHORT._replace(ids=ids))
    moved = np.flatnonzero(np.any(np.asarray(state.clients) != 0, axis=1))
    assert moved.tolist() == sorted(ids[HERE].tolist())
    before = np.asarray(state.clients)
    state, _ = algorithm.round(state, COHORT._replace(ids=np.array([0, 1, 2, 3])))
    np.testing.assert_array_equal(
        before[[7, 9, 4]], np.asarray(state.clients)[[7, 9, 4]]
    )


def test_local_parameters_never_leave_their_client() -> None:
    """FedBN's split: one leaf is each client's own, and is trained there."""

    def loss(params: Any, batch: Any) -> Any:
        x, y = batch
        return jnp.square(x @ params["w"] + params["norm_bias"] - y)

    algorithm = fl.fedavg(loss, client=SGD, local=fl.named("norm"), **LOCAL)
    start = {"w": jnp.asarray(START, "f4"), "norm_bias": jnp.float32(0.5)}
    state = algorithm.init(start, 4)
    sums = algorithm.client(
        algorithm.offer(state.params, state.server),
        fl.Client(
            jax.tree.map(lambda x: x[0], state.clients),
            jax.tree.map(lambda x: x[0], COHORT.data),
        ),
    ).sums
    assert sums["delta"]["norm_bias"] is None
    state, _ = algorithm.round(state, COHORT)
    own = np.asarray(state.clients["norm_bias"])
    assert state.clients["w"] is None and float(state.params["norm_bias"]) == 0.5
    assert own[2] == 0.5 and len({*own.tolist()}) == 4  # the third did not answer
    # The client's own loss is at the merged parameters: train one alone by hand.
    w, b = START.copy(), 0.5
    x, y = DATA[1]
    for _ in range(hand.EPOCHS):
        error = x @ w + b - y
        w, b = w - hand.RATE * x.T @ error, b - hand.RATE * np.sum(error)
    np.testing.assert_allclose(own[1], b, rtol=1e-5)


def test_entries_that_the_loss_computes_anew_replace_the_old_ones() -> None:
    """As Flax's batch_stats: a running mean, which no optimiser touches."""

    def loss(params: Any, batch: Any) -> Any:
        x, y = batch
        seen = 0.5 * params["stats"] + 0.5 * jnp.mean(x, axis=0)
        return jnp.square(x @ params["w"] - y), {"stats": seen}

    local = {"epochs": 2}
    algorithm = fl.fedavg(loss, client=optax.sgd(0.1, momentum=0.9), **local)
    start = {"w": jnp.zeros(3), "stats": jnp.ones(3)}
    x = np.stack([x[:2] for x, _ in DATA]).astype("f4")
    y = np.stack([y[:2] for _, y in DATA]).astype("f4")
    state, _ = algorithm.round(algorithm.init(start), (x, y))
    want = 0.25 + 0.75 * x.mean(axis=(0, 1))
    np.testing.assert_allclose(state.params["stats"], want, rtol=1e-5)


def test_shuffling_needs_a_key_and_keeps_padding_out() -> None:
    """With as many epochs as it likes, a client sees each of its examples per epoch."""

    def loss(params: Any, batch: Any) -> Any:
        return params * batch[1]  # the gradient of a sum of such losses counts examples

    algorithm = fl.fedavg(loss, client=optax.sgd(1.0), batch_size=1, shuffle=True)
    state = algorithm.init(jnp.float32(0))
    key = jax.random.split(insecure_key(0), 2)
    got = [algorithm.round(state, COHORT, key=k)[0].params for k in (key[0], key[1])]
    sizes = np.array([hand.SIZES[i] for i in HERE], float)
    each = [-np.sum(DATA[i][1]) for i in HERE]
    np.testing.assert_allclose(got, np.average(each, weights=sizes), rtol=1e-5)
