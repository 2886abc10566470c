"""An update of one client, and random clients for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CLIENTS, EXAMPLES, FEATURES = 4, 6, 3


def loss(params: Any, x: Any, y: Any) -> Any:
    return jnp.mean(jnp.square(x @ params["w"] + params["b"] - y))


def update(params: Any, data: Any) -> Any:
    """Two steps of SGD on one client's examples."""
    for _ in range(2):
        grads = jax.grad(loss)(params, *data)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    return params


def make(clients: int = CLIENTS, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=FEATURES), "b": rng.normal()}
    x = rng.normal(size=(clients, EXAMPLES, FEATURES))
    data = (x, rng.normal(size=(clients, EXAMPLES)))
    return jax.tree.map(lambda a: jnp.asarray(a, "f4"), (params, data))
