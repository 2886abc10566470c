"""Markers inside a secret-shared program."""

from typing import Any

import jax.numpy as jnp

from privjax.core.interpret import Rule
from privjax.passes.shared.arithmetic import reduce_sum
from privjax.passes.shared.values import SECRET, Fixed, Integer


def open_value(cx: Any, x: Any, dtype: Any) -> Any:
    """The clear array behind a secret: all parties learn it. One round."""
    if isinstance(x, Fixed):
        (v,) = cx.p.open_arith([x.share])
        return cx.fp.decode(v, x.scale, dtype)
    if isinstance(x, Integer):
        (v,) = cx.p.open_arith([x.share])
        signed = jnp.issubdtype(dtype, jnp.signedinteger)
        return (v.astype(cx.fp.signed) if signed else v).astype(dtype)
    (v,) = cx.p.open_bits([x.bit])
    return v.astype(dtype)


def reveal(cx: Any, x: Any) -> Any:
    """The user's word: the value becomes public here."""
    return open_value(cx, x, cx.eqn.outvars[0].aval.dtype)


def keep(cx: Any, x: Any, **_: Any) -> Any:
    """Statements about a value change nothing of it."""
    return x


def aggregate(cx: Any, *xs: Any, method: Any, keyed: bool) -> list[Any]:
    """A sum over clients: on shares it is secure already, so that it is a plain sum."""
    xs = xs[1:] if keyed else xs
    return [
        reduce_sum(cx, x, axes=(0,), out_sharding=None)
        if isinstance(x, SECRET)
        else jnp.sum(x, 0)
        for x in xs
    ]


RULES: dict[str, Rule] = {
    "reveal": reveal,
    "owned": keep,
    "declassify": keep,
    "aggregate": aggregate,
}
