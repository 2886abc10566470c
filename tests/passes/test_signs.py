"""Signs and exponents of the bits of reals, collectives of lanes, loops with many tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from plain import agrees, count, decomposed

X = np.array([-2.5, 0.0, 1.0, -0.125, 7.0], np.float32)


def bits(x):
    return lax.bitcast_convert_type(x, jnp.int32)


@pytest.mark.parametrize(
    "fun",
    [
        jnp.signbit,
        lambda x: bits(x) >> 31,
        lambda x: lax.shift_right_logical(bits(x), np.int32(31)),
        lambda x: bits(x) < 0,
        lambda x: bits(x) >= 0,
        lambda x: jnp.copysign(x[::-1], x),
        lambda x: lax.bitcast_convert_type(x, jnp.float32),
        jnp.frexp,
        lambda x: jnp.frexp(x * 2.0**-20 + 1e3),
        lambda x: jax.vmap(jnp.frexp)(x.astype(np.float16)),
        lambda x: jnp.ldexp(x, -3),
        jax.grad(lambda x: jnp.frexp(x + 9)[0].sum()),
    ],
)
def test_signs(fun):
    agrees(fun, X)
    assert not count(decomposed(fun, X), "bitcast_convert_type")


def test_other_bits_stay_a_question_of_bits():
    plain = decomposed(lambda x: bits(x) & 0xFF, X)
    assert count(plain, "bitcast_convert_type") == 1


@pytest.mark.parametrize("reduce", [lax.psum, lax.pmax, lax.pmin, lax.pmean])
def test_collectives_of_lanes(reduce):
    fun = jax.vmap(lambda v: reduce(v, "i"), axis_name="i")
    agrees(fun, np.stack([X, X[::-1], 2 * X]), rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_loops_in_lanes(shape):
    """`vmap` gives a loop a predicate for every lane; lanes that are over keep still."""

    def loop(v, n):
        return lax.while_loop(
            lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] * 0.5 + v), (0, v)
        )

    lanes = jax.vmap(jax.vmap(loop, in_axes=(0, None)), in_axes=(None, 0))
    x = np.ones((2, *shape), np.float32)
    agrees(lanes, x, np.arange(4, dtype=np.int32), secret=[True, False], rtol=1e-6)
