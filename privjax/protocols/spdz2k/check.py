"""The batch check of opened values: random linear combinations under a late coin.

Cramer et al. 2018, section 3 (BatchCheck). Opened were values v_j, all k+s bits of them,
with MAC shares m_i^j. For chi_j from a coin that was tossed after all of them were fixed,
party i adds to its `Ledger`

    z_i += sum_j chi_j m_i^j - alpha_i sum_j chi_j v_j  mod 2^(k+s)

To compare, all commit to z_i and open it: the sum must be 0. An error in some v_j that is
not a multiple of 2^k (others mean nothing) makes sum_j chi_j v_j wrong by a number E, and
then somebody has guessed alpha mod 2^(k+s) / E. It takes all bits of v_j: were the high
ones free, whoever knows the coin could choose them so that E vanishes.

Opened bits and elements b_j of GF(4) give words w_i^j = t_i^j XOR b_j Delta_i, whose XOR
over parties is 0.

Two parties have equal words then, and compare a universal hash of them under the coin: a
tree of NH (Black et al. 1999; UMAC, RFC 4418), whose nodes take 32 words to one in each of
four passes. Whoever had other bits opened must name the digest of words w XOR e_j Delta:
a function of the 62 unknown bits of Delta, where two values of Delta collide with
probability p = L 2^-128 in a tree of L levels. So a digest has 1 + 2^123 p values of Delta
behind it at the most, in expectation, and is named with probability
2^-62 (1 + 2^123 p) < 2^-61. It takes four passes: of two, p = 2^-64 L, only 2^-32 can be
shown this way. NH is almost universal for differences as well, so that digests are
added up and the last one with errors decides.

More parties take 64 random subset sums: of e_j Delta they are e Delta, and e = 0 for all
of them has probability 2^-64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.prg import chacha20
from privjax.prg.buffer import in_a_buffer
from privjax.prg.chacha20 import Purpose
from privjax.protocols.spdz2k import gf4
from privjax.protocols.spdz2k.extended import Extended

SUBSETS = 64
# The nonce of what bits are multiplied with; those of sums count from 0.
_FOR_BITS = 0xFFFFFFFF
# Words that a node of the hash takes, and its independent passes of 32 bits of security.
_NODE, _PASSES = 32, 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ledger:
    """What a party carries from one check to the next.

    Attributes: z as above; heard is the combination of all values, which must be the same
    for all parties (what owners sent has no MAC, and more than two parties could be told
    different things); bits is the digest of the binary words; sound is False for good
    once a check has failed.
    """

    heard: Any
    z: Any
    bits: Any
    sound: Any

    @classmethod
    def fresh(cls, ring: Extended, parties: int) -> "Ledger":
        zero, digest = ring.zeros(()), 2 * (_PASSES if parties == 2 else SUBSETS)
        bits = jnp.zeros((digest,), np.uint32)
        return cls(zero, zero, bits, jnp.ones((), bool))


def message(ring: Extended, ledger: Ledger) -> Any:
    """uint32[n]: what the parties compare."""
    sums = [ring.to_words(ledger.z), ring.to_words(ledger.heard)]
    return jnp.concatenate([*sums, ledger.bits])


def balanced(ring: Extended, messages: Any) -> Any:
    """Whether all parties' messages, uint32[parties, n], say that nobody cheated."""
    n = ring.words
    z, heard, bits = messages[:, :n], messages[:, n : 2 * n], messages[:, 2 * n :]
    total = ring.total(ring.from_words(z), (0,))
    return (
        ring.equal(total, ring.zeros(()))
        & jnp.all(heard == heard[:1])
        & jnp.all(lax.reduce_xor(bits, (0,)) == 0)
    )


@dataclass(frozen=True)
class Opened:
    """An opened value, and what authenticates it.

    `bits` are those that are sent of each word. `check` is (MAC, key): of bits or elements
    of GF(4), or of an element mod 2^(k+s) under this program's key, or under a key for
    each entry (shares of an earlier program); or empty for what its owner sent.
    """

    domain: str
    value: Any
    bits: int
    check: tuple[Any, ...]


def absorb(
    ring: Extended, parties: int, ledger: Ledger, coin: Any, items: Sequence[Opened]
) -> Ledger:
    """The ledger after the openings `items`; `coin` is uint32[8], common to all."""
    heard, z = ledger.heard, ledger.z
    said = [i for i in items if not i.check]
    sums = [i for i in items if i.check and i.domain != "xor"]
    if said:
        low = jnp.concatenate([i.value.astype(ring.dtype).reshape(-1) for i in said])
        chi = _coefficients(coin, 0, low.size)
        heard = heard + ring.total(ring.times_key(ring.factor(low), chi))
    for use, group in enumerate(_by_key(sums)):
        mac, value = (
            _joined(ring, arrays)
            for arrays in ([i.check[0] for i in group], [i.value for i in group])
        )
        key = group[0].check[1]
        chi = _coefficients(coin, 1 + use, math.prod(mac.shape))
        common = ring.total(value * chi)
        one = key.ndim == 0
        expected = common * key if one else ring.total(value * key.reshape(-1) * chi)
        heard = heard + common
        z = z + ring.total(mac * chi) - expected
    bits = _binary(parties, ledger.bits, coin, items)
    return Ledger(heard, z, bits, ledger.sound)


def _by_key(items: Sequence[Opened]) -> list[list[Opened]]:
    """Those under one key together."""
    groups: dict[int, list[Opened]] = {}
    for item in items:
        groups.setdefault(id(item.check[1]), []).append(item)
    return list(groups.values())


def _joined(ring: Extended, arrays: Sequence[Any]) -> Any:
    """Elements as markers take them, flat and behind each other."""
    planes = ring.planes
    flat = [a.reshape(*planes, -1) for a in arrays]
    return ring.from_marker(jnp.concatenate(flat, -1))


def _binary(parties: int, before: Any, coin: Any, items: Sequence[Opened]) -> Any:
    words = []
    for item in items:
        if item.domain == "xor":
            word, key = item.check
            words.append((word ^ gf4.multiple(item.value, key, item.bits)).reshape(-1))
    if not words:
        return before
    return _digest(before, coin, words) if parties == 2 else _sums(before, coin, words)


def _coefficients(coin: Any, use: int, count: int) -> Any:
    """uint64[count] from the coin, odd: one wrong MAC share alone never balances."""
    stream = chacha20.transposed(coin, (int(Purpose.CHECK), use, 0), 2 * count)
    low, high = (v.astype(np.uint64) for v in (stream[:count], stream[count:]))
    return low | (high << np.uint64(32)) | np.uint64(1)


def _digest(before: Any, coin: Any, arrays: Sequence[Any]) -> Any:
    """The digest before, plus the hash of arrays of uint64: uint32[2 * _PASSES]."""
    # In memory, or the words would be computed anew for every pass.
    nodes = in_a_buffer(lambda: _padded(jnp.concatenate(arrays)), coin[0])
    sizes, levels = _nodes(nodes.size), 1
    while sizes > _PASSES:
        sizes, levels = _nodes(sizes), levels + 1
    count = _PASSES * 2 * _NODE
    stream = chacha20.keystream(
        coin, (int(Purpose.CHECK), _FOR_BITS, 0), levels * count
    )
    for key in stream.reshape(levels, _PASSES, 2, _NODE):
        nodes = _hashed(key, _padded(nodes))
    total = lax.bitcast_convert_type(before.reshape(-1, 2), np.uint64) + nodes
    return lax.bitcast_convert_type(total, np.uint32).reshape(-1)


def _nodes(words: int) -> int:
    return _PASSES * -(-words // _NODE)


def _padded(words: Any) -> Any:
    return jnp.pad(words, (0, -words.size % _NODE))


def _hashed(key: Any, words: Any) -> Any:
    """NH of every 32 words in a row, by products of their half words."""
    rows = words.reshape(-1, _NODE)
    low, high = rows.astype(np.uint32), (rows >> np.uint64(32)).astype(np.uint32)
    products = tuple(
        (low + a).astype(np.uint64) * (high + b).astype(np.uint64) for a, b in key
    )
    # All passes in one reduction, which reads the words once.
    sums = lax.reduce(
        products,
        (np.uint64(0),) * _PASSES,
        lambda xs, ys: tuple(x + y for x, y in zip(xs, ys, strict=True)),
        (1,),
    )
    return jnp.concatenate(sums)


def _sums(before: Any, coin: Any, arrays: Sequence[Any]) -> Any:
    """64 random subset sums over GF(2), added to those before."""
    words = jnp.concatenate(arrays)
    stream = chacha20.keystream(
        coin, (int(Purpose.CHECK), _FOR_BITS, 0), 2 * words.size
    )
    chi = chacha20.from_words(stream, words.shape, np.uint64)

    def subset(at: Any) -> Any:
        picked = (chi >> at) & np.uint64(1)
        return lax.reduce_xor(words & (jnp.zeros_like(picked) - picked), (0,))

    sums = lax.map(subset, jnp.arange(SUBSETS, dtype=np.uint64))
    return before ^ lax.bitcast_convert_type(sums, np.uint32).reshape(-1)
