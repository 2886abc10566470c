"""Split learning: plain and shared cuts are the centralised step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from privjax import fl
from privjax.errors import InputError
from privjax.prg import insecure_key

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype("f4")
Y = (X[:, 0] > 0).astype("f4")
COLUMNS = fl.partition.by_column(5, [2, 3])
FEATURES = [X[:, c] for c in COLUMNS]
BOTTOMS = [
    {"w": RNG.normal(size=(n, 2)).astype("f4"), "b": np.zeros(2, "f4")} for n in (2, 3)
]
TOP = RNG.normal(size=2).astype("f4")
OPTIMISER = optax.sgd(0.2, momentum=0.5)


def bottom(params: Any, x: Any) -> Any:
    return x @ params["w"] + params["b"]


def top(params: Any, layers: Any, labels: Any) -> Any:
    h = jax.nn.relu(sum(layers))
    return jnp.square(h @ params - labels)


def centralised(steps: int) -> tuple[Any, list[float]]:
    """The whole model in one place."""
    params = jax.tree.map(jnp.asarray, (tuple(BOTTOMS), TOP))

    def loss(params: Any) -> Any:
        bottoms, own = params
        layers = [bottom(p, x) for p, x in zip(bottoms, FEATURES, strict=True)]
        return jnp.mean(top(own, layers, Y))

    state, losses = OPTIMISER.init(params), []
    for _ in range(steps):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = OPTIMISER.update(grads, state)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    return params, losses


@pytest.mark.parametrize(("cut", "atol"), [("plain", 1e-6), ("shared", 2e-4)])
def test_three_steps_are_the_centralised_ones(cut: str, atol: float) -> None:
    model = fl.vertical.split([bottom] * 2, top, optimiser=OPTIMISER, cut=cut)
    state = model.init(BOTTOMS, TOP)
    want, losses = centralised(3)
    extra = {} if cut == "plain" else {"key": insecure_key(0)}
    step = jax.jit(lambda s, **k: model.step(s, FEATURES, Y, **k))
    for expected in losses:
        state, loss = step(state, **extra)
        np.testing.assert_allclose(loss, expected, atol=10 * atol)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=atol)  # noqa: E731
    jax.tree.map(close, (state.bottoms, state.top), want)


def test_what_leaves_a_party_is_its_cut_layer() -> None:
    model = fl.vertical.split([bottom] * 2, top, optimiser=OPTIMISER)
    layers = model.cuts(model.init(BOTTOMS, TOP), FEATURES)
    assert [h.shape for h in layers] == [(6, 2), (6, 2)]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "cut": (
        lambda: fl.vertical.split([bottom], top, optimiser=OPTIMISER, cut="x"),
        "cut='x'",
    ),
    "options": (
        lambda: fl.vertical.split([bottom], top, optimiser=OPTIMISER, parties=2),
        "no meaning",
    ),
    "nobody": (lambda: fl.vertical.split([], top, optimiser=OPTIMISER), "no parties"),
    "parameters": (lambda: model().init(BOTTOMS[:1], TOP), "1 parties' parameters"),
    "features": (
        lambda: model().step(model().init(BOTTOMS, TOP), FEATURES[:1], Y),
        "1 parties' features",
    ),
    "rows": (
        lambda: model().step(
            model().init(BOTTOMS, TOP), [FEATURES[0], FEATURES[1][:3]], Y
        ),
        "not the same ones",
    ),
}


def model() -> Any:
    return fl.vertical.split([bottom] * 2, top, optimiser=OPTIMISER)


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    run, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        run()
