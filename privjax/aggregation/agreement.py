"""How two clients agree on a key, and how a share travels through the server unseen.

`X25519` is for real clients: Diffie-Hellman on curve25519 (RFC 7748), keys derived by
HKDF-SHA256 (RFC 5869) bound to both public keys and to what the key is for, shares
sealed by ChaCha20-Poly1305 (RFC 8439). It runs outside of JAX.

`SIMULATED` stands for it inside of one jitted program that plays all clients: in place
of a public key it has the secret itself, and a pair's key is a pseudorandom function of
both. Masks have the same law and the server recovers a dropped client's in the same way,
but a process that plays all clients protects nobody.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privjax._typing import Array
from privjax.errors import ProtocolError
from privjax.prg.chacha20 import KEY_WORDS, Purpose, derive

KEY_BYTES = 4 * KEY_WORDS
# ChaCha20-Poly1305 lengthens a message by its tag.
TAG_BYTES = 16


class Agreement(Protocol):
    """From a secret and another's public key to a common key."""

    def public(self, secret: Array) -> Array:
        """uint32[..., 8] -> uint32[..., 8]."""

    def agree(self, secret: Array, theirs: Array) -> Array:
        """uint32[8] and uint32[..., 8] -> uint32[..., 8], the same for both sides."""


@dataclass(frozen=True)
class Simulated:
    """A stand-in for a key agreement, in `jnp`; see the module docstring."""

    def public(self, secret: Array) -> Array:
        return secret

    def agree(self, secret: Array, theirs: Array) -> Array:
        both = theirs ^ secret
        flat = both.reshape(-1, KEY_WORDS)
        keys = jax.vmap(lambda k: derive(k, (Purpose.PAIR, 1, 0)))(flat)
        return keys.reshape(both.shape)


def as_bytes(words: Any) -> bytes:
    """uint32[...] as little-endian bytes."""
    return np.ascontiguousarray(words, "<u4").tobytes()


def as_words(data: bytes) -> np.ndarray:
    """Bytes, a multiple of 4, as uint32[...]."""
    return np.frombuffer(data, "<u4").astype(np.uint32)


@dataclass(frozen=True)
class X25519:
    """Diffie-Hellman on curve25519, and sealing under the agreed keys.

    Attributes: context names the round (and the study), the same bytes at all clients;
    keys of different rounds are unrelated.
    """

    context: bytes = b""

    def public(self, secret: Any) -> np.ndarray:
        secrets = np.asarray(secret, np.uint32).reshape(-1, KEY_WORDS)
        keys = [
            as_words(_private(row).public_key().public_bytes_raw()) for row in secrets
        ]
        return np.stack(keys).reshape(np.shape(secret))

    def agree(self, secret: Any, theirs: Any) -> np.ndarray:
        keys = [
            as_words(self._key(secret, row, b"pairwise mask"))
            for row in np.asarray(theirs, np.uint32).reshape(-1, KEY_WORDS)
        ]
        out = np.stack(keys) if keys else np.zeros((0, KEY_WORDS), np.uint32)
        return out.reshape(np.shape(theirs))

    def seal(self, secret: Any, theirs: Any, words: Any) -> np.ndarray:
        """uint32[n] for the owner of the public key `theirs`: uint8[4 n + 16].

        One message per pair, direction and round: the key is used once, so that the
        nonce may be constant.
        """
        cipher = self._cipher(secret, theirs, sender=self.public(secret))
        sealed = cipher.encrypt(bytes(12), as_bytes(words), self.context)
        return np.frombuffer(sealed, np.uint8).copy()

    def unseal(self, secret: Any, theirs: Any, sealed: Any) -> np.ndarray:
        """What the owner of the public key `theirs` sealed for this client: uint32[n].

        Raises: ProtocolError if it was sealed otherwise, or altered.
        """
        cipher = self._cipher(secret, theirs, sender=theirs)
        data = np.ascontiguousarray(sealed, np.uint8).tobytes()
        try:
            return as_words(cipher.decrypt(bytes(12), data, self.context))
        except InvalidTag as error:
            raise ProtocolError(
                "a share that another client sealed for this one arrived altered: leave "
                "the round."
            ) from error

    def _cipher(self, secret: Any, theirs: Any, sender: Any) -> ChaCha20Poly1305:
        label = b"sealed shares from " + as_bytes(sender)
        return ChaCha20Poly1305(self._key(secret, theirs, label))

    def _key(self, secret: Any, theirs: Any, label: bytes) -> bytes:
        mine = _private(secret)
        other = as_bytes(theirs)
        try:
            common = mine.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError as error:
            raise ProtocolError(
                "a public key has small order: leave the round."
            ) from error
        pair = b"".join(sorted([mine.public_key().public_bytes_raw(), other]))
        info = b"privjax aggregation, " + label + pair + self.context
        return HKDF(hashes.SHA256(), KEY_BYTES, None, info).derive(common)


def _private(words: Any) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(as_bytes(words))


SIMULATED = Simulated()
