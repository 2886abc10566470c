"""Base oblivious transfers: the public-key step before everything else.

After n transfers the sender holds n pairs of 256-bit keys and the receiver, who comes
with n choice bits c, the key number c of each pair. The sender does not learn c, the
receiver nothing about the other key.

The protocol is that of Masny and Rindal, Endemic Oblivious Transfer (CCS 2019, ePrint
2019/706), their construction from Diffie-Hellman, two messages:

    R -> S: r_0, r_1 with r_(1-c) uniform and r_c = B - H_c(r_(1-c)), B = +-bG
    S -> R: A_0 = a_0 G, A_1 = a_1 G
    keys:   k_j = KDF(a_j (r_j + H_j(r_(1-j)))), the receiver's k_c = KDF(b A_c)

Every multiplication by a secret scalar is X25519 of the `cryptography` package;
`curve` adds points and hashes into the group. The choice of protocol: "Simplest OT"
(Chou and Orlandi 2015) is shorter, but a simulator cannot extract a cheating receiver's
choices in time (Genc, Iovino, Rial, ePrint 2017/370), and sharing one sender's key
between transfers has pitfalls of its own (McQuoid, Rosulek, Roy, ePrint 2021/682): every
a_j and every b here is fresh.

What holds, and under which assumption:

* The sender learns nothing about c, whatever it does: statistically, distance about
  2^-125 per transfer. X25519's scalars 8 m, 2^251 <= m < 2^252, with a random sign cover
  the residues of the group's order evenly up to 2^-126, so r_0, r_1 are uniform in the
  prime-order group for either c. The receiver computes with both A_0 and A_1 and aborts
  if either has small order, so aborting tells nothing about c.
* The receiver learns nothing about k_(1-c): Diffie-Hellman in the prime-order subgroup
  of curve25519 (computational, the key being a hash), with H and KDF random oracles.
  Scalars are multiples of 8: components of small order in received points vanish.
* This is *endemic* security: a cheating receiver may choose the key that it gets, a
  cheating sender both. Extension only needs the key that was not chosen to be unknown.
  Masny and Rindal prove it by simulation for any key agreement with uniform messages;
  that X25519 with a random sign is one, is the argument above and not in their paper.
* The channel is authenticated by someone else. There is no protection against a man in
  the middle and none against a quantum computer.
"""

import hashlib
import os
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)

from privjax.errors import InputError, ProtocolError
from privjax.preprocessing import curve
from privjax.preprocessing.exchange import Side

Bytes = np.ndarray


@dataclass(frozen=True)
class Choosing:
    """What the receiver keeps between the messages. Secret."""

    session: bytes
    choices: np.ndarray
    secrets: tuple[X25519PrivateKey, ...]
    points: Bytes


def _public(secret: X25519PrivateKey) -> bytes:
    return secret.public_key().public_bytes_raw()


def _uniform() -> tuple[X25519PrivateKey, curve.Point]:
    """A secret scalar b and the point +bG or -bG: uniform in the prime-order group."""
    secret = X25519PrivateKey.generate()
    return secret, curve.from_u(_public(secret), bool(os.urandom(1)[0] & 1))


def _name(session: bytes, i: int, j: int) -> bytes:
    """The domain of H and KDF for key j of transfer i."""
    digest = hashlib.sha512(b"privjax base transfer" + session).digest()
    return digest + i.to_bytes(4, "little") + bytes([j])


def _shift(session: bytes, i: int, j: int, other: bytes) -> curve.Point:
    return curve.hash_to_group(b"H" + _name(session, i, j) + other)


def _key(session: bytes, i: int, j: int, *transcript: bytes) -> np.ndarray:
    data = b"K" + _name(session, i, j) + b"".join(transcript)
    return np.frombuffer(hashlib.blake2s(data).digest(), "<u4").astype(np.uint32)


def _exchange(secret: X25519PrivateKey, u: bytes) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(u))
    except ValueError as error:
        raise ProtocolError("a received point has small order.") from error


def _checked(message: Bytes, count: int) -> Bytes:
    data = np.asarray(message)
    if data.shape != (count, 2, 32) or data.dtype != np.uint8:
        raise ProtocolError(
            f"{count} base transfers take uint8[{count}, 2, 32], not "
            f"{data.dtype}{data.shape}."
        )
    return data


def choose(choices: np.ndarray, session: bytes) -> tuple[Choosing, Bytes]:
    """The receiver's message.

    Args:
      choices: bool[n].
      session: names this run, the same bytes on both sides, different for every run.

    Returns: what to keep for `chosen`, and the message, uint8[n, 2, 32].
    """
    bits = np.asarray(choices)
    if bits.ndim != 1 or bits.dtype != np.bool_:
        raise InputError(f"choices are bool[n], not {bits.dtype}{bits.shape}.")
    secrets, points = [], np.zeros((bits.size, 2, 32), np.uint8)
    for i, c in enumerate(bits.astype(int)):
        secret, mine = _uniform()
        other = curve.encode(_uniform()[1])
        shift = _shift(session, i, c, other)
        points[i, 1 - c] = np.frombuffer(other, np.uint8)
        masked = curve.encode(curve.add(mine, curve.negate(shift)))
        points[i, c] = np.frombuffer(masked, np.uint8)
        secrets.append(secret)
    return Choosing(session, bits, tuple(secrets), points), points


def send(message: Bytes, count: int, session: bytes) -> tuple[np.ndarray, Bytes]:
    """The sender's answer to `choose`.

    Returns: the keys, uint32[n, 2, 8], and the message, uint8[n, 2, 32].
    Raises: ProtocolError if the message is malformed or a point has small order.
    """
    points = _checked(message, count)
    keys = np.zeros((count, 2, 8), np.uint32)
    reply = np.zeros((count, 2, 32), np.uint8)
    for i in range(count):
        pair = [points[i, j].tobytes() for j in (0, 1)]
        for j in (0, 1):
            target = curve.add(
                curve.decode(pair[j]), _shift(session, i, j, pair[1 - j])
            )
            secret = X25519PrivateKey.generate()
            public = _public(secret)
            shared = _exchange(secret, curve.to_u(target))
            keys[i, j] = _key(session, i, j, *pair, public, shared)
            reply[i, j] = np.frombuffer(public, np.uint8)
    return keys, reply


def chosen(state: Choosing, reply: Bytes) -> np.ndarray:
    """The receiver's keys, uint32[n, 8].

    Raises: ProtocolError if the reply is malformed or a point has small order.
    """
    count = state.choices.size
    publics = _checked(reply, count)
    keys = np.zeros((count, 8), np.uint32)
    for i, c in enumerate(state.choices.astype(int)):
        pair = [state.points[i, j].tobytes() for j in (0, 1)]
        candidates = [publics[i, j].tobytes() for j in (0, 1)]
        # Both, so that a point of small order is met whichever was chosen.
        shared = [_exchange(state.secrets[i], u) for u in candidates]
        keys[i] = _key(state.session, i, c, *pair, candidates[c], shared[c])
    return keys


def base_transfers(
    choices: np.ndarray, index: int, session: bytes
) -> Side[tuple[np.ndarray, np.ndarray]]:
    """Both directions at once: n transfers to each party, two rounds.

    Args:
      choices: bool[n], this party's; the other party has as many.
      index: 0 or 1; the directions are named apart in the random oracles.
      session: as in `choose`.

    Returns (when driven): the keys that I chose, uint32[n, 8], and the pairs among which
    the other party chose, uint32[n, 2, 8].
    """
    mine, theirs = session + bytes([index]), session + bytes([1 - index])
    state, message = choose(choices, mine)
    received = yield message
    pairs, reply = send(received, choices.size, theirs)
    answer = yield reply
    return chosen(state, answer), pairs
