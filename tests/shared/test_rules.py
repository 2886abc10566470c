"""Every rule of the secret-sharing pass, eager and under jit, vmap and scan."""

import operator
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from fast import secret_shared
from jax import lax

from privjax.prg.keys import insecure_key
from privjax.protocols.fixedpoint import FixedPoint


def check(case, shared, args):
    with jax.enable_x64(True):
        wide = [np.asarray(a, np.float64) if a.dtype.kind == "f" else a for a in args]
        plain = jax.tree.map(np.asarray, case.fun(*wide))
    like = jax.eval_shape(case.fun, *args)
    for got, want, aval in zip(
        *map(jax.tree.leaves, (shared, plain, like)), strict=True
    ):
        assert got.shape == aval.shape and got.dtype == aval.dtype
        np.testing.assert_allclose(
            np.asarray(got, np.float64),
            np.asarray(want, np.float64),
            rtol=case.relative,
            atol=case.bound,
        )


# A program is compiled for so many cases at once: most of a small one is the same in all.
TOGETHER = 12


def programs(lead):
    """(function of the cases' arguments, the arguments) of case number `lead` and after."""
    cases = CASES[lead : lead + TOGETHER]

    def together(*args):
        return [c.fun(*a) for c, a in zip(cases, args, strict=True)]

    return together, [tuple(c.args) for c in cases]


@cache
def eager(lead):
    fun, args = programs(lead)
    return secret_shared(fun)(*args)


def lanes_of(args):
    """Two lanes in each of two steps: the values forwards and backwards."""
    lanes = [np.stack([a, a[::-1]]) for a in args]
    return tuple(np.stack([a, a[::-1]]) for a in lanes)


@cache
def scanned(lead):
    fun, args = programs(lead)
    shared = secret_shared(fun, parties=3)
    keys = jax.random.split(insecure_key(3), (2, 2))

    @jax.jit
    def everything(keys, steps):
        def step(carry, x):
            keys, args = x
            return carry, jax.vmap(lambda k, *a: shared(*a, key=k))(keys, *args)

        return lax.scan(step, 0, (keys, steps))[1]

    return everything(keys, tuple(map(lanes_of, args)))


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: CASES[i].name)
def test_eager(number):
    own, lead = number % TOGETHER, number - number % TOGETHER
    check(CASES[number], eager(lead)[own], CASES[number].args)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: CASES[i].name)
def test_jit_of_scan_of_vmap(number):
    own, lead = number % TOGETHER, number - number % TOGETHER
    steps = lanes_of(CASES[number].args)
    for at in np.ndindex(2, 2):
        mine = jax.tree.map(operator.itemgetter(at), scanned(lead)[own])
        check(CASES[number], mine, [a[at] for a in steps])


@pytest.mark.parametrize("ring_bits, fractional_bits", [(32, 8), (64, 24)])
def test_other_rings(ring_bits, fractional_bits):
    fp = FixedPoint(ring_bits, fractional_bits)
    x = np.linspace(-3, 3, 8, dtype=np.float32).reshape(4, 2)
    shared = secret_shared(lambda x: jax.nn.relu(x @ x.T) + 0.5, fixed_point=fp)
    plain = jnp.maximum(x @ x.T, 0) + 0.5
    np.testing.assert_allclose(shared(x), plain, atol=16 * fp.resolution)
