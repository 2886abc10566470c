"""x times a gate of x, with errors that do not grow with x.

gelu and silu are c x G(x), where G is a sigmoid's value between 0 and H. In fixed point an
error of G is multiplied by x, which is most of gelu's error far from 0, where G is all but
0 or H. What is left there is small, so that is what is multiplied: with E the distance of
G from the end that it goes to on its own side of 0,

    x G(x) = H max(x, 0) - |x| E    where G opens to the right,
    x G(x) = H min(x, 0) + |x| E    where it opens to the left.

E is exactly 0 where the function's own result is exact, and is multiplied at up to 256
times its size, so that the product's rounding counts 1/256. The function is the one that
the program has, and is not computed twice where a gradient needs it too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.polynomial.polynomial import polyadd, polymul, polypow, polysub

from privjax.core import control
from privjax.core.interpret import Rule, run
from privjax.passes.decompose.branches import branch
from privjax.passes.simplify import retrace
from privjax.passes.taint import Tainted, TaintPass, raw

# What the functions go to at the left and at the right.
LIMITS = {
    "erf": (-1.0, 1.0),
    "erfc": (2.0, 0.0),
    "tanh": (-1.0, 1.0),
    "logistic": (0.0, 1.0),
}

_FINER = 256  # as far as 256 |x| E fits, see `_room`
_DEGREE = 3  # of what functions are taken of: gelu's by tanh is a cubic
_SLOPE = 1 / 16  # the least at 0
_CLOSED = (
    1e-5  # what a gate may be off 0 where it counts as closed, as part of its range
)


def _power(p: Any, y: int) -> Any:
    return polypow(p, y) if 0 < y <= _DEGREE else None


def _quotient(p: Any, q: Any) -> Any:
    return p / q[0] if len(q) == 1 and q[0] else None


# What the operations make of polynomials of the same value.
POLYNOMIALS: dict[str, Callable[..., Any]] = {
    "mul": polymul,
    "square": lambda p: polypow(p, 2),
    "integer_pow": _power,
    "div": _quotient,
    "add": polyadd,
    "add_any": polyadd,
    "sub": polysub,
    "neg": lambda p: -p,
    "copy": lambda p: p,
    "convert_element_type": lambda p: p,
}


@dataclass(frozen=True, eq=False)
class Form:
    """A value that is a polynomial of `root`, with coefficients from the constant on."""

    root: Any
    coefficients: Any


class _Gates(TaintPass):
    # Re-entering a branch on a secret would compare its index with its bounds once more.
    rules: dict[str, Rule] = control.RULES | {"cond": branch}

    def __init__(self, largest: float) -> None:
        self.largest = largest
        # By the identity of arrays, which `forms` and `gates` keep alive.
        self.forms: dict[int, tuple[Any, Form]] = {}
        self.gates: dict[int, tuple[Any, str, Form]] = {}

    def default(self, values: Sequence[Any]) -> list[Any]:
        name = self.eqn.primitive.name
        if name == "mul":
            for factor, gate in (values, values[::-1]):
                found = self._gated(factor, gate)
                if found is not None:
                    return [Tainted(found)]
        out = super().default(values)
        if name in LIMITS:
            self.gates[id(out[0].array)] = out[0].array, name, self._form(values[0])
        form = self._polynomial(name, values)
        if form is not None:
            self.forms[id(out[0].array)] = out[0].array, form
        return out

    def _form(self, value: Any) -> Form:
        known = self.forms.get(id(raw(value)))
        return known[1] if known else Form(raw(value), np.array([0.0, 1.0]))

    def _polynomial(self, name: str, values: Sequence[Any]) -> Form | None:
        """The form of an equation's result, if it is a polynomial of low degree."""
        rule = POLYNOMIALS.get(name)
        if rule is None or not all(
            _real(v.aval) for v in (*self.eqn.invars, *self.eqn.outvars)
        ):
            return None
        forms = [
            Form(None, np.array([float(v)])) if _constant(v) else self._form(v)
            for v in values
        ]
        roots = [form.root for form in forms if form.root is not None]
        if any(root is not roots[0] for root in roots):
            return None
        args = [form.coefficients for form in forms]
        if name == "integer_pow":
            args.append(self.eqn.params["y"])
        out = rule(*args)
        if out is None or not 2 <= len(out) <= _DEGREE + 1:
            return None
        return Form(roots[0], out)

    def _gated(self, factor: Any, gate: Any) -> Any:
        """The product, if it is of a multiple of x and a gate of the same x."""
        if not (isinstance(factor, Tainted) and isinstance(gate, Tainted)):
            return None
        multiple, level = self._form(factor), self._form(gate)
        known = self.gates.get(id(level.root))
        if known is None or len(level.coefficients) != 2:
            return None
        function, name, argument = known
        root, inner = multiple.root, argument.coefficients
        if argument.root is not root or len(multiple.coefficients) != 2:
            return None
        if multiple.coefficients[0] or not _opens(inner):
            return None
        ends = np.array(LIMITS[name][:: int(np.sign(inner[1]))])  # left and right of x
        offset, slope = level.coefficients
        shut = np.abs(offset + slope * ends) <= _CLOSED * abs(slope)
        if not shut.any():
            return None
        right = bool(shut[0])  # whether it opens to the right
        closed, opened = ends if right else ends[::-1]
        finer = _room(self.largest, abs(inner[1]), abs(opened - closed))
        if finer < 1:
            return None
        height = multiple.coefficients[1] * slope * (opened - closed)
        x = root.astype(function.dtype)
        out = _product(x, function, closed, opened, height, right, finer)
        return out.astype(self.eqn.outvars[0].aval.dtype)


def _product(
    x: Any,
    function: Any,
    closed: float,
    opened: float,
    height: float,
    right: bool,
    finer: float,
) -> Any:
    positive = lax.gt(x, jnp.zeros_like(x))
    zero = jnp.zeros_like(x)
    own = lax.select(positive, x, zero)
    size = 2 * own - x
    if not right:
        own = lax.sub(x, own)
    span = abs(opened - closed)
    away = (function - closed) * float(np.sign(opened - closed))
    away = lax.select(positive if right else ~positive, span - away, away)
    rest = ((finer * away) * size) * (height / (span * finer))
    return height * own - rest if right else height * own + rest


def _room(largest: float, slope: float, span: float) -> float:
    """A power of two, at most 256, so many times |x| E and E are far from the largest.

    |x| E is at most .28 span / slope, that of the logistic function; sums of products
    have twice the fractional bits, and should not wrap before they are truncated.
    """
    room = largest * min(slope, 1.0) / (4 * span)
    return 2.0 ** min(math.log2(_FINER), math.floor(math.log2(room)))


def _opens(inner: Any) -> bool:
    """Whether a gate of this argument has one end at each side."""
    padded = np.zeros(_DEGREE + 1)
    padded[: len(inner)] = inner
    constant, slope, square, cube = padded
    return bool(not (constant or square) and abs(slope) >= _SLOPE and slope * cube >= 0)


def _real(aval: Any) -> bool:
    return bool(jnp.issubdtype(getattr(aval, "dtype", bool), jnp.floating))


def _constant(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, float)) and np.ndim(value) == 0


def gates(closed: Any, secret: Sequence[bool], largest: float) -> Any:
    """Rewrite a jaxpr whose calls are inlined.

    Args:
      secret: which inputs are secret.
      largest: the largest number of the format.
    """
    cx = _Gates(largest)

    def fun(*xs: Any) -> list[Any]:
        values = [Tainted(x) if s else x for x, s in zip(xs, secret, strict=True)]
        return [raw(v) for v in run(cx, closed, values)]

    return retrace(closed, fun)
