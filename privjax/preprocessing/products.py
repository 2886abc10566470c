"""Products of additive shares by oblivious transfer (Gilboa, CRYPTO 1999).

a_0 * b_1 is a sum over the bits i of b_1 of 2^i bit_i(b_1) a_0: one correlated transfer
per bit, in which the holder of b_1 chooses and the holder of a_0 offers a_0. In a
matrix product every element of b multiplies a whole column of a: one transfer carries
the column, and the bits are those of the operand that makes for fewer transfers. Both
cross terms, a_0 * b_1 and a_1 * b_0, run in the same two rounds; a_i * b_i is local.

Secure against semi-honest parties: nothing ties a cheater's columns or choices to the
shares that it uses elsewhere. Per party and w-bit product: 16 w bytes of choices and
w^2 / 8 of corrections (1,536 bytes for 64 bits); an [m, k] by [k, n] product takes
k min(m, n) w transfers, each with w max(m, n) / 8 bytes of corrections. All of it is in
memory at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.errors import InputError, UnsupportedError
from privjax.preprocessing import bitmatrix
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import correlated
from privjax.preprocessing.groups import Ring
from privjax.preprocessing.session import Session
from privjax.protocols.tuples import MUL, Bilinear

Rejoin = Callable[[Array], Array]


# -- every bilinear product as a batch of matrix products ------------------------------


def _as_mul(a: Array, b: Array) -> tuple[Array, Array, Rejoin]:
    if a.shape != b.shape:
        raise InputError(f"a product of shapes {a.shape} and {b.shape}.")
    shape = a.shape
    return a.reshape(-1, 1, 1), b.reshape(-1, 1, 1), lambda c: c.reshape(shape)


def _as_dot(a: Array, b: Array, dimension_numbers: Any) -> tuple[Array, Array, Rejoin]:
    (ca, cb), (ba, bb) = dimension_numbers
    fa = [d for d in range(a.ndim) if d not in (*ca, *ba)]
    fb = [d for d in range(b.ndim) if d not in (*cb, *bb)]
    batch, rows, columns = (
        [x.shape[d] for d in dims] for x, dims in ((a, ba), (a, fa), (b, fb))
    )
    k = math.prod(a.shape[d] for d in ca)
    size = math.prod(batch)
    left = a.transpose(*ba, *fa, *ca).reshape(size, math.prod(rows), k)
    right = b.transpose(*bb, *cb, *fb).reshape(size, k, math.prod(columns))
    return left, right, lambda c: c.reshape(*batch, *rows, *columns)


def _as_conv(
    a: Array,
    b: Array,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
) -> tuple[Array, Array, Rejoin]:
    """Every window of a as a row; the places are found by cutting an array of them."""
    if feature_group_count != 1 or batch_group_count != 1:
        raise UnsupportedError(
            "a convolution in groups has no oblivious-transfer product; use a dealer."
        )
    numbers = lax.conv_dimension_numbers(a.shape, b.shape, dimension_numbers)
    lhs_spec, rhs_spec, out_spec = numbers
    window = [b.shape[d] for d in rhs_spec[2:]]
    last = (out_spec[0], a.ndim - 1, *range(1, a.ndim - 1))
    places = jnp.arange(1, a.size + 1, dtype=np.float64).reshape(a.shape)
    cut = lax.conv_general_dilated_patches(
        places,
        window,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        lax.ConvDimensionNumbers(lhs_spec, rhs_spec, (0, *last[1:])),
    )
    # Place 0 is padding.
    flat = jnp.concatenate([jnp.zeros((1,), a.dtype), a.reshape(-1)])
    *lead, k = cut.shape
    left = jnp.take(flat, cut.astype(np.int32).reshape(1, -1, k), mode="clip")
    right = b.transpose(rhs_spec[1], *rhs_spec[2:], rhs_spec[0]).reshape(1, k, -1)
    back = [0] * a.ndim
    for axis, place in enumerate((out_spec[0], *out_spec[2:], out_spec[1])):
        back[place] = axis
    return left, right, lambda c: c.reshape(*lead, -1).transpose(back)


_FORMS: dict[str, Callable[..., tuple[Array, Array, Rejoin]]] = {
    "mul": _as_mul,
    "dot_general": _as_dot,
    "conv_general_dilated": _as_conv,
}


@dataclass(frozen=True)
class _Layout:
    """A bilinear product as batches of [m, k] by [k, n], m >= n, and the way back."""

    left: Array
    right: Array
    rejoin: Rejoin

    @property
    def offers(self) -> tuple[int, ...]:
        """Shape of what is offered: a column per element of `right` and bit."""
        batch, m, k = self.left.shape
        width = self.left.dtype.itemsize * 8
        return batch, k, self.right.shape[2], width, m


def layout(op: Bilinear, a: Array, b: Array) -> _Layout:
    """Of op over a leading axis of both operands."""
    rejoin: list[Rejoin] = []

    def matrices(x: Array, y: Array) -> tuple[Array, Array]:
        left, right, back = _FORMS[op.name](x, y, **dict(op.options))
        rejoin.append(back)
        return left, right

    left, right = jax.vmap(matrices)(a, b)
    lead = left.shape[:2]
    left, right = (x.reshape(-1, *x.shape[2:]) for x in (left, right))
    turned = left.shape[1] < right.shape[2]
    if turned:
        left, right = right.transpose(0, 2, 1), left.transpose(0, 2, 1)

    def back(c: Array) -> Array:
        c = c.transpose(0, 2, 1) if turned else c
        return jax.vmap(rejoin[0])(c.reshape(*lead, *c.shape[1:]))

    return _Layout(left, right, back)


@partial(jax.jit, static_argnames="op")
def _ready(a: Array, b: Array, *, op: Bilinear) -> tuple[Array, Array]:
    """Choices, the bits of the right operand, and offers, columns of the left one."""
    form = layout(op, a, b)
    columns = form.left.transpose(0, 2, 1)[:, :, None, None, :]
    offers = jnp.broadcast_to(columns, form.offers)
    return bitmatrix.bits_of(form.right).reshape(-1), offers.reshape(
        -1, form.offers[-1]
    )


@partial(jax.jit, static_argnames="op")
def _crossed(shares: Array, a: Array, b: Array, *, op: Bilinear) -> Array:
    """Weigh by 2^i and sum over bits i and over k."""
    form = layout(op, a, b)
    width = a.dtype.itemsize * 8
    weighted = shares.reshape(form.offers) << lax.iota(a.dtype, width)[:, None]
    total = jnp.sum(weighted, axis=(1, 3), dtype=a.dtype)
    return form.rejoin(total.transpose(0, 2, 1))


@partial(jax.jit, static_argnames="op")
def _product(one: Array, two: Array, a: Array, b: Array, *, op: Bilinear) -> Array:
    return jax.vmap(op)(a, b) + _crossed(one + two, a, b, op=op)


def product(
    me: Session, op: Bilinear, a: Array, b: Array, *, lead: int = 0
) -> Side[Array]:
    """My share of op(a_0 + a_1, b_0 + b_1) from my shares a and b. Two rounds.

    `lead` is the number of leading axes of both over which op is repeated.

    Raises: UnsupportedError for a convolution in groups.
    """
    shape = a.shape[:lead]
    a, b = (x.reshape(math.prod(shape), *x.shape[lead:]) for x in (a, b))
    choices, offers = _ready(a, b, op=op)
    if not offers.size:
        out = jax.vmap(op)(a, b)
    else:
        one, two = yield from correlated(
            me, Ring(a.dtype), choices, offers, tuple(offers.shape)
        )
        assert one is not None and two is not None
        out = _product(one, two, a, b, op=op)
    return out.reshape(*shape, *out.shape[1:])


@jax.jit
def _square(part: Array, a: Array) -> Array:
    flat = a.reshape(1, -1)
    crossed = _crossed(part, flat, flat, op=MUL).reshape(a.shape)
    return a * a + crossed + crossed


def square(me: Session, a: Array) -> Side[Array]:
    """My share of (a_0 + a_1)^2 = a_0^2 + a_1^2 + 2 a_0 a_1: one cross term."""
    if not a.size:
        return a
    flat = a.reshape(1, -1)
    choices, offers = _ready(flat, flat, op=MUL)
    group = Ring(a.dtype)
    if me.index == 0:
        _, part = yield from correlated(me, group, None, offers, None)
    else:
        shape = tuple(offers.shape)
        part, _ = yield from correlated(me, group, choices, None, shape)
    assert part is not None
    return _square(part, a)


def triples(
    me: Session,
    op: Bilinear,
    a_shape: tuple[int, ...],
    b_shape: tuple[int, ...],
    dtype: Any,
) -> Side[tuple[Array, Array, Array]]:
    """My shares of a random triple [a], [b], [c = op(a, b)], semi-honest."""
    a, b = (me.draw(shape, np.dtype(dtype)) for shape in (a_shape, b_shape))
    c = yield from product(me, op, a, b)
    return a, b, c
