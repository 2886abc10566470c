"""Operations on complex numbers as operations on their real and imaginary parts.

Each rule takes, for every complex operand, a `Pair` of real arrays, and real operands as
they are; it returns pairs and arrays. They are plain JAX and know of no secrets. Where a
square is taken (abs, division, roots, logarithms) numbers beyond 2^12, half of the bits
that a real may have, are brought down by a power of two first.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.passes.decompose.fourier import fft_pairs

# Divisors are multiplied by this, so that squares of small ones keep their bits.
_UP = 2.0**3

# What is beyond 2^12 is multiplied by 2^-14 before it is squared.
_FAR, _DOWN = 12, 14
# In divisions: of the dividend, and of the divisor, whose square is of 8 times as much.
_DIVIDEND, _DIVISOR = (10, 16), (9, 17)


class Pair(NamedTuple):
    """re + i im; `im` is None where it is known to be 0."""

    re: Any
    im: Any

    @property
    def full(self) -> tuple[Any, Any]:
        return self.re, jnp.zeros_like(self.re) if self.im is None else self.im


def parts(z: Pair) -> Any:
    """[..., 2]: both parts as one array, so that one operation serves both."""
    return jnp.stack(z.full, -1)


def whole(both: Any) -> Pair:
    return Pair(both[..., 0], both[..., 1])


def real_dtype(dtype: Any) -> Any:
    """That of the parts of a complex dtype; others are kept."""
    return np.zeros((), dtype).real.dtype if np.dtype(dtype).kind == "c" else dtype


# -- arithmetic ---------------------------------------------------------------------------


def _add(x: Pair, y: Pair) -> Pair:
    if x.im is None or y.im is None:
        return Pair(x.re + y.re, y.im if x.im is None else x.im)
    return Pair(x.re + y.re, x.im + y.im)


def _neg(x: Pair) -> Pair:
    return Pair(-x.re, None if x.im is None else -x.im)


def _sub(x: Pair, y: Pair) -> Pair:
    return _add(x, _neg(y))


def _conj(x: Any, *, input_dtype: Any = None) -> Pair:
    if not isinstance(x, Pair):  # a real counts as complex
        return Pair(x, None)
    return Pair(x.re, None if x.im is None else -x.im)


def _mul(x: Pair, y: Pair, *, out_dtype: Any = None) -> Pair:
    """One product of four combinations: every part is opened once."""
    if x is y:
        return _square(x)
    if x.im is None or y.im is None:
        x, y = (y, x) if x.im is None else (x, y)
        if x.im is None:
            return Pair(x.re * y.re, None)
        return whole(parts(x) * y.re[..., None])
    products = parts(x)[..., :, None] * parts(y)[..., None, :]
    re = products[..., 0, 0] - products[..., 1, 1]
    return Pair(re, products[..., 0, 1] + products[..., 1, 0])


def _square(x: Pair) -> Pair:
    if x.im is None:
        return Pair(lax.square(x.re), None)
    cross = x.re * x.im
    return Pair((x.re + x.im) * (x.re - x.im), cross + cross)


def _norm(x: Pair) -> Any:
    """|x|^2."""
    if x.im is None:
        return lax.square(x.re)
    squares = lax.square(parts(x))
    return squares[..., 0] + squares[..., 1]


def _div(x: Pair, y: Pair) -> Pair:
    """x conj(y) / |y|^2, one division for both parts."""
    if y.im is None:
        if x.im is None:
            return Pair(x.re / y.re, None)
        return whole(parts(x) / y.re[..., None])
    x, above = _near(x, *_DIVIDEND)
    y, below = _near(y, *_DIVISOR)
    product = _mul(x, _scale(_conj(y), _UP**2))
    out = parts(product) / _norm(_scale(y, _UP))[..., None]
    above, below = above[..., None], below[..., None]
    up, down = 2.0 ** _DIVIDEND[1], 2.0 ** -_DIVISOR[1]
    small = jnp.where(above, out * (up * down), out * down)
    return whole(jnp.where(below, small, jnp.where(above, out * up, out)))


def _near(x: Pair, far: int = _FAR, down: int = _DOWN) -> tuple[Pair, Any]:
    """x, times 2^-down where one of its parts is beyond 2^far; and where that is."""
    both = parts(x)
    beyond = jnp.any((both >= 2.0**far) | (both <= -(2.0**far)), -1)
    return whole(jnp.where(beyond[..., None], both * 2.0**-down, both)), beyond


def _abs(x: Pair) -> Any:
    if x.im is None:
        return jnp.abs(x.re)
    x, far = _near(x)
    size = jnp.sqrt(_norm(x))
    return jnp.where(far, size * 2.0**_DOWN, size)


def _sign(x: Pair) -> Pair:
    if x.im is None:
        return Pair(jnp.sign(x.re), None)
    x, _ = _near(x)
    return whole(parts(x) * lax.rsqrt(_norm(x))[..., None])


def _scale(x: Pair, by: Any) -> Pair:
    return Pair(x.re * by, None if x.im is None else x.im * by)


def _with(x: Pair, re: float) -> Pair:
    """x + a real constant."""
    return Pair(x.re + re, x.im)


# -- functions ----------------------------------------------------------------------------


def _exp(x: Pair, *, accuracy: Any = None) -> Pair:
    size = jnp.exp(x.re)
    if x.im is None:
        return Pair(size, None)
    turn = jnp.stack([jnp.cos(x.im), jnp.sin(x.im)], -1)
    return whole(size[..., None] * turn)


def _log(x: Pair, *, accuracy: Any = None) -> Pair:
    re, im = x.full
    if x.im is None:
        return Pair(jnp.log(jnp.abs(re)), lax.atan2(im, re))
    near, far = _near(x)
    more = jnp.where(far, np.asarray(_DOWN * np.log(2), re.dtype), 0)
    return Pair(0.5 * jnp.log(_norm(near)) + more, lax.atan2(im, re))


def _sqrt(x: Pair, *, accuracy: Any = None) -> Pair:
    """The principal root: its larger part by ((|x| + |re|) / 2)^(1/2), so that nothing
    cancels, and the other one by |im| / 2 over that."""
    left = x.re < 0
    if x.im is None:
        root = jnp.sqrt(jnp.abs(x.re))
        return Pair(jnp.where(left, 0, root), jnp.where(left, root, 0))
    x, far = _near(x)
    large = jnp.sqrt(0.5 * (jnp.sqrt(_norm(x)) + jnp.abs(x.re)))
    small = 0.5 * lax.div(jnp.abs(x.im), large)
    up = jnp.where(left, large, small)
    root = jnp.stack([jnp.where(left, small, large), jnp.where(x.im < 0, -up, up)], -1)
    return whole(jnp.where(far[..., None], root * 2.0 ** (_DOWN // 2), root))


def _rsqrt(x: Pair, *, accuracy: Any = None) -> Pair:
    return _div(Pair(jnp.ones_like(x.re), None), _sqrt(x))


def _pow(x: Pair, y: Any) -> Pair:
    y = y if isinstance(y, Pair) else Pair(jnp.asarray(y, x.re.dtype), None)
    return _exp(_mul(_log(x), y))


def _hyperbolic(x: Any) -> tuple[Any, Any]:
    """(cosh, sinh) by one exponential of +-x."""
    both = jnp.exp(jnp.stack([x, -x], -1))
    return 0.5 * (both[..., 0] + both[..., 1]), 0.5 * (both[..., 0] - both[..., 1])


def _sinh(x: Pair, *, accuracy: Any = None) -> Pair:
    cosh, sinh = _hyperbolic(x.re)
    im = x.full[1]
    return Pair(sinh * jnp.cos(im), cosh * jnp.sin(im))


def _cosh(x: Pair, *, accuracy: Any = None) -> Pair:
    cosh, sinh = _hyperbolic(x.re)
    im = x.full[1]
    return Pair(cosh * jnp.cos(im), sinh * jnp.sin(im))


def _tanh(x: Pair, *, accuracy: Any = None) -> Pair:
    """(sinh 2 re + i sin 2 im) / (cosh 2 re + cos 2 im)."""
    twice = _scale(Pair(*x.full), 2.0)
    cosh, sinh = _hyperbolic(twice.re)
    both = jnp.stack([sinh, jnp.sin(twice.im)], -1)
    below = cosh + jnp.cos(twice.im)
    return whole(both / below[..., None])


def _turned(fun: Callable[..., Pair], back: int) -> Callable[..., Pair]:
    """z -> fun(i z) / i^back."""

    def rule(x: Pair, *, accuracy: Any = None) -> Pair:
        re, im = x.full
        out = fun(Pair(-im, re))
        return Pair(out.im, -out.re) if back else out

    return rule


def _by(fun: Callable[..., Pair]) -> Callable[..., Pair]:
    return lambda x, *, accuracy=None: fun(x)


# -- contractions -------------------------------------------------------------------------


def _dot_general(
    x: Pair,
    y: Pair,
    *,
    dimension_numbers: Any,
    precision: Any,
    preferred_element_type: Any,
    out_sharding: Any = None,
) -> Pair:
    """One product, with the parts of each factor along one more free axis."""
    kind = preferred_element_type
    kind = None if kind is None else real_dtype(kind)
    x, y = (v if isinstance(v, Pair) else Pair(v, None) for v in (x, y))
    ((left, _), (batch, _)) = dimension_numbers
    free = (
        len(batch) + x.re.ndim - len(left) - len(batch)
    )  # where x's new axis comes out

    def dot(a: Any, b: Any) -> Any:
        return lax.dot_general(
            a,
            b,
            dimension_numbers,
            precision=precision,
            preferred_element_type=kind,
        )

    if x.im is None and y.im is None:
        return Pair(dot(x.re, y.re), None)
    if y.im is None:
        out = jnp.moveaxis(dot(parts(x), y.re), free, -1)
        return whole(out)
    if x.im is None:
        return whole(dot(x.re, parts(y)))
    out = jnp.moveaxis(dot(parts(x), parts(y)), free, -2)
    return Pair(out[..., 0, 0] - out[..., 1, 1], out[..., 0, 1] + out[..., 1, 0])


def _conv(
    x: Pair,
    y: Pair,
    *,
    preferred_element_type: Any,
    out_sharding: Any = None,
    **how: Any,
) -> Pair:
    """Four convolutions, two where one factor is real."""
    kind = preferred_element_type
    kind = None if kind is None else real_dtype(kind)

    def conv(a: Any, b: Any) -> Any:
        return lax.conv_general_dilated(a, b, preferred_element_type=kind, **how)

    re = conv(x.re, y.re)
    if x.im is None and y.im is None:
        return Pair(re, None)
    if x.im is None or y.im is None:
        return Pair(re, conv(x.re, y.im) if x.im is None else conv(x.im, y.re))
    re = re - conv(x.im, y.im)
    return Pair(re, conv(x.re, y.im) + conv(x.im, y.re))


def _fft(x: Any, *, fft_type: Any, fft_lengths: Sequence[int]) -> Any:
    pair = tuple(x) if isinstance(x, Pair) else (x, None)
    re, im = fft_pairs(pair, fft_type=fft_type, fft_lengths=fft_lengths)
    return re if im is None else Pair(re, im)


# -- comparison, conversion ---------------------------------------------------------------


def _eq(x: Pair, y: Pair) -> Any:
    (a, b), (c, d) = x.full, y.full
    return (a == c) & (b == d)


def _complex(x: Any, y: Any) -> Pair:
    if isinstance(y, np.ndarray) and not y.any():
        return Pair(x, None)
    return Pair(*jnp.broadcast_arrays(x, y))


def _convert(x: Any, *, new_dtype: Any, weak_type: bool, sharding: Any = None) -> Any:
    kind = real_dtype(new_dtype)
    to_complex = np.dtype(new_dtype).kind == "c"
    if not isinstance(x, Pair):
        return Pair(lax.convert_element_type(x, kind), None)
    if np.dtype(new_dtype) == bool:
        re, im = x.full
        return (re != 0) | (im != 0)
    re, im = (None if v is None else lax.convert_element_type(v, kind) for v in x)
    return Pair(re, im) if to_complex else re


def _scatter(how: Callable[..., Any]) -> Callable[..., Any]:
    def rule(
        x: Pair,
        indices: Any,
        updates: Pair,
        *,
        update_jaxpr: Any,
        update_consts: Any,
        **params: Any,
    ) -> Pair:
        (a, b), (c, d) = x.full, updates.full
        return Pair(how(a, indices, c, **params), how(b, indices, d, **params))

    return rule


# Applied to both parts as they are: sums, and moves of entries.
EACH = frozenset(
    {
        "broadcast_in_dim",
        "reshape",
        "transpose",
        "squeeze",
        "expand_dims",
        "rev",
        "tile",
        "slice",
        "copy",
        "copy_p",
        "stop_gradient",
        "name",
        "sharding_constraint",
        "layout_constraint",
        "device_put",
        "concatenate",
        "pad",
        "stack",
        "unstack",
        "split",
        "select_n",
        "gather",
        "dynamic_slice",
        "dynamic_update_slice",
        "reduce_sum",
        "cumsum",
        "reduce_window_sum",
    }
)

# Of several operands of one shape, but for scalar literals.
ELEMENTWISE = frozenset(
    {"complex", "add", "add_any", "sub", "mul", "div", "pow", "eq", "ne", "select_n"}
)

RULES: dict[str, Callable[..., Any]] = {
    "complex": _complex,
    "real": lambda x: x.re,
    "imag": lambda x: x.full[1],
    "conj": _conj,
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _mul,
    "square": _square,
    "div": _div,
    "abs": _abs,
    "sign": _sign,
    "exp": _exp,
    "exp2": _by(lambda x: _exp(_scale(x, float(np.log(2))))),
    "expm1": _by(lambda x: _with(_exp(x), -1)),
    "log": _log,
    "log1p": _by(lambda x: _log(_with(x, 1))),
    "log2": _by(lambda x: _scale(_log(x), float(1 / np.log(2)))),
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "pow": _pow,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "sin": _turned(_sinh, 1),
    "cos": _turned(_cosh, 0),
    "tan": _turned(_tanh, 1),
    "logistic": _by(
        lambda x: _div(Pair(jnp.ones_like(x.re), None), _with(_exp(_neg(x)), 1))
    ),
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "fft": _fft,
    "eq": _eq,
    "ne": lambda x, y: ~_eq(x, y),
    "optimization_barrier": lambda *values: list(values),  # a hint about plain arrays
    "is_finite": lambda x: jnp.ones(x.re.shape, bool),
    "convert_element_type": _convert,
    "scatter": _scatter(lax.scatter),
    "scatter-add": _scatter(lax.scatter_add),
    "scatter-sub": _scatter(lax.scatter_sub),
}


def each(bind: Callable[..., Any], values: Sequence[Any]) -> Any:
    """A linear operation on both parts of all pairs among its operands."""
    pairs = [v for v in values if isinstance(v, Pair)]
    real = all(v.im is None for v in pairs)
    re = bind(*(v.re if isinstance(v, Pair) else v for v in values))
    im = None
    if not real:
        im = bind(*(v.full[1] if isinstance(v, Pair) else v for v in values))
    if isinstance(re, (tuple, list)):
        return [Pair(a, b) for a, b in zip(re, im or [None] * len(re), strict=True)]
    return Pair(re, im)
