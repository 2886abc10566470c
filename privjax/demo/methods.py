"""The rows of the table: one epoch of the same training under each technique.

Every method starts from the same parameters. Those without noise see the same batches;
private ones draw Poisson samples with the same expected size, because that is what their
epsilon is accounted for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import privjax
from privjax.demo import batches
from privjax.demo.workloads import Params, Workload, mlp

BATCH = 32
CLIENTS = PARTIES = 2
DELTA = 1e-5
EPSILONS = (0.5, 3.0)
COMPOSED_EPSILON = 3.0
# An overflowing sample stops the run; its chance is this part of delta.
_OVERFLOW = 1e-3 * DELTA


@dataclass(frozen=True)
class Traffic:
    """What the parties send each other: rounds of a step, megabytes of an epoch."""

    rounds: float
    megabytes: float
    dealt_megabytes: float = 0.0


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
      name: what the table and the plot call it.
      feed: the batches of the next epoch; called once per epoch, outside of the timing.
      epoch: (state, batches, key) -> state.
      start: parameters -> state; `clear`: state -> parameters.
      traffic: None where no parties talk; a function of (state, batches).
      epsilon: at DELTA, for all epochs together; None without noise.
    """

    name: str
    feed: Callable[[], Any]
    epoch: Callable[[Any, Any, Any], Any]
    start: Callable[[Params], Any] = lambda params: params
    clear: Callable[[Any], Params] = lambda state: state
    traffic: Callable[[Any, Any], Traffic] | None = None
    epsilon: float | None = None

    @property
    def label(self) -> str:
        """The name, with epsilon where there is one."""
        return self.name + (f", ε = {self.epsilon:.2g}" if self.epsilon else "")


def sgd_step(
    loss: Callable[[Params, Any], Any], rate: float
) -> Callable[[Params, Any], Params]:
    """An ordinary train step."""

    def step(params: Params, batch: Any) -> Params:
        grads = jax.grad(loss)(params, batch)
        return jax.tree.map(lambda p, g: p - rate * g, params, grads)

    return step


def mean_loss(task: Workload) -> Callable[[Params, Any], Any]:
    def loss(params: Params, batch: Any) -> Any:
        return jnp.mean(task.loss(mlp(params, batch["x"]), batch["y"]))

    return loss


def masked_loss(task: Workload, expected: float) -> Callable[[Params, Any], Any]:
    """Over a padded Poisson sample, with a fixed denominator: dividing by the number of
    rows that were drawn would tell it.
    """

    def loss(params: Params, batch: Any) -> Any:
        rows = task.loss(mlp(params, batch["x"]), batch["y"])
        return jnp.sum(batch["mask"] * rows) / expected

    return loss


def scan_steps(step: Callable[..., Params]) -> Callable[[Params, Any, Any], Params]:
    """One jitted epoch of a step without randomness."""

    @jax.jit
    def epoch(params: Params, steps: Any, key: Any) -> Params:
        return jax.lax.scan(lambda p, b: (step(p, b), None), params, steps)[0]

    return epoch


def scan_random_steps(
    step: Callable[..., Params],
) -> Callable[[Params, Any, Any], Params]:
    """One jitted epoch of a step that takes a key: every step its own."""

    @jax.jit
    def epoch(params: Params, steps: Any, key: Any) -> Params:
        keys = jax.random.split(key, len(steps["y"]))
        body = lambda p, xs: (step(p, xs[0], key=xs[1]), None)  # noqa: E731
        return jax.lax.scan(body, params, (steps, keys))[0]

    return epoch


def plain(task: Workload, seed: int) -> Method:
    feed = _same_batches(task, seed, merge=True)
    return Method(
        "plain JAX", feed, scan_steps(sgd_step(mean_loss(task), task.learning_rate))
    )


def federated(task: Workload, seed: int) -> Method:
    """Each step is a round: two clients, each with half of the batch."""
    step = sgd_step(mean_loss(task), task.learning_rate)
    shared_round = privjax.federated(step, clients="batch")
    return Method(
        f"federated, {CLIENTS} clients",
        _same_batches(task, seed, merge=False),
        scan_steps(shared_round),
        traffic=_model_traffic(bytes_up=4),
    )


def secret_shared(task: Workload, seed: int) -> Method:
    """Two parties: one holds the features, the other the targets; nobody the model.

    By "semi2k", the protocol that frameworks without MACs have to be compared with.
    """
    step = sgd_step(mean_loss(task), task.learning_rate)

    def epoch(params: Params, x: Any, y: Any) -> Params:
        steps = {"x": x, "y": y}
        return jax.lax.scan(lambda p, b: (step(p, b), None), params, steps)[0]

    hidden = privjax.secret_shared(
        epoch, PARTIES, "semi2k", owners={"x": 0, "y": 1}, reveal=False
    )

    share = jax.jit(lambda tree, key: privjax.share(tree, PARTIES, "semi2k", key))

    def traffic(state: Any, steps: Any) -> Traffic:
        cost = hidden.cost(state, steps["x"], steps["y"])
        rounds = cost.rounds / len(steps["y"])
        return Traffic(rounds, cost.sent_megabytes, cost.dealt_megabytes)

    return Method(
        f"secret-shared, {PARTIES}-party",
        _same_batches(task, seed, merge=True),
        lambda params, steps, key: hidden(params, steps["x"], steps["y"], key=key),
        start=lambda params: share(params, privjax.random.key()),
        clear=jax.jit(privjax.reveal),
        traffic=traffic,
    )


def private(task: Workload, epochs: int, epsilon: float) -> Method:
    """DP-SGD; the unit is an example."""
    steps = len(task.x_train) // BATCH
    rate = BATCH / len(task.x_train)
    step = privjax.differentially_private(
        sgd_step(masked_loss(task, BATCH), task.private_rates[epsilon]),
        private="batch",
        clip_norm=1.0,
        denominator=BATCH,
    ).noise_for(epsilon=epsilon, steps=epochs * steps, sampling_rate=rate, delta=DELTA)
    room = batches.capacity(len(task.x_train), rate, epochs * steps, _OVERFLOW)

    def feed() -> Any:
        key = privjax.random.key()
        return batches.poisson(key, task.x_train, task.y_train, rate, steps, room)

    spent = step.epsilon(steps=epochs * steps, sampling_rate=rate, delta=DELTA)
    return Method("DP-SGD", feed, scan_random_steps(step), epsilon=spent)


def all_together(task: Workload, epochs: int, epsilon: float) -> Method:
    """DP inside of a federated round with secure aggregation.

    Each client clips and noises its own examples' gradients before the masks go on, with
    the noise that its epsilon asks for: the guarantee covers each example against the
    server and against the other client.
    """
    clients = batches.owners(len(task.x_train), CLIENTS)
    size, expected = clients[0].stop, BATCH // CLIENTS
    steps, rate = size // expected, expected / size
    client = privjax.differentially_private(
        sgd_step(masked_loss(task, expected), task.private_rates[epsilon]),
        private="batch",
        clip_norm=1.0,
        denominator=expected,
    ).noise_for(epsilon=epsilon, steps=epochs * steps, sampling_rate=rate, delta=DELTA)
    shared_round = privjax.federated(client, clients="batch", aggregate="secure")
    room = batches.capacity(size, rate, epochs * steps * CLIENTS, _OVERFLOW)

    def feed() -> Any:
        samples = [
            batches.poisson(
                privjax.random.key(),
                task.x_train[rows],
                task.y_train[rows],
                rate,
                steps,
                room,
            )
            for rows in clients
        ]
        return jax.tree.map(lambda *xs: jnp.stack(xs, axis=1), *samples)

    spent = client.epsilon(steps=epochs * steps, sampling_rate=rate, delta=DELTA)
    return Method(
        "federated, secure, DP",
        feed,
        scan_random_steps(shared_round),
        traffic=_model_traffic(bytes_up=8),
        epsilon=spent,
    )


def all_methods(task: Workload, epochs: int, seed: int) -> Iterator[Method]:
    """Every row of the table, plain JAX first; each is built when its turn comes."""
    yield plain(task, seed)
    yield federated(task, seed)
    yield secret_shared(task, seed)
    for epsilon in EPSILONS:
        yield private(task, epochs, epsilon)
    yield all_together(task, epochs, COMPOSED_EPSILON)


def _same_batches(task: Workload, seed: int, merge: bool) -> Callable[[], Any]:
    """A feed that gives every method with this seed the same rows in the same steps."""
    rng = np.random.default_rng([seed, 1])

    def feed() -> Any:
        steps = batches.shuffled(rng, task.x_train, task.y_train, BATCH, CLIENTS)
        return batches.merged(steps) if merge else steps

    return feed


def _model_traffic(bytes_up: int) -> Callable[[Any, Any], Traffic]:
    """The server sends the model to every client, and each sends its update back."""

    def traffic(params: Params, steps: Any) -> Traffic:
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        once = CLIENTS * count * (4 + bytes_up)
        return Traffic(rounds=2, megabytes=len(steps["y"]) * once / 1e6)

    return traffic
