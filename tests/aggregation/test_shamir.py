"""GF(2^32) against polynomials in Python; shares that give the secret, and that do not."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privjax.aggregation import field, shamir
from privjax.errors import InputError

WORDS = st.integers(0, 2**32 - 1)
MODULUS = 1 << 32 | 1 << 7 | 1 << 3 | 1 << 2 | 1


def product(a: int, b: int, modulus: int = MODULUS) -> int:
    """Bit by bit: a polynomial product, then the remainder."""
    out = 0
    for i in range(b.bit_length()):
        out ^= (a << i) * (b >> i & 1)
    return remainder(out, modulus)


def remainder(a: int, modulus: int) -> int:
    while a.bit_length() >= modulus.bit_length():
        a ^= modulus << (a.bit_length() - modulus.bit_length())
    return a


def test_the_modulus_is_irreducible() -> None:
    """Rabin's test: x^(2^32) = x, and x^(2^16) - x has no factor with the modulus."""
    power, powers = 2, []
    for _ in range(32):
        power = product(power, power)
        powers.append(power)
    assert powers[31] == 2
    a, b = MODULUS, powers[15] ^ 2
    while b:
        a, b = b, remainder(a, b)
    assert a == 1


@given(WORDS, WORDS, WORDS)
def test_products(a: int, b: int, c: int) -> None:
    x, y, z = (np.array([v], np.uint32) for v in (a, b, c))
    assert int(field.multiply(x, y)[0]) == product(a, b)
    np.testing.assert_array_equal(
        field.multiply(x, y ^ z), field.multiply(x, y) ^ field.multiply(x, z)
    )
    assert int(field.multiply(x, field.inverse(x))[0]) == (a != 0)


def test_products_in_jax_are_those_in_numpy() -> None:
    a, b = np.random.default_rng(0).integers(0, 2**32, (2, 64), dtype=np.uint32)
    with jax.enable_x64(True):
        got = jax.jit(field.multiply)(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_array_equal(got, field.multiply(a, b))


HOLDERS, THRESHOLD = 6, 3
share = jax.jit(partial(shamir.share, holders=HOLDERS))
recover = jax.jit(shamir.recover)


def dealt(seed: int, secrets: int = 4) -> tuple[Any, Any]:
    """(secrets uint32[n], shares uint32[holders, n])."""
    rng = np.random.default_rng(seed)
    secret = rng.integers(0, 2**32, secrets, dtype=np.uint32)
    some = rng.integers(0, 2**32, (THRESHOLD - 1, secrets), dtype=np.uint32)
    with jax.enable_x64(True):
        return secret, np.asarray(share(jnp.asarray(secret), jnp.asarray(some)))


def opened(shares: Any, present: Any) -> Any:
    with jax.enable_x64(True):
        return np.asarray(recover(jnp.asarray(shares), jnp.asarray(present)))


def test_every_set_that_is_large_enough_recovers_and_no_smaller_one() -> None:
    """One compiled program: who is present is an array."""
    secret, shares = dealt(0)
    for present in itertools.product([False, True], repeat=HOLDERS):
        got = opened(np.where(np.array(present)[:, None], shares, 7), np.array(present))
        assert np.array_equal(got, secret) == (sum(present) >= THRESHOLD)
        assert sum(present) >= THRESHOLD or np.all(got != secret)


def test_less_than_the_threshold_is_independent_of_the_secret() -> None:
    """All pairs of shares of two secrets, over many polynomials, byte by byte."""
    rng = np.random.default_rng(1)
    some = rng.integers(0, 2**32, (THRESHOLD - 1, 20000), dtype=np.uint32)
    counts = []
    for value in (0, 2**32 - 1):
        secret = np.full(20000, value, np.uint32)
        with jax.enable_x64(True):
            shares = np.asarray(share(jnp.asarray(secret), jnp.asarray(some)))
        low = (shares & 15).astype(int)
        rows = []
        for a, b in itertools.combinations(range(HOLDERS), THRESHOLD - 1):
            table = np.bincount(16 * low[a] + low[b], minlength=256)
            assert stats.chisquare(table).pvalue > 1e-4
            rows.append(table)
        counts.append(np.concatenate(rows))
    assert stats.chi2_contingency(np.stack(counts)).pvalue > 1e-4


def test_many_secrets_with_different_holders_at_once() -> None:
    secret, shares = dealt(2, secrets=5)
    present = np.random.default_rng(3).random((5, HOLDERS)) < 0.8
    present[:, :THRESHOLD] = True
    got = opened(shares.T[:, :, None], present)
    np.testing.assert_array_equal(got[:, 0], secret)


def test_shares_add_up() -> None:
    (a, x), (b, y) = dealt(4), dealt(5)
    everybody = np.ones(HOLDERS, bool)
    np.testing.assert_array_equal(opened(x ^ y, everybody), a ^ b)


def test_points_are_distinct_and_none_is_the_secret() -> None:
    found = shamir.points(1000)
    assert len({*found.tolist()}) == 1000 and 0 not in found


def test_coefficients_of_another_shape() -> None:
    with pytest.raises(InputError, match="coefficients"):
        shamir.share(jnp.zeros(3, np.uint32), jnp.zeros((2, 4), np.uint32), 5)
