"""Point arithmetic against RFC 8032 and RFC 7748 as the `cryptography` package has them."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from two_parties import ORDER, times

from privjax.errors import ProtocolError
from privjax.preprocessing import curve

BASE = curve.from_y(4 * pow(5, -1, curve.P) % curve.P, False)
# RFC 8032, section 7.1: secret and public keys.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    ),
]


def clamped(data: bytes) -> int:
    value = int.from_bytes(data[:32], "little")
    return value & (2**254 - 8) | 2**254


def secret_scalar(seed: bytes) -> int:
    return clamped(hashlib.sha512(seed).digest())


@pytest.mark.parametrize(("secret", "public"), RFC_8032)
def test_public_keys_of_rfc_8032(secret: str, public: str) -> None:
    point = times(secret_scalar(bytes.fromhex(secret)), BASE)
    assert curve.encode(point).hex() == public
    assert curve.decode(bytes.fromhex(public)) == point


@pytest.mark.parametrize("seed", range(4))
def test_sums_against_ed25519(seed: int) -> None:
    seeds = [hashlib.sha256(bytes([seed, i])).digest() for i in (0, 1)]
    keys = [Ed25519PrivateKey.from_private_bytes(s).public_key() for s in seeds]
    one, two = (curve.decode(key.public_bytes_raw()) for key in keys)
    total = sum(secret_scalar(s) for s in seeds) % ORDER
    assert curve.add(one, two) == times(total, BASE)
    assert curve.add(one, curve.negate(one)) == curve.NEUTRAL
    assert curve.add(one, curve.NEUTRAL) == one
    assert curve.add(curve.add(one, two), one) == curve.add(two, curve.add(one, one))


@pytest.mark.parametrize("seed", range(4))
def test_coordinates_of_x25519(seed: int) -> None:
    data = hashlib.sha256(bytes([seed])).digest()
    public = X25519PrivateKey.from_private_bytes(data).public_key().public_bytes_raw()
    point = times(clamped(data), BASE)
    assert curve.to_u(point) == public
    for odd in (False, True):
        lifted = curve.from_u(public, odd)
        assert lifted in (point, curve.negate(point))
        assert lifted[0] & 1 == odd


def test_hashing_lands_in_the_prime_order_group() -> None:
    points = [curve.hash_to_group(bytes([i])) for i in range(6)]
    assert len(set(points)) == 6
    for point in points:
        x, y = point
        assert (-x * x + y * y - 1 - curve.D * x * x * y * y) % curve.P == 0
        assert times(ORDER, point) == curve.NEUTRAL != point
    assert curve.hash_to_group(b"\0") == points[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: curve.decode((2).to_bytes(32, "little")),
        lambda: curve.decode((curve.P + 1).to_bytes(32, "little")),
        lambda: curve.decode((1 | 1 << 255).to_bytes(32, "little")),
        lambda: curve.decode(bytes(31)),
        lambda: curve.from_u((2).to_bytes(32, "little"), False),
        lambda: curve.from_u((curve.P - 1).to_bytes(32, "little"), False),
    ],
)
def test_what_is_no_point_is_refused(call) -> None:
    with pytest.raises(ProtocolError):
        call()
