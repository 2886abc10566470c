"""The federated program: one algorithm, from which both sides are made."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from privjax import fl, secure_sum
from privjax.datasets.digits import digits

CLIENTS, HIDDEN = 4, 64
DIGITS = digits()


def parameters() -> Any:
    """The model before the first round."""
    rng = np.random.default_rng(0)
    sizes = [("1", 64, HIDDEN), ("2", HIDDEN, 10)]
    weights = {f"w{n}": rng.normal(0, 0.18, (i, o)).astype("f4") for n, i, o in sizes}
    return {**weights, **{f"b{n}": np.zeros(o, "f4") for n, _, o in sizes}}


def logits(params: Any, x: Any) -> Any:
    """float32[examples, 10]."""
    hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def losses(params: Any, batch: Any) -> Any:
    """The cross entropy of each example."""
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)


# A quarter of those who have trained may be gone before the round is over.
ALGORITHM = fl.fedavg(
    losses,
    client=optax.sgd(0.5),
    batch_size=32,
    epochs=2,
    aggregate=secure_sum(dropped=0.25),
)


def own(number: int) -> Any:
    """The examples of one client; a real one would read its own."""
    rows = fl.partition.dirichlet(DIGITS.y_train, CLIENTS, 0.3)[number]
    return DIGITS.x_train[rows], DIGITS.y_train[rows]


def client(config: dict[str, Any]) -> Any:
    """The client of a node, made once in the process that stays."""
    data = own(int(config["partition-id"]))
    return fl.participant(ALGORITHM, parameters(), data, clients=CLIENTS)


def accuracy(state: fl.State) -> dict[str, Any]:
    """On the test digits, which the server has."""
    found = jnp.argmax(logits(state.params, DIGITS.x_test), axis=1)
    return {"accuracy": jnp.mean(found == DIGITS.y_test)}
