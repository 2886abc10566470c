"""One party of the two-process test: `two_party_process.py PARTY PORT DIR PROTOCOL`."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import FixedPoint
from privjax.runtimes.distributed import distributed
from privjax.transforms.secret_shared import secret_shared


def program(w, x, y):
    """Logistic-free training step in a loop: products, comparison, truncation."""

    def loss(w):
        return jnp.mean((jax.nn.relu(x @ w) - y) ** 2)

    def step(w, _):
        return w - 0.1 * jax.grad(loss)(w), loss(w)

    return lax.scan(step, w, None, length=3)


def arguments():
    """(w and y of party 0, x of party 1)."""
    rng = np.random.default_rng(0)
    w, x, y = rng.normal(size=(3, 2)), rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    return tuple(np.asarray(a, np.float32) for a in (w, x, y))


OWNERS = {"w": 0, "x": 1, "y": 0}
# The small ring compiles faster; with 9 fractional bits results are rough.
FORMATS = {"semi2k": FixedPoint(), "spdz2k": FixedPoint(32, 9)}


def shared(protocol, **options):
    """The program for one of the protocols."""
    fixed_point = FORMATS[protocol]
    return secret_shared(program, 2, protocol, fixed_point, owners=OWNERS, **options)


def main() -> None:
    party, port, directory = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    protocol = sys.argv[4]
    runtime = distributed(party, 2, material=directory, coordinator=f"127.0.0.1:{port}")
    fun = shared(protocol, runtime=runtime)
    args = [
        a if owner == party else jax.ShapeDtypeStruct(a.shape, a.dtype)
        for a, owner in zip(arguments(), OWNERS.values(), strict=True)
    ]
    w, losses = fun(*args)
    np.savez(directory / f"result{party}.npz", w=w, losses=losses)


if __name__ == "__main__":
    main()
