"""Floating point for a moment: x = +-m 2^e with a mantissa m in [1, 2] and exponent e.

The leading bit is found in the bits of x (Catrina and Saxena 2010, section 3, with
edaBits). Its position as a one-hot vector of ring elements turns every public function
of the exponent into a local sum.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.functions.bits import negated_if
from privjax.protocols.functions.linear import (
    element,
    integer_bits,
    weighted,
    working_bits,
)
from privjax.protocols.interface import Protocol
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.tuples import MUL


@dataclass(frozen=True)
class Normalised:
    """x = +-(mantissa + 3/2) 2^e.

    Attributes:
      magnitude: [|x|] at the scale of x ([x] where it is taken as non-negative).
      sign: <x < 0>, or None where x is taken as a non-negative number.
      leading: one-hot over `exponents`, on a last axis; all zero for x = 0.
      exponents: the exponent e that each entry of `leading` stands for.
      mantissa: m - 3/2, in [-1/2, 1/2], at scale `linear.working_bits`; 0 for
        x = 0.
    """

    magnitude: Arith
    sign: Bit | None
    leading: Arith
    exponents: Any
    mantissa: Arith

    def table(self, p: Protocol, values: Any) -> Arith:
        """A public function of e, given by its (ring) values; 0 for x = 0; local."""
        return weighted(p, self.leading, values)


def normalise(
    p: Protocol,
    fp: FixedPoint,
    x: Arith,
    scale: int,
    *,
    signed: bool,
    odd: bool = False,
    above: int = 0,
) -> Normalised:
    """Find sign, exponent and mantissa.

    `leading` and `exponents` take 13 rounds, `mantissa` takes 15, the sign 6. With
    `signed=False` a negative x counts as 0, and no sign is computed.

    1. <x> = bits of x; |x| by XOR with the sign. That is one's complement: |x| - 1 for
       a negative x. It is 2x that is decomposed, so that only powers of two come out
       one position too low, with the mantissa 2. An `odd` x is decomposed itself: it
       may take all bits of the ring. An unsigned x may have `above` bits more than the
       values of the format.
    2. prefix OR, y XOR (y >> 1) leaves the leading bit; [o_j] from its bits
    3. m 2^(k-2) = |x| sum_j [o_j] 2^(k-2-j), an exact product; truncate about 3/2
    """
    k, positions = fp.ring_bits, min(fp.ring_bits - 2, scale + integer_bits(fp))
    if signed:
        word = p.bits_of(x if odd else p.mul_public(x, element(fp, 2)))
        sign = p.bits_at(word, k - 1)
        word = p.xor_all(word, sign)
        x = negated_if(p, fp, sign, x)
        at = np.arange(k - 1 if odd else positions + 1)
        exponents = at - (0 if odd else 1) - scale
    else:
        word, sign = p.bits_of(x), None
        at = np.arange(min(k - 1, positions + above))
        exponents = at - scale
    filled = p.prefix_or(word)
    leading = p.xor_words(filled, p.shift_right(filled, 1))
    one_hot = p.to_arith(p.bits_at(leading, at), fp.dtype)
    aligned = p.product(
        MUL,
        x,
        weighted(p, one_hot, element(fp, np.ldexp(1.0, k - 2 - scale - exponents))),
    )
    # Less 3/2 where there is a leading bit at all: in range also when m = 2 exactly.
    centre = weighted(p, one_hot, element(fp, np.full(at.shape, -1.5), k - 2))
    mantissa = p.truncate(p.add(aligned, centre), k - 2 - working_bits(fp))
    return Normalised(x, sign, one_hot, exponents, mantissa)
