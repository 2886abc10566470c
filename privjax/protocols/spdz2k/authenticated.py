"""Shares with MACs, the keys that they are under, and how they are opened.

[[x]]: shares x_i and m_i mod 2^(k+s) with sum m_i = alpha sum x_i, where alpha is the
sum (over the integers) of keys alpha_i of s bits. <b>: bits b_i and words t_i of 64 bits
whose XOR is b Delta, where Delta is the XOR of all Delta_i.
"""

from collections.abc import Callable, Sequence
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


@jax.tree_util.register_pytree_node_class
class Sum:
    """One party's [[x]]: an element of Z_2^(k+s) with the share, then the MAC share, on
    a first axis of 2: what is done to one is done to both.

    As a pytree it is the two parts, so that loops slice axes of the secret.
    """

    def __init__(self, both: Any, parts: Any = None, dealt: Any = None) -> None:
        self._both, self._parts, self._dealt = both, parts, dealt

    @property
    def both(self) -> Any:
        if self._both is None:
            self._both = jax.tree.map(lambda *v: jnp.stack(v), *self._parts)
        return self._both

    @property
    def parts(self) -> tuple[Any, Any]:
        """(share, MAC share)"""
        if self._parts is None:
            share, mac = (jax.tree.map(lambda v, i=i: v[i], self._both) for i in (0, 1))
            self._parts = share, mac
        return self._parts

    def tree_flatten(self) -> Any:
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _: Any, parts: Any) -> "Sum":
        return cls(None, tuple(parts))

    @property
    def share(self) -> Any:
        return self.parts[0]

    @property
    def mac(self) -> Any:
        return self.parts[1]

    @property
    def shape(self) -> tuple[int, ...]:
        if self._both is None:
            return tuple(self._parts[0].shape)
        return tuple(self._both.shape[1:])

    def known(self, ring: Extended) -> Any:
        """The share as the array in which the dealer knows it (of a mask)."""
        return ring.to_marker(self.share) if self._dealt is None else self._dealt

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.both + other.both)

    def __sub__(self, other: "Sum") -> "Sum":
        return Sum(self.both - other.both)

    def __neg__(self) -> "Sum":
        return Sum(-self.both)

    def times(self, v: Any) -> "Sum":
        """Times a public factor of x's shape, or a scalar."""
        return Sum(self.both * v)

    def moved(self, fun: Callable[..., Any], *others: "Sum") -> "Sum":
        """`fun`, which moves entries about, on shares and MACs."""
        return Sum(jax.tree.map(jax.vmap(fun), self.both, *(o.both for o in others)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bits:
    """One party's <b>: `bit` in the lowest bit of uint8, `mac` uint64, of one shape."""

    bit: Any
    mac: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.bit.shape)

    def moved(self, fun: Callable[..., Any], *others: "Bits") -> "Bits":
        return jax.tree.map(fun, self, *others)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Words:
    """One party's shared words of `width` bits: `mac` has one plane in front per bit."""

    word: Any
    mac: Any

    @property
    def width(self) -> int:
        return int(self.mac.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.word.shape)


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
        """alpha is odd: then no bit of the check's own messages is without meaning."""
        drawn = markers.uniform((), f"uint{k}", "xor")
        even = (drawn << np.array(1, drawn.dtype)).astype(np.uint64)
        alpha = even | first_party(np.uint64(1))
        return cls(Extended(k), alpha, markers.uniform((), np.uint64, "xor"))

    @cached_property
    def element(self) -> Any:
        """alpha as a marker's operand: an element, so that keys add up as integers."""
        return self.ring.to_marker(self.ring.up64(self.alpha))

    # -- fresh authenticated values ----------------------------------------------------

    def authenticated(self, x: Any) -> Sum:
        """A dealer-known share, as a marker's array, with its MAC."""
        (mac,) = markers.dealt([self.element, x], SumMacs(self.ring))
        parts = (self.ring.from_marker(x), self.ring.from_marker(mac))
        return Sum(None, parts, x)

    def uniform(self, shape: tuple[int, ...]) -> Sum:
        """[[r]], uniform mod 2^(k+s)."""
        return self.authenticated(self.ring.uniform(shape))

    def dealt(self, operands: Sequence[Any], fun: Any) -> list[Sum]:
        """Authenticated additive results of a tuple; operands as markers take them."""
        return [self.authenticated(x) for x in markers.dealt(operands, fun)]

    def authenticated_words(self, word: Any, width: int) -> Words:
        """Dealer-known words with their MACs."""
        (mac,) = markers.dealt([self.delta, word], BitMacs(width))
        return Words(word, mac)

    def authenticated_bits(self, bit: Any) -> Bits:
        return as_bits(self.authenticated_words(bit, 1))

    # -- public constants --------------------------------------------------------------

    def public(self, v: Any) -> Sum:
        """[[v]] of a k-bit array: P_0 has v, everybody alpha_i v."""
        v = self.ring.factor(v)
        return Sum(self.ring.pair(first_party(v), self.ring.times_key(v, self.alpha)))

    def add_public(self, x: Sum, v: Any) -> Sum:
        """[[x + v]] for a k-bit array v."""
        return x + self.public(jnp.broadcast_to(v, x.shape))

    # -- opening: to be checked before anything is released --------------------------------

    def open_sums(self, xs: Sequence[Sum], release: bool = False) -> list[Any]:
        """The values mod 2^k; one round.

        All k+s bits are opened, as the check needs them. The high ones carry what
        happened before: in a release they are hidden here by 2^k [[r]], everywhere else
        by the mask of the value.
        """
        r = self.ring
        if release:
            xs = [x + self._high(x.shape) for x in xs]
        opened = markers.open_values(
            [r.to_marker(x.share) for x in xs],
            (r.domain,) * len(xs),
            (64,) * len(xs),
            [(r.to_marker(x.mac), self.alpha) for x in xs],
            release,
        )
        return [r.low(r.from_marker(v)) for v in opened]

    def _high(self, shape: tuple[int, ...]) -> Sum:
        """2^k [[r]] for a fresh uniform r."""
        return Sum(self.ring.high(self.uniform(shape).both))

    def open_words(
        self, xs: Sequence[Words], bits: int, release: bool = False
    ) -> list[Any]:
        """The values of words of `bits` used bits, of which no other is sent; one round."""
        used = (1 << bits) - 1
        return markers.open_values(
            [x.word & np.array(used, x.word.dtype) for x in xs],
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
