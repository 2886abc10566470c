"""Keys that two clients agree on: RFC 7748's vectors, HKDF by hand, sealed shares."""

import hashlib
import hmac
from typing import Any

import numpy as np
import pytest

from privjax.aggregation.agreement import SIMULATED, X25519, as_bytes, as_words
from privjax.errors import ProtocolError

# RFC 7748, section 6.1.
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def words(text: str) -> np.ndarray:
    return as_words(bytes.fromhex(text))


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt, 32 bytes."""
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def test_rfc_7748() -> None:
    both = np.stack([words(ALICE), words(BOB)])
    got = X25519().public(both)
    assert [as_bytes(row).hex() for row in got] == [ALICE_PUBLIC, BOB_PUBLIC]


def test_the_pair_key_is_derived_from_the_shared_secret() -> None:
    context = b"study 3, round 9"
    publics = sorted(bytes.fromhex(p) for p in (ALICE_PUBLIC, BOB_PUBLIC))
    info = b"privjax aggregation, pairwise mask" + b"".join(publics) + context
    want = hkdf(bytes.fromhex(SHARED), info)
    x = X25519(context)
    one = x.agree(words(ALICE), words(BOB_PUBLIC)[None])[0]
    two = x.agree(words(BOB), words(ALICE_PUBLIC)[None])[0]
    assert as_bytes(one) == as_bytes(two) == want
    other = X25519(b"study 3, round 10").agree(words(ALICE), words(BOB_PUBLIC))
    assert np.all(other != one)


def test_a_simulated_pair_key_is_common_and_of_its_own() -> None:
    rng = np.random.default_rng(0)
    secrets = rng.integers(0, 2**32, (4, 8), dtype=np.uint32)
    public = SIMULATED.public(secrets)
    table = np.stack([np.asarray(SIMULATED.agree(s, public)) for s in secrets])
    np.testing.assert_array_equal(table, table.transpose(1, 0, 2))
    keys = {table[i, j].tobytes() for i in range(4) for j in range(i)}
    assert len(keys) == 6


def test_sealed_shares() -> None:
    x, share = X25519(b"round"), np.arange(16, dtype=np.uint32)
    sealed = x.seal(words(ALICE), words(BOB_PUBLIC), share)
    assert sealed.shape == (80,) and sealed.dtype == np.uint8
    got = x.unseal(words(BOB), words(ALICE_PUBLIC), sealed)
    np.testing.assert_array_equal(got, share)
    # The other direction has a key of its own.
    back = x.seal(words(BOB), words(ALICE_PUBLIC), share)
    assert np.mean(back == sealed) < 0.2


def altered(sealed: Any) -> Any:
    out = sealed.copy()
    out[3] ^= 1
    return out


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, s: x.unseal(words(BOB), words(ALICE_PUBLIC), altered(s)),
        lambda x, s: X25519(b"later").unseal(words(BOB), words(ALICE_PUBLIC), s),
        lambda x, s: x.unseal(words(ALICE), words(BOB_PUBLIC), s),  # reflected
        lambda x, s: x.unseal(words(BOB), np.zeros(8, np.uint32), s),  # small order
    ],
)
def test_what_was_not_sealed_for_this_client_now(wrong: Any) -> None:
    x = X25519(b"round")
    sealed = x.seal(words(ALICE), words(BOB_PUBLIC), np.arange(16, dtype=np.uint32))
    with pytest.raises(ProtocolError):
        wrong(x, sealed)
