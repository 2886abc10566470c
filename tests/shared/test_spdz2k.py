"""spdz2k through `secret_shared`: control flow, transformations, shares between calls.

Small programs in the 32-bit ring where the size does not matter: they compile fastest.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import privjax
from privjax.core.interpret import sub_jaxprs
from privjax.random import insecure_key

SMALL = privjax.FixedPoint(ring_bits=32, fractional_bits=8)
X = np.array([1.5, -2.25, 0.5], np.float32)


def shared(fun: Any, **options: Any) -> Any:
    options = {"protocol": "spdz2k", "fixed_point": SMALL, **options}
    return privjax.secret_shared(fun, **options)


def scanned(x: Any) -> Any:
    step = lambda c, r: (c + r * x, jax.nn.relu(c))  # noqa: E731
    return jax.lax.scan(step, x, x)


def looped(x: Any) -> Any:
    return jax.lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, jax.nn.relu(s[1] * 0.5 + 1.0)), (0, x)
    )


def branched(x: Any, which: Any) -> Any:
    return jax.lax.cond(which, lambda v: v * v, lambda v: jax.nn.relu(v), x)


def revealing(x: Any) -> Any:
    """A value is released in every iteration, and decides about the next."""

    def step(c: Any, _: Any) -> Any:
        largest = privjax.reveal(jnp.max(c))
        return jax.lax.cond(
            largest > 2.0, lambda v: v * 0.5, lambda v: v * 2.0, c
        ), largest

    return jax.lax.scan(step, x, None, length=3)


def halved(x: Any) -> Any:
    """The loop's test itself releases a value."""
    return jax.lax.while_loop(
        lambda c: privjax.reveal(jnp.max(c)) > 0.5, lambda c: c * 0.5, x
    )


PROGRAMS = {
    "scan": (scanned, (X,)),
    "while": (looped, (X,)),
    "cond": (branched, (X, np.array(True))),
    "release in a loop": (revealing, (X,)),
    "release in a test": (halved, (X,)),
    "jit inside": (lambda x: jax.jit(lambda v: v * v)(x) + x, (X,)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_control_flow(name: str) -> None:
    fun, args = PROGRAMS[name]
    got, right = shared(fun)(*args), fun(*args)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, atol=0.05)


@pytest.mark.parametrize(
    "name", ["scan", "while", "release in a loop", "release in a test"]
)
def test_every_scope_tosses_its_coin_and_checks(name: str) -> None:
    """Each body with openings ends with its coin; a release comes after a check."""
    fun, args = PROGRAMS[name]
    program = shared(fun).compiled(*args).party

    def scopes(closed: Any) -> Any:
        jaxpr = getattr(closed, "jaxpr", closed)
        yield [e for e in jaxpr.eqns if e.primitive.name == "open"]
        for eqn in jaxpr.eqns:
            for sub in sub_jaxprs(eqn):
                yield from scopes(sub)

    seen = 0
    for opens in scopes(program):
        if not opens:
            continue
        seen += 1
        everybody = [any(d[:4] == "each" for d in e.params["domains"]) for e in opens]
        assert everybody[0] and everybody[-1]
        for i, eqn in enumerate(opens):
            if eqn.params["release"]:
                assert everybody[i - 1] and everybody[i - 2]
    assert seen >= 2


def test_lanes_and_traces() -> None:
    f = shared(lambda x: x * x)
    keys = jax.random.split(insecure_key(1), 2)
    xs = np.stack([X, -X])
    got = jax.jit(jax.vmap(lambda x, k: f(x, key=k)))(xs, keys)
    np.testing.assert_allclose(got, xs * xs, atol=0.02)


def test_shares_pass_from_call_to_call_under_new_keys() -> None:
    """Also those of two programs with different MAC keys, joined in one."""
    keep = shared(lambda x: (x * 2.0, x > 0), reveal=False)
    doubled, positive = keep(X)
    other = privjax.share(X, protocol="spdz2k", fixed_point=SMALL)
    joined = shared(lambda a, b, p: jnp.where(p, a * b, -b))
    np.testing.assert_allclose(
        joined(doubled, other, positive), np.where(X > 0, 2 * X * X, -X), atol=0.05
    )
    np.testing.assert_allclose(privjax.reveal(doubled), 2 * X, atol=0.01)


def test_three_parties() -> None:
    f = shared(lambda x: (jax.nn.relu(x), jnp.dot(x, x)), parties=3)
    relu, dot = f(X)
    np.testing.assert_allclose(relu, np.maximum(X, 0), atol=0.01)
    np.testing.assert_allclose(dot, X @ X, atol=0.05)
