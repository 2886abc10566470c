"""Shares with MACs, the keys that they are under, and how they are opened.

[[x]]: shares x_i and m_i mod 2^(k+s) with sum m_i = alpha sum x_i, where alpha is the
sum (over the integers) of keys alpha_i of s bits. <b>: bits b_i and words t_i of 64 bits
whose XOR is b Delta, where Delta is the XOR of all Delta_i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.protocols.party import first_party
from privjax.protocols.spdz2k.extended import Extended
from privjax.protocols.spdz2k.tuples import BitMacs, SumMacs, planes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sum:
    """One party's [[x]]: elements of Z_2^(k+s) of one shape."""

    share: Any
    mac: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.share.shape)

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.share + other.share, self.mac + other.mac)

    def __sub__(self, other: "Sum") -> "Sum":
        return Sum(self.share - other.share, self.mac - other.mac)

    def times(self, v: Any) -> "Sum":
        """Times a public element or factor."""
        return Sum(self.share * v, self.mac * v)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bits:
    """One party's <b>: `bit` in the lowest bit of uint8, `mac` uint64, of one shape."""

    bit: Any
    mac: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Words:
    """One party's shared words of `width` bits: `mac` has one plane in front per bit."""

    word: Any
    mac: Any

    @property
    def width(self) -> int:
        return int(self.mac.shape[0])


@dataclass(frozen=True)
class Keys:
    """This party's MAC keys: alpha uint64 (below 2^s), delta uint64; and the ring.

    Made once per program by `fresh`, and closed over by everything in it.
    """

    ring: Extended
    alpha: Any
    delta: Any

    @classmethod
    def fresh(cls, k: int) -> "Keys":
        alpha = markers.uniform((), f"uint{k}", "xor").astype(np.uint64)
        return cls(Extended(k), alpha, markers.uniform((), np.uint64, "xor"))

    @cached_property
    def element(self) -> Any:
        """alpha as a marker's operand: an element, so that keys add up as integers."""
        return self.ring.to_marker(
            self.alpha if self.ring.k == 32 else self.ring.up(self.alpha)
        )

    # -- fresh authenticated values ----------------------------------------------------

    def authenticated(self, *xs: Any) -> list[Sum]:
        """Dealer-known shares with their MACs."""
        arrays = [self.ring.to_marker(x) for x in xs]
        macs = markers.dealt([self.element, *arrays], SumMacs(self.ring, len(xs)))
        return [Sum(x, self.ring.from_marker(m)) for x, m in zip(xs, macs, strict=True)]

    def uniform(self, shape: tuple[int, ...]) -> Sum:
        """[[r]], uniform mod 2^(k+s)."""
        return self.authenticated(self.ring.uniform(shape))[0]

    def dealt(self, operands: Sequence[Any], fun: Any) -> list[Sum]:
        """Authenticated additive results of a tuple; operands as markers take them."""
        out = markers.dealt(operands, fun)
        return self.authenticated(*map(self.ring.from_marker, out))

    def authenticated_words(self, word: Any, width: int) -> Words:
        """Dealer-known words with their MACs."""
        (mac,) = markers.dealt([self.delta, word], BitMacs(width))
        return Words(word, mac)

    def authenticated_bits(self, bit: Any) -> Bits:
        return as_bits(self.authenticated_words(bit, 1))

    # -- public constants --------------------------------------------------------------

    def add_public(self, x: Sum, v: Any) -> Sum:
        """P_0 adds v, everybody adds alpha_i v to the MAC; v is a k-bit array."""
        v = self.ring.factor(jnp.broadcast_to(v, x.shape))
        return Sum(x.share + first_party(v), x.mac + self.times_key(v))

    def times_key(self, v: Any) -> Any:
        """alpha_i v, an element, for a factor v."""
        if self.ring.k == 32:
            return self.alpha * v
        return self.ring.up(v) * self.alpha

    # -- opening: to be checked before anything is released ----------------------------

    def open_sums(self, xs: Sequence[Sum], release: bool = False) -> list[Any]:
        """The values mod 2^k; one round.

        Only the low k bits of shares are sent; the check asks for a random combination
        of whole shares.
        """
        r = self.ring
        return markers.open_values(
            [r.low(x.share) for x in xs],
            ("sum",) * len(xs),
            (r.k,) * len(xs),
            [(r.to_marker(x.share), r.to_marker(x.mac), self.alpha) for x in xs],
            release,
        )

    def open_words(
        self, xs: Sequence[Words], bits: int, release: bool = False
    ) -> list[Any]:
        """The values of words of `bits` used bits; one round."""
        return markers.open_values(
            [x.word for x in xs],
            ("xor",) * len(xs),
            (bits,) * len(xs),
            [(x.mac, self.delta) for x in xs],
            release,
        )


def as_bits(word: Words) -> Bits:
    """Words of one bit as bits."""
    return Bits(word.word, word.mac[0])


def as_words(bits: Bits) -> Words:
    return Words(bits.bit & np.uint8(1), bits.mac[None])


def public_planes(word: Any, width: int) -> Any:
    """`tuples.planes` of a public word."""
    return planes(jnp.asarray(word), width)
