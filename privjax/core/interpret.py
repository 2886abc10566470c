"""One interpreter loop for every pass.

A pass is an `Interpreter`: a table of rules keyed by primitive name, and a few answers
about its own kind of values. A value is a plain array or any registered pytree whose
static part (its treedef) says what the pass knows of it, so that values can cross the
public control-flow combinators.

A rule is a function `rule(cx, *values, **params)` returning one value (or a list where
the primitive has several results). It names every parameter that it understands: a
parameter that it does not name is refused rather than ignored. Rules are consulted when
some value is not plain, or when the primitive is one of the pass's `markers`.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import jax
import numpy as np

from privjax import _compat
from privjax.errors import UnsupportedError

Rule = Callable[..., Any]


class Interpreter:
    """What a pass tells the loop. Subclasses override what differs.

    Attributes:
      rules: primitive name -> rule; start from `control.RULES`.
      markers: primitives that concern the pass even when all operands are plain.
      tagged: whether values other than plain arrays can appear (then loops are traced
        until the static form of their carries is stable).
      eqn: the equation being interpreted (for messages).
      index: its position in its jaxpr: a stable static number within a scope.
    """

    rules: Mapping[str, Rule] = {}
    markers: frozenset[str] = frozenset()
    tagged = True
    needs_index = False
    eqn: Any = None
    index: int = -1

    # -- values ----------------------------------------------------------------------

    def is_plain(self, value: Any) -> bool:
        """Whether `value` is an ordinary array about which the pass knows nothing."""
        return jax.tree.structure(value) == _LEAF

    def join(self, a: Any, b: Any) -> Any:
        """The least static form that `a` and `b` (abstract values) can both take."""
        raise UnsupportedError(
            f"{type(self).__name__}: {a} and {b} meet in a loop or a branch"
            f"{self.where()} and have no common form."
        )

    def coerce(self, value: Any, like: Any) -> Any:
        """`value` in the static form of `like`, a result of `join`."""
        return value

    def default(self, values: Sequence[Any]) -> list[Any]:
        """No rule for the current equation and some value is not plain: deny."""
        raise UnsupportedError(
            f"`{self.eqn.primitive.name}`{self.where()} has no rule in "
            f"{type(self).__name__}."
        )

    def plain(self, values: Sequence[Any]) -> list[Any]:
        """The current equation on plain values: run it unchanged."""
        return _compat.bind(self.eqn, values)

    def predicate(self, value: Any) -> Any:
        """A loop predicate or branch index as a plain array, or an error."""
        if not self.is_plain(value):
            raise UnsupportedError(f"control flow depends on {value}{self.where()}")
        return value

    # -- scopes: passes that thread keys or material through sub-jaxprs override these --

    def sub_inputs(self) -> Any:
        """A pytree for the sub-jaxprs of the current equation.

        A scan slices it along the leading axis, a branch takes entry `part`, a call
        takes all of it.
        """
        return None

    def enter(self, part: int, index: Any = None, inputs: Any = None) -> Any:
        """The state (a pytree of arrays) with which a sub-jaxpr is interpreted.

        `part` numbers the sub-jaxprs of one equation; `index` is the traced iteration
        number in a loop when `needs_index`; `inputs` is the share of `sub_inputs`.
        """
        return None

    def inside(self, state: Any) -> "Interpreter":
        """The interpreter of a sub-jaxpr, given what `enter` returned."""
        return self

    def gathered(self) -> Any:
        """A pytree that this interpreter hands out of its sub-jaxpr."""
        return None

    def deliver(self, part: int, gathered: Any) -> None:
        """Takes what a sub-jaxpr handed out (stacked over the steps of a scan)."""

    def thread(self) -> Any:
        """A pytree that passes through the program in order: into a sub-jaxpr and out
        of it, from one iteration to the next."""
        return None

    def resume(self, thread: Any) -> None:
        """Take up the thread where another interpreter left it."""

    # -- the loop ----------------------------------------------------------------------

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        """Interpret a jaxpr, equation by equation."""
        jaxpr, env, read = environment(closed, values)
        last_use = _last_uses(jaxpr)
        outer = self.eqn, self.index
        for i, eqn in enumerate(jaxpr.eqns):
            self.eqn, self.index = eqn, i
            with _line_of(eqn):
                out = step(self, [read(v) for v in eqn.invars])
            env.update(zip(eqn.outvars, out, strict=True))
            for v in last_use.get(i, ()):  # values may be large: let them go early
                env.pop(v, None)
        self.eqn, self.index = outer
        return [read(v) for v in jaxpr.outvars]

    # -- messages ----------------------------------------------------------------------

    def where(self) -> str:
        """` (file.py:12 (function))` of the current equation, for messages."""
        line = _compat.user_line(self.eqn.source_info) if self.eqn is not None else ""
        return f" ({line})" if line else ""


def _line_of(eqn: Any) -> Any:
    """New equations keep the user's line, inside of a library's jit that of its call."""
    known = _compat.user_line(eqn.source_info)
    return _compat.source_of(eqn) if known else contextlib.nullcontext()


def run(cx: Interpreter, closed: Any, values: Sequence[Any]) -> list[Any]:
    """Interpret a (closed) jaxpr on `values` with the rules of `cx`."""
    return cx.body(closed, values)


def environment(closed: Any, values: Sequence[Any]) -> tuple[Any, dict[Any, Any], Any]:
    """(jaxpr, values of its variables so far, function that reads an atom)."""
    jaxpr, consts = _compat.open_jaxpr(closed)
    env: dict[Any, Any] = {}
    env.update(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        if isinstance(atom, _compat.Literal):
            # A Python scalar would be re-typed by the x64 mode of the moment.
            aval: Any = atom.aval
            return np.asarray(atom.val, aval.dtype)
        return env[atom]

    return jaxpr, env, read


def step(cx: Interpreter, values: Sequence[Any]) -> list[Any]:
    """Interpret the current equation of `cx`."""
    eqn = cx.eqn
    if all(cx.is_plain(v) for v in values) and not _mentions(eqn, cx.markers):
        return cx.plain(values)
    rule = cx.rules.get(eqn.primitive.name)
    if rule is None:
        return cx.default(values)
    known = _named_params(rule)
    if known is not None and not known.issuperset(eqn.params):
        raise UnsupportedError(
            f"`{eqn.primitive.name}`{cx.where()} carries the option(s) "
            f"{sorted(set(eqn.params) - known)}, which its rule does not know: the "
            "installed JAX is newer than the rule."
        )
    out = rule(cx, *values, **eqn.params)
    return list(out) if eqn.primitive.multiple_results else [out]


def sub_jaxprs(eqn: Any) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "eqns") or hasattr(item, "jaxpr"):
                yield item


def mentions(closed: Any, names: frozenset[str]) -> bool:
    """Whether any of the primitives `names` occurs in a jaxpr, at any depth."""
    return _jaxpr_mentions(_compat.open_jaxpr(closed)[0], names)


def _mentions(eqn: Any, names: frozenset[str]) -> bool:
    return eqn.primitive.name in names or any(
        mentions(sub, names) for sub in sub_jaxprs(eqn)
    )


@lru_cache(maxsize=4096)
def _jaxpr_mentions(jaxpr: Any, names: frozenset[str]) -> bool:
    return any(_mentions(eqn, names) for eqn in jaxpr.eqns)


@cache
def _named_params(rule: Rule) -> frozenset[str] | None:
    """Keyword parameters of a rule; None when it takes all of them (control flow)."""
    params = inspect.signature(rule).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in params):
        return None
    return frozenset(p.name for p in params if p.kind is p.KEYWORD_ONLY)


@lru_cache(maxsize=4096)
def _last_uses(jaxpr: Any) -> dict[int, tuple[Any, ...]]:
    last: dict[Any, int] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        for v in eqn.invars:
            if not isinstance(v, _compat.Literal):
                last[v] = i
    for v in jaxpr.outvars:
        if not isinstance(v, _compat.Literal):
            last.pop(v, None)
    by_index: dict[int, tuple[Any, ...]] = {}
    for v, i in last.items():
        by_index[i] = (*by_index.get(i, ()), v)
    return by_index


_LEAF: Any = jax.tree.structure(0)
