"""PATE: teachers vote, a student learns from noisy votes (Papernot et al. 2017, 2018).

    python examples/pate.py [--epochs 300] [--epsilon 3]

The private rows are dealt to many teachers, each trained on its own. One row can change
one teacher, hence one vote of every question, and whatever the teachers are: no gradient
is clipped. The student asks for the labels of public rows, gets the winner of each noised
count, and never sees anything else of the private rows.
"""

import argparse
import math

import jax
import jax.numpy as jnp
import numpy as np

import privjax

TEACHERS, QUESTIONS, DELTA = 40, 30, 1e-4
# The public statistics here come from all rows; epsilon does not cover that.
data = privjax.datasets.pima_diabetes()
public_x, held_x = data.x_test[: len(data.x_test) // 2], data.x_test[77:]
held_y = data.y_test[77:]


def logits(params, x):
    return x @ params["w"] + params["b"]


def fitted(x, y, weights, epochs):
    """Logistic regression by gradient descent, with a little weight decay."""

    def loss(params):
        z = logits(params, x)
        rows = jax.nn.softplus(z) - y * z
        decay = 0.01 * jnp.sum(params["w"] ** 2)
        return jnp.sum(weights * rows) / jnp.sum(weights) + decay

    def body(params, _):
        grads = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), None

    start = {"w": jnp.zeros(x.shape[1]), "b": jnp.zeros(())}
    return jax.lax.scan(body, start, None, length=epochs)[0]


def train_teachers(epochs):
    """All teachers at once, each on its own rows."""
    rows = np.random.default_rng(0).permutation(len(data.x_train))
    rows = rows[: len(rows) // TEACHERS * TEACHERS].reshape(TEACHERS, -1)
    weights = jnp.ones(rows.shape[1])
    train = jax.jit(jax.vmap(lambda x, y: fitted(x, y, weights, epochs)))
    return train(data.x_train[rows], data.y_train[rows])


def count_votes(teachers, x):
    """[questions, 2]: how many teachers say no, and yes."""
    yes = jnp.sum(jax.vmap(lambda p: logits(p, x) > 0)(teachers), axis=0)
    return jnp.stack([TEACHERS - yes, yes], axis=1).astype(jnp.float32)


def answer(votes, epsilon):
    """Labels of the public rows, and the ledger that says what they cost."""
    ledger = privjax.dp.Ledger(budget=privjax.dp.Budget(epsilon, DELTA))
    # A changed vote moves two counts by one: sqrt(2) in Euclidean norm.
    make = lambda z: privjax.dp.RoundedGaussian.of(z, math.sqrt(2), 2)  # noqa: E731
    mechanism = make(ledger.calibrate(make, len(votes)))
    ledger.spend(mechanism, len(votes))
    labels = [
        np.argmax(privjax.dp.noised(v, mechanism, key=privjax.random.key()))
        for v in votes
    ]
    return jnp.asarray(labels, jnp.float32), ledger


def accuracy(params, x, y):
    return float(jnp.mean((logits(params, x) > 0) == (y > 0.5)))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--epsilon", type=float, default=3.0)
    options = parser.parse_args(arguments)

    teachers = train_teachers(options.epochs)
    votes = count_votes(teachers, public_x[:QUESTIONS])
    labels, ledger = answer(votes, options.epsilon)
    student = fitted(public_x[:QUESTIONS], labels, jnp.ones(QUESTIONS), options.epochs)
    each = [jax.tree.map(lambda a, i=i: a[i], teachers) for i in range(TEACHERS)]
    found = {
        "a teacher, on average": np.mean([accuracy(t, held_x, held_y) for t in each]),
        "votes that noise changed": jnp.mean(labels != jnp.argmax(votes, axis=1)),
        "the student": accuracy(student, held_x, held_y),
        "epsilon": ledger.epsilon(DELTA),
    }
    for name, value in found.items():
        print(f"{name:<26} {float(value):.3f}")
    return {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    main()
