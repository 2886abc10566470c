"""What the dealer and the aggregators of `spdz` compute, each step compiled once.

The ring, its shares with MACs and the check are those of `privjax.protocols.spdz2k`; a
party's shares of the j-th mask come from one seed, but for the MAC shares of the first.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Array
from privjax.aggregation.agreement import as_bytes, as_words
from privjax.prg.chacha20 import Purpose, bits
from privjax.prg.keys import key as random_key
from privjax.prg.keys import key_words
from privjax.protocols.spdz2k.check import Ledger, Opened, absorb, message
from privjax.protocols.spdz2k.extended import Extended


def digest(keys: np.ndarray) -> np.ndarray:
    return as_words(hashlib.sha256(as_bytes(keys)).digest())


def as_uint32(x: Any) -> np.ndarray:
    """Any array as uint32, filled up with zeros."""
    data = np.ascontiguousarray(x).tobytes()
    return as_words(data + bytes(-len(data) % 4))


def of_uint32(words: np.ndarray, like: np.ndarray) -> np.ndarray:
    data = np.ascontiguousarray(words, "<u4").tobytes()[: like.nbytes]
    return np.frombuffer(data, like.dtype.newbyteorder("<")).astype(like.dtype)


def mac_keys(parties: int, k: int) -> np.ndarray:
    """uint64[parties], the sum of which is odd."""
    drawn = np.stack([key_words(random_key())[:2] for _ in range(parties)])
    alphas = np.ascontiguousarray(drawn, "<u4").view("<u8")[:, 0].copy()
    if k == 32:
        alphas >>= np.uint64(32)
    alphas &= ~np.uint64(1)
    alphas[0] |= np.uint64(1)
    return alphas


def of_seed(ring: Extended, seed: Any, j: Any, size: int) -> Any:
    """[share, MAC share] of the j-th mask, from a party's seed: elements [2, size]."""
    shape = (*ring.planes, 2, size)
    return ring.from_marker(bits(seed, (Purpose.PARTY, j, 0), shape, np.uint64))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def dealt(
    k: int, parties: int, size: int, seeds: Array, alphas: Array, j: Array
) -> tuple[Array, Array]:
    """The low bits of a mask, and the MAC share of the first party, uint32[size, n]."""
    ring = Extended(k)
    each = [of_seed(ring, seeds[p], j, size) for p in range(parties)]
    at = lambda x, i: jax.tree.map(lambda v: v[i], x)  # noqa: E731
    mask = functools.reduce(lambda a, b: a + b, [at(x, 0) for x in each])
    alpha = ring.total(ring.up(alphas), (0,))
    mac = mask * jax.tree.map(lambda v: jnp.broadcast_to(v, (size,)), alpha)
    for x in each[1:]:
        mac = mac - at(x, 1)
    return ring.low(mask), ring.to_words(mac)


@functools.partial(jax.jit, static_argnums=(0, 1))
def plus(
    k: int, size: int, sums: Any, own: Sequence[Any], j: Array, place: Array
) -> Any:
    """A party's totals [2, size] with one more client's share and MAC share."""
    ring = Extended(k)
    seed, alpha, first, sent = own
    is_first, later, spare = place
    both = of_seed(ring, seed, j, size)
    share, mac = (jax.tree.map(lambda v, i=i: v[i], both) for i in (0, 1))
    wide = jnp.broadcast_to(later, (size,))
    mac = ring.select(wide, mac, ring.from_words(first))
    low = ring.factor(sent)
    inside = ring.up(jnp.where(is_first, sent, jnp.zeros_like(sent)))
    share, mac = share + inside, mac + ring.times_key(low, alpha)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), share, mac)
    both = ring.select(jnp.broadcast_to(spare, (2, size)), ring.high(both), both)
    return sums + both


@functools.partial(jax.jit, static_argnums=0)
def share_words(k: int, sums: Any) -> Array:
    return Extended(k).to_words(jax.tree.map(lambda v: v[0], sums))


@functools.partial(jax.jit, static_argnums=(0, 1))
def check_words(
    k: int, parties: int, sums: Any, value: Array, coin: Array, alpha: Array
) -> Array:
    ring = Extended(k)
    mac = ring.to_marker(jax.tree.map(lambda v: v[1], sums))
    opened = ring.to_marker(ring.from_words(value))
    item = Opened("sum", opened, 64, (mac, alpha))
    return message(
        ring, absorb(ring, parties, Ledger.fresh(ring, parties), coin, [item])
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def expanded(seed: Array, size: int, word: Any) -> Array:
    """A party's additive share from its seed."""
    return bits(seed, (Purpose.SELFMASK, 0, 0), (size,), word)
