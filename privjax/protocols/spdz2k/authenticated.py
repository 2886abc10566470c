"""Shares with MACs, the keys that they are under, and how they are opened.

[[x]]: shares x_i and m_i mod 2^(k+s) with sum m_i = alpha sum x_i, where alpha is the
sum (over the integers) of keys alpha_i of s bits. <x> for a bit, or an element of GF(4):
words w_i whose XOR is x Delta, where Delta is the XOR of all Delta_i (see `gf4`).

Public constants are kept beside the shares, without MACs: an opened value is theirs and
what was opened. They are as public as the openings that they come from.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax.core import markers
from privjax.protocols.party import first_party
from privjax.protocols.spdz2k import gf4
from privjax.protocols.spdz2k.extended import Extended
from privjax.protocols.spdz2k.tuples import BitMacs, SumMacs
from privjax.protocols.wide import Wide


@jax.tree_util.register_pytree_node_class
class Sum:
    """One party's [[x - v]] and a public v of k bits (none: 0).

    `both` is an element of Z_2^(k+s) with the share, then the MAC share, on a first axis
    of 2: what is done to one is done to both. As a pytree it is share, MAC share and v, so
    that loops slice axes of the secret.
    """

    def __init__(self, both: Any, plain: Any = None, parts: Any = None) -> None:
        self._both, self._parts, self._plain = both, parts, plain

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
        return (*self.parts, self.plain), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> "Sum":
        *parts, plain = children
        return cls(None, plain, tuple(parts))

    @property
    def share(self) -> Any:
        return self.parts[0]

    @property
    def mac(self) -> Any:
        return self.parts[1]

    @property
    def plain(self) -> Any:
        """v, as an array in any case."""
        return jnp.zeros(self.shape, self.dtype) if self._plain is None else self._plain

    @property
    def shape(self) -> tuple[int, ...]:
        if self._both is None:
            return tuple(self._parts[0].shape)
        return tuple(self._both.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of values mod 2^k."""
        return np.dtype(np.uint64 if isinstance(self.share, Wide) else np.uint32)

    @staticmethod
    def public(fun: Callable[..., Any], *xs: "Sum") -> Any:
        """`fun`, which is additive, of the public parts: None where there is none."""
        return (
            None if all(x._plain is None for x in xs) else fun(*(x.plain for x in xs))
        )

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.both + other.both, Sum.public(operator.add, self, other))

    def __sub__(self, other: "Sum") -> "Sum":
        return Sum(self.both - other.both, Sum.public(operator.sub, self, other))

    def __neg__(self) -> "Sum":
        return Sum(-self.both, Sum.public(operator.neg, self))

    def add_public(self, v: Any) -> "Sum":
        """[[x + v]] for a k-bit array v."""
        v = jnp.broadcast_to(v, self.shape)
        return Sum(
            self._both, v if self._plain is None else self._plain + v, self._parts
        )

    def times(self, v: Any) -> "Sum":
        """Times a public factor of x's shape, or a scalar."""
        plain = Sum.public(lambda p: p * v.astype(p.dtype), self)
        return Sum(self.both * v, plain)

    def moved(self, fun: Callable[..., Any], *others: "Sum") -> "Sum":
        """`fun`, which moves entries about, on shares and MACs."""
        xs = (self, *others)
        both = jax.tree.map(jax.vmap(fun), *(x.both for x in xs))
        return Sum(both, Sum.public(fun, *xs))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bits:
    """One party's <b XOR v>, words uint64 whose lowest bits are shares, and a public bit v,
    uint8."""

    word: Any
    plain: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.word.shape)

    @property
    def bit(self) -> Any:
        """The share of b XOR v without its MAC, uint8."""
        return gf4.first(self.word, 1)

    @classmethod
    def of(cls, word: Any) -> "Bits":
        return cls(word, jnp.zeros(word.shape, np.uint8))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Planes:
    """One party's shared words: plane j holds <b> of bit j, uint64[width, ...]."""

    word: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.word.shape[1:])

    def moved(self, fun: Callable[..., Any], *others: "Planes") -> "Planes":
        return Planes(jax.vmap(fun)(self.word, *(o.word for o in others)))


@dataclass(frozen=True)
class Keys:
    """This party's MAC keys: alpha uint64 (below 2^s), delta uint64; and the ring.

    Made once per program by `fresh`, and closed over by everything in it. `coin` is a
    public k-bit number, by which products are checked if there is one.
    """

    ring: Extended
    alpha: Any
    delta: Any
    coin: Any = None

    @classmethod
    def fresh(cls, k: int) -> "Keys":
        """alpha is odd: then no bit of the check's own messages is without meaning. The
        first element of Delta is 1."""
        drawn = markers.uniform((), f"uint{k}", "xor")
        even = (drawn << np.array(1, drawn.dtype)).astype(np.uint64)
        alpha = even | first_party(np.uint64(1))
        secret = markers.uniform((), np.uint64, "xor") & ~gf4.FIRST
        return cls(Extended(k), alpha, secret | first_party(np.uint64(1)))

    def with_coin(self) -> "Keys":
        """One round. What is dealt has to be fixed before, as material made ahead is."""
        return replace(self, coin=self.open_sums([self.whole(())])[0])

    # -- fresh authenticated values ----------------------------------------------------

    def authenticated(self, x: Any) -> Sum:
        """A dealer-known share of k bits with its MAC."""
        r = self.ring
        (mac,) = markers.dealt([self.alpha.astype(r.dtype), x], SumMacs(r))
        return Sum(None, None, (r.up(x), r.from_marker(mac)))

    def uniform(self, shape: tuple[int, ...]) -> Sum:
        """[[r]], uniform mod 2^k: no mask, as the high bits of its shares are zero."""
        return self.authenticated(markers.uniform(shape, self.ring.dtype, "sum"))

    def whole(self, shape: tuple[int, ...]) -> Sum:
        """[[r]], uniform mod 2^(k+s): a mask of what is opened."""
        return self.whole_authenticated(self.ring.uniform(shape))

    def times_coin(self, x: Sum) -> Any:
        """`both` of the coin times x."""
        return x.times(self.ring.factor(self.coin)).both

    def whole_authenticated(self, x: Any) -> Sum:
        """A dealer-known share of an element, as one array, with its MAC."""
        r = self.ring
        fun = SumMacs(r, r.domain)
        (mac,) = markers.dealt([self.alpha.astype(r.dtype), x], fun)
        return Sum(None, None, (r.from_marker(x), r.from_marker(mac)))

    def dealt(self, operands: Sequence[Any], fun: Any) -> list[Sum]:
        """Authenticated additive results of a tuple of `protocols.tuples`."""
        return [self.authenticated(x) for x in markers.dealt(operands, fun)]

    def known(self, x: Sum) -> Any:
        """The share of a mask mod 2^k, as the dealer knows it."""
        return self.ring.low(x.share)

    def uniform_bits(self, shape: tuple[int, ...]) -> Bits:
        """<t>, uniform bits."""
        t = markers.uniform(shape, np.uint8, "xor") & np.uint8(1)
        return Bits.of(markers.dealt([self.delta, t], BitMacs())[0])

    # -- public constants --------------------------------------------------------------

    def inside(self, x: Sum) -> Any:
        """`both` of x with its public part: P_0 adds v, everybody alpha_i v to the MAC."""
        r, v = self.ring, self.ring.factor(x.plain)
        return x.both + r.pair(first_party(v), r.times_key(v, self.alpha))

    def word_inside(self, x: Bits) -> Any:
        """The words of x with its public part: v Delta_i."""
        return x.word ^ (gf4.ones(x.plain) & self.delta)

    # -- opening: to be checked before anything is released --------------------------------

    def open_sums(self, xs: Sequence[Sum], release: bool = False) -> list[Any]:
        """The values mod 2^k; one round.

        All k+s bits are opened, as the check needs them. The high ones carry what
        happened before: in a release they are hidden here by 2^k [[r]], everywhere else
        by the mask of the value. A release has public parts inside, so that nothing is
        left where shares are withheld.
        """
        r = self.ring
        if release:
            xs = [Sum(self.inside(x)) + self._high(x.shape) for x in xs]
        opened = markers.open_values(
            [r.to_marker(x.share) for x in xs],
            (r.domain,) * len(xs),
            (64,) * len(xs),
            [(r.to_marker(x.mac), self.alpha) for x in xs],
            release,
        )
        values = (r.low(r.from_marker(v)) for v in opened)
        return [v + x.plain for v, x in zip(values, xs, strict=True)]

    def open_whole(self, x: Sum) -> Any:
        """All k+s bits of a value without public part, as an element; one round."""
        r = self.ring
        (opened,) = markers.open_values(
            [r.to_marker(x.share)],
            (r.domain,),
            (64,),
            [(r.to_marker(x.mac), self.alpha)],
        )
        return r.from_marker(opened)

    def zero(self, x: Sum) -> Any:
        """0 mod 2^k, as which x is taken from there on; the check fails if it is not, mod
        2^(k+s). Nothing is sent."""
        r = self.ring
        (opened,) = markers.open_values(
            [r.to_marker(jax.tree.map(jnp.zeros_like, x.share))],
            ("zero",),
            (64,),
            [(r.to_marker(x.mac), self.alpha)],
        )
        return r.low(r.from_marker(opened))

    def _high(self, shape: tuple[int, ...]) -> Sum:
        """2^k [[r]] for a fresh uniform r."""
        return Sum(self.ring.high(self.uniform(shape).both))

    def open_elements(
        self, words: Sequence[Any], bits: Sequence[int], release: bool = False
    ) -> list[Any]:
        """The bits, or elements of GF(4) (two bits each), that words stand for, as uint8;
        one round. The rest of the words is for the check."""
        opened = markers.open_values(
            [gf4.first(word, n) for word, n in zip(words, bits, strict=True)],
            ("xor",) * len(words),
            bits,
            [(word, self.delta) for word in words],
            release,
        )
        # Nothing else may be sent in a byte, or is looked at.
        return [v & np.uint8((1 << n) - 1) for v, n in zip(opened, bits, strict=True)]
