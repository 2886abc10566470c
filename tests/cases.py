"""One row per rule of the secret-sharing pass: a function, its inputs, its error bound.

The bound is absolute, in units of 2^-18 (the last place of a factor) unless the function
amplifies; inputs are drawn once, with edges where the rule has them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ULP = 2.0**-18
rng = np.random.default_rng(7)


def real(*shape: int, scale: float = 2.0) -> np.ndarray:
    return (scale * rng.normal(size=shape)).astype(np.float32)


def whole(*shape: int, low: int = -9, high: int = 9) -> np.ndarray:
    return rng.integers(low, high, shape).astype(np.int32)


def truth(*shape: int) -> np.ndarray:
    return rng.integers(0, 2, shape).astype(bool)


@dataclass(frozen=True)
class Case:
    name: str
    fun: Callable[..., Any]
    args: tuple[Any, ...]
    bound: float = 8 * ULP  # on |shared - plain|, plain in float64
    relative: float = 2e-7  # public constants have 18 bits: 2^-18


A, B, C = real(3, 2), real(3, 2), real(3, 2)
M, N = real(3, 4), real(4, 2)
P, Q = whole(5), whole(5)
T, U = truth(5), truth(5)
V = np.array(
    [0.0, -0.0, 1.0, -1.0, 2.0**-18, -(2.0**-18), 1000.25, -4000.5], np.float32
)
IMAGE, KERNEL = real(1, 6, 6, 2, scale=1.0), real(3, 3, 2, 3, scale=0.5)
WIDE = np.array([-30, -9.5, -1, -0.0, 2.0**-17, 0.3, 1, 4.75, 9], np.float32)
SMALL = np.array([-3, -1.5, -0.1, 0.25, 1, 2.5], np.float32)
POSITIVE = np.array([2.0**-8, 0.1, 0.5, 1, 3.7, 100, 2.0**16], np.float32)
INDEX = np.array([2, 0, 2], np.int32)


def conv(x, k, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=numbers)


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def loop(x):
    def body(carry, row):
        total, best = carry
        return (total + row, jnp.maximum(best, row * 0.5)), total * row

    return lax.scan(body, (jnp.zeros(2), jnp.zeros(2)), x)


CASES = [
    Case("add", lambda x, y: x + y, (A, B)),
    Case("add public", lambda x: x + 1.25, (A,)),
    Case("sub", lambda x, y: x - y, (A, B)),
    Case("polyval", lambda x: jnp.polyval(np.float32([0.5, -1, 2]), x), (A,)),
    Case("rsub public", lambda x: 3.0 - x, (A,)),
    Case("neg", lambda x: -x, (A,)),
    Case("mul", lambda x, y: x * y, (A, B), 64 * ULP),
    Case("mul three", lambda x, y, z: x * y * z, (A, B, C), 256 * ULP),
    Case("mul constant", lambda x: x * 0.001, (V,), 8 * ULP, relative=2**-18),
    Case("mul power of two", lambda x: x * -0.03125, (V,), 2 * ULP),
    Case("mul integer", lambda x: x * 7.0, (V,), 16 * ULP),
    Case(
        "mul array",
        lambda x: x * jnp.array([0.3, -2.7]),
        (A,),
        64 * ULP,
        relative=2**-18,
    ),
    Case("div constant", lambda x: x / 3.0, (V,), 64 * ULP, relative=2**-18),
    Case("square", lambda x: jnp.square(x), (A,), 64 * ULP),
    Case("integer_pow", lambda x: x**3, (A,), 1024 * ULP),
    Case("dot", lambda x, y: x @ y, (M, N), 64 * ULP),
    Case("dot transposed", lambda x, y: (x.T @ x, y @ y.T), (M, N), 64 * ULP),
    Case("dot public", lambda x: x @ jnp.asarray(N), (M,), 64 * ULP),
    Case(
        "dot batched",
        lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
        (real(2, 3, 4), real(2, 4, 2)),
        64 * ULP,
    ),
    Case("conv", conv, (IMAGE, KERNEL), 128 * ULP),
    Case(
        "conv gradient",
        lambda x, k: jax.grad(lambda k: conv(x, k).sum())(k),
        (IMAGE, KERNEL),
        128 * ULP,
    ),
    Case("max pool", max_pool, (IMAGE,)),
    Case(
        "max pool gradient",
        lambda x, w: jax.grad(lambda x: (max_pool(x) * w).sum())(x),
        (IMAGE, real(1, 3, 3, 2)),
        16 * ULP,
    ),
    Case(
        "mean pool",
        lambda x: (
            lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        ),
        (IMAGE,),
    ),
    Case("relu", jax.nn.relu, (V,)),
    Case("relu gradient", jax.grad(lambda x: (jax.nn.relu(x) * x).sum()), (V,)),
    Case("leaky relu", jax.nn.leaky_relu, (V,), 32 * ULP, relative=2**-18),
    Case("abs", jnp.abs, (V,)),
    Case("sign", jnp.sign, (V,)),
    Case("max", jnp.maximum, (A, B)),
    Case("min", jnp.minimum, (A, B)),
    Case("clamp", lambda x: jnp.clip(x, -1.0, 2.0), (V,)),
    Case("lt", lambda x, y: x < y, (A, B), 0),
    Case("gt zero", lambda x: x > 0, (V,), 0),
    Case("ge", lambda x: x >= 1.0, (V,), 0),
    Case("le", lambda x, y: x <= y, (A, B), 0),
    Case("eq", lambda x: x == 1.0, (V,), 0),
    Case("ne", lambda x: x != 1.0, (V,), 0),
    Case("select", lambda p, x, y: jnp.where(p < y, x, y), (A, B, C)),
    Case("select public", lambda x, y: jnp.where(jnp.arange(2) > 0, x, y), (A, B)),
    Case("reduce_max", lambda x: x.max(0), (real(5, 3),)),
    Case("reduce_min", lambda x: x.min(), (real(5, 3),)),
    Case("argmax", lambda x: jnp.argmax(x, 0), (real(5, 2),), 0),
    Case("argmin ties", lambda x: jnp.argmin(x), (np.array([2, 1, 1.0], "f4"),), 0),
    Case("cummax", lambda x: lax.cummax(x, 0), (real(5, 2),)),
    Case("sum", lambda x: x.sum(1), (A,)),
    Case("mean", lambda x: x.mean(), (A,)),
    Case("cumsum", lambda x: jnp.cumsum(x, 0), (A,)),
    Case("broadcast", lambda x: jnp.broadcast_to(x[:, None], (3, 2, 2)), (A,)),
    Case("reshape", lambda x: x.reshape(2, 3), (A,)),
    Case("transpose", lambda x: x.T, (A,)),
    Case("rev", lambda x: x[::-1], (A,)),
    Case("slice", lambda x: x[1:, :1], (A,)),
    Case("concatenate", lambda x, y: jnp.concatenate([x, y * 2]), (A, B)),
    Case("concatenate public", lambda x: jnp.concatenate([x, jnp.ones((1, 2))]), (A,)),
    Case("stack", lambda x, y: jnp.stack([x, y]), (A, B)),
    Case("split", lambda x: jnp.split(x, 3), (A,)),
    Case("pad", lambda x: jnp.pad(x, 1, constant_values=2.5), (A,)),
    Case("gather", lambda x: x[INDEX], (A,)),
    Case(
        "gather gradient",
        lambda x, w: jax.grad(lambda x: (x[INDEX] * w).sum())(x),
        (A, real(3, 2)),
    ),
    Case("scatter", lambda x: jnp.asarray(x).at[INDEX[:2]].set(1.5), (A,)),
    Case("dynamic_slice", lambda x: lax.dynamic_slice(x, (1, 0), (2, 2)), (A,)),
    Case(
        "dynamic_update_slice",
        lambda x, y: lax.dynamic_update_slice(x, y[:1], (1, 0)),
        (A, B),
    ),
    Case("integer arithmetic", lambda i, j: i * j - i + 3, (P, Q), 0),
    Case("integer comparison", lambda i, j: (i < j, i == j, i >= 2), (P, Q), 0),
    Case("integer max", lambda i, j: jnp.maximum(i, j), (P, Q), 0),
    Case(
        "integer to real",
        lambda i, x: i.astype(jnp.float32) * x,
        (P, real(5)),
        64 * ULP,
    ),
    Case("one_hot", lambda i: jax.nn.one_hot(i, 4), (whole(3, low=0, high=4),), 0),
    Case("boolean gates", lambda t, u: (t & u, t | u, t ^ u, ~t), (T, U), 0),
    Case("boolean to real", lambda t: t.astype(jnp.float32) * 2.5, (T,)),
    Case("boolean times real", lambda t, x: t * x, (T, real(5))),
    Case("any all", lambda t: (t.any(), t.all()), (T,), 0),
    Case("scan", loop, (real(4, 2, scale=1.0),), 256 * ULP),
    Case("fori", lambda x: lax.fori_loop(0, 3, lambda i, v: v * 0.5 + i, x), (A,)),
    Case(
        "while public",
        lambda x: lax.while_loop(
            lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * c[1] * 0.5), (0, x)
        )[1],
        (real(3, scale=1.0),),
        64 * ULP,
    ),
    Case(
        "cond public",
        lambda x: lax.cond(jnp.array(True), lambda v: v * 0.3, lambda v: v, x),
        (A,),
    ),
    Case(
        "cond secret",
        lambda x: lax.cond(x[0] > 0, lambda v: v * v, lambda v: -v, x),
        (real(3),),
        64 * ULP,
    ),
    Case(
        "remat",
        jax.grad(lambda x: jax.checkpoint(lambda v: (v * v * v).sum())(x)),
        (A,),
        512 * ULP,
    ),
    Case(
        "nested jit", lambda x: jax.jit(lambda v: jax.jit(jax.nn.relu)(v) + 1)(x), (A,)
    ),
    Case("exp", jnp.exp, (WIDE,), 2 * ULP, relative=2**-14),
    Case("expm1", jnp.expm1, (SMALL,), 16 * ULP, relative=2**-14),
    Case("log", jnp.log, (POSITIVE,), 2**-16),
    Case("log1p", jnp.log1p, (POSITIVE,), 2**-16),
    Case("logistic", jax.nn.sigmoid, (WIDE,), 2**-14),
    Case("tanh", jnp.tanh, (WIDE,), 2**-14),
    Case("erf", lax.erf, (WIDE,), 2**-14),
    Case("sqrt", jnp.sqrt, (POSITIVE,), 4 * ULP, relative=2**-14),
    Case("rsqrt", lax.rsqrt, (POSITIVE,), 4 * ULP, relative=2**-14),
    Case("reciprocal", lambda x: 1.0 / x, (SMALL,), 4 * ULP, relative=2**-14),
    Case("div", lambda x, y: x / y, (A, B), 16 * ULP, relative=2**-14),
    Case("softmax", jax.nn.softmax, (real(3, 5),), 2**-14),
    Case("log_softmax", jax.nn.log_softmax, (real(3, 5),), 2**-13),
    Case("softplus", jax.nn.softplus, (WIDE,), 2**-13, relative=2**-14),
    Case("silu gradient", jax.grad(lambda x: jax.nn.silu(x).sum()), (SMALL,), 2**-12),
    Case("pow", lambda x: x**1.5, (POSITIVE[:5],), 64 * ULP, relative=2**-12),
    Case(
        "optimization_barrier",
        lambda x, y: lax.optimization_barrier((x + 1.0, y)),
        (A, B),
    ),
]
