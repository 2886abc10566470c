"""Federated learning on handwritten digits: algorithms, secure sums, privacy.

    python examples/federated_digits.py [--rounds 60] [--clients 2000]

Every client has 10 images in a mix of its own (Dirichlet 0.3), a round asks 100 clients,
and a tenth of them drop out. The same client update is averaged in the clear, under
secure aggregation, with client-level differential privacy, by an adaptive server, and by
a robust statistic: one argument each.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import privjax

fl, aggregation = privjax.fl, privjax.aggregation
COHORT, DELTA = 100, 1e-4
data = privjax.datasets.digits()


def start():
    rng = np.random.default_rng(0)
    return {
        "w1": rng.normal(0, 0.18, (64, 32)).astype(np.float32),
        "b1": np.zeros(32, np.float32),
        "w2": rng.normal(0, 0.18, (32, 10)).astype(np.float32),
        "b2": np.zeros(10, np.float32),
    }


def logits(params, x):
    return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def losses(params, batch):
    """One loss per example."""
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)


def right(params, batch):
    x, y = batch
    return {"accuracy": jnp.argmax(logits(params, x), axis=1) == y}


def algorithms():
    client = {"client": optax.sgd(0.3), "epochs": 2}
    secure = privjax.secure_sum(dropped=0.3, neighbours="auto")
    noise = aggregation.CentralGaussian(1.0)
    private = aggregation.plain(clip=0.5, noise=noise)
    return {
        "FedAvg": fl.fedavg(losses, **client),
        "FedAdam": fl.fedadam(losses, rate=0.05, **client),
        "trimmed mean": fl.fedavg(losses, robust=fl.trimmed_mean(0.1), **client),
        "secure sums": fl.fedavg(losses, aggregate=secure, **client),
        "private": fl.fedavg(losses, aggregate=private, expected=COHORT, **client),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", "--epochs", type=int, default=60)
    parser.add_argument("--clients", type=int, default=2000)
    options = parser.parse_args(arguments)

    rows = fl.partition.population(data.y_train, options.clients, 10, alpha=0.3)
    clients = fl.ClientData((data.x_train, data.y_train), rows)
    uniform = fl.FixedSize(options.clients, COHORT)
    poisson = fl.Poisson(options.clients, COHORT / options.clients)
    found, states = {}, {}
    for name, algorithm in algorithms().items():
        run = fl.fit(
            algorithm,
            algorithm.init(start()),
            clients,
            # Poisson sampling amplifies privacy; the ledger is charged for it.
            sampler=poisson if name == "private" else uniform,
            faults=fl.Faults(dropped=0.1),
            rounds=options.rounds,
            delta=DELTA if name == "private" else None,
            progress=False,
            key=privjax.random.insecure_key(0),
        )
        hits = right(run.state.params, (data.x_test, data.y_test))["accuracy"]
        found[name], states[name] = float(jnp.mean(hits)), run.state
        epsilon = "" if run.epsilon is None else f"  epsilon {run.epsilon:.2f}"
        print(f"{name:<13} {found[name]:.3f}{epsilon}")

    # Asked of the clients: only sums over all of them come back.
    ask = fl.evaluation(right, weigh="clients", deviation=True)
    some = clients.cohort(np.arange(200))
    answer = ask(states["FedAvg"].params, some)
    print(privjax.explain(ask.algorithm.round, states["FedAvg"], some))
    for name in ("accuracy", "accuracy_deviation"):
        found[name] = float(answer[name])
        print(f"{name:<18} {found[name]:.3f} over 200 clients")
    return found


if __name__ == "__main__":
    main()
