"""Programs in the ring of 128 bits: what 64 bits have no room for.

Kernels are in protocols/test_conformance.py, functions in protocols/test_functions.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import privjax
from privjax import FixedPoint

WIDE = FixedPoint(ring_bits=128)
KEY = privjax.random.insecure_key(128)


def shared(fun: Any, *args: Any, fp: FixedPoint = WIDE, **options: Any) -> Any:
    """The result on shares, with 64-bit types on."""
    options = {"protocol": "semi2k", "fixed_point": fp} | options
    with jax.enable_x64(True):
        out = privjax.secret_shared(fun, **options)(*args, key=KEY)
        return jax.tree.map(np.asarray, out)


def plain(fun: Any, *args: Any) -> Any:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, fun(*args))


def error(a: Any, b: Any) -> float:
    both = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(x - y))) for x, y in both)


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def test_format() -> None:
    assert WIDE.fractional_bits == 40 and WIDE.max_value == 2.0**46
    assert FixedPoint().fractional_bits == FixedPoint(32, 9).fractional_bits * 2 == 18
    assert FixedPoint(128, 24).max_value == 2.0**78
    assert hash(FixedPoint(128)) == hash(FixedPoint(128, 40))
    for bits, fraction in [(128, 62), (128, 0), (48, 10), (256, 10)]:
        with pytest.raises(privjax.InputError, match="128"):
            FixedPoint(bits, fraction)


# -- train steps -----------------------------------------------------------------------

NETWORK = {"a": normal(1, 4, 3) / 2, "b": normal(2, 3) / 9, "c": normal(3, 3, 1) / 2}
BATCH = normal(4, 5, 4), normal(5, 5, 1)


def loss(w: Any, x: Any, y: Any) -> Any:
    hidden = jax.nn.relu(x @ w["a"] + w["b"])
    return jnp.mean((hidden @ w["c"] - y) ** 2)


def train(w: Any, x: Any, y: Any) -> Any:
    """Two steps of gradient descent in a loop."""

    def step(w: Any, _: Any) -> Any:
        g = jax.grad(loss)(w, x, y)
        return jax.tree.map(lambda v, d: v - 0.05 * d, w, g), None

    return lax.scan(step, w, None, length=2)[0]


def test_training_is_as_exact_as_the_format() -> None:
    expected = plain(train, NETWORK, *BATCH)
    wide = shared(train, NETWORK, *BATCH, parties=3)
    assert error(wide, expected) < 2.0**-36
    narrow = shared(train, NETWORK, *BATCH, fp=FixedPoint(), protocol="reference")
    assert error(narrow, expected) > 2.0**-24


def test_functions_of_reals() -> None:
    """A softmax: exp and division."""

    def fun(x: Any) -> Any:
        each = jnp.exp(x)
        return each / jnp.sum(each, 1, keepdims=True)

    x = 2 * normal(6, 2, 3)
    expected = plain(fun, x)
    assert error(shared(fun, x), expected) < 2.0**-34
    assert error(shared(fun, x, protocol="reference", fp=FixedPoint()), expected) > (
        2.0**-22
    )


# -- structure, kinds, sizes -------------------------------------------------------------


def several(x: Any, kernel: Any, i: Any, b: Any) -> Any:
    """Convolution, moves, integers and booleans, as one program."""
    pooled = lax.conv_general_dilated(x, kernel, (1, 1), "SAME")
    both = jnp.where(b, x[0, 0, 0], -x[0, 0, 0])
    return {
        "conv": pooled,
        "cumulated": jnp.cumsum(x[0, 0], 1),
        "added": jnp.zeros(3).at[np.array([0, 2, 0, 1])].add(x[0, 0, 0]),
        "chosen": both,
        "constant": x[0, 0, 0] * 0.1 + 1 / 3,
        "integers": (i * i + 3, i < 5, i & 6, i << 2, i >> 1),
        "real": i.astype(x.dtype) / 8,
        "whole": (x[0, 0, 0] * 8).astype(np.int32),
        "flags": b ^ (i[:4] > 0),
        "min": jnp.array([-(2**62), 2**62]) + i[:2],
    }


@pytest.mark.parametrize("protocol", ["semi2k", "reference"])
def test_operations(protocol: str) -> None:
    x, kernel = normal(7, 1, 2, 4, 4), normal(8, 3, 2, 2, 2)
    i = np.array([-(2**63), 2**63 - 1, -9, 6, 0, 13])
    args = x, kernel, i, np.array([True, False, False, True])
    got, expected = shared(several, *args, protocol=protocol), plain(several, *args)
    for name, value in expected.items():
        for g, v in zip(
            jax.tree.leaves(got[name]), jax.tree.leaves(value), strict=True
        ):
            assert g.dtype == v.dtype, name
            if v.dtype.kind == "f" and name != "real":
                np.testing.assert_allclose(g, v, atol=2.0**-37, err_msg=name)
            elif name != "real":
                np.testing.assert_array_equal(g, v, err_msg=name)
    np.testing.assert_allclose(got["real"][2:], expected["real"][2:], atol=2.0**-39)


def test_large_and_small_at_once() -> None:
    """Sums, products and comparisons that need more than 64 bits."""
    x = np.array([2.0**44 + 0.25, -(2.0**43), 3.0, 2.0**-30])
    y = np.array([2.0**-20, 1.5, 2.0**40, 2.0**-5])
    fun = lambda x, y: (x * y, x + y, x < y, jnp.sum(x))  # noqa: E731
    got, expected = shared(fun, x, y), plain(fun, x, y)
    for g, v in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, v, rtol=2.0**-50, atol=2.0**-38)
    with pytest.raises(privjax.RangeError, match="128 ring bits"):
        shared(fun, x * 8, y)


def test_exact_truncation_is_that_of_reference() -> None:
    fp = FixedPoint(128, truncation="exact")
    x = normal(9, 5)
    fun = lambda x: x * x * x  # noqa: E731
    np.testing.assert_array_equal(
        shared(fun, x, fp=fp), shared(fun, x, fp=fp, protocol="reference")
    )


def test_a_loop_of_secret_length_under_vmap() -> None:
    """A while loop on a public count, lanes of the user's vmap, 64-bit types off."""

    def fun(x: Any) -> Any:
        return lax.fori_loop(0, 3, lambda _, v: v * v + x, x)

    x = (normal(10, 4) / 2).astype(np.float32)
    run = privjax.secret_shared(fun, protocol="semi2k", fixed_point=WIDE)
    keys = jax.random.split(KEY, 4)
    got = jax.jit(jax.vmap(lambda v, k: run(v, key=k)))(x, keys)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, jax.vmap(fun)(x), rtol=1e-6)


# -- shares at rest ------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["semi2k", "reference"])
def test_shares_stay_between_calls(protocol: str) -> None:
    options = {"protocol": protocol, "fixed_point": WIDE}
    tree = {"x": normal(11, 3), "n": np.array([2**62, -5]), "b": np.array([True])}
    with jax.enable_x64(True):
        at_rest = privjax.share(tree, key=KEY, **options)
        assert at_rest["x"].data.shape == (3, 2, 4)
        back = privjax.reveal(at_rest)
        np.testing.assert_allclose(back["x"], tree["x"], atol=2.0**-40)
        np.testing.assert_array_equal(back["n"], tree["n"])
        np.testing.assert_array_equal(back["b"], tree["b"])
        square = privjax.secret_shared(lambda v: v * v, reveal=False, **options)
        twice = square(square(at_rest["x"], key=KEY), key=KEY)
        assert twice.scale == 80
        np.testing.assert_allclose(privjax.reveal(twice), tree["x"] ** 4, atol=2.0**-34)


def test_masks_hide_both_words() -> None:
    """One party's share of a constant is uniform in each of its four words."""
    zeros = np.zeros(4096)
    data = np.asarray(
        privjax.share(zeros, protocol="semi2k", key=KEY, fixed_point=WIDE).data
    )
    for party in range(2):
        for word in range(4):
            ones = np.unpackbits(data[:, party, word].copy().view(np.uint8)).mean()
            assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(32 * 4096)


# -- what there is not -------------------------------------------------------------------

REFUSED = {
    "spdz2k": {"protocol": "spdz2k"},
    "replicated3": {"protocol": "replicated3", "parties": 3},
    "transfer": {"protocol": "semi2k", "preprocessing": "ot"},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_refusals(options: dict[str, Any]) -> None:
    with pytest.raises(privjax.ProtocolError, match="32 (or|and) 64"):
        privjax.secret_shared(jnp.sin, fixed_point=WIDE, **options)


def test_sharing_for_another_protocol_is_refused() -> None:
    with pytest.raises(privjax.ProtocolError, match="spdz2k computes in rings"):
        privjax.share(np.zeros(2), fixed_point=WIDE, key=KEY)


def test_cost_counts_both_words() -> None:
    """A product opens two elements of 128 bits a party; twice what 64 bits take."""
    x = np.ones(5, np.float32)
    costs = [
        privjax.secret_shared(
            lambda a, b: a * b, protocol="semi2k", fixed_point=fp, reveal=False
        ).cost(x, x + 1)
        for fp in (FixedPoint(), WIDE)
    ]
    narrow, wide = costs
    assert wide.rounds == narrow.rounds == 2
    assert wide.sent_bits == 2 * narrow.sent_bits == 5 * 128 * (2 + 2 * 2)
    assert wide.dealt_bits == 2 * narrow.dealt_bits
