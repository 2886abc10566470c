"""The end of an offline part with MACs: from values with MACs to corrections.

Steps 5 and 6 of `checked`: shares of k bits and their MACs, tested; what owners of inputs
are told; the form in which the online program takes all of it.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from privjax._typing import Array
from privjax.errors import ProtocolError
from privjax.preprocessing import opening
from privjax.preprocessing.authenticated import RING, MacKey, Shares, authenticate
from privjax.preprocessing.authenticated_bits import bits_of_mine, short
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.extension import received_as
from privjax.preprocessing.host import concatenate, host, moved, wide
from privjax.preprocessing.session import Session, Setup
from privjax.preprocessing.structure import Structure
from privjax.protocols import tuples
from privjax.protocols.spdz2k.tuples import SumMacs

_more, _less = jax.jit(RING.add), jax.jit(RING.sub)


class Delivery:
    """One party, with what it has when results are to be handed out.

    Attributes:
      own: its operands and draws of each request.
      key, long: its keys of sums and of bits; open: its openings.
      sources: uniform values with MACs, behind a zero. flags: uniform bits with MACs.
      masks: as many random values as a test of zeros takes.
    """

    key: MacKey
    long: Setup
    open: opening.Opening
    sources: Shares
    flags: Array
    masks: Shares

    def __init__(self, me: Session, s: Structure, own: Sequence[Any]) -> None:
        self.me, self.s, self.own = me, s, own

    def source(self, entries: np.ndarray) -> Shares:
        return host(
            opening.signed(opening.taken(self.sources, np.abs(entries)), entries < 0)
        )

    def results(self, sums: dict[tuple[int, int], Shares]) -> Side[dict[Any, Any]]:
        """Shares of k bits, and MACs of everything, tested."""
        me, s = self.me, self.s
        low = np.uint64((1 << s.k) - 1)
        mine = []
        for (i, j), x in sums.items():
            draw = self.own[i][1][j].reshape(-1).astype(np.uint64)
            mine.append(
                (x.value[:, 0] - draw if me.index == 0 else x.value[:, 0]) & low
            )
        owned, told = self._owned()
        dtype = np.dtype(f"uint{s.k}")
        message = [v.astype(dtype) for v in mine] if me.index == 0 else None
        received = yield (message, told)
        if not (isinstance(received, tuple) and len(received) == 2):
            raise ProtocolError("the other party makes other corrections.")
        shares = {}
        for at, ((i, j), own) in enumerate(zip(sums, mine, strict=True)):
            if me.index == 0:
                shares[i, j] = self.own[i][1][j].reshape(-1).astype(np.uint64)
                continue
            theirs = received_as(_entry(received[0], at), own.shape, dtype)
            shares[i, j] = (own + host(theirs).astype(np.uint64)) & low
        inputs = self._inputs(owned, received[1])
        number = [(i, v) for i, (v, domain) in inputs.items() if domain == "sum"]
        row = concatenate([np.zeros((0,), np.uint64), *shares.values()])
        rows = [row[s.dealt], *(v for _, v in number)] if s.dealt.size else []
        rows = rows or [v for _, v in number]
        out: dict[Any, Any] = {(i, 0): v for i, (v, _) in inputs.items()}
        out |= shares
        dealt: Any = np.zeros((0, 2), np.uint64)
        if rows:
            flat = concatenate([v.astype(np.uint64) for v in rows])
            macs = yield from authenticate(me, self.key, wide(flat))
            right = [self.source(s.operands[i, 0]) for i, _ in number]
            if s.dealt.size:
                made = opening.joined(*(sums[place] for place in s.results))
                right = [opening.taken(made, s.dealt), *right]
            differ = opening.minus(macs, opening.joined(*right))
            yield from self.open.zeros(differ, self.masks, s.k)
            dealt = macs.mac
        every = concatenate([self.sources.mac, host(dealt)])
        out |= {(i, 0): every[at] for i, at in s.macs.items()}
        yield from self._input_bits(inputs)
        return out

    def _owned(self) -> tuple[list[int], list[Array]]:
        """Requests of inputs, and this party's shares of what the other one owns."""
        asked = [
            i for i, w in enumerate(self.s.wanted) if isinstance(w.fun, tuples.ToOwner)
        ]
        other = [i for i in asked if self.s.wanted[i].fun.owner != self.me.index]
        return asked, [self._input_share(i) for i in other]

    def _input_share(self, i: int) -> Array:
        entries, domain = self.s.operands[i, 0], self.s.wanted[i].fun.domain
        if domain != "sum":
            return self.flags[entries].astype(np.uint8) & np.uint8(1)
        value = self.source(entries).value[:, 0]
        return value.astype(np.dtype(f"uint{self.s.k}"))

    def _inputs(self, asked: Sequence[int], received: Any) -> dict[int, Any]:
        """Values that owners are told; zeros for who is not the owner."""
        out, at = {}, 0
        for i in asked:
            fun, share = self.s.wanted[i].fun, self._input_share(i)
            if fun.owner != self.me.index:
                out[i] = share ^ share, fun.domain
                continue
            theirs = received_as(_entry(received, at), share.shape, share.dtype)
            theirs = host(theirs)
            at += 1
            sum_ = fun.domain == "sum"
            out[i] = (share + theirs if sum_ else share ^ theirs), fun.domain
        return out

    def _input_bits(self, inputs: dict[int, Any]) -> Side[None]:
        """Owners of bits are bound to what they were told, which must be what is shared."""
        bits = [(i, v) for i, (v, domain) in inputs.items() if domain != "sum"]
        if not bits:
            return
        told = concatenate([v for _, v in bits]) & np.uint8(1)
        words, _, _ = yield from bits_of_mine(self.me, self.long, told)
        entries = np.concatenate([self.s.operands[i, 0] for i, _ in bits])
        self.open.zero_bits(short(words) ^ self.flags[entries])

    def told(self, out: dict[tuple[int, int], Any]) -> Side[list[list[Array]]]:
        """Corrections: MACs less what is drawn of them; party 1 hears party 0's part."""
        me = self.me
        masked = {}
        for i, want in enumerate(self.s.wanted):
            for j, draw in enumerate(self.own[i][1]):
                if want.fun.results[j] == "sum" and not isinstance(want.fun, SumMacs):
                    out[i, j] = out[i, j].astype(draw.dtype).reshape(draw.shape)
                elif draw is None:
                    out[i, j] = out[i, j].reshape(self.own[i][0][0].shape)
                else:
                    form = _Form(want.fun.results[j], want.lead)
                    value = form.of(out[i, j], draw)
                    out[i, j] = form.minus(value, draw) if me.index == 0 else value
                    masked[i, j] = form
        mine = [out[place] for place in masked] if me.index == 0 else None
        received = yield mine
        for at, (place, form) in enumerate(masked.items()):
            if me.index == 1:
                own = out[place]
                theirs = received_as(_entry(received, at), own.shape, own.dtype)
                out[place] = form.plus(own, host(theirs))
        return [
            [
                out[i, j] ^ out[i, j]
                if me.index == 0 and draw is not None
                else out[i, j]
                for j, draw in enumerate(draws)
            ]
            for i, (_, draws) in enumerate(self.own)
        ]


@dataclass(frozen=True)
class _Form:
    """How results of a domain lie in arrays, and how they add up."""

    domain: str
    lead: int

    def of(self, x: Array, like: Array) -> Array:
        """[n, 2] of sums, [planes, n] or [n] of words, in the form of `like`."""
        shape = like.shape
        if self.domain == "sum":
            return x[:, 0].reshape(shape)
        if self.domain == "xor" and x.ndim == 1:
            return x.reshape(shape)
        rest = [d for axis, d in enumerate(shape) if axis != self.lead]
        if self.domain == "xor":
            return moved(x.reshape(-1, *rest), 0, self.lead)
        return moved(x.reshape(*rest, 2), -1, self.lead)

    def minus(self, x: Array, y: Array) -> Array:
        return self._by(operator.sub, _less, x, y)

    def plus(self, x: Array, y: Array) -> Array:
        return self._by(operator.add, _more, x, y)

    def _by(
        self, narrow: Callable[..., Array], whole: Callable[..., Array], *xs: Array
    ) -> Array:
        if self.domain == "xor":
            return xs[0] ^ xs[1]
        if self.domain == "sum":
            return narrow(*xs)
        x, y = (moved(v, self.lead, -1) for v in xs)
        return moved(host(whole(x, y)), -1, self.lead)


def _entry(message: Any, at: int) -> Any:
    return message[at] if isinstance(message, list) and at < len(message) else None
