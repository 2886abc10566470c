"""Norms that rounding cannot make too small.

A squared norm from inner products between positions (summed.py) is a sum of terms of
both signs. Where the positions of a unit cancel, what is left may be nothing but rounding
error: a unit of huge values that seems to have no norm would not be clipped at all. So a
norm far below that of its parts is raised by what rounding may have taken away, after
the bounds for inner products of Higham 2002, "Accuracy and stability of numerical
algorithms", section 3.1.
"""

import functools
import operator

import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.passes.dp.apart import Apart
from privjax.passes.dp.maps import square_sum
from privjax.passes.dp.summed import Owners, Summed
from privjax.passes.dp.terms import Lookup, Rows, Term

# Units in the last place by which one inner product may be wrong, and how many times its
# possible error a squared norm is before it is believed.
_ERROR = 16
_BELIEVED = 64


def safe_sqnorm(value: Summed, owners: Owners | None = None) -> Array:
    """The squared norms of the units' contributions, not less than they are: [units]."""
    if owners is None and len(value.terms) == 1 and isinstance(value.terms[0], Apart):
        return safe_sqnorm(value.terms[0].inner)
    total = value.sqnorm(owners)
    parts = _parts(value, owners)
    if parts is None:
        return total
    sizes, count = parts
    # (sum of count norms)^2 <= count * (sum of their squares)
    error = _ERROR * float(np.finfo(total.dtype).eps) * count * sizes
    return jnp.where(total < _BELIEVED * error, total + error, total)


def _parts(value: Summed, owners: Owners | None) -> tuple[Array, Array | int] | None:
    """The squared norms of what is added up to one contribution, and how many there are.

    None where the contribution itself is at hand.
    """
    contributions = value.materialised
    if owners is None:
        if contributions is not None or sum(map(_length, value.terms)) == 1:
            return None
        return _all_squares(value), sum(map(_length, value.terms))
    if contributions is not None:
        rows, length = square_sum(contributions), 1
    else:
        rows = _all_squares(value)
        length = sum(map(_length, value.terms))
    return owners.added(rows), length * owners.added(jnp.ones_like(rows))


def _length(term: Term) -> int:
    return 1 if isinstance(term, Rows) else term.length


def _all_squares(value: Summed) -> Array:
    return functools.reduce(operator.add, map(_squares, value.terms))


def _squares(term: Term) -> Array:
    """The squared norms of a term's positions, added up: [rows]."""
    if isinstance(term, Rows):
        return square_sum(term.x)
    b = _wide_squares(term.b)
    if isinstance(term, Lookup):
        return jnp.sum(b, axis=1)
    return jnp.sum(_wide_squares(term.a) * b, axis=(1, 2))


def _wide_squares(x: Array) -> Array:
    """Squared norms along the last axis."""
    return jnp.sum(jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32))), -1)
