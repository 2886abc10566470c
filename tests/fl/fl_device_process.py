"""A run on 4 devices: `fl_device_process.py OUT` or `... OUT PROCESS PORT` of two."""

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from privjax import fl
from privjax.prg import insecure_key

CLIENTS, EXAMPLES = 8, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(CLIENTS, EXAMPLES, 3)).astype("f4")
Y = (X @ np.array([1.0, -2.0, 0.5])).astype("f4")
MASK = RNG.random((CLIENTS, EXAMPLES)) < 0.8
SURVIVORS = np.arange(CLIENTS) != 5


def losses(params: Any, batch: Any) -> Any:
    return jnp.square(batch[0] @ params - batch[1])


LOCAL = {"batch_size": 3, "epochs": 2}
ALGORITHMS: dict[str, Any] = {
    "fedadam": lambda **o: fl.fedadam(
        losses, client=optax.sgd(0.1), rate=0.1, **LOCAL, **o
    ),
    "scaffold": lambda **o: fl.scaffold(
        losses, rate=0.1, clients=CLIENTS, **LOCAL, **o
    ),
    "secure": lambda **o: fl.fedavg(
        losses, client=optax.sgd(0.1), aggregate="secure", **o
    ),
}


def run(name: str, runtime: Any, place: Any = lambda x: x, same: Any = None) -> Any:
    """The model and the clients' states after two rounds."""
    algorithm = ALGORITHMS[name](runtime=runtime)
    survivors = None if name == "secure" else SURVIVORS
    cohort = place(fl.Cohort((X, Y), mask=MASK, survivors=survivors))
    state = algorithm.init(jnp.zeros(3), CLIENTS)
    state = state if same is None else same(state)
    for k in range(2):
        extra = {}
        if algorithm.round.needs_key:
            key = jax.random.fold_in(insecure_key(0), k)
            extra["key"] = key if same is None else same(key)
        state, metrics = algorithm.round(state, cohort, **extra)
    return {
        name: state.params,
        f"{name} loss": metrics["loss"],
        **({f"{name} states": state.clients} if name == "scaffold" else {}),
    }


def few(runtime: Any) -> Any:
    """Six clients, which do not divide among four devices."""
    algorithm = ALGORITHMS["scaffold"](runtime=runtime)
    cohort = fl.Cohort((X[:6], Y[:6]), mask=MASK[:6], ids=np.arange(6))
    state, _ = algorithm.round(algorithm.init(jnp.zeros(3), CLIENTS), cohort)
    return {"params of 6": state.params, "states of 6": state.clients}


def half(process: int, sharded: Any, tree: Any) -> Any:
    """The clients of one of two processes, on its devices."""
    mine = slice(process * CLIENTS // 2, (process + 1) * CLIENTS // 2)
    return sharded.place(jax.tree.map(lambda x: x[mine], tree))


def main() -> None:
    names = list(ALGORITHMS)
    if len(sys.argv) > 2:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{sys.argv[3]}", 2, int(sys.argv[2]))
        names = ["fedadam"]
    assert jax.device_count() == 4
    sharded = fl.Sharded(jax.make_mesh((4,), ("clients",)))
    out: dict[str, Any] = {}
    for name in names:
        if len(sys.argv) > 2:
            mine = partial(half, int(sys.argv[2]), sharded)
            out |= run(name, sharded, mine, sharded.everywhere)
        else:
            out |= run(name, sharded)
    if len(sys.argv) == 2:
        out |= few(sharded)
    np.savez(sys.argv[1], **{k: np.asarray(v) for k, v in out.items()})


if __name__ == "__main__":
    main()
