"""Complex numbers that depend on secrets become pairs of reals.

`split(closed, secret)` rewrites a jaxpr whose calls are inlined into one in which every
complex value that depends on a secret is two real ones; public complex values stay. It
comes before `decompose`, because it makes roots, quotients and functions of reals. What
has no rule of its own in `complex_rules` is first written in terms of what has, by the
tables of `decompose` (powers, factorisations of complex matrices).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Rule, run, sub_jaxprs
from privjax.core.trace import trace_flat
from privjax.errors import UnsupportedError
from privjax.passes.complex_rules import (
    EACH,
    ELEMENTWISE,
    RULES,
    Pair,
    each,
    real_dtype,
)
from privjax.passes.decompose import RULES as DECOMPOSED
from privjax.passes.decompose import branches, linalg
from privjax.passes.shared.refused import REASONS
from privjax.passes.taint import Tainted, TaintPass, raw

# What `decompose` writes in terms of other operations for complex numbers as well.
REWRITTEN = frozenset(linalg.RULES) | {"integer_pow", "reduce_prod", "cumprod"}

_UNKNOWN = (
    "has no rule",
    "Write it with operations on its real and imaginary parts, or reveal its operand "
    "with privjax.reveal.",
)


@jax.tree_util.register_pytree_node_class
class Complex(Tainted):
    """A complex array that depends on a secret; `im` is None where it is known to be 0."""

    def __init__(self, re: Any, im: Any) -> None:
        self.re, self.im = re, im

    @property
    def pair(self) -> Pair:
        return Pair(self.re, self.im)

    def tree_flatten(self) -> Any:
        return (self.re, self.im), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> "Complex":
        return cls(*children)


class ComplexPairs(TaintPass):
    """Values are plain arrays (public), `Tainted` (secret, real) or `Complex`."""

    # Control flow on secrets as in `decompose`; the rest of its rules are for reals.
    rules: dict[str, Rule] = control.RULES | {
        "cond": branches.branch,
        "while": branches.loop,
    }

    def __init__(self, max_steps: int | None) -> None:
        self.max_steps = max_steps

    def join(self, a: Any, b: Any) -> Any:
        pairs = [v for v in (a, b) if isinstance(v, Complex)]
        if not pairs:
            return super().join(a, b)
        return Complex(pairs[0].re, pairs[0].re)  # with both parts

    def coerce(self, value: Any, like: Any) -> Any:
        if isinstance(like, Complex):
            return Complex(*_operand(value).full)
        return super().coerce(value, like)

    def default(self, values: Sequence[Any]) -> list[Any]:
        name, eqn = self.eqn.primitive.name, self.eqn
        if not any(_is_complex(v.aval) for v in (*eqn.invars, *eqn.outvars)):
            return super().default(values)
        if name in ("eq", "ne") and values[0] is values[1]:  # the test for NaN
            return [jnp.full(eqn.outvars[0].aval.shape, name == "eq")]
        operands = [_operand(v) for v in values]
        if name in ELEMENTWISE:
            operands = [_spread(v, eqn.outvars[0].aval.shape) for v in operands]
        if name in self.shown:
            return [lax.complex(*each(self._bind, operands).full)]
        if name in EACH:
            out = each(self._bind, operands)
        elif name in RULES:
            out = RULES[name](*operands, **eqn.params)
        elif name in REWRITTEN:
            rule = DECOMPOSED[name]
            results = self.apply(lambda *xs: rule(*xs, **eqn.params), *values)
            return results if eqn.primitive.multiple_results else results[:1]
        else:
            why, instead = REASONS.get(name, _UNKNOWN)
            raise UnsupportedError(
                f"`{name}` on a secret complex number{self.where()} {why}. {instead}"
            )
        results = out if eqn.primitive.multiple_results else [out]
        return [Complex(*v) if isinstance(v, Pair) else Tainted(v) for v in results]

    def _bind(self, *values: Any) -> Any:
        out = _compat.bind(self.eqn, values)
        return out if self.eqn.primitive.multiple_results else out[0]

    def apply(self, fun: Callable[..., Any], *values: Any) -> list[Any]:
        """A function of arrays, some of them complex, on values of this pass."""

        def body(*xs: Any) -> list[Any]:
            out = fun(*xs)
            return list(out) if isinstance(out, (tuple, list)) else [out]

        return run(self, jax.make_jaxpr(body)(*map(_spec, values)), values)


def _is_complex(aval: Any) -> bool:
    return bool(jnp.issubdtype(getattr(aval, "dtype", bool), np.complexfloating))


def _spec(value: Any) -> Any:
    if isinstance(value, Complex):
        dtype = np.result_type(value.re.dtype, np.complex64)
        return jax.ShapeDtypeStruct(value.re.shape, dtype)
    value = raw(value)
    return jax.ShapeDtypeStruct(np.shape(value), value.dtype)


def _operand(value: Any) -> Any:
    """What the rules take: a pair for a complex value, public ones included."""
    if isinstance(value, Complex):
        return value.pair
    value = raw(value)
    if not _is_complex(value):
        return value
    known = isinstance(value, np.ndarray)
    return Pair(value.real, None if known and not value.imag.any() else value.imag)


def _spread(value: Any, shape: tuple[int, ...]) -> Any:
    """A scalar as an array: equations may have scalar literals beside arrays."""
    if isinstance(value, Pair):
        return Pair(*(v if v is None else _spread(v, shape) for v in value))
    if np.ndim(value) or not shape:
        return value
    spread: Any = np if isinstance(value, np.ndarray) else jnp
    return spread.broadcast_to(value, shape)


@dataclass(frozen=True)
class Split:
    """A jaxpr on pairs, and where its pairs are.

    Attributes:
      closed: the jaxpr; a complex input that is secret became two inputs, its real and
        then its imaginary part, in its place, and likewise for outputs.
      inputs: for each input of the original whether it became two.
      outputs: for each output of the original whether it became two.
    """

    closed: Any
    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]

    def spread(self, facts: Sequence[Any]) -> list[Any]:
        """What is known of each original input, for the inputs of `closed`."""
        return [v for v, two in zip(facts, self.inputs, strict=True) for _ in _n(two)]

    def arrays(self, values: Sequence[Any]) -> list[Any]:
        """Arguments of the original as those of `closed`."""
        out: list[Any] = []
        for v, two in zip(values, self.inputs, strict=True):
            out += [jnp.real(v), jnp.imag(v)] if two else [v]
        return out

    def results(self, values: Sequence[Any]) -> list[Any]:
        """Results of `closed` as those of the original."""
        given = iter(values)
        return [
            lax.complex(next(given), next(given)) if two else next(given)
            for two in self.outputs
        ]


def _n(two: bool) -> range:
    return range(1 + two)


def split(closed: Any, secret: Sequence[bool], max_steps: int | None = None) -> Split:
    """Rewrite secret complex values of a jaxpr (with calls inlined) as pairs.

    `secret` says which inputs are secret; `max_steps` bounds loops with a secret
    predicate, as in `decompose`. A jaxpr without complex values is returned as it is.
    """
    if not any(map(_is_complex, _avals(closed))):
        no_in, no_out = ((False,) * len(v) for v in (closed.in_avals, closed.out_avals))
        return Split(closed, no_in, no_out)
    two = tuple(
        s and _is_complex(v) for s, v in zip(secret, closed.in_avals, strict=True)
    )
    specs: list[Any] = []
    for v, pair in zip(closed.in_avals, two, strict=True):
        dtype, weak = real_dtype(v.dtype) if pair else v.dtype, v.weak_type
        specs += [
            jax.ShapeDtypeStruct(v.shape, dtype, weak_type=weak) for _ in _n(pair)
        ]
    outputs: list[bool] = []

    def fun(*xs: Any) -> list[Any]:
        given = iter(xs)
        values: list[Any] = []
        for s, pair in zip(secret, two, strict=True):
            if pair:
                values.append(Complex(next(given), next(given)))
            else:
                values.append(Tainted(next(given)) if s else next(given))
        results = run(ComplexPairs(max_steps), closed, values)
        outputs[:] = [isinstance(v, Complex) for v in results]
        flat: list[Any] = []
        for v in results:
            flat += v.pair.full if isinstance(v, Complex) else [raw(v)]
        return flat

    return Split(trace_flat(fun, *specs), two, tuple(outputs))


def _avals(closed: Any) -> Iterator[Any]:
    """The types of all variables of a jaxpr, at any depth."""
    jaxpr, _ = _compat.open_jaxpr(closed)
    yield from (v.aval for v in (*jaxpr.invars, *jaxpr.constvars))
    for eqn in jaxpr.eqns:
        yield from (v.aval for v in eqn.outvars)
        for sub in sub_jaxprs(eqn):
            yield from _avals(sub)
