"""What every protocol is asked to do: one use of each primitive that reaches protocols.

All other primitives are taken apart into these before a protocol is chosen;
`test_protocols` checks that. A program has many rows, because compiling is what costs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.scipy import special

rng = np.random.default_rng(31)
X, Y = (rng.uniform(-2, 2, 6).astype(np.float32) for _ in range(2))
INTS, MORE = (rng.integers(-9, 9, 6).astype(np.int32) for _ in range(2))
T, U = (rng.integers(0, 2, 6).astype(bool) for _ in range(2))
# Ties, zeros, and the ends of the 32-bit integers.
X[:3], Y[:3] = [1.5, 0.0, -0.0], [1.5, -0.0, 0.25]
INTS[:3], MORE[:3] = [7, -(2**31), 2**31 - 1], [7, 3, -1]
AT = np.array([4, 0, 2], np.int32)

Row = Callable[..., Any]

LOCAL: dict[str, Row] = {
    "add": lambda x, i, t: (x + x[::-1], i + i[::-1], x + 1.25, i + 3),
    "add_any": lambda x, i, t: jax.grad(lambda x: (x * 3.0 + x[::-1]).sum())(x) + x,
    "bitcast_convert_type": lambda x, i, t: lax.bitcast_convert_type(i, jnp.uint32),
    "broadcast_in_dim": lambda x, i, t: jnp.broadcast_to(x, (2, 6)),
    "concatenate": lambda x, i, t: jnp.concatenate([x, jnp.ones(2), x]),
    "copy": lambda x, i, t: jnp.copy(x),
    "cumsum": lambda x, i, t: (lax.cumsum(x), lax.cumsum(i)),
    "device_put": lambda x, i, t: jax.device_put(x),
    "dynamic_slice": lambda x, i, t: lax.dynamic_slice(x, (2,), (3,)),
    "dynamic_update_slice": lambda x, i, t: lax.dynamic_update_slice(x, x[:2], (3,)),
    "gather": lambda x, i, t: (x[AT], i[AT], t[AT]),
    "name": lambda x, i, t: checkpoint_name(x, "x"),
    "neg": lambda x, i, t: (-x, -i),
    "not": lambda x, i, t: (~t, ~i),
    "optimization_barrier": lambda x, i, t: lax.optimization_barrier(x),
    "pad": lambda x, i, t: lax.pad(x, 2.5, [(1, 2, 1)]),
    "reduce_precision": lambda x, i, t: lax.reduce_precision(x, 8, 23),
    "reduce_sum": lambda x, i, t: (x.sum(), i.sum(), x[:0].sum()),
    "reduce_window_sum": lambda x, i, t: lax.reduce_window(
        x, 0.0, lax.add, (2,), (2,), "VALID"
    ),
    "reshape": lambda x, i, t: x.reshape(2, 3),
    "rev": lambda x, i, t: lax.rev(x, (0,)),
    "scatter": lambda x, i, t: x.at[AT].set(1.5),
    "scatter-add": lambda x, i, t: x.at[AT].add(x[:3]),
    "select_n": lambda x, i, t: jnp.where(jnp.arange(6) > 2, x, -x),
    "shift_left": lambda x, i, t: i << 2,
    "slice": lambda x, i, t: lax.slice(x, (1,), (5,), (2,)),
    "split": lambda x, i, t: lax.split(x, (2, 4)),
    "squeeze": lambda x, i, t: lax.squeeze(x[None], (0,)),
    "stack": lambda x, i, t: jnp.stack([x, x[::-1]]),
    "stop_gradient": lambda x, i, t: lax.stop_gradient(x),
    "sub": lambda x, i, t: (x - x[::-1], 3.0 - x, i - i[::-1]),
    "tile": lambda x, i, t: lax.tile(x, (2,)),
    "transpose": lambda x, i, t: x.reshape(2, 3).T,
    "unstack": lambda x, i, t: jnp.unstack(x.reshape(2, 3)),
    "xor": lambda x, i, t: t ^ t[::-1],
}


def _conv(x: Any, y: Any) -> Any:
    return jnp.convolve(x, y[:3], mode="same")


PRODUCTS: dict[str, Row] = {
    "cond": lambda x, y, i: lax.cond(True, lambda v: v * y, lambda v: v, x),
    "conv_general_dilated": lambda x, y, i: _conv(x, y),
    "dot_general": lambda x, y, i: x.reshape(2, 3) @ y.reshape(3, 2),
    "mul": lambda x, y, i: (x * y, x * 0.3, x * 4.0, i * i[::-1], i * 5),
    "scan": lambda x, y, i: lax.scan(lambda c, v: (c + v * y[0], c), x[0], x),
    "while": lambda x, y, i: lax.fori_loop(0, 2, lambda _, v: v * 0.5 + y, x),
}

GATES: dict[str, Row] = {
    "and": lambda x, y, i, j, t, u: (t & u, t & True, i & j),
    "convert_element_type": lambda x, y, i, j, t, u: (
        x.astype(np.int32),
        i.astype(np.int8),
        t.astype(np.float32),
        t.astype(np.int32),
    ),
    "eq": lambda x, y, i, j, t, u: (x == y, i == j, t == u),
    "floor": lambda x, y, i, j, t, u: lax.floor(x),
    "ge": lambda x, y, i, j, t, u: (x >= 0.5, i >= j),
    "gt": lambda x, y, i, j, t, u: (x > y, i > 3),
    "le": lambda x, y, i, j, t, u: (x <= y, i <= j),
    "lt": lambda x, y, i, j, t, u: (x < y, i < j, t < u),
    "ne": lambda x, y, i, j, t, u: (x != y, i != 7),
    "nextafter": lambda x, y, i, j, t, u: lax.nextafter(x, y),
    "or": lambda x, y, i, j, t, u: (t | u, i | j),
    "population_count": lambda x, y, i, j, t, u: lax.population_count(i),
    "select_n": lambda x, y, i, j, t, u: (
        jnp.where(t, x, y),
        jnp.where(t, i, 3),
        jnp.where(t, u, False),
    ),
    "shift_right_arithmetic": lambda x, y, i, j, t, u: i >> 2,
    "shift_right_logical": lambda x, y, i, j, t, u: lax.shift_right_logical(
        i, np.int32(3)
    ),
    "xor": lambda x, y, i, j, t, u: i ^ j,
}

# On positive numbers, at least 1 where a function asks for it.
FUNCTIONS: dict[str, Row] = {
    "acos": lambda p: lax.acos(p / 4),
    "acosh": lambda p: lax.acosh(p + 1),
    "asin": lambda p: lax.asin(p / 4),
    "asinh": lax.asinh,
    "atan": lax.atan,
    "atan2": lambda p: lax.atan2(p, p[::-1]),
    "bessel_i0e": lax.bessel_i0e,
    "bessel_i1e": lax.bessel_i1e,
    "cbrt": lax.cbrt,
    "cos": lax.cos,
    "digamma": lax.digamma,
    "div": lambda p: p[::-1] / p,
    "erf": lax.erf,
    "erf_inv": lambda p: lax.erf_inv(p / 4),
    "exp": lax.exp,
    "exp2": lax.exp2,
    "expm1": lax.expm1,
    "igamma": lambda p: special.gammainc(1.5, p),
    "igammac": lambda p: special.gammaincc(1.5, p),
    "lgamma": lax.lgamma,
    "log": lax.log,
    "logistic": lax.logistic,
    "polygamma": lambda p: special.polygamma(1, p),
    "pow": lambda p: lax.pow(p, p[::-1]),
    "regularized_incomplete_beta": lambda p: special.betainc(1.5, 2.0, p / 4),
    "rsqrt": lax.rsqrt,
    "sqrt": lax.sqrt,
    "tan": lambda p: lax.tan(p / 4),
    "tanh": lax.tanh,
    "zeta": lambda p: special.zeta(p + 1, 1.0),
}
P = np.array([0.125, 1.0, 2.5, 3.75], np.float32)

# Which of them every protocol computes: one for each way of evaluation (splines,
# octaves, mantissa and exponent, angles). They differ in tables of constants only.
WAYS = ("div", "logistic", "cos", "exp", "sqrt")
