"""One ordinary use of every primitive: what the page of operators measures and tests run.

The first argument is secret, as are all floating-point ones; integer and boolean scalars
and `keys` are public. Entries lie in the domain in which plain float32 is accurate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.scipy import special

_rng = np.random.default_rng(20)


def _real(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return _rng.uniform(low, high, shape).astype(np.float32)


def _whole(*shape: int, low: int = -9, high: int = 9) -> np.ndarray:
    return _rng.integers(low, high, shape).astype(np.int32)


@dataclass(frozen=True)
class Example:
    """A function that uses one primitive, with arguments.

    Attributes:
      elements: what "per element" counts.
      tolerance: how far a result may be from JAX's, relative to 1 + |result|.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    tolerance: float = 2.0**-11

    @property
    def elements(self) -> int:
        return max(np.size(a) for a in self.args)


X, Y, Z = _real(6), _real(6), _real(6)
P, Q = _real(6, low=0.3, high=3.0), _real(6, low=0.3, high=3.0)
UNIT = _real(6, low=-0.9, high=0.9)
IS, JS = _whole(6), _whole(6, low=1)
W = _whole(6, low=0, high=1000).astype(np.uint32)
B = IS > 0
M = _real(4, 4)
S = (M @ M.T + 2 * np.eye(4)).astype(np.float32)
L = np.linalg.cholesky(S).astype(np.float32)
IMAGE, KERNEL = _real(1, 5, 5, 2), _real(3, 3, 2, 3)
AT = np.array([4, 0, 2], np.int32)
ROWS = np.array([3, 1, 3], np.int32)


def _window(reduce: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: reduce(x, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _pool(init: float, op: Any) -> Callable[..., Any]:
    return lambda x: lax.reduce_window(x, init, op, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _conv(x: Any, k: Any) -> Any:
    return lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pool_gradient(x: Any) -> Any:
    return jax.grad(lambda x: (_pool(-np.inf, lax.max)(x) ** 2).sum())(x)


def _public_while(x: Any) -> Any:
    return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + x), (0, x))[1]


@jax.custom_jvp
def _own_jvp(x: Any) -> Any:
    return x * x


_own_jvp.defjvp(lambda x, t: (x[0] * x[0], 2 * x[0] * t[0]))


@jax.custom_vjp
def _own_vjp(x: Any) -> Any:
    return x * x


_own_vjp.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,))


@jax.custom_batching.custom_vmap
def _own_vmap(x: Any) -> Any:
    return x * x


@_own_vmap.def_vmap
def _(axis_size: int, batched: Any, x: Any) -> Any:
    return x * x, True


@jax.custom_vjp
def _own_remat(x: Any) -> Any:
    return x * x


_own_remat.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,), optimize_remat=True)


def _with_key(draw: Callable[[Any], Any]) -> Callable[..., Any]:
    """A draw on a public key beside a secret: the draws of the plain program."""
    return lambda x, word: x + jnp.asarray(draw(word), x.dtype)


WORD = np.uint32(7)

EXAMPLES: dict[str, Example] = {
    # arithmetic
    "abs": Example(lax.abs, (X,)),
    "add": Example(lax.add, (X, Y)),
    "add_any": Example(lambda x: jax.grad(lambda x: (x * x).sum() + x.sum())(x), (X,)),
    "clamp": Example(lambda x: lax.clamp(-1.0, x, 1.0), (X,)),
    "div": Example(lax.div, (X, P)),
    "integer_pow": Example(lambda x: lax.integer_pow(x, 3), (X,)),
    "max": Example(lax.max, (X, Y)),
    "min": Example(lax.min, (X, Y)),
    "mul": Example(lax.mul, (X, Y)),
    "neg": Example(lax.neg, (X,)),
    "rem": Example(lax.rem, (X, P)),
    "sign": Example(lax.sign, (X,)),
    "square": Example(lax.square, (X,)),
    "sub": Example(lax.sub, (X, Y)),
    # functions of reals
    "acos": Example(lax.acos, (UNIT,)),
    "acosh": Example(lax.acosh, (P + 1,)),
    "asin": Example(lax.asin, (UNIT,)),
    "asinh": Example(lax.asinh, (X,)),
    "atan": Example(lax.atan, (X,)),
    "atan2": Example(lax.atan2, (X, Y)),
    "atanh": Example(lax.atanh, (UNIT,)),
    "cbrt": Example(lax.cbrt, (X,)),
    "ceil": Example(lax.ceil, (X,)),
    "cos": Example(lax.cos, (X,)),
    "cosh": Example(lax.cosh, (X,)),
    "exp": Example(lax.exp, (X,)),
    "exp2": Example(lax.exp2, (X,)),
    "expm1": Example(lax.expm1, (X,)),
    "floor": Example(lax.floor, (X,)),
    "log": Example(lax.log, (P,)),
    "log1p": Example(lax.log1p, (P,)),
    "logistic": Example(lax.logistic, (X,)),
    "nextafter": Example(lax.nextafter, (X, Y)),
    "pow": Example(lax.pow, (P, X)),
    "reduce_precision": Example(lambda x: lax.reduce_precision(x, 8, 23), (X,)),
    "round": Example(lax.round, (X,)),
    "rsqrt": Example(lax.rsqrt, (P,)),
    "sin": Example(lax.sin, (X,)),
    "sinh": Example(lax.sinh, (X,)),
    "sqrt": Example(lax.sqrt, (P,)),
    "tan": Example(lax.tan, (UNIT,)),
    "tanh": Example(lax.tanh, (X,)),
    # complex numbers
    "complex": Example(lambda x, y: jnp.abs(lax.complex(x, y)), (X, Y)),
    "conj": Example(lambda x, y: lax.imag(lax.conj(lax.complex(x, y))), (X, Y)),
    "imag": Example(lambda x, y: lax.imag(lax.complex(x, y) * 1j), (X, Y)),
    "real": Example(lambda x, y: lax.real(lax.complex(x, y) * 1j), (X, Y)),
    # special functions
    "bessel_i0e": Example(lax.bessel_i0e, (X,)),
    "bessel_i1e": Example(lax.bessel_i1e, (X,)),
    "digamma": Example(lax.digamma, (P,)),
    "erf": Example(lax.erf, (X,)),
    "erf_inv": Example(lax.erf_inv, (UNIT,)),
    "erfc": Example(lax.erfc, (X,)),
    "igamma": Example(lambda x: special.gammainc(1.5, x), (P,)),
    "igammac": Example(lambda x: special.gammaincc(1.5, x), (P,)),
    "lgamma": Example(lax.lgamma, (P,)),
    "polygamma": Example(lambda x: special.polygamma(1, x), (P,)),
    "regularized_incomplete_beta": Example(
        lambda x: special.betainc(1.5, 2.0, x * 0.3), (P,)
    ),
    "zeta": Example(lambda x: special.zeta(x + 1, 1.0), (P,)),
    # bits of integers
    "and": Example(lax.bitwise_and, (IS, JS), 0),
    "clz": Example(lax.clz, (W,), 0),
    "mulhi": Example(lax.mulhi, (W, W), 0),
    "not": Example(lax.bitwise_not, (IS,), 0),
    "or": Example(lax.bitwise_or, (IS, JS), 0),
    "population_count": Example(lax.population_count, (W,), 0),
    "shift_left": Example(lambda x: x << 2, (IS,), 0),
    "shift_right_arithmetic": Example(lambda x: x >> 2, (IS,), 0),
    "shift_right_logical": Example(lambda x: x >> 2, (W,), 0),
    "xor": Example(lax.bitwise_xor, (IS, JS), 0),
    # comparison
    "eq": Example(lax.eq, (IS, JS), 0),
    "ge": Example(lax.ge, (X, Y), 0),
    "gt": Example(lax.gt, (X, Y), 0),
    "is_finite": Example(lax.is_finite, (X,), 0),
    "le": Example(lax.le, (X, Y), 0),
    "lt": Example(lax.lt, (X, Y), 0),
    "ne": Example(lax.ne, (IS, JS), 0),
    "select_n": Example(lambda b, x, y: lax.select(b, x, y), (B, X, Y)),
    # conversion
    "bitcast_convert_type": Example(
        lambda x: lax.bitcast_convert_type(x, jnp.uint32), (IS,), 0
    ),
    "convert_element_type": Example(lambda x: x.astype(jnp.int32), (X,), 0),
    # structure
    "broadcast_in_dim": Example(lambda x: jnp.broadcast_to(x, (2, 6)), (X,)),
    "concatenate": Example(lambda x, y: jnp.concatenate([x, y]), (X, Y)),
    "copy": Example(lambda x: jnp.copy(x), (X,)),
    "iota": Example(lambda x: x + lax.iota(np.float32, 6), (X,)),
    "pad": Example(lambda x: lax.pad(x, 0.0, [(1, 2, 1)]), (X,)),
    "reshape": Example(lambda x: x.reshape(2, 3), (X,)),
    "rev": Example(lambda x: lax.rev(x, (0,)), (X,)),
    "slice": Example(lambda x: lax.slice(x, (1,), (5,), (2,)), (X,)),
    "split": Example(lambda x: lax.split(x, (2, 4)), (X,)),
    "squeeze": Example(lambda x: lax.squeeze(x[None], (0,)), (X,)),
    "stack": Example(lambda x, y: jnp.stack([x, y]), (X, Y)),
    "tile": Example(lambda x: lax.tile(x, (2,)), (X,)),
    "transpose": Example(lambda x: x.T, (M,)),
    "unstack": Example(lambda x: jnp.unstack(x), (M,)),
    # reductions
    "argmax": Example(lambda x: jnp.argmax(x), (X,), 0),
    "argmin": Example(lambda x: jnp.argmin(x), (X,), 0),
    "cumlogsumexp": Example(lambda x: lax.cumlogsumexp(x), (X,)),
    "cummax": Example(lambda x: lax.cummax(x), (X,)),
    "cummin": Example(lambda x: lax.cummin(x), (X,)),
    "cumprod": Example(lambda x: lax.cumprod(x), (X,)),
    "cumsum": Example(lambda x: lax.cumsum(x), (X,)),
    "reduce": Example(
        lambda x: lax.reduce(x, np.float32(0), lambda a, b: a + b - a * b, (0,)),
        (UNIT / 2,),
    ),
    "reduce_and": Example(lambda b: jnp.all(b), (B,), 0),
    "reduce_max": Example(lambda x: jnp.max(x), (X,)),
    "reduce_min": Example(lambda x: jnp.min(x), (X,)),
    "reduce_or": Example(lambda b: jnp.any(b), (B,), 0),
    "reduce_prod": Example(lambda x: jnp.prod(x), (X,)),
    "reduce_sum": Example(lambda x: jnp.sum(x), (X,)),
    "reduce_xor": Example(lambda x: lax.reduce_xor(x, (0,)), (IS,), 0),
    # windows
    "reduce_window": Example(
        _pool(0.0, lambda a, b: a + b - 0.25 * a * b), (np.abs(IMAGE) / 4,)
    ),
    "reduce_window_max": Example(_pool(-np.inf, lax.max), (IMAGE,)),
    "reduce_window_min": Example(_pool(np.inf, lax.min), (IMAGE,)),
    "reduce_window_sum": Example(_pool(0.0, lax.add), (IMAGE,)),
    "select_and_gather_add": Example(
        lambda x: jax.jvp(_pool(-np.inf, lax.max), (x,), (x * 2,))[1], (IMAGE,)
    ),
    "select_and_scatter_add": Example(_pool_gradient, (IMAGE,)),
    # order
    "approx_top_k": Example(lambda x: lax.approx_max_k(x, 2)[0], (X,)),
    "sort": Example(lambda x: jnp.sort(x), (X,)),
    "top_k": Example(lambda x: lax.top_k(x, 2), (X,)),
    # contraction
    "conv_general_dilated": Example(_conv, (IMAGE, KERNEL)),
    "dot_general": Example(lambda x, y: x @ y, (M, S)),
    "fft": Example(lambda x: jnp.abs(jnp.fft.rfft(x)), (X,)),
    "ragged_dot_general": Example(
        lambda x, y: lax.ragged_dot(x, y, jnp.array([1, 3], jnp.int32)),
        (M, _real(2, 4, 3)),
    ),
    # JAX computes it in bfloat16.
    "scaled_dot": Example(lambda x, y: lax.scaled_dot(x, y), (M, S), 2.0**-4),
    # indices, secret where an index array is an argument
    "dynamic_slice": Example(lambda x, i: lax.dynamic_slice(x, (i[0],), (2,)), (X, AT)),
    "dynamic_update_slice": Example(
        lambda x, i: lax.dynamic_update_slice(x, x[:2] * 2, (i[0],)), (X, AT)
    ),
    "gather": Example(lambda x, i: x[i], (X, AT)),
    "scatter": Example(lambda x, i: x.at[i].set(1.5), (X, AT)),
    "scatter-add": Example(lambda x, i: x.at[i].add(x[:3]), (X, ROWS)),
    "scatter-max": Example(lambda x, i: x.at[i].max(x[:3]), (X, ROWS)),
    "scatter-min": Example(lambda x, i: x.at[i].min(x[:3]), (X, ROWS)),
    "scatter-mul": Example(lambda x, i: x.at[i].multiply(x[:3]), (X, AT)),
    "scatter-sub": Example(lambda x, i: x.at[i].subtract(x[:3]), (X, ROWS)),
    # control flow and calls
    "cond": Example(lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), (X,)),
    "platform_index": Example(
        lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.sin), (X,)
    ),
    "scan": Example(lambda x: lax.scan(lambda c, v: (c + v, c * v), x[0], x), (X,)),
    "while": Example(_public_while, (X,)),
    "composite": Example(
        lambda x: lax.composite(lambda v: v * v, name="privjax.square")(x), (X,)
    ),
    "custom_jvp_call": Example(_own_jvp, (X,)),
    "custom_linear_solve": Example(
        lambda a, b: jnp.linalg.solve(a, b), (S, _real(4)), 2.0**-9
    ),
    "custom_vjp_call": Example(_own_vjp, (X,)),
    "custom_vmap_call": Example(_own_vmap, (X,)),
    "jit": Example(jax.jit(lambda x: x * x), (X,)),
    "linear_call": Example(
        lambda x: jax.custom_derivatives.linear_call(
            lambda r, v: r * v, lambda r, v: r * v, 2.0, x
        ),
        (X,),
    ),
    "remat2": Example(
        lambda x: jax.grad(jax.checkpoint(lambda v: jnp.sum(v**3)))(x), (X,)
    ),
    "remat_opt": Example(lambda x: jax.grad(lambda v: _own_remat(v).sum())(x), (X,)),
    # linear algebra
    "cholesky": Example(lambda a: lax.linalg.cholesky(a), (S,), 2.0**-9),
    "cholesky_update": Example(
        lambda a, v: lax.linalg.cholesky_update(a, v), (L.T.copy(), _real(4)), 2.0**-8
    ),
    "eigh": Example(lambda a: jnp.linalg.eigvalsh(a), (S,), 2.0**-8),
    "hessenberg": Example(
        lambda a: jnp.abs(jnp.diag(lax.linalg.hessenberg(a)[0], -1)), (M,), 2.0**-8
    ),
    "geqrf": Example(lambda a: jnp.linalg.qr(a, mode="raw")[1], (M,), 2.0**-8),
    "householder_product": Example(
        lambda a: lax.linalg.householder_product(a * 0.1, jnp.full(4, 0.5)), (M,)
    ),
    "lu": Example(lambda a: lax.linalg.lu(a)[0], (S,), 2.0**-8),
    "lu_pivots_to_permutation": Example(
        lambda a: lax.linalg.lu_pivots_to_permutation(lax.linalg.lu(a)[1], 4), (S,), 0
    ),
    "qr": Example(lambda a: jnp.abs(lax.linalg.qr(a)[1]), (M,), 2.0**-8),
    "svd": Example(lambda a: jnp.linalg.svd(a, compute_uv=False), (M,), 2.0**-8),
    "symmetric_product": Example(
        lambda a, c: lax.linalg.symmetric_product(a, c, symmetrize_output=True), (M, S)
    ),
    "triangular_solve": Example(
        lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, lower=True),
        (L, M),
        2.0**-9,
    ),
    "tridiagonal": Example(lambda a: lax.linalg.tridiagonal(a)[1], (S,), 2.0**-8),
    "tridiagonal_solve": Example(
        lambda d, b: lax.linalg.tridiagonal_solve(d * 0.1, d + 3, d * 0.1, b[:, None]),
        (X, Y),
        2.0**-9,
    ),
    # random numbers on public keys
    "random_bits": Example(
        _with_key(lambda w: jax.random.normal(jax.random.key(w), (6,))), (X, WORD)
    ),
    "random_clone": Example(
        _with_key(
            lambda w: jax.random.uniform(jax.random.clone(jax.random.key(w)), (6,))
        ),
        (X, WORD),
    ),
    "random_fold_in": Example(
        _with_key(
            lambda w: jax.random.uniform(jax.random.fold_in(jax.random.key(w), 3), (6,))
        ),
        (X, WORD),
    ),
    "random_gamma": Example(
        _with_key(lambda w: jax.random.gamma(jax.random.key(w), 2.0, (6,))), (X, WORD)
    ),
    "random_seed": Example(
        _with_key(lambda w: jax.random.uniform(jax.random.key(w), (6,))), (X, WORD)
    ),
    "random_split": Example(
        _with_key(
            lambda w: jax.random.uniform(jax.random.split(jax.random.key(w))[1], (6,))
        ),
        (X, WORD),
    ),
    "random_unwrap": Example(
        _with_key(lambda w: jax.random.key_data(jax.random.key(w))[0] % 5), (X, WORD)
    ),
    "random_wrap": Example(
        _with_key(
            lambda w: jax.random.uniform(
                jax.random.wrap_key_data(jnp.stack([w, w])), (6,)
            )
        ),
        (X, WORD),
    ),
    "rng_bit_generator": Example(
        _with_key(lambda w: lax.rng_bit_generator(jnp.stack([w] * 4), (6,))[1] % 5),
        (X, WORD),
    ),
    # markers
    "device_put": Example(lambda x: jax.device_put(x), (X,)),
    "name": Example(lambda x: checkpoint_name(x, "activations"), (X,)),
    "optimization_barrier": Example(lambda x: lax.optimization_barrier(x), (X,)),
    "stop_gradient": Example(lambda x: lax.stop_gradient(x), (X,)),
}
