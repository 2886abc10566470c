"""Input, output, and shares at rest."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import markers
from privjax.protocols.shares import Arith, Bit
from privjax.protocols.spdz2k import gf4
from privjax.protocols.spdz2k.authenticated import Bits, Keys, Sum
from privjax.protocols.spdz2k.boolean import xor_public
from privjax.protocols.spdz2k.extended import Extended
from privjax.protocols.spdz2k.tuples import BitMacs, SumMacs
from privjax.protocols.tuples import Noise, ToOwner


def share_input(keys: Keys, x: Any, owner: int) -> Arith:
    """[[x]] of a ring array that only party `owner` needs to hold; one round.

    1. dealer: [[r]], and r mod 2^k in clear to the owner
    2. the owner sends x - r mod 2^k to all, who compare what they got (`check`)
    3. [[x]] = [[r]] + (x - r), and r is an open mask of x
    """
    ring = keys.ring
    r = keys.uniform(x.shape)
    (clear,) = markers.dealt([keys.known(r)], ToOwner(owner))
    (delta,) = markers.open_values([x - clear], (f"from:{owner}",), (ring.k,))
    return _unmasked(keys, r, delta)


def _unmasked(keys: Keys, r: Sum, opened: Any) -> Arith:
    """[[r + opened]], for which no mask needs to be opened again."""
    x = Arith(r.add_public(opened))
    x.masked(lambda _: (r, opened))
    return x


def share_bits(keys: Keys, x: Any, owner: int) -> Bit:
    """`share_input` for bits: r is a bit, and x XOR r is sent."""
    r = keys.uniform_bits(x.shape)
    (clear,) = markers.dealt([r.bit], ToOwner(owner, "xor"))
    low = (x ^ clear) & np.uint8(1)
    (delta,) = markers.open_values([low], (f"from:{owner}",), (1,))
    return _unmasked_bits(keys, r, delta)


def _unmasked_bits(keys: Keys, r: Bits, opened: Any) -> Bit:
    """`_unmasked` for bits."""
    x = xor_public(keys, Bit(r), opened)
    x.masked(lambda _: (r, opened))
    return x


def public(keys: Keys, value: Any) -> Arith:
    """A public ring array as a share."""
    value = jnp.asarray(value, keys.ring.dtype)
    return Arith(Sum(keys.ring.zeros((2, *value.shape)), value))


def public_bits(keys: Keys, value: Any) -> Bit:
    """A public bit array as a share."""
    value = jnp.asarray(value, np.uint8) & np.uint8(1)
    return Bit(Bits(jnp.zeros(value.shape, np.uint64), value))


def noise(keys: Keys, draw: Noise) -> Arith:
    """[[e]] for noise e that the dealer draws: no party, nor n-1 of them, learns it."""
    seed = markers.uniform((8,), jnp.uint32, "xor")
    return Arith(keys.dealt([seed], draw)[0])


def open_arith(keys: Keys, xs: Sequence[Arith]) -> list[Any]:
    """A release, after a check of all that was opened before; one round and the check's."""
    return keys.open_sums([x.value for x in xs], release=True)


def open_bits(keys: Keys, xs: Sequence[Bit]) -> list[Any]:
    """A release of bits; one round and the check's."""
    words = [keys.word_inside(x.value) for x in xs]
    return keys.open_elements(words, (1,) * len(xs), release=True)


# -- shares at rest: share, MAC share and the party's key, as words of each element ----
# (of bits the MAC share holds the share)


def pack(keys: Keys, x: Arith | Bit) -> Any:
    shape = (*x.shape, 2)
    if isinstance(x, Bit):
        key = jnp.broadcast_to(_halves(keys.delta), shape)
        return jnp.concatenate([_halves(keys.word_inside(x.value)), key], -1)
    ring = keys.ring
    key = jnp.broadcast_to(_halves(keys.alpha), shape)
    both = Sum(keys.inside(x.value))
    share, mac = (ring.to_words(part) for part in both.parts)
    return jnp.concatenate([share, mac, key], -1)


def unpack_arith(keys: Keys, words: Any, dtype: Any) -> Arith:
    """A share of an earlier program, brought under this program's key; one round.

    1. dealer: [[r]] under the new key alpha, and the MAC of r under the old key beta
    2. open d = x - r mod 2^(k+s), checked under beta;  [[x]] = [[r]] + d
    """
    ring = keys.ring
    share, mac, beta = _sum_parts(ring, words)
    r = keys.whole(words.shape[:-1])
    operands = [beta.astype(ring.dtype), ring.to_marker(r.share)]
    (old,) = markers.dealt(operands, SumMacs(ring, ring.domain))
    (opened,) = markers.open_values(
        [ring.to_marker(share - r.share)],
        (ring.domain,),
        (64,),
        [(ring.to_marker(mac - ring.from_marker(old)), beta)],
    )
    return _unmasked(keys, r, ring.low(ring.from_marker(opened)))


def unpack_bits(keys: Keys, words: Any) -> Bit:
    """As `unpack_arith`, for bits."""
    mac, old_key = _bit_parts(words)
    r = keys.uniform_bits(words.shape[:-1])
    (old,) = markers.dealt([old_key, r.bit], BitMacs())
    masked = mac ^ old
    (opened,) = markers.open_values(
        [gf4.first(masked, 1)], ("xor",), (1,), [(masked, old_key)]
    )
    return _unmasked_bits(keys, r, opened)


def combine_arith(words: Any, dtype: Any) -> tuple[Any, Any]:
    ring = Extended(8 * np.dtype(dtype).itemsize)
    share, mac, key = _sum_parts(ring, words)
    value, tag = ring.total(share, (0,)), ring.total(mac, (0,))
    alpha = ring.total(ring.up(key.astype(ring.dtype)), (0,))
    sound = ring.equal(tag, alpha * value)
    return ring.low(value), jnp.all(sound)


def combine_bits(words: Any) -> tuple[Any, Any]:
    tag, delta = (lax.reduce_xor(v, (0,)) for v in _bit_parts(words))
    value = gf4.first(tag, 1)
    return value, jnp.all(tag == gf4.ones(value) & delta)


def _halves(word: Any) -> Any:
    return lax.bitcast_convert_type(word, np.uint32)


def _sum_parts(ring: Extended, words: Any) -> tuple[Any, Any, Any]:
    n = ring.words
    key = lax.bitcast_convert_type(words[..., 2 * n :], np.uint64)
    return ring.from_words(words[..., :n]), ring.from_words(words[..., n : 2 * n]), key


def _bit_parts(words: Any) -> tuple[Any, Any]:
    mac, key = (
        lax.bitcast_convert_type(words[..., a : a + 2], np.uint64) for a in (0, 2)
    )
    return mac, key
