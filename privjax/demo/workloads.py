"""The two training tasks: data, model size, loss and test metrics.

They are those of Ryffel et al. (2018, arXiv 1811.04017): Boston Housing with an MLP
13-32-24-1 and mean squared error, Pima Indians Diabetes with an MLP 8-12-8-1 and the
binary log-loss, both trained by plain SGD.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from privjax import datasets

Params = list[dict[str, Any]]
Floats = NDArray[np.float32]

# Home values lie between 5 and 50 by the census's own limits: a public map to about
# [-2, 2.5] that looks at no row, so that no privacy guarantee has to pay for it.
_CENTRE, _SCALE = 25.0, 10.0


@dataclass(frozen=True)
class Workload:
    """One data set with what is trained on it.

    Attributes:
      name, title: for the command line and for the reader.
      sizes: widths of the MLP's layers, input and output included.
      x_train, y_train, x_test, y_test: [rows, features] and [rows]; targets as the model
        is trained on them.
      loss: (outputs [rows], targets [rows]) -> loss of each row.
      metrics: name -> function of (outputs, targets) on the test rows; the first one is
        drawn as the learning curve.
      learning_rate: of SGD; `private_rates` for each epsilon of the private rows.
      notes: what the reader of the table has to know about this data.
    """

    name: str
    title: str
    sizes: tuple[int, ...]
    x_train: Floats
    y_train: Floats
    x_test: Floats
    y_test: Floats
    loss: Callable[[Any, Any], Any]
    metrics: Mapping[str, Callable[[Floats, Floats], float]]
    learning_rate: float
    private_rates: Mapping[float, float]
    notes: tuple[str, ...] = ()

    def init(self, seed: int) -> Params:
        """He initialisation for the hidden layers, a small last layer, zero biases."""
        rng = np.random.default_rng(seed)
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        scales = [np.sqrt(2 / n) for n, _ in pairs[:-1]] + [0.1]
        return [
            {
                "w": jnp.asarray(scale * rng.standard_normal((n, m)), jnp.float32),
                "b": jnp.zeros(m, jnp.float32),
            }
            for (n, m), scale in zip(pairs, scales, strict=True)
        ]

    def evaluate(self, params: Params) -> dict[str, float]:
        """The metrics on the test rows."""
        outputs = np.asarray(mlp(params, self.x_test))
        return {name: f(outputs, self.y_test) for name, f in self.metrics.items()}

    def shrunk(self, rows: int, width: int) -> "Workload":
        """A small version for a smoke test: one hidden layer, the first rows only."""
        return dataclasses.replace(
            self,
            sizes=(self.sizes[0], width, 1),
            x_train=self.x_train[:rows],
            y_train=self.y_train[:rows],
        )


def mlp(params: Params, x: Any) -> Any:
    """x [rows, features] -> outputs [rows]: dense layers with relu between them."""
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return (x @ last["w"] + last["b"])[:, 0]


def squared_error(outputs: Any, targets: Any) -> Any:
    return jnp.square(outputs - targets)


@jax.custom_jvp
def softplus(x: Any) -> Any:
    """log(1 + exp(x)). That its derivative is the sigmoid is something JAX does not know:
    saying so spares the secret-shared step a logarithm and an exponential.
    """
    return jax.nn.softplus(x)


softplus.defjvp(lambda x, dx: (softplus(*x), jax.nn.sigmoid(*x) * dx[0]))


def log_loss(logits: Any, targets: Any) -> Any:
    """-log p(target), p = sigmoid(logit), written so that it cannot overflow."""
    return softplus(logits) - targets * logits


def home_value_error(outputs: Floats, targets: Floats) -> float:
    """Mean squared error in (1000 USD)^2."""
    return float(np.mean(np.square((outputs - targets) * _SCALE)))


def accuracy(logits: Floats, targets: Floats) -> float:
    return float(np.mean((logits > 0) == (targets > 0.5)))


def auc(logits: Floats, targets: Floats) -> float:
    """Probability that a positive row scores above a negative one; ties count half."""
    positive, negative = logits[targets > 0.5], logits[targets <= 0.5]
    above = positive[:, None] > negative[None, :]
    equal = positive[:, None] == negative[None, :]
    return float(np.mean(above + 0.5 * equal))


def boston(drop_b: bool = False) -> Workload:
    data = datasets.boston_housing(drop_b=drop_b)
    race = (
        "Column b, which encodes race, was left out (--drop-b)."
        if drop_b
        else "Column b encodes race: a model given it prices homes by race. It is here to "
        "compare with published results; --drop-b leaves it out."
    )
    return Workload(
        name="boston",
        title="Boston Housing",
        sizes=(data.x_train.shape[1], 32, 24, 1),
        x_train=data.x_train,
        y_train=(data.y_train - _CENTRE) / _SCALE,
        x_test=data.x_test,
        y_test=(data.y_test - _CENTRE) / _SCALE,
        loss=squared_error,
        metrics={"test MSE": home_value_error},
        learning_rate=0.03,
        private_rates={0.5: 0.05, 3.0: 0.1},
        notes=(
            "Targets are trained as (value - 25) / 10, a public map; MSE is in "
            "(1000 USD)^2.",
            race,
        ),
    )


def pima(drop_b: bool = False) -> Workload:
    """Pima has no column b; the argument is there so that all loaders look alike."""
    data = datasets.pima_diabetes()
    return Workload(
        name="pima",
        title="Pima Indians Diabetes",
        sizes=(8, 12, 8, 1),
        x_train=data.x_train,
        y_train=data.y_train,
        x_test=data.x_test,
        y_test=data.y_test,
        loss=log_loss,
        metrics={"test AUC": auc, "test acc.": accuracy},
        learning_rate=0.2,
        private_rates={0.5: 0.2, 3.0: 0.2},
    )


WORKLOADS: Mapping[str, Callable[[bool], Workload]] = {"boston": boston, "pima": pima}


def load(names: Sequence[str], drop_b: bool = False) -> list[Workload]:
    return [WORKLOADS[name](drop_b) for name in names]
