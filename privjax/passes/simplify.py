"""Passes that keep a program's meaning: inline calls, drop dead code, share results."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Interpreter, mentions, run
from privjax.core.trace import trace_flat

CALLS = frozenset(
    {
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_lin",
        "composite",
        "eval_jaxpr",
        "linear_call",
        "remat_opt",
        "custom_linear_solve",
        *_compat.UNFOLDED,
    }
)
REMAT = frozenset({"remat2", "checkpoint"})
LOOP = frozenset({"while"})


class _Inline(Interpreter):
    tagged = False

    def __init__(self, names: frozenset[str]) -> None:
        self.markers = names | LOOP
        # `control` keeps these as calls, the others it inlines anyhow.
        kept = names & ({"jit", "pjit"} | REMAT)
        own = {"while": _while_loop, **dict.fromkeys(kept, control.inline)}
        self.rules = control.RULES | own

    def default(self, values: Sequence[Any]) -> list[Any]:
        """A body that is none of a call (of a `reduce`, say) stays with its equation."""
        return self.plain(values)


def _while_loop(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    """`while`: one under `vmap` has a predicate for every lane.

    It goes on while any lane does, and a lane that is over keeps its state.
    """
    nc, nb = params["cond_nconsts"], params["body_nconsts"]
    if not params["cond_jaxpr"].out_avals[0].shape:
        return control.while_loop(cx, *values, **params)
    cond_consts, body_consts = values[:nc], values[nc : nc + nb]

    def test(state: Sequence[Any]) -> Any:
        return run(cx, params["cond_jaxpr"], [*cond_consts, *state])[0]

    def body(carry: Any) -> Any:
        more, state = carry
        new = run(cx, params["body_jaxpr"], [*body_consts, *state])
        kept = [_chosen(more, n, s) for n, s in zip(new, state, strict=True)]
        return jnp.logical_and(more, test(kept)), kept

    init = [jnp.asarray(v) for v in values[nc + nb :]]
    return lax.while_loop(lambda c: jnp.any(c[0]), body, (test(init), init))[1]


def _chosen(lanes: Any, new: Any, old: Any) -> Any:
    """`new` in the lanes (leading axes) that go on, else `old`."""
    return lax.select(
        lax.broadcast_in_dim(lanes, new.shape, range(lanes.ndim)), new, old
    )


class _Cse(Interpreter):
    """Run each distinct equation once; loop bodies are scopes of their own."""

    tagged = False
    rules = control.RULES
    markers = frozenset(control.RULES)

    def __init__(self, pure: Callable[[Any], bool]) -> None:
        self.pure = pure
        self.seen: dict[Any, tuple[Any, list[Any]]] = {}

    def inside(self, state: Any) -> "_Cse":
        return _Cse(self.pure)

    def default(self, values: Sequence[Any]) -> list[Any]:
        """A body that is none of a call or a loop stays with its equation."""
        return super().plain(values)

    def plain(self, values: Sequence[Any]) -> list[Any]:
        eqn = self.eqn
        try:
            key = (
                eqn.primitive.name,
                tuple(_identity(v) for v in values),
                tuple(sorted((k, _hashable(v)) for k, v in eqn.params.items())),
            )
            hash(key)
        except TypeError:
            return super().plain(values)
        if not self.pure(eqn):
            return super().plain(values)
        if key not in self.seen:  # the operands are kept, so that ids stay unique
            self.seen[key] = (values, super().plain(values))
        return self.seen[key][1]


def inline(closed: Any, *, remat: bool = False, **options: Any) -> Any:
    """Splice the bodies of jit, custom_jvp and custom_vjp calls in place.

    Loops that `vmap` gave many predicates get a single one.

    With `remat=True` those of `jax.checkpoint` too (where recomputing is no gain).
    `options` go to `trace_flat`.
    """
    names = CALLS | REMAT if remat else CALLS
    if not mentions(closed, names | LOOP):
        return closed
    return retrace(closed, lambda *xs: run(_Inline(names), closed, xs), **options)


def dce(closed: Any) -> Any:
    """Drop equations that no output needs, inside of loops and branches too."""
    return _compat.live(closed)


def cse(closed: Any, impure: frozenset[str] = frozenset(), **options: Any) -> Any:
    """Compute equal equations once. `impure` primitives differ at every occurrence."""

    def pure(eqn: Any) -> bool:
        name = eqn.primitive.name  # `axis_index` has the effect of naming its axis
        return name not in impure and (not eqn.effects or name == "axis_index")

    return retrace(closed, lambda *xs: run(_Cse(pure), closed, xs), **options)


def retrace(closed: Any, fun: Callable[..., Any], **options: Any) -> Any:
    """Trace a flat function on the inputs of `closed`."""
    avals = [
        jax.ShapeDtypeStruct(v.shape, v.dtype, weak_type=v.weak_type)
        if hasattr(v, "weak_type")
        else jax.ShapeDtypeStruct(v.shape, v.dtype)
        for v in closed.in_avals
    ]
    return trace_flat(fun, *avals, **options)


def _identity(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "biuf":
        return value.dtype.str, value.tobytes()
    return id(value)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
