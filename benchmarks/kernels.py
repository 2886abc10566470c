"""Times of the two numeric foundations: ring products and random bits.

Every function returns rows `{"name", "seconds", "gops" or "gbps"}`; `gops` counts a
multiplication and an addition as two operations (2 M N K / t), `gbps` is 10^9 bytes of
output per second. Seconds are the least of several runs of a compiled program. XLA's
float64 product is timed beside the ring's, as a measure of the machine at that moment.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.prg import gaussian_on_grid, insecure_key, key_words, keystream, session
from privjax.protocols import ring

Row = dict[str, Any]


def least(run: Callable[..., Any], *args: Any, repeats: int = 10) -> float:
    """Seconds of the fastest of `repeats` runs, after one that compiles."""
    jax.block_until_ready(run(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append(time.perf_counter() - start)
    return min(times)


MATMULS = {
    "128": (128, 128, 128),
    "128x784x128": (128, 784, 128),
    "256": (256, 256, 256),
    "512": (512, 512, 512),
    "1024": (1024, 1024, 1024),
}


def ring_matmul(bits: int = 64, repeats: int = 10) -> list[Row]:
    """`ring.matmul` on uniform operands, square from 128 to 1024, and a dense layer's."""
    rows = []
    dtype = ring.Ring(bits).dtype
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for name, (m, k, n) in MATMULS.items():
            x = jnp.asarray(rng.integers(0, 2**bits, (m, k), dtype=dtype))
            y = jnp.asarray(rng.integers(0, 2**bits, (k, n), dtype=dtype))
            seconds = least(jax.jit(ring.matmul), x, y, repeats=repeats)
            rows.append(_product(f"ring.matmul uint{bits} {name}", (m, k, n), seconds))
        z = jnp.asarray(rng.standard_normal((512, 512)))
        seconds = least(jax.jit(jnp.matmul), z, z, repeats=repeats)
        rows.append(_product("float64 matmul 512 (XLA)", (512, 512, 512), seconds))
    return rows


def _product(name: str, shape: tuple[int, int, int], seconds: float) -> Row:
    return {"name": name, "seconds": seconds, "gops": 2e-9 * math.prod(shape) / seconds}


CONVOLUTIONS = {
    "28x28x1, 5x5x20": ((32, 28, 28, 1), (5, 5, 1, 20)),
    "12x12x20, 5x5x50": ((32, 12, 12, 20), (5, 5, 20, 50)),
}


def ring_convolution(repeats: int = 5) -> list[Row]:
    """The two convolutions of a small image network, batch 32, uint64."""
    rows = []
    rng = np.random.default_rng(0)
    layout = ("NHWC", "HWIO", "NHWC")

    def run(x: jax.Array, w: jax.Array) -> jax.Array:
        return ring.conv_general_dilated(
            x, w, (1, 1), ((0, 0), (0, 0)), dimension_numbers=layout
        )

    with jax.enable_x64(True):
        for name, shapes in CONVOLUTIONS.items():
            x, w = (
                jnp.asarray(rng.integers(0, 2**64, s, dtype=np.uint64)) for s in shapes
            )
            out = jax.eval_shape(run, x, w)
            seconds = least(jax.jit(run), x, w, repeats=repeats)
            operations = 2e-9 * math.prod((*out.shape, *shapes[1][:-1]))
            rows.append(
                {
                    "name": f"ring convolution {name}",
                    "seconds": seconds,
                    "gops": operations / seconds,
                }
            )
    return rows


def generator(
    words: tuple[int, ...] = (10**4, 10**6, 10**7), repeats: int = 10
) -> list[Row]:
    """ChaCha20 keystream against `jax.random.bits` of JAX's default generator."""
    key, other = key_words(insecure_key(0)), jax.random.key(0)
    rows = []
    for n in words:

        def chacha(k: jax.Array, n: int = n) -> jax.Array:
            return keystream(k, (0, 0, 0), n)

        def threefry(k: jax.Array, n: int = n) -> jax.Array:
            return jax.random.bits(k, (n,), "uint32")

        for name, run, k in (("ChaCha20", chacha, key), ("Threefry", threefry, other)):
            seconds = least(jax.jit(run), k, repeats=repeats)
            rows.append(_stream(f"{name}, {n:.0e} words", 4 * n, seconds))
    return rows


def _stream(name: str, size: int, seconds: float) -> Row:
    return {"name": name, "seconds": seconds, "gbps": 1e-9 * size / seconds}


def samplers(count: int = 10**6, repeats: int = 10) -> list[Row]:
    """Noise on a grid against `jax.random.normal`, and the hash of a session."""
    key, other = key_words(insecure_key(0)), jax.random.key(0)
    values = jnp.zeros(count, jnp.float32)
    runs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "gaussian_on_grid": (
            lambda k: gaussian_on_grid(k, (0, 0, 0), (count,), 1.0),
            (key,),
        ),
        "jax.random.normal": (
            lambda k: jax.random.normal(k, (count,), jnp.float32),
            (other,),
        ),
        "session hash": (session, (key, values)),
    }
    return [
        _stream(
            f"{name}, {count:.0e}",
            4 * count,
            least(jax.jit(run), *args, repeats=repeats),
        )
        for name, (run, args) in runs.items()
    ]


def rows() -> list[Row]:
    """Everything above."""
    return [*ring_matmul(), *ring_convolution(), *generator(), *samplers()]
