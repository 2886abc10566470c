"""How often a forger passes the batch check when few bits of the keys are unknown.

The proofs (`protocols.spdz2k.check`) bound a forger's chance by that of guessing the key.
At full size nobody can count that; here the keys have six unknown bits and the forger
guesses one of the 64 keys, thousands of times, against the same code: it must win about
once in 64 times, by the best strategies and by those that a weaker check would let through.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from privjax.protocols.spdz2k import gf4
from privjax.protocols.spdz2k.check import Ledger, Opened, absorb, balanced, message
from privjax.protocols.spdz2k.extended import Extended

UNKNOWN, TRIALS, VALUES = 6, 1 << 14, 4
CHANCE = 2.0**-UNKNOWN
RING = Extended(32)


def accepted(parties: int, coin: Any, items: list[list[Opened]]) -> Any:
    """Whether the parties, who opened `items`, agree that nobody cheated."""
    before = Ledger.fresh(RING, parties)
    said = [message(RING, absorb(RING, parties, before, coin, own)) for own in items]
    return balanced(RING, jnp.stack(said))


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 2**64, shape, np.uint64)


# -- sums ------------------------------------------------------------------------------

# Errors of the values mod 2^64 that were opened.
SUMS = {
    "one value off by one": [1, 0, 0, 0],
    "one value off by 2^31": [2**31, 0, 0, 0],
    # Their combination is 0 mod 2^32 under every second coin: all 64 bits have to count.
    "two values off by 2^31": [2**31, 2**31, 0, 0],
    "opposite errors": [1, 2**64 - 1, 0, 0],
    "low and high": [2**31, 2**63, 0, 0],
}


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, 0, 0, 0, 0, None))
def sums_forged(
    own: Any, honest: Any, guess: Any, v: Any, m: Any, coin: Any, off: Any
) -> Any:
    heard, alpha = v + off, own + honest
    forged = alpha * v - m + off * (own + guess)
    items = [
        [Opened("sum", heard, 64, (m, honest))],
        [Opened("sum", heard, 64, (forged, own))],
    ]
    return accepted(2, coin, items)


def forge_sums(errors: list[int]) -> np.ndarray:
    """Party 1 changes its shares, and its message as if the honest key were its guess."""
    rng = np.random.default_rng(1)
    own = np.uint64(2) * rng.integers(0, 2**20, TRIALS, np.uint64)
    honest, guess = (
        np.uint64(2) * rng.integers(0, 2**UNKNOWN, TRIALS, np.uint64) + np.uint64(1)
        for _ in range(2)
    )
    values, macs = (random(rng, TRIALS, VALUES) for _ in range(2))
    coins = rng.integers(0, 2**32, (TRIALS, 8), np.uint32)
    off = np.array(errors, np.uint64)
    return np.asarray(sums_forged(own, honest, guess, values, macs, coins, off))


@pytest.mark.parametrize("strategy", SUMS)
def test_sums(strategy: str) -> None:
    with jax.enable_x64(True):
        won = forge_sums(SUMS[strategy])
    as_often_as_guessed(won)


def as_often_as_guessed(won: np.ndarray) -> None:
    """Up to five standard deviations."""
    assert abs(won.mean() - CHANCE) < 5 * np.sqrt(CHANCE / len(won)), won.mean()


# -- bits ------------------------------------------------------------------------------

# (errors of opened elements of GF(4), bits of each that are opened)
BITS = {
    "one bit": ([1, 0, 0, 0], 1),
    "one element": ([2, 0, 0, 0], 2),
    "all elements": ([1, 2, 3, 1], 2),
    "the same error twice": ([1, 1, 0, 0], 1),
}


@partial(jax.jit, static_argnames=("parties", "bits"))
def bits_forged(
    keys: Any,
    delta: Any,
    guess: Any,
    words: Any,
    v: Any,
    coins: Any,
    off: Any,
    parties: int,
    bits: int,
) -> Any:
    def trial(delta: Any, guess: Any, words: Any, v: Any, coin: Any) -> Any:
        last = gf4.multiple(v, delta) ^ lax.reduce_xor(words, (0,))
        # The forger is the first: it knows its key and its words.
        first = words[0] ^ gf4.multiple(off, guess)
        shares = [first, *words[1:], last]
        own = [*keys, delta ^ lax.reduce_xor(keys, (0,))]
        items = [
            [Opened("xor", v ^ off, bits, (w, key))]
            for w, key in zip(shares, own, strict=True)
        ]
        return accepted(parties, coin, items)

    return jax.vmap(trial)(delta, guess, words, v, coins)


def forge_bits(parties: int, errors: list[int], bits: int) -> np.ndarray:
    """Party 0 changes what it opens, and its words as if Delta were its guess."""
    rng = np.random.default_rng(2)
    # Unknown: three elements of GF(4) behind the first, which is 1.
    place = np.uint64(0b1110 | 0b1110 << 32)
    base = random(rng, 1) & ~gf4.FIRST | np.uint64(1)
    delta, guess = (base ^ (random(rng, TRIALS) & place) for _ in range(2))
    words = random(rng, TRIALS, parties - 1, VALUES)
    values = rng.integers(0, 1 << bits, (TRIALS, VALUES)).astype(np.uint8)
    coins = rng.integers(0, 2**32, (TRIALS, 8), np.uint32)
    keys, off = random(rng, parties - 1), np.array(errors, np.uint8)
    return np.asarray(
        bits_forged(keys, delta, guess, words, values, coins, off, parties, bits)
    )


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("strategy", BITS)
def test_bits(strategy: str, parties: int) -> None:
    with jax.enable_x64(True):
        won = forge_bits(parties, *BITS[strategy])
    as_often_as_guessed(won)


# -- the digest of two parties ---------------------------------------------------------


def digest(arrays: list[Any], coin: Any) -> Any:
    zero = jnp.zeros((), np.uint64)
    items = [Opened("xor", jnp.zeros(a.shape, np.uint8), 1, (a, zero)) for a in arrays]
    return absorb(RING, 2, Ledger.fresh(RING, 2), coin, items).bits


@cache
def digests(sizes: tuple[int, ...]) -> Any:
    """Compiled: of words [trials, sum of sizes] under coins [trials, 8]."""
    ends = np.cumsum(sizes)[:-1]
    return jax.jit(jax.vmap(lambda w, coin: digest(jnp.split(w, ends), coin)))


CHANGES: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "one bit": lambda rng, w: (
        w ^ _at(rng, w.size, np.uint64(1 << int(rng.integers(64))))
    ),
    "the same bit twice": lambda rng, w: (
        w ^ _at(rng, w.size, np.uint64(1)) ^ _at(rng, w.size, np.uint64(1))
    ),
    "two words exchanged": lambda rng, w: w[rng.permutation(w.size)],
    "all bits": lambda rng, w: ~w,
    "one word added": lambda rng, w: w + _at(rng, w.size, np.uint64(2**32)),
}


def _at(rng: np.random.Generator, size: int, value: np.uint64) -> np.ndarray:
    out = np.zeros(size, np.uint64)
    out[rng.integers(size)] = value
    return out


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sizes", [(1,), (31, 2), (700, 1500)])
def test_different_words_have_different_digests(
    sizes: tuple[int, ...], change: str
) -> None:
    """In all four passes, of which one alone collides with probability 2^-32."""
    rng = np.random.default_rng(3)
    words = random(rng, 64, sum(sizes))
    changed = np.stack([CHANGES[change](rng, w) for w in words])
    coins = rng.integers(0, 2**32, (64, 8), np.uint32)
    with jax.enable_x64(True):
        one, other = (digests(sizes)(w, coins) for w in (words, changed))
    differ = (words != changed).any(1)
    assert differ.any() or sizes == (1,)
    pairs = (np.asarray(one) != np.asarray(other)).reshape(64, 4, 2).any(-1)
    assert (pairs.all(1) == differ).all()
