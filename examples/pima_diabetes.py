"""Pima Indians Diabetes: two clinics train one classifier, three ways, without pooling.

    python examples/pima_diabetes.py [--epochs 10]

1. Secure aggregation: the server sees the sum of the clinics' updates only.
2. The same, and each clinic makes its updates differentially private first.
3. The model is trained on secret shares, and then used on shares: a prediction service
   that sees neither the patient nor, in separate processes, the model.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

import privjax

CLINICS, ROWS, RATE, DELTA = 2, 307, 0.3, 1e-5
data = privjax.datasets.pima_diabetes()
clinics = {
    "x": data.x_train.reshape(CLINICS, ROWS, -1),
    "y": data.y_train.reshape(CLINICS, ROWS),
}


def initial_params():
    rng = np.random.default_rng(0)
    sizes = [(8, 12), (12, 8), (8, 1)]
    return [
        {"w": jnp.float32(rng.normal(0, n**-0.5, (n, m))), "b": jnp.zeros(m)}
        for n, m in sizes
    ]


def logits(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return (x @ params[-1]["w"] + params[-1]["b"])[:, 0]


def log_loss(params, batch):
    z = logits(params, batch["x"])
    return jnp.mean(jax.nn.softplus(z) - batch["y"] * z)


def train_step(params, batch):
    grads = jax.grad(log_loss)(params, batch)
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


def accuracy(z):
    return float(np.mean((np.asarray(z) > 0) == (data.y_test > 0.5)))


def securely_aggregated(update, epochs):
    """Each step is one round: every clinic's step on all its rows, summed under masks."""
    one_round = privjax.federated(update, clients="batch", aggregate="secure")

    @jax.jit
    def run(params, keys):
        body = lambda p, key: (one_round(p, clinics, key=key), None)  # noqa: E731
        return jax.lax.scan(body, params, keys)[0]

    keys = jax.random.split(privjax.random.key(), 10 * epochs)
    return accuracy(logits(run(initial_params(), keys), data.x_test))


def private_update(epochs, epsilon):
    """The clinic's step as DP-SGD: the unit is a patient, every step sees all of them."""
    step = privjax.differentially_private(train_step, private="batch", clip_norm=1.0)
    return step.noise_for(
        epsilon=epsilon, steps=10 * epochs, sampling_rate=1, delta=DELTA
    )


def on_shares(epochs):
    """Train, then predict with the model still shared; only predictions are opened."""

    def train(params, batch):
        body = lambda p, _: (train_step(p, batch), None)  # noqa: E731
        return jax.lax.scan(body, params, None, length=10 * epochs)[0]

    everyone = {"x": data.x_train, "y": data.y_train}
    # Parties that follow the protocol; without `protocol` those that do not are caught.
    hidden_train = privjax.secret_shared(train, protocol="semi2k", reveal=False)
    hidden_logits = privjax.secret_shared(logits, protocol="semi2k")
    share = functools.partial(privjax.share, protocol="semi2k")
    params = hidden_train(share(initial_params()), share(everyone))
    return accuracy(hidden_logits(params, share(data.x_test)))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args(arguments).epochs
    results = {
        "secure aggregation": securely_aggregated(train_step, epochs),
        "  and DP, epsilon 3": securely_aggregated(private_update(epochs, 3.0), epochs),
        "on secret shares": on_shares(epochs),
    }
    for name, value in results.items():
        print(f"{name:<22} test accuracy {value:.3f}")
    return results


if __name__ == "__main__":
    main()
