"""What each function of reals promises: error, domain, behaviour outside, rounds.

Data for tests, for the table of operators and for the pass that merges operations. Bounds
hold at 64 ring bits and 18 fractional bits, for every representable argument, whether it
comes with 18 or 36 bits behind the point. An ulp is 2^-18; M is the largest value, a
little below `fp.max_value`. `Bound.allowed` has the errors in other formats: at 128 ring
bits most functions err by 2^(8-f) at most, for f up to 40.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from privjax.protocols.fixedpoint import FixedPoint

ABSOLUTE, RELATIVE = "absolute", "relative"


@dataclass(frozen=True)
class Bound:
    """The promise of one function.

    Attributes:
      kind: whether `bound` is absolute, or relative with at least two ulps allowed.
      domain: where it holds.
      outside: what is returned elsewhere and at poles.
      rounds: of communication, by semi2k, for an argument of scale f.
      finer: whether the error follows the format in the ring of 128 bits.
    """

    kind: str
    bound: float
    domain: str
    outside: str
    rounds: int
    finer: bool = True

    def allowed(self, fp: FixedPoint, exact: Any) -> Any:
        """The error allowed at the exact values, in any format."""
        bound = max(self.bound, 2.0 ** (3 - fp.fractional_bits))
        ulp = max(fp.resolution, 2.0**-18)
        if self.finer and fp.precision > 18:
            bound, ulp = 2.0 ** (8 - fp.precision), max(fp.resolution, 2.0**-40)
        if self.kind == ABSOLUTE:
            return np.full(np.shape(exact), bound)
        return np.maximum(bound * np.abs(exact), 2 * ulp)

    def __str__(self) -> str:
        power = f"2^{np.log2(self.bound):.0f}"
        error = power if self.kind == ABSOLUTE else f"{power} relative or 2 ulps"
        return "; ".join(filter(None, (f"{error}, {self.domain}", self.outside)))


def _absolute(
    bits: int, rounds: int, domain: str = "all x", outside: str = ""
) -> Bound:
    return Bound(ABSOLUTE, 2.0**-bits, domain, outside, rounds)


def _relative(
    bits: int, rounds: int, domain: str = "all x", outside: str = ""
) -> Bound:
    return Bound(RELATIVE, 2.0**-bits, domain, outside, rounds)


_SATURATES = "M where it does not fit"
_LOG_OF_ZERO = "log(2^-37) for x <= 0"

# Of the ones below, those that err by the same in every ring: their polynomials have 18
# bits, or their functions are too steep for more.
_COARSE = ("pow", "igamma", "igammac", "zeta")

# By primitive; those from `integer_pow` on are written in terms of the others.
BOUNDS: dict[str, Bound] = {
    "exp": _relative(12, 13, outside=_SATURATES),
    "exp2": _relative(12, 12, outside=_SATURATES),
    "expm1": _relative(12, 15, outside=_SATURATES),
    "log": _relative(12, 21, "x > 0", _LOG_OF_ZERO),
    "logistic": _absolute(17, 13),
    "tanh": _absolute(16, 13),
    "erf": _absolute(17, 13),
    "sqrt": _relative(13, 20, "x >= 0", "0 for x < 0"),
    "rsqrt": _relative(13, 22, "x > 0", "0 for x <= 0"),
    "cbrt": _relative(13, 20),
    "div": _relative(
        12,
        22,
        "all n and d",
        "+-M where it does not fit, but by a public d, a product; n/0 is 0",
    ),
    "cos": _absolute(15, 12),
    "tan": _relative(12, 23, "|x| < 2^24", "+-M near poles"),
    "atan": _absolute(16, 20),
    "asin": _absolute(17, 27, "|x| <= 1", "asin of the sign of x"),
    "acos": _absolute(17, 27, "|x| <= 1", "acos of the sign of x"),
    "asinh": _relative(12, 20),
    "acosh": _relative(12, 20, "x >= 1", "0 for x < 1"),
    "erf_inv": _relative(12, 27, "|x| < 1", "erf_inv(+-(1 - 2^-37)) for |x| >= 1"),
    "bessel_i0e": _absolute(17, 20),
    "bessel_i1e": _absolute(17, 20),
    "atan2": _absolute(15, 38, "all x and y", "0 for (0, 0)"),
    "pow": _relative(
        12,
        43,
        "x > 0 or integer y",
        "+-M where it does not fit; for other y a negative x counts as 0, or as -x if y is "
        "secret; 0^0 is 1",
    ),
    "lgamma": _relative(
        12, 29, "x > 0, relative to lgamma(1 - x) for x < 0", "M where it does not fit"
    ),
    "digamma": _relative(
        12,
        29,
        "x > 0, relative to digamma(1 - x) or pi |cot(pi x)| for x < 0",
        "-M at 0, -1, -2, ...",
    ),
    "polygamma": _relative(12, 22, "x > 0, public order", "+-M for x <= 0"),
    "zeta": _relative(
        12,
        22,
        "s > 1, q > 0, one of them public (else 2^-12 relative or 2^-14)",
        "M elsewhere",
    ),
    "igamma": _absolute(
        14, 20, "x >= 0, public 0 < a <= 20 (2^-12 for secret a <= 40)", "0 for x < 0"
    ),
    "igammac": _absolute(
        14, 20, "x >= 0, public 0 < a <= 20 (2^-12 for secret a <= 40)", "1 for x < 0"
    ),
    "regularized_incomplete_beta": _absolute(
        14,
        27,
        "0 <= x <= 1, public 0 < a, b <= 20 (2^-12 for secret ones)",
        "0 or 1",
    ),
    "nextafter": Bound(ABSOLUTE, 2.0**-18, "all x and y", "x +- an ulp", 7),
    "integer_pow": _relative(
        12, 43, "all x", "+-M where it does not fit, but x^2, a product; 1/0 is 0"
    ),
    "sin": _absolute(15, 12),
    "log1p": _relative(12, 21, "x > -1", "log(2^-37) for x <= -1"),
    "erfc": _absolute(17, 13),
    "sinh": _relative(12, 15, outside="+-M where it does not fit"),
    "cosh": _relative(12, 13, outside=_SATURATES),
    "atanh": _relative(12, 23, "|x| < 1", "log((1 + |x|) 2^37) / 2 for |x| >= 1"),
}
for _name in _COARSE:
    BOUNDS[_name] = replace(BOUNDS[_name], finer=False)
