"""Nonlinear functions of secret fixed-point arrays, for any protocol.

Every function is `fun(p, fp, x, scale) -> (result, scale of the result)`: `x` is one
party's share of the real array times 2^scale, with 0 <= scale <= 2f (f =
`fp.fractional_bits`) and magnitudes below `fp.max_value`. Results are products that
nobody has truncated yet: their scale is 2f. Docstrings state rounds for ring_bits = 64,
and errors for f = 18; an ulp is 2^-f.
"""

from privjax.protocols.functions.bounded import erf, logistic, tanh
from privjax.protocols.functions.exponential import exp, exp2
from privjax.protocols.functions.logarithm import log
from privjax.protocols.functions.reciprocal import divide, reciprocal
from privjax.protocols.functions.roots import rsqrt, sqrt

__all__ = [
    "divide",
    "erf",
    "exp",
    "exp2",
    "log",
    "logistic",
    "reciprocal",
    "rsqrt",
    "sqrt",
    "tanh",
]
