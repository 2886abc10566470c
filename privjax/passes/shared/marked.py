"""Markers inside a secret-shared program."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core.interpret import Rule
from privjax.errors import UnsupportedError
from privjax.passes.shared.arithmetic import reduce_sum
from privjax.passes.shared.values import SECRET, Boolean, Fixed, Integer
from privjax.protocols.tuples import Noise


def open_values(cx: Any, xs: Sequence[Any], dtypes: Sequence[Any]) -> list[Any]:
    """The clear arrays behind secrets: all parties learn them. One round."""
    xs = [x.entire if isinstance(x, Fixed) else x for x in xs]
    sums = [x for x in xs if not isinstance(x, Boolean)]
    bits = [x for x in xs if isinstance(x, Boolean)]
    clear: dict[int, Any] = {}
    if sums:
        values = cx.p.open_arith([x.share for x in sums])
        clear.update(zip(map(id, sums), values, strict=True))
    if bits:
        values = cx.p.open_bits([x.bit for x in bits])
        clear.update(zip(map(id, bits), values, strict=True))
    return [_decode(cx, x, clear[id(x)], d) for x, d in zip(xs, dtypes, strict=True)]


def _decode(cx: Any, x: Any, v: Any, dtype: Any) -> Any:
    if isinstance(x, Fixed):
        return cx.fp.decode(v, x.scale, dtype)
    if isinstance(x, Integer):
        return cx.fp.decode_integer(v, dtype)
    return v.astype(dtype)


def reveal(cx: Any, x: Any) -> Any:
    """The user's word: the value becomes public here."""
    return open_values(cx, [x], [cx.eqn.outvars[0].aval.dtype])[0]


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


def noise(cx: Any, key: Any, *xs: Any, mechanism: Any, lanes: int) -> list[Any]:
    """A mechanism on secrets: the noise is dealt, so that nobody knows it.

    Values are truncated to the grid of the noise, since bits below it would tell the
    sum. The key of the plain program is not used: all parties know it.
    """
    reals = [cx.fixed(x) for x in xs]
    sizes = [math.prod(x.shape) for x in reals]
    lane_count = math.prod(key.shape[:-1])
    mechanism = mechanism.truncated(sum(sizes) // lane_count)
    digits = min(-math.log2(mechanism.granularity), 2 * cx.f)
    if digits != int(digits):
        raise UnsupportedError(
            f"noise on a grid of {mechanism.granularity}{cx.where()}: on shares the "
            "step must be a power of two."
        )
    digits = int(digits)
    scale = max(digits, 0)
    drawn = cx.p.noise(Noise(mechanism, sum(sizes), scale, cx.fp.dtype))
    ends = np.cumsum(sizes)
    out = []
    for x, start, end in zip(reals, [0, *ends[:-1]], ends, strict=True):
        part = drawn.moved(lambda v, a=start, b=end, x=x: v[a:b].reshape(x.shape))
        share = _on_grid(cx, x, digits)
        out.append(Fixed.of(cx.p.add(share, part), scale))
    return out


def _on_grid(cx: Any, x: Fixed, digits: int) -> Any:
    """`x` truncated to multiples of 2^-digits, at scale max(digits, 0)."""
    if digits >= 0:
        return cx.scaled(x, digits)
    coarse = cx.p.truncate(x.share, x.scale - digits)
    return cx.p.mul_public(coarse, 1 << -digits)


def session(cx: Any, key: Any, *values: Any, lanes: int, note: str) -> Any:
    """An inner transformation's session key: public, and used for nothing secret here.

    What it would draw (noise, masks of a sum) is drawn on shares instead.
    """
    shape = cx.eqn.outvars[0].aval.shape
    return jnp.broadcast_to(key, shape)


RULES: dict[str, Rule] = {
    "reveal": reveal,
    "owned": keep,
    "declassify": keep,
    "aggregate": aggregate,
    "noise": noise,
    "session": session,
}
