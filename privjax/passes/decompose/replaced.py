"""Functions of JAX whose own algorithms do not fit fixed point, in ones that do.

Their bodies are calls in the traced program, and gone once calls are inlined; so
`recognise` comes first. A call counts as one of the table if it has the name, was defined
in JAX, and its body is word for word what JAX's public function traces to for operands of
the same types: a function of the user's with the same name is left alone, and so are
other options, and derivatives, of the functions themselves. For these it says that
intermediate results may not fit. All this is for 18 fractional bits in a ring of 64: the
ring of 128 bits holds what JAX's own algorithms need.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import jax.scipy.special
import numpy as np
from jax import lax
from scipy import special  # type: ignore[import-untyped]

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Interpreter, sub_jaxprs
from privjax.core.interpret import run as interpret
from privjax.errors import RangeWarning, UnsupportedError
from privjax.passes.decompose.integrals import (
    dawsn,
    erfcx,
    expi,
    expn,
    fitted,
    polynomial,
    sici,
)
from privjax.passes.simplify import retrace

_JAX = str(Path(jax.__file__).parent)
_LANES = 2  # axes of `vmap` that are looked for
_CALLS = frozenset({"jit", "pjit", "custom_jvp_call"})

# -- the functions ------------------------------------------------------------------------

# expm: thresholds of the norm, each one more squaring; and the degree of Taylor's
# polynomial, whose remainder is below 2^-23 up to the least of them.
_HALVINGS = 10
_TAYLOR = 7

_FAR = 2.0**13 - 1  # half of its square still fits

# sinc: where its quotient takes over from Taylor's polynomial, and the degree of that.
_NEAR, _EVEN = 0.5, 6

# bessel_jn: points of the trapezoidal rule on the circle, in a quarter of it.
_QUARTER = 32


def expm(a: Any) -> Any:
    """e^A for matrices [..., n, n] by scaling and squaring (Higham 2005, without Pade).

    The 1-norm decides how many of at most ten halvings there are, without being opened.
    Errors of 2^-17 grow with the norm: about 2^-16 max(1, |A|_1) e^|A|_1, for norms up to
    16 (beyond, up to 512, where the results are no larger than those, as for
    negative definite matrices).
    """
    norm = jnp.max(jnp.sum(jnp.abs(a), -2), -1)
    steps = np.exp2(np.arange(_HALVINGS) - 1.0).astype(norm.dtype)
    halve = norm > steps.reshape(-1, *[1] * norm.ndim)
    lost = np.exp2(-np.arange(1.0, _HALVINGS + 1)).astype(norm.dtype)
    shrink = 1 - jnp.tensordot(lost, halve.astype(norm.dtype), 1)
    a = a * shrink[..., None, None]
    eye = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    out = eye * (1 / math.factorial(_TAYLOR))
    for k in reversed(range(_TAYLOR)):
        out = a @ out + eye * (1 / math.factorial(k))

    def square(x: Any, active: Any) -> Any:
        return jnp.where(active[..., None, None], x @ x, x), None

    return lax.scan(square, out, halve)[0]


@cache
def _tail() -> Any:
    """log(erfcx(z) / t) for t = 1 / (1 + z / 2) and z >= 0, a polynomial within 1e-6."""
    return fitted(lambda t: np.log(special.erfcx(2 / t - 2) / t))


def log_ndtr(x: Any) -> Any:
    """log of the normal distribution function, where that is below resolution as well.

    Left of 0 it is -x^2 / 2 + log(t / 2) + a polynomial in t = 1 / (1 + |x| / 8^(1/2));
    2^-14 absolute and relative; saturates at about -3.4e7.
    """
    y = lax.min(lax.max(-x, jnp.zeros_like(x)), jnp.full_like(x, _FAR))
    t = lax.div(jnp.ones_like(y), 1 + y * (0.5 / math.sqrt(2)))
    left = lax.log(t) - 0.5 * y * y + (polynomial(_tail(), t) - math.log(2))
    right = lax.log(0.5 + 0.5 * lax.erf(lax.max(x, jnp.zeros_like(x)) / math.sqrt(2)))
    return jnp.where(x > 0, right, left)


def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), 1 at 0, within 2^-15: a polynomial where the quotient is bad."""
    part = lax.min(lax.max(x, -_like(x, _NEAR)), _like(x, _NEAR)) * (1 / _NEAR)
    powers = [(math.pi * _NEAR) ** (2 * k) for k in range(_EVEN)]
    signs = [(-1) ** k * p / math.factorial(2 * k + 1) for k, p in enumerate(powers)]
    near = jnp.abs(x) < _NEAR
    angle = jnp.where(near, 1.0, x * math.pi)
    return jnp.where(
        near, polynomial(signs, part * part), lax.div(lax.sin(angle), angle)
    )


def _like(x: Any, value: float) -> Any:
    return jnp.full_like(x, value)


def bessel_jn(z: Any, *, v: int) -> Any:
    """J_0 ... J_v at z [...] as [v + 1, ...], within 2^-15 for |z| + v <= 100.

    Bessel's integral of cos(n s - z sin s) over the circle, by the trapezoidal rule.
    """
    angles = np.pi / 2 / _QUARTER * np.arange(_QUARTER + 1)
    orders = np.arange(v + 1)[:, None]
    weights = np.full(_QUARTER + 1, 1 / _QUARTER)
    weights[[0, -1]] /= 2
    even = np.where(orders % 2 == 0, np.cos(orders * angles), 0) * weights
    odd = np.where(orders % 2 == 1, np.sin(orders * angles), 0) * weights
    arguments = z * np.sin(angles).astype(z.dtype).reshape(-1, *[1] * z.ndim)
    both = jnp.concatenate([lax.cos(arguments), lax.sin(arguments)])
    return jnp.tensordot(np.concatenate([even, odd], 1).astype(z.dtype), both, 1)


def qdwh(a: Any) -> tuple[Any, ...]:
    """Polar factors of [..., m, n], m >= n, as (u, h, steps, converged), by `svd`.

    The iteration that it stands for divides by its estimate of the least singular value.
    """
    u, s, vt = jnp.linalg.svd(a, full_matrices=False)
    transposed = jnp.swapaxes(vt, -1, -2)
    lanes = a.shape[:-2]
    return (
        u @ vt,
        (transposed * s[..., None, :]) @ vt,
        np.zeros(lanes, np.int32),
        np.ones(lanes, bool),
    )


# -- the table ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """A function of JAX, and what stands for it.

    Attributes:
      public: (shape of the result, or what is the first of two operands) -> JAX's
        function of the operand, with its options.
      instead: likewise the one that replaces it.
      rank: of the operand; one of more axes may come from `vmap`.
      limit: what happens where the original stays.
      ordered: whether a public number comes before the operand.
      derivative: the way out where a derivative of the original cannot stay.
    """

    public: Callable[[Any], Callable[..., Any]]
    instead: Callable[[Any], Callable[..., Any]]
    rank: int
    limit: str
    ordered: bool = False
    derivative: str = ""


def _order(shape: tuple[int, ...]) -> int:
    return max((*shape, 1)[0], 1) - 1


KNOWN: dict[str, Known] = {
    "expm": Known(
        lambda _: jax.scipy.linalg.expm,
        lambda _: expm,
        2,
        "Pade's coefficients do not fit above a norm of about 2",
        derivative="For symmetric matrices write it by jnp.linalg.eigh, else as a "
        "polynomial that is squared a few times; these have derivatives.",
    ),
    "qdwh": Known(  # of `jax.scipy.linalg.polar`
        lambda _: jax.scipy.linalg.polar,
        lambda _: qdwh,
        2,
        "the weights of its iteration do not fit",
    ),
    "log_ndtr": Known(
        lambda _: jax.scipy.special.log_ndtr,
        lambda _: log_ndtr,
        0,
        "left of -4 it takes the logarithm of numbers below resolution",
    ),
    "sinc": Known(
        lambda _: jnp.sinc,
        lambda _: sinc,
        0,
        "near 0 it divides what has few bits left",
    ),
    "bessel_jn": Known(
        lambda shape: partial(jax.scipy.special.bessel_jn, v=_order(shape)),
        lambda shape: partial(bessel_jn, v=_order(shape)),
        0,
        "its recurrence overflows",
    ),
    "expn": Known(
        lambda n: partial(jax.scipy.special.expn, n),
        lambda n: partial(expn, n=n),
        0,
        "its series and its fraction overflow",
        ordered=True,
    ),
    "sici": Known(
        lambda _: jax.scipy.special.sici,
        lambda _: sici,
        0,
        "its quotients of polynomials are off by up to 0.1 beyond |x| = 4",
    ),
    "expi": Known(
        lambda _: jax.scipy.special.expi,
        lambda _: expi,
        0,
        "its quotients of polynomials overflow",
    ),
    "erfcx": Known(
        lambda _: jax.scipy.special.erfcx,
        lambda _: erfcx,
        0,
        "it multiplies what does not fit with what is below resolution",
    ),
    "dawsn": Known(
        lambda _: jax.scipy.special.dawsn,
        lambda _: dawsn,
        0,
        "its quotients of polynomials are off by up to 2^-8",
    ),
}


# -- the pass -----------------------------------------------------------------------------


# What derivatives do to an order: folded, so that it stays a known number.
_ON_NUMBERS: dict[str, Callable[..., Any]] = {
    "sub": np.subtract,
    "stop_gradient": np.asarray,
}
_OTHER = " is not in its plain form (other options, or a derivative)"


class _Recognise(Interpreter):
    tagged = False
    markers = _CALLS | {"while"}

    def __init__(self, notes: dict[str, None]) -> None:
        self.notes = notes
        own = dict.fromkeys(_CALLS, _call) | {"while": _while_loop}
        self.rules = control.RULES | own

    def default(self, values: Sequence[Any]) -> list[Any]:
        return self.plain(values)

    def plain(self, values: Sequence[Any]) -> list[Any]:
        fold = _ON_NUMBERS.get(self.eqn.primitive.name)
        if fold is not None and all(map(_is_number, values)):
            return [np.asarray(fold(*values))]
        return super().plain(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 0


def _call(cx: Any, *values: Any, **params: Any) -> list[Any]:
    body = params["call_jaxpr" if "call_jaxpr" in params else "jaxpr"]
    name = _name(body)
    if name is None:
        return control.inline(cx, *values, **params)
    known = KNOWN[name]
    instead = _replacement(name, known, body, values)
    if instead is not None:
        out = instead(values[-1])
        return list(out) if isinstance(out, tuple) else [out]
    if known.derivative and (len(body.in_avals), len(body.out_avals)) != (1, 1):
        raise UnsupportedError(
            f"the derivative of `{name}`{cx.where()} on a secret: {known.limit}. "
            f"{known.derivative}"
        )
    if not any(_name(sub) for sub in _bodies(body)):
        text = f"`{name}`{cx.where()}{_OTHER}: {known.limit}"
        if text not in cx.notes:
            warnings.warn(text, RangeWarning, stacklevel=2)
        cx.notes[text] = None
    return control.inline(cx, *values, **params)


def _while_loop(cx: Any, *values: Any, **params: Any) -> list[Any]:
    if params["cond_jaxpr"].out_avals[0].shape:  # under vmap: `simplify` takes it up
        return list(cx.plain(values))
    return control.while_loop(cx, *values, **params)


def _name(closed: Any) -> str | None:
    """Which function of the table a body is by its name and origin."""
    info = getattr(_compat.open_jaxpr(closed)[0], "debug_info", None)
    name, _, place = str(getattr(info, "func_src_info", "")).partition(" at ")
    name = name.lstrip("_")  # what a `custom_jvp` wraps
    return name if name in KNOWN and place.startswith(_JAX) else None


def _bodies(closed: Any) -> Iterator[Any]:
    """All sub-jaxprs, at any depth."""
    for eqn in _compat.open_jaxpr(closed)[0].eqns:
        for sub in sub_jaxprs(eqn):
            yield sub
            yield from _bodies(sub)


def _replacement(
    name: str, known: Known, body: Any, values: Sequence[Any]
) -> Callable[..., Any] | None:
    """What does the same as a body to which JAX's function traces, `vmap`ed or not."""
    if not body.in_avals:
        return None
    *first, aval = body.in_avals  # tables of coefficients may come first
    if known.ordered and len(first) != 1:
        return None
    if not jnp.issubdtype(aval.dtype, jnp.floating):
        return None
    if known.ordered and not (_is_number(values[0]) and values[0] >= 0):
        return None
    out, text = body.out_avals[0], str(body)
    spec = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    for lanes in range(min(len(aval.shape) - known.rank, _LANES) + 1):
        option = int(values[0]) if known.ordered else out.shape[lanes:]
        public = _vmapped(known.public(option), lanes)
        for x64 in (True,) if aval.dtype == np.float64 else (False, True):
            with jax.enable_x64(x64):
                closed = jax.make_jaxpr(public)(spec)
            found = (b for b in _bodies(closed) if _name(b) == name)
            if any(str(b) == text for b in found):
                return _vmapped(known.instead(option), lanes)
    return None


def _vmapped(fun: Callable[..., Any], times: int) -> Callable[..., Any]:
    for _ in range(times):
        fun = jax.vmap(fun)
    return fun


def recognise(closed: Any, notes: dict[str, None]) -> Any:
    """A traced program with functions of the table replaced; `notes` on the others."""
    if not any(_name(body) for body in _bodies(closed)):
        return closed
    return retrace(closed, lambda *xs: interpret(_Recognise(notes), closed, xs))
