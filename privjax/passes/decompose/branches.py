"""Control flow that depends on a secret: everything runs, and results are selected."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Rule, run
from privjax.errors import LeakError, UnsupportedError
from privjax.passes.taint import Tainted

# No fixed point holds such a number; from INFINITE on it stands for infinity.
TOO_LARGE, INFINITE = 2.0**56, 1e29
_JAX = str(Path(jax.__file__).parent)


def branch(cx: Any, index: Any, *operands: Any, **params: Any) -> list[Any]:
    """A branch on a secret: all branches run, and the results are selected."""
    if not isinstance(index, Tainted):
        return control.cond(cx, index, *operands, **params)
    results = [run(cx, branch, operands) for branch in params["branches"]]
    return [cx.apply(_select, index, *case)[0] for case in zip(*results, strict=True)]


def _select(index: Any, *cases: Any) -> Any:
    if len(cases) == 2:  # a predicate: the index came from a boolean
        return jnp.where(lax.convert_element_type(index, bool), cases[1], cases[0])
    out = cases[-1]
    for k in reversed(range(1, len(cases) - 1)):
        out = jnp.where(lax.le(index, np.asarray(k, index.dtype)), cases[k], out)
    return jnp.where(lax.le(index, np.asarray(0, index.dtype)), cases[0], out)


def loop(cx: Any, *values: Any, **params: Any) -> list[Any]:
    """A loop on a secret predicate: `max_steps` iterations, masked once it is over."""
    nc, nb = params["cond_nconsts"], params["body_nconsts"]
    if not _secret_predicate(cx, values, params, nc, nb):
        return control.while_loop(cx, *values, **params)
    if _floating(cx.eqn) or _rescales(params["body_jaxpr"]):
        raise UnsupportedError(
            f"a loop on a secret predicate{cx.where()} counts on the range of "
            "floating-point numbers (a continued fraction, whose terms grow until they "
            "are scaled down) and would overflow in fixed point. Compute it in public, "
            "reveal its operand with privjax.reveal, or give a polynomial that fits the "
            "function on your domain."
        )
    if cx.max_steps is None:
        raise LeakError(
            f"a loop depends on a secret predicate{cx.where()}: its trip count would "
            "reveal the secret. Say how often it may run at most, with "
            "secret_shared(..., max_steps=n); use a fixed number of steps and "
            "jnp.where; or reveal the predicate with privjax.reveal."
        )
    test = jaxpr_as_fun(params["cond_jaxpr"])
    step = jaxpr_as_fun(params["body_jaxpr"])

    def fixed(*xs: Any) -> Any:
        cond_consts, body_consts, init = xs[:nc], xs[nc : nc + nb], xs[nc + nb :]

        def body(carry: Any, _: Any) -> Any:
            (more,) = test(*cond_consts, *carry)  # stays false once the state is kept
            new = step(*body_consts, *carry)
            kept = [jnp.where(more, n, c) for n, c in zip(new, carry, strict=True)]
            return kept, None

        return lax.scan(body, list(init), length=cx.max_steps)[0]

    return cx.apply(fixed, *values)


def _floating(eqn: Any) -> bool:
    """Whether JAX's own `random_gamma_grad` wrote this loop, which scales by 2^23."""
    traceback = eqn.source_info.traceback
    return traceback is not None and any(
        frame.function_name == "random_gamma_grad_impl"
        and frame.file_name.startswith(_JAX)
        for frame in traceback.frames
    )


def _rescales(body: Any) -> bool:
    """Whether a loop multiplies or divides by what is beyond any fixed point."""

    def beyond(atom: Any) -> bool:
        known = isinstance(atom, _compat.Literal)
        return known and bool(
            np.any((abs(atom.val) >= TOO_LARGE) & (abs(atom.val) < INFINITE))
        )

    return any(
        eqn.primitive.name in ("mul", "div") and any(map(beyond, eqn.invars))
        for eqn in _compat.open_jaxpr(body)[0].eqns
    )


def _secret_predicate(cx: Any, values: Any, params: Any, nc: int, nb: int) -> bool:
    """Whether the predicate is secret once the labels of the state are stable."""
    cond_consts, body_consts = values[:nc], values[nc : nc + nb]
    state = [v if isinstance(v, Tainted) else jnp.asarray(v) for v in values[nc + nb :]]

    def body(state: Any) -> Any:
        return run(cx, params["body_jaxpr"], [*body_consts, *state])

    state = control.stable(cx, state, lambda s: jax.eval_shape(body, s))
    (more,) = jax.eval_shape(
        lambda s: run(cx, params["cond_jaxpr"], [*cond_consts, *s]), state
    )
    return isinstance(more, Tainted)


RULES: dict[str, Rule] = {"cond": branch, "while": loop}
