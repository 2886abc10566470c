"""Ordinary programs on shares: within 1 % of plain JAX."""

import jax
import numpy as np
import pytest
from programs import PROGRAMS

import privjax


def check(name, protocol, parties=2):
    case = PROGRAMS[name]
    shared = privjax.secret_shared(
        case.fun,
        protocol=protocol,
        parties=parties,
        public=case.public,
        max_steps=case.max_steps,
    )
    got, want = shared(*case.args), jax.jit(case.fun)(*case.args)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert getattr(a, "weak_type", False) == b.weak_type
        if a.dtype.kind in "iub":
            np.testing.assert_array_equal(a, b)
        else:
            scale = max(float(np.max(np.abs(b), initial=0.0)), 0.1)
            np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01 * scale)


@pytest.mark.parametrize("name", PROGRAMS)
def test_reference(name):
    check(name, "reference")


# Those whose operations nothing else runs on shares in such a combination.
ON_SHARES = [
    "gpt_decoder",
    "decision_tree",
    "equality_join",
    "newton_root_until_close",
    "branches_on_secrets",
]


@pytest.mark.parametrize("name", ON_SHARES)
def test_semi2k(name):
    check(name, "semi2k")


def test_spdz2k():
    check("equality_join", "spdz2k")


@pytest.mark.parametrize("protocol, parties", [("replicated3", 3), ("spdz2k", 2)])
def test_complex_numbers_stay_shared(protocol, parties):
    z = np.array([1 + 2j, -3.5j, 1000], np.complex64)
    own = {"protocol": protocol, "parties": parties}
    shared = privjax.secret_shared(
        lambda z: (z.conj() + 1, z.real), reveal=False, **own
    )
    turned, real = privjax.reveal(shared(privjax.share(z, **own)))
    np.testing.assert_allclose(turned, z.conj() + 1, atol=1e-4)
    np.testing.assert_allclose(real, z.real, atol=1e-4)
    assert turned.dtype == np.complex64 and real.dtype == np.float32
