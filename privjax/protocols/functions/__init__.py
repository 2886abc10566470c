"""Nonlinear functions of secret fixed-point arrays, for any protocol.

Every function is `fun(p, fp, x, scale) -> (result, scale of the result)`: `x` is one
party's share of the real array times 2^scale, with 0 <= scale <= 2f (f =
`fp.fractional_bits`) and magnitudes below `fp.max_value`. Results are products that
nobody has truncated yet: their scale is 2f.

They hold for all such x. What does not fit saturates a little below `fp.max_value`;
what is undefined has a finite value, which the docstring states: 1/0 is 0, and at a
logarithmic pole it is the value at half the distance of the nearest number of scale 2f.

Docstrings state rounds for ring_bits = 64 and errors for f = 18; an ulp is 2^-f. What is
promised, and tested, is in `bounds`. With fewer fractional bits relative errors are at
most 2^(3-f); more of them do not help relative errors below 2^-15, because three factors
must fit into the ring. In the ring of 128 bits polynomials have higher degrees (10 rounds
more at most) and most errors are below 2^(8-f), for f up to 40. Decisions are made on
exact bits, so that no result is wrong by chance: only the rounding is random.
"""

from privjax.protocols.functions.angles import cos, tan
from privjax.protocols.functions.bounded import erf, i0e, i1e, logistic, tanh
from privjax.protocols.functions.bounds import BOUNDS
from privjax.protocols.functions.exponential import exp, exp2, exp_to_base, expm1
from privjax.protocols.functions.gamma import digamma, hurwitz, lgamma, zeta
from privjax.protocols.functions.incomplete import betainc, igamma
from privjax.protocols.functions.inverse import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    erf_inv,
)
from privjax.protocols.functions.logarithm import log
from privjax.protocols.functions.power import integer_power, power
from privjax.protocols.functions.reciprocal import divide, reciprocal
from privjax.protocols.functions.roots import cbrt, rsqrt, sqrt

__all__ = [
    "BOUNDS",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "betainc",
    "cbrt",
    "cos",
    "digamma",
    "divide",
    "erf",
    "erf_inv",
    "exp",
    "exp2",
    "exp_to_base",
    "expm1",
    "hurwitz",
    "i0e",
    "i1e",
    "igamma",
    "integer_power",
    "lgamma",
    "log",
    "logistic",
    "power",
    "reciprocal",
    "rsqrt",
    "sqrt",
    "tan",
    "tanh",
    "zeta",
]
