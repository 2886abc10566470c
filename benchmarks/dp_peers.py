"""A DP-SGD step beside other systems': jax_privacy and Opacus, and plain SGD in each.

MLP 784-512-256-10 at batches of 256 and 2048, and a CNN of two 3 x 3 convolutions (32 and
64 channels), max-pool and two dense layers on 28 x 28 pixels at a batch of 128; clipping
to norm 1, Gaussian noise of multiplier 1, SGD. Noise is drawn inside of every timed step.

Peers are optional, each in an environment of its own: with

    PEERS="jax_privacy=/path/to/python,opacus=/path/to/python"

every system is run by its own Python (see `peers`), with nothing of this package but this
folder.

    pip install jax-privacy==2.0.0
    pip install torch==2.13.0 opacus==1.6.0
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import Row

WORKLOADS = {"mlp 256": 256, "mlp 2048": 2048, "cnn 128": 128}
WIDTHS = (784, 512, 256, 10)
RATE = 0.1


def data(workload: str) -> tuple[np.ndarray, np.ndarray]:
    """Normal pixels, float32[batch, 784] or [batch, 28, 28, 1], and labels."""
    rng = np.random.default_rng(1)
    batch = WORKLOADS[workload]
    shape = (784,) if workload.startswith("mlp") else (28, 28, 1)
    x = rng.standard_normal((batch, *shape), dtype=np.float32)
    return x, rng.integers(0, 10, batch).astype(np.int32)


def timed(step: Callable[[], None]) -> Row:
    """Milliseconds of a step, and the seconds of the first."""
    begun = time.perf_counter()
    step()
    first = time.perf_counter() - begun
    return {**peers.repeated(step), "first s": first}


# -- JAX -------------------------------------------------------------------------------


def start(workload: str) -> dict[str, Any]:
    """Parameters by name."""
    import jax.numpy as jnp

    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        scale = np.prod(shape[:-1]) ** 0.5
        return jnp.asarray(rng.standard_normal(shape) / scale, jnp.float32)

    widths = WIDTHS if workload.startswith("mlp") else (9216, 128, 10)
    params = {
        f"dense{i}": (weights(m, n), jnp.zeros(n))
        for i, (m, n) in enumerate(zip(widths[:-1], widths[1:], strict=True))
    }
    if workload.startswith("cnn"):
        params["conv0"] = weights(3, 3, 1, 32), jnp.zeros(32)
        params["conv1"] = weights(3, 3, 32, 64), jnp.zeros(64)
    return params


def losses(params: dict[str, Any], x: Any, y: Any) -> Any:
    """Cross entropy of each example."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    for name in sorted(n for n in params if n.startswith("conv")):
        kernel, bias = params[name]
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=numbers
        )
        x = jax.nn.relu(x + bias)
    if x.ndim == 4:
        window = (1, 2, 2, 1)
        x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        x = x.reshape(len(x), -1)
    dense = sorted(n for n in params if n.startswith("dense"))
    for name in dense:
        weights, bias = params[name]
        x = x @ weights + bias
        x = x if name == dense[-1] else jax.nn.relu(x)
    found = jnp.take_along_axis(x, y[:, None], 1)[:, 0]
    return jax.nn.logsumexp(x, axis=1) - found


def sgd(params: Any, batch: Any) -> Any:
    import jax
    import jax.numpy as jnp

    grads = jax.grad(lambda p: jnp.mean(losses(p, *batch)))(params)
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


def run_jax(workload: str, step: Callable[..., Any], *state: Any) -> Row:
    """`step(params, batch, *state)` gives the next parameters and state."""
    import jax
    import jax.numpy as jnp

    batch = tuple(map(jnp.asarray, data(workload)))
    compiled = jax.jit(step, donate_argnums=0)
    now: Any = (start(workload), *state)

    def once() -> None:
        nonlocal now
        params, *rest = now
        now = jax.block_until_ready(compiled(params, batch, *rest))

    lowered = compiled.lower(start(workload), batch, *state)
    memory = lowered.compile().memory_analysis()
    found = timed(once)
    return {**found, "temporary MB": memory.temp_size_in_bytes / 1e6}


def plain(workload: str) -> Row:
    return run_jax(workload, lambda params, batch: (sgd(params, batch),))


def ours(workload: str, noise: float) -> Row:
    import jax

    import privjax

    private = privjax.differentially_private(sgd, noise_multiplier=noise)

    def step(params: Any, batch: Any, key: Any) -> Any:
        if not noise:
            return private(params, batch), key
        key, used = jax.random.split(key)
        return private(params, batch, key=used), key

    return run_jax(workload, step, privjax.random.key())


def jax_privacy(workload: str, microbatch: int | None) -> Row:
    import jax
    import jax_privacy as peer
    from jax_privacy import noise_addition

    def loss(params: Any, x: Any, y: Any) -> Any:
        return losses(params, x, y).mean()

    clipped = peer.clipped_grad(
        loss,
        l2_clip_norm=1.0,
        batch_argnums=(1, 2),
        normalize_by=float(WORKLOADS[workload]),
        microbatch_size=microbatch,
    )
    noise = noise_addition.gaussian_privatizer(
        stddev=clipped.sensitivity(), prng_key=jax.random.key(0)
    )

    def step(params: Any, batch: Any, state: Any) -> Any:
        grads, state = noise.update(clipped(params, *batch), state)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), state

    return run_jax(workload, step, noise.init(start(workload)))


# -- PyTorch ---------------------------------------------------------------------------


def opacus(workload: str, mode: str) -> Row:
    import torch
    from torch import nn

    if workload.startswith("mlp"):
        layers: list[Any] = []
        for m, n in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
            layers += [nn.Linear(m, n), nn.ReLU()]
        layers.pop()
    else:
        layers = [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU()]
        layers += [nn.Linear(128, 10)]
    model: Any = nn.Sequential(*layers)
    pixels, labels = data(workload)
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels).long()
    x = x if x.ndim == 2 else x.permute(0, 3, 1, 2).contiguous()
    criterion: Any = nn.CrossEntropyLoss()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=RATE)
    noise = {
        "noise_multiplier": 1.0,
        "max_grad_norm": 1.0,
        "expected_batch_size": len(x),
    }
    if mode == "hooks":
        from opacus.grad_sample import GradSampleModule
        from opacus.optimizers import DPOptimizer

        model = GradSampleModule(model)
        optimizer = DPOptimizer(optimizer, **noise)
    if mode == "ghost":
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.optimizers import DPOptimizerFastGradientClipping
        from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

        model = GradSampleModuleFastGradientClipping(
            model, max_grad_norm=1.0, use_ghost_clipping=True
        )
        optimizer = DPOptimizerFastGradientClipping(optimizer, **noise)
        criterion = DPLossFastGradientClipping(model, optimizer, criterion)

    def step() -> None:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()

    return timed(step)


# System -> what it is called, the distribution it needs, its step, whose environment.
SYSTEMS: dict[str, tuple[str, str, Callable[[str], Row]]] = {
    "plain": ("plain SGD, JAX", "jax", plain),
    "clipped": ("privjax, no noise", "privjax", partial(ours, noise=0.0)),
    "noisy": ("privjax", "privjax", partial(ours, noise=1.0)),
    "jax_privacy": (
        "jax_privacy",
        "jax_privacy",
        partial(jax_privacy, microbatch=None),
    ),
    "jax_privacy_32": (
        "jax_privacy, microbatches of 32",
        "jax_privacy",
        partial(jax_privacy, microbatch=32),
    ),
    "jax_privacy_1": (
        "jax_privacy, microbatches of 1",
        "jax_privacy",
        partial(jax_privacy, microbatch=1),
    ),
    "torch": ("plain SGD, PyTorch", "opacus", partial(opacus, mode="plain")),
    "opacus_hooks": ("Opacus, hooks", "opacus", partial(opacus, mode="hooks")),
    "opacus_ghost": ("Opacus, ghost", "opacus", partial(opacus, mode="ghost")),
}


def rows() -> list[Row]:
    out: list[Row] = []
    for workload in WORKLOADS:
        timed = {system: needs for system, (_, needs, _) in SYSTEMS.items()}
        measured = peers.in_turns(__file__, timed, workload)
        found = {
            system: {"name": workload, "step": name, **measured[system]}
            for system, (name, *_) in SYSTEMS.items()
        }
        out += peers.beside(found, "plain")
    return out


if __name__ == "__main__":
    _, needs, run = SYSTEMS[sys.argv[1]]
    print(json.dumps(peers.one(needs, lambda: run(sys.argv[2]))))
