"""Matrix products and convolutions: one Beaver triple of the whole shape."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax.core.interpret import Rule
from privjax.passes.shared import integers
from privjax.passes.shared.arithmetic import factors
from privjax.passes.shared.values import SECRET, Fixed
from privjax.protocols.tuples import Bilinear

_SMALL = 2.0**-4


def _bilinear(cx: Any, op: Bilinear, x: Any, y: Any) -> Any:
    """Two secrets: a product; one public operand: local, encoded with f bits or more."""
    aval = cx.eqn.outvars[0].aval
    if jnp.issubdtype(aval.dtype, jnp.integer):
        values = [
            cx.integer(v).share if isinstance(v, SECRET) else cx.encode_integer(v)
            for v in (x, y)
        ]
        both = isinstance(x, SECRET) and isinstance(y, SECRET)
        product = cx.p.product if both else cx.p.product_public
        count = math.prod(x.shape)  # at least as many as are added up
        bounds = integers.times(integers.bounds_of(x), integers.bounds_of(y), count)
        return integers.result(cx, product(op, *values), bounds)
    if isinstance(x, SECRET) and isinstance(y, SECRET):
        a, b = factors(cx, cx.fixed(x).entire, cx.fixed(y).entire)
        return Fixed.of(cx.p.product(op, a.share, b.share), a.scale + b.scale)
    secret = cx.factor(cx.fixed(x if isinstance(x, SECRET) else y).entire)
    public = y if isinstance(x, SECRET) else x
    bits = _bits(cx, public)
    public = cx.encode(public, bits)
    operands = (
        (secret.share, public) if isinstance(x, SECRET) else (public, secret.share)
    )
    out = Fixed.of(cx.p.product_public(op, *operands), secret.scale + bits)
    return cx.factor(out, 2 * cx.f)


def _bits(cx: Any, c: Any) -> int:
    """Bits for a public operand: f, and more for a constant whose entries are small.

    As many as leave 12 of its largest entry: each one more halves what the result holds.
    """
    size = np.max(np.abs(c), initial=0.0) if isinstance(c, np.ndarray) else 1.0
    if not 0 < size < _SMALL:
        return cx.f
    needed = min(12, cx.f) - math.floor(math.log2(size)) - 1
    return min(max(cx.f, needed), 2 * cx.f)


def dot_general(
    cx: Any,
    x: Any,
    y: Any,
    *,
    dimension_numbers: Any,
    precision: Any,
    preferred_element_type: Any,
    out_sharding: Any,
) -> Any:
    """x . y; one round, none if both masks are open."""
    op = Bilinear("dot_general", (("dimension_numbers", dimension_numbers),))
    return _bilinear(cx, op, x, y)


def conv_general_dilated(
    cx: Any,
    x: Any,
    y: Any,
    *,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    dimension_numbers: Any,
    feature_group_count: int,
    batch_group_count: int,
    precision: Any,
    preferred_element_type: Any,
    out_sharding: Any = None,
) -> Any:
    """Convolution; one round, none if both masks are open."""
    options = (
        ("window_strides", tuple(window_strides)),
        ("padding", tuple(map(tuple, padding))),
        ("lhs_dilation", tuple(lhs_dilation)),
        ("rhs_dilation", tuple(rhs_dilation)),
        ("dimension_numbers", dimension_numbers),
        ("feature_group_count", feature_group_count),
        ("batch_group_count", batch_group_count),
    )
    return _bilinear(cx, Bilinear("conv_general_dilated", options), x, y)


RULES: dict[str, Rule] = {
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
}
