"""Boston Housing: one ordinary training program, and what privjax makes of it.

    python examples/boston_housing.py [--epochs 10]

The model is Flax's, the optimiser Optax's; nothing in `train_step` knows of privacy.
"""

import argparse

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import privjax

BATCH = 32
data = privjax.datasets.boston_housing()
# 1000 USD -> about [-2, 2.5]; a public map, as DP gives no cover to statistics of y.
scaled_prices = (data.y_train - 25) / 10

model = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(24), nn.relu, nn.Dense(1)])
optimiser = optax.sgd(0.03)


def loss(params, batch):
    predicted = model.apply(params, batch["x"])[:, 0]
    return jnp.mean((predicted - batch["y"]) ** 2)


def train_step(params, batch):
    updates, _ = optimiser.update(jax.grad(loss)(params, batch), optimiser.init(params))
    return optax.apply_updates(params, updates)


def epoch_of(step):
    """All steps of an epoch as one program; `step` may be a privjax function."""

    def epoch(params, batches):
        return jax.lax.scan(lambda p, b: (step(p, b), None), params, batches)[0]

    return epoch


def shuffled_batches(rng, clients=2):
    """[steps, clients, rows, ...]: each client's half of the rows, in a new order."""
    half = len(data.x_train) // clients
    rows = np.stack([c * half + rng.permutation(half) for c in range(clients)])
    each = BATCH // clients
    steps = half // each
    rows = rows[:, : steps * each].reshape(clients, steps, each).swapaxes(0, 1)
    return {"x": data.x_train[rows], "y": scaled_prices[rows]}


def pooled(batches):
    """The same batches for a single owner: [steps, BATCH, ...]."""
    return jax.tree.map(lambda a: a.reshape(len(a), BATCH, *a.shape[3:]), batches)


def test_mse(params):
    predicted = model.apply(params, data.x_test)[:, 0] * 10 + 25
    return float(np.mean((predicted - data.y_test) ** 2))


def initial_params():
    return model.init(jax.random.key(0), data.x_train[:1])


def train(epoch, epochs, prepare=lambda batches: batches):
    rng, params = np.random.default_rng(0), initial_params()
    for _ in range(epochs):
        params = epoch(params, prepare(shuffled_batches(rng)))
    return test_mse(params)


def train_privately(epochs, epsilon, delta=1e-5):
    """DP-SGD on all rows at once: each step is one sum over all examples."""
    steps = 5 * epochs
    rows = {"x": data.x_train, "y": scaled_prices}
    step = privjax.differentially_private(train_step, private="batch", clip_norm=3.0)
    step = step.noise_for(epsilon=epsilon, steps=steps, sampling_rate=1, delta=delta)

    @jax.jit
    def run(params, keys):
        body = lambda p, key: (step(p, rows, key=key), None)  # noqa: E731
        return jax.lax.scan(body, params, keys)[0]

    return test_mse(
        run(initial_params(), jax.random.split(privjax.random.key(), steps))
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args(arguments).epochs

    one_round = privjax.federated(train_step, clients="batch")
    # Parties that follow the protocol; without `protocol` those that do not are caught.
    hidden = privjax.secret_shared(epoch_of(train_step), parties=2, protocol="semi2k")

    mse = {
        "plain JAX": train(jax.jit(epoch_of(train_step)), epochs, pooled),
        "federated, 2 clients": train(jax.jit(epoch_of(one_round)), epochs),
        "secret-shared, 2 parties": train(hidden, epochs, pooled),
        "DP-SGD, epsilon 3": train_privately(epochs, epsilon=3.0),
    }
    for name, value in mse.items():
        print(f"{name:<26} test MSE {value:.2f}")
    return mse


if __name__ == "__main__":
    main()
