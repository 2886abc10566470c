"""Properties of fixed point, sharing and reconstruction, over drawn values."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import privjax
from privjax.protocols.fixedpoint import FixedPoint
from privjax.protocols.table import protocol_for
from privjax.random import insecure_key
from privjax.transforms import shared_data

FORMATS = st.sampled_from([(64, 18), (64, 8), (64, 29), (32, 8), (32, 4)])


def values(fp):
    bound = fp.max_value * (1 - 2**-10)
    return st.lists(st.floats(-bound, bound, width=32), min_size=1, max_size=5)


@given(FORMATS, st.data())
def test_encoding_rounds_to_the_nearest_multiple(fmt, data):
    fp = FixedPoint(*fmt)
    x = np.asarray(data.draw(values(fp)), np.float64)
    with jax.enable_x64(True):
        for scale in (fp.fractional_bits, 2 * fp.fractional_bits):
            back = np.asarray(
                fp.decode(fp.encode(x, scale), scale, fp.real), np.float64
            )
            # float32 rings compute encodings in float32.
            slack = 2.0**-24 * np.abs(x) if fmt[0] == 32 else 2.0**-53 * np.abs(x)
            assert np.all(np.abs(back - x) <= 0.5 * 2.0**-scale + slack)


@given(FORMATS, st.data())
def test_encoding_is_additive_on_multiples(fmt, data):
    fp = FixedPoint(*fmt)
    f = fp.fractional_bits
    n = data.draw(st.lists(st.integers(-1000, 1000), min_size=2, max_size=2))
    a, b = (np.asarray(v * 2.0**-f) for v in n)
    with jax.enable_x64(True):
        summed = fp.encode(a, f) + fp.encode(b, f)
        assert float(fp.decode(summed, f, fp.real)) == float(a + b)


@settings(max_examples=25)
@given(FORMATS, st.integers(2, 5), st.integers(0, 2**32), st.data())
def test_sharing_then_revealing_gives_the_value(fmt, parties, seed, data):
    fp = FixedPoint(*fmt)
    x = np.asarray(data.draw(values(fp)), np.float32)
    tree = {"real": x, "whole": np.arange(-2, 3), "flag": np.array([True, False])}
    shared = privjax.share(
        tree, parties=parties, key=insecure_key(seed), fixed_point=fp
    )
    out = privjax.reveal(shared)
    assert jax.tree.map(lambda a: a.dtype, out)["real"] == np.float32
    np.testing.assert_allclose(
        out["real"], x, rtol=2.0**-22, atol=0.5001 * fp.resolution
    )
    np.testing.assert_array_equal(out["whole"], tree["whole"])
    np.testing.assert_array_equal(out["flag"], tree["flag"])


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_all_but_one_share_tell_nothing_that_the_value_decides(parties):
    """The same key shares two values: every party but the first holds equal words."""
    words = jax.random.key_data(insecure_key(3))
    protocol = protocol_for("semi2k", parties)
    with jax.enable_x64(True):
        run = shared_data._sharing(protocol, FixedPoint(), (((4,), np.float32),))
        one, two = (
            np.asarray(run(words, np.full(4, v, np.float32))[0]) for v in (0.0, 1000.0)
        )
    np.testing.assert_array_equal(one[1:], two[1:])
    assert not np.array_equal(one[0], two[0])


def test_two_formats_on_one_key_are_masked_differently():
    x, key = np.ones(4, np.float32), insecure_key(0)
    coarse = privjax.share(x, key=key, fixed_point=FixedPoint(64, 8))
    fine = privjax.share(x, key=key)
    first = [np.asarray(s.data)[:, 0] for s in (coarse, fine)]
    assert not np.any(np.all(first[0] == first[1], axis=-1))


def test_shares_pass_through_programs_without_64_bit_types():
    """Under jit, vmap, scan and slicing, with x64 switched off by the caller."""
    x = np.linspace(-5, 5, 6, dtype=np.float32).reshape(3, 2)
    shared = privjax.share(x)

    def through(s):
        _, rows = jax.lax.scan(lambda c, row: (c, row), 0, s)
        return jax.vmap(lambda row: row)(rows)

    out = jax.jit(through)(shared)
    np.testing.assert_allclose(privjax.reveal(out), x, atol=2.0**-18)
    last = jax.tree.map(lambda leaf: leaf[-1], shared)
    assert last.shape == (2,)
    np.testing.assert_allclose(privjax.reveal(last), x[-1], atol=2.0**-18)
