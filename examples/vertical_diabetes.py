"""Vertical learning: two hospitals know different things about the same patients.

    python examples/vertical_diabetes.py [--epochs 5]

The first hospital has half of the features, the second one the others and the diagnosis.
Each runs a bottom model on its own columns; a top model joins what they give, the cut
layer. With `cut="plain"` the second hospital sees the first one's cut layer; with
`cut="shared"` both are secret-shared, the top model is trained on shares, and only
gradients come back to their owners. Both train the model that one place would.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import privjax

BATCH, WIDTH = 64, 4
data = privjax.datasets.pima_diabetes()
COLUMNS = privjax.fl.partition.by_column(data.x_train.shape[1], 2)


def bottom(params, x):
    return jax.nn.relu(x @ params["w"] + params["b"])


def top(params, layers, labels):
    """One loss per patient."""
    z = jnp.concatenate(layers, axis=1) @ params["w"] + params["b"]
    return jax.nn.softplus(z) - labels * z


def start():
    rng = np.random.default_rng(0)
    bottoms = [
        {"w": rng.normal(0, 0.5, (len(c), WIDTH)), "b": np.zeros(WIDTH)}
        for c in COLUMNS
    ]
    parties = len(COLUMNS) * WIDTH
    head = {"w": rng.normal(0, 0.5, parties), "b": np.zeros(())}
    return jax.tree.map(lambda a: np.asarray(a, np.float32), (bottoms, head))


def train(cut, epochs):
    model = privjax.fl.vertical.split(
        [bottom, bottom], top, optimiser=optax.sgd(0.5, momentum=0.9), cut=cut
    )
    state = model.init(*start())
    step = jax.jit(lambda s, xs, y, key: model.step(s, xs, y, key=key))
    rows = np.random.default_rng(0)
    for _ in range(epochs):
        order = rows.permutation(len(data.y_train) // BATCH * BATCH)
        for batch in order.reshape(-1, BATCH):
            features = [data.x_train[batch][:, c] for c in COLUMNS]
            key = privjax.random.key()
            state, loss = step(state, features, data.y_train[batch], key)
    layers = model.cuts(state, [data.x_test[:, c] for c in COLUMNS])
    z = jnp.concatenate(layers, axis=1) @ state.top["w"] + state.top["b"]
    return float(loss), float(jnp.mean((z > 0) == (data.y_test > 0.5)))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args(arguments)
    found = {}
    for cut in ("plain", "shared"):
        loss, accuracy = train(cut, options.epochs)
        found[cut] = accuracy
        print(f"cut layer {cut:<7} last loss {loss:.4f}  test accuracy {accuracy:.3f}")
    return found


if __name__ == "__main__":
    main()
