"""Input, output, and shares at rest."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.spdz2k import tuples
from privjax.protocols.spdz2k.authenticated import Bits, Keys, as_words
from privjax.protocols.spdz2k.boolean import xor_public
from privjax.protocols.spdz2k.extended import Extended
from privjax.protocols.tuples import Noise, ToOwner


def share_input(keys: Keys, x: Any, owner: int) -> Arith:
    """[[x]] of a ring array that only party `owner` needs to hold; one round.

    1. dealer: [[r]], and r mod 2^k in clear to the owner
    2. the owner sends x - r mod 2^k to all, who compare what they got (`check`)
    3. [[x]] = [[r]] + (x - r)
    """
    ring = keys.ring
    r = keys.uniform(x.shape)
    (clear,) = markers.dealt([ring.low(r.share)], ToOwner(owner))
    (delta,) = markers.open_values([x - clear], (f"from:{owner}",), (ring.k,))
    return Arith(keys.add_public(r, delta))


def share_bits(keys: Keys, x: Any, owner: int) -> Bit:
    """`share_input` for bits: r is a bit, and x XOR r is sent."""
    word = markers.uniform(x.shape, np.uint8, "xor") & np.uint8(1)
    r = keys.authenticated_bits(word)
    (clear,) = markers.dealt([word], ToOwner(owner, "xor"))
    low = (x ^ clear) & np.uint8(1)
    (delta,) = markers.open_values([low], (f"from:{owner}",), (1,))
    return xor_public(keys, Bit(r), delta)


def public(keys: Keys, value: Any) -> Arith:
    """A public ring array as a share."""
    return Arith(keys.public(jnp.asarray(value, keys.ring.dtype)))


def public_bits(keys: Keys, value: Any) -> Bit:
    """A public bit array as a share."""
    value = jnp.asarray(value)
    zero = Bits(jnp.zeros(value.shape, np.uint8), jnp.zeros(value.shape, np.uint64))
    return xor_public(keys, Bit(zero), value)


def noise(keys: Keys, draw: Noise) -> Arith:
    """[[e]] for noise e that the dealer draws: no party, nor n-1 of them, learns it."""
    seed = markers.uniform((8,), jnp.uint32, "xor")
    (share,) = keys.dealt([seed], tuples.Lifted(keys.ring, draw))
    return Arith(share)


def open_arith(keys: Keys, xs: Sequence[Arith]) -> list[Any]:
    """A release, after a check of all that was opened before; one round and the check's."""
    return keys.open_sums([x.value for x in xs], release=True)


def open_bits(keys: Keys, xs: Sequence[Bit]) -> list[Any]:
    """A release of bits; one round and the check's."""
    return keys.open_words([as_words(x.value) for x in xs], 1, release=True)


# -- shares at rest: share, MAC share and the party's key, as words of each element ----


def pack(keys: Keys, x: Arith | Bit) -> Any:
    shape = (*x.shape, 2)
    if isinstance(x, Bit):
        bit = (x.value.bit & np.uint8(1)).astype(np.uint32)[..., None]
        key = jnp.broadcast_to(_halves(keys.delta), shape)
        return jnp.concatenate([bit, _halves(x.value.mac), key], -1)
    ring = keys.ring
    key = jnp.broadcast_to(_halves(keys.alpha), shape)
    share, mac = (ring.to_words(part) for part in (x.value.share, x.value.mac))
    return jnp.concatenate([share, mac, key], -1)


def unpack_arith(keys: Keys, words: Any, dtype: Any) -> Arith:
    """A share of an earlier program, brought under this program's key; one round.

    1. dealer: [[r]] under the new key alpha, and the MAC of r under the old key beta
    2. open d = x - r mod 2^(k+s), checked under beta;  [[x]] = [[r]] + d
    """
    ring = keys.ring
    share, mac, beta = _sum_parts(ring, words)
    r = keys.uniform(words.shape[:-1])
    operands = [ring.to_marker(ring.up64(beta)), r.known(ring)]
    (old,) = markers.dealt(operands, tuples.SumMacs(ring))
    (opened,) = markers.open_values(
        [ring.to_marker(share - r.share)],
        (ring.domain,),
        (64,),
        [(ring.to_marker(mac - ring.from_marker(old)), beta)],
    )
    return Arith(keys.add_public(r, ring.low(ring.from_marker(opened))))


def unpack_bits(keys: Keys, words: Any) -> Bit:
    """As `unpack_arith`, for bits."""
    bit, mac, old_key = _bit_parts(words)
    word = markers.uniform(words.shape[:-1], np.uint8, "xor") & np.uint8(1)
    r = keys.authenticated_bits(word)
    (old,) = markers.dealt([old_key, word], tuples.BitMacs(1))
    (opened,) = markers.open_values(
        [bit ^ word], ("xor",), (1,), [(mac[None] ^ old, old_key)]
    )
    return xor_public(keys, Bit(r), opened)


def combine_arith(words: Any, dtype: Any) -> tuple[Any, Any]:
    ring = Extended(8 * np.dtype(dtype).itemsize)
    share, mac, key = _sum_parts(ring, words)
    value, tag = ring.total(share, (0,)), ring.total(mac, (0,))
    sound = ring.equal(tag, ring.total(ring.up64(key), (0,)) * value)
    return ring.low(value), jnp.all(sound)


def combine_bits(words: Any) -> tuple[Any, Any]:
    bit, mac, key = _bit_parts(words)
    value, tag, delta = (lax.reduce_xor(v, (0,)) for v in (bit, mac, key))
    return value, jnp.all(tag == value.astype(np.uint64) * delta)


def _halves(word: Any) -> Any:
    return lax.bitcast_convert_type(word, np.uint32)


def _sum_parts(ring: Extended, words: Any) -> tuple[Any, Any, Any]:
    n = ring.words
    key = lax.bitcast_convert_type(words[..., 2 * n :], np.uint64)
    return ring.from_words(words[..., :n]), ring.from_words(words[..., n : 2 * n]), key


def _bit_parts(words: Any) -> tuple[Any, Any, Any]:
    mac, key = (
        lax.bitcast_convert_type(words[..., a : a + 2], np.uint64) for a in (1, 3)
    )
    return words[..., 0].astype(np.uint8), mac, key
