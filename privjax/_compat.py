"""Every fact that differs between JAX versions, or that JAX has no public name for.

Supported: JAX 0.10.2 (the newest for Python 3.11) and 0.11.x (Python 3.12 and newer).
"""

import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jax.extend import core as jex_core
from jax.extend import source_info_util
from jax.interpreters.partial_eval import dce_jaxpr

from privjax.errors import UnsupportedError

# A message names the user's line, not ours and not that of a model or optimiser library.
for _library in ("privjax", "optax", "flax"):
    _spec = importlib.util.find_spec(_library)
    for _folder in (_spec.submodule_search_locations or ()) if _spec else ():
        source_info_util.register_exclusion(_folder)

Literal = jex_core.Literal
Primitive = jex_core.Primitive
Tracer = jax.core.Tracer


def open_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """The equations' holder and the constants of a closed or open jaxpr.

    0.10.2 has `ClosedJaxpr(jaxpr, consts)` around a `Jaxpr`; in 0.11 both are one class
    that holds its constants itself (`remat2` carries an open one in both).
    """
    consts = getattr(jaxpr, "consts", ())
    return getattr(jaxpr, "jaxpr", jaxpr), tuple(consts)


def scan_arity(params: dict[str, Any], operands: int) -> tuple[int, int]:
    """(number of constants, number of carries) of a `scan` equation.

    0.10.2 states both; 0.11 keeps them in a tree `ft_in` of (consts, carry, xs).
    """
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """Run one equation unchanged on other operands; always a list."""
    out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


# Primitives that stand for a program of others without holding its jaxpr: since 0.11
# `custom_root` is one of these.
UNFOLDED = frozenset({"call_hi_primitive"})


def unfolded(eqn: Any) -> Any:
    """The closed jaxpr that an equation of one of the primitives above stands for.

    Raises `UnsupportedError` where it takes what is no array (JAX's `HiType`).
    """
    avals = [v.aval for v in eqn.invars]
    if not all(hasattr(aval, "weak_type") for aval in avals):
        raise UnsupportedError(
            f"`{eqn.params.get('_prim', eqn.primitive)}` ({user_line(eqn.source_info)}) "
            "takes values that are no arrays. Hand it arrays."
        )
    types = [
        jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)
        for aval in avals
    ]
    return jax.make_jaxpr(partial(eqn.primitive.to_lojax, **eqn.params))(*types)


def user_line(source_info: Any) -> str:
    """`file.py:12 (function)` of the user's line, or an empty string when unknown."""
    return source_info_util.summarize(source_info)


def source_of(eqn: Any) -> Any:
    """A context in which new equations are attributed to `eqn`'s line."""
    info = eqn.source_info
    return source_info_util.user_context(info.traceback, name_stack=info.name_stack)


def live(closed: Any) -> Any:
    """A closed jaxpr without equations (at any depth) that no output needs."""
    jaxpr, consts = open_jaxpr(closed)
    if jaxpr is closed:  # 0.11: one class, constants inside
        return dce_jaxpr(closed, [True] * len(closed.outvars), instantiate=True)[0]
    new, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
    return jex_core.ClosedJaxpr(new, consts)


def under_trace() -> bool:
    """Whether operations are being staged now (jit, scan body, make_jaxpr, ...).

    A sum of two constants is computed at once in eager mode and under an eager `vmap`
    or `jvp`, and becomes a tracer only where a program is being recorded.
    """
    return isinstance(jax.lax.add(1, 1), Tracer)


def compiled(primitive: Any, *static: str) -> Any:
    """An implementation of a primitive: its lowering, compiled.

    Also under `jax.disable_jit()`, where a jit of the primitive would call itself for
    ever. `static` names the parameters.
    """
    run = jax.jit(primitive.bind, static_argnames=static)

    def implementation(*args: Any, **params: Any) -> Any:
        with jax.disable_jit(False):
            return run(*args, **params)

    return implementation
