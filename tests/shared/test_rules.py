"""Every rule of the secret-sharing pass, eager and under jit, vmap and scan."""

import operator

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


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_eager(case):
    check(case, secret_shared(case.fun)(*case.args), case.args)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_jit_of_scan_of_vmap(case):
    """Two lanes in each of two steps, in one compiled program."""
    shared = secret_shared(case.fun, parties=3)
    lanes = [np.stack([a, a[::-1]]) for a in case.args]
    steps = [np.stack([a, a[::-1]]) for a in lanes]
    keys = jax.random.split(insecure_key(3), (2, 2))

    @jax.jit
    def everything(keys, steps):
        def step(carry, x):
            keys, args = x
            return carry, jax.vmap(lambda k, *a: shared(*a, key=k))(keys, *args)

        return lax.scan(step, 0, (keys, steps))[1]

    result = everything(keys, steps)
    for at in np.ndindex(2, 2):
        mine = jax.tree.map(operator.itemgetter(at), result)
        check(case, mine, [a[at] for a in steps])


@pytest.mark.parametrize("ring_bits, fractional_bits", [(32, 8), (64, 24)])
def test_other_rings(ring_bits, fractional_bits):
    fp = FixedPoint(ring_bits, fractional_bits)
    x = np.linspace(-3, 3, 8, dtype=np.float32).reshape(4, 2)
    shared = secret_shared(lambda x: jax.nn.relu(x @ x.T) + 0.5, fixed_point=fp)
    plain = jnp.maximum(x @ x.T, 0) + 0.5
    np.testing.assert_allclose(shared(x), plain, atol=16 * fp.resolution)
