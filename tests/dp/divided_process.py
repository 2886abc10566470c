"""A private step whose parameters are divided over four devices; prints what it found."""

import json
import os
import re

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

import privjax
from privjax.prg import insecure_key
from privjax.prg.divided import drawn_like

MESH = jax.make_mesh((4,), ("model",), (jax.sharding.AxisType.Auto,))
SPECS = {"w1": (None, "model"), "b1": ("model",), "w2": ("model", None), "b2": ()}
COLLECTIVE = re.compile(
    r"= (\S+) (?:all-gather|all-reduce|all-to-all|collective-permute)"
)


def step(params, batch):
    def loss(p):
        x, y = batch
        hidden = jnp.tanh(x @ p["w1"] + p["b1"])
        return jnp.mean((hidden @ p["w2"] + p["b2"] - y) ** 2)

    return jax.tree.map(lambda p, g: p - g, params, jax.grad(loss)(params))


def largest(text: str) -> int:
    """Elements of the largest array that devices exchange."""
    sizes = [0]
    for shapes in COLLECTIVE.findall(text):
        for dims in re.findall(r"\[([\d,]*)\]", shapes):
            sizes.append(int(np.prod([int(d) for d in dims.split(",") if d])))
    return max(sizes)


def main() -> None:
    rng = np.random.default_rng(0)
    shapes = {"w1": (120, 256), "b1": (256,), "w2": (256, 100), "b2": (100,)}
    params = {k: rng.normal(size=s).astype(np.float32) / 16 for k, s in shapes.items()}
    batch = [rng.normal(size=(8, n)).astype(np.float32) for n in (120, 100)]
    places = {k: NamedSharding(MESH, PartitionSpec(*s)) for k, s in SPECS.items()}
    # Fixed, so that the tests of its law do not fail once in a thousand runs.
    divided, key = jax.device_put(params, places), insecure_key(5)
    found: dict[str, object] = {}
    outs = {}
    for noise in (0.0, 1.0):
        f = privjax.differentially_private(step, noise_multiplier=noise, divided=True)
        keyed = {"key": key} if noise else {}
        run = jax.jit(lambda p, b, k, f=f: f(p, b, **k), out_shardings=places)
        compiled = run.lower(divided, batch, keyed).compile()
        outs[noise] = compiled(divided, batch, keyed)
        if noise:
            found["exchanged"] = largest(compiled.as_text())
        else:
            whole = f(params, batch)
            found["error"] = max(
                float(np.abs(np.asarray(outs[noise][k]) - whole[k]).max())
                for k in whole
            )
    drawn = np.concatenate(
        [np.ravel(np.asarray(outs[1.0][k]) - np.asarray(outs[0.0][k])) for k in params]
    )
    found["deviation"] = float(drawn.std() * 8)
    found["p"] = float(stats.kstest(drawn * 8, "norm").pvalue)
    parts = np.split(np.asarray(outs[1.0]["w1"]) - np.asarray(outs[0.0]["w1"]), 4, 1)
    found["between parts"] = float(
        np.abs(np.corrcoef([p.ravel() for p in parts]) - np.eye(4)).max()
    )
    # The values of one device, whichever axis is divided.
    x = jnp.zeros((8, 12, 20))
    draw = lambda v: drawn_like(  # noqa: E731
        v, jnp.arange(8, dtype=jnp.uint32), (0, 1, 2), 2, lambda w: w[0] ^ w[1]
    )
    one = np.asarray(jax.jit(draw)(x))
    found["same"] = [
        bool(
            np.array_equal(
                jax.jit(lambda v: draw(v) + v.astype(np.uint32))(
                    jax.device_put(x, NamedSharding(MESH, PartitionSpec(*spec)))
                ),
                one,
            )
        )
        for spec in (("model",), (None, "model"), (None, None, "model"))
    ]
    found["distinct"] = len(np.unique(one)) == one.size
    print(json.dumps(found))


if __name__ == "__main__":
    main()
