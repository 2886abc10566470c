"""Make a party program check what it opens before it releases anything.

The pass runs on a scheduled program. In every scope (the program, a loop's body, ...) the
parties commit to their parts of a coin along with the first opening, and open the coin
after the last one: so its random combinations are drawn when all values are fixed. What
they add up to goes from scope to scope and from one iteration to the next. Before a
release, and at the end, the parties commit to what they have, open it, and compare; when
it does not balance they send zeros from there on, and say only that it failed.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import control, markers
from privjax.core.interpret import Interpreter, run, sub_jaxprs
from privjax.passes.simplify import retrace
from privjax.prg.blake2s import blake2s
from privjax.protocols.party import PARTY
from privjax.protocols.spdz2k.check import Ledger, Opened, absorb, balanced, message
from privjax.protocols.spdz2k.extended import Extended


class _Verify(Interpreter):
    tagged = False
    markers = frozenset({"open"})

    def __init__(self, ring: Extended, parties: int, ledger: Any = None) -> None:
        self.ring, self.parties, self.ledger = ring, parties, ledger
        self.pending: list[Opened] = []
        self.coin: tuple[Any, Any] | None = None

    def inside(self, state: Any) -> "_Verify":
        return _Verify(self.ring, self.parties)

    def thread(self) -> Any:
        return self.ledger

    def resume(self, thread: Any) -> None:
        self.ledger = thread

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        out = super().body(closed, values)
        self.flush()
        return out

    # -- openings ----------------------------------------------------------------------

    def open(self, values: Sequence[Any], params: Any) -> list[Any]:
        """An opening of the program, remembered until the next coin."""
        shares, checks = markers.open_operands(values, params["checked"])
        domains, bits = params["domains"], params["bits"]
        release = params["release"]
        if release:
            self.settle()
            closed = ~self.ledger.sound
            shares = [
                lax.select(_like(closed, s), jnp.zeros_like(s), s) for s in shares
            ]
        sent = [domain != "zero" for domain in domains]
        shown = [list(compress(v, sent)) for v in (shares, domains, bits)]
        received = iter(self.exchange(shown[0], shown[1], shown[2], release))
        opened = [
            next(received) if there else share
            for share, there in zip(shares, sent, strict=True)
        ]
        for item in map(Opened, domains, opened, bits, checks):
            if item.check or item.domain.startswith("from:"):
                self.pending.append(item)
        return opened

    def exchange(
        self, shares: Any, domains: Any, bits: Any, release: bool = False
    ) -> list[Any]:
        """Open values; with the first ones of a scope, the commitments to its coin."""
        if self.coin is not None:
            if not shares:
                return []
            return markers.open_values(shares, domains, bits, release=release)
        part = markers.uniform((8,), np.uint32, "xor")
        commitment = blake2s(jnp.concatenate([_number(), part]))
        *opened, commitments = markers.open_values(
            [*shares, commitment],
            (*domains, self.everybody),
            (*bits, 32),
            release=release,
        )
        self.coin = part, commitments
        return opened

    @property
    def everybody(self) -> str:
        return f"each:{self.parties}"

    # -- checks ------------------------------------------------------------------------

    def flush(self) -> None:
        """Toss the coin for what is pending, and enter it into the ledger."""
        if self.coin is None:
            return
        (part, commitments), self.coin = self.coin, None
        (parts,) = markers.open_values([part], (self.everybody,), (32,))
        sound = self.ledger.sound & self.kept(parts, commitments)
        coin = lax.reduce_xor(parts, (0,))
        ledger = absorb(self.ring, self.parties, self.ledger, coin, self.pending)
        self.ledger = replace(ledger, sound=sound)
        self.pending = []

    def settle(self) -> None:
        """Compare the ledgers of all parties: commit, open, balance."""
        self.flush()
        ring, ledger = self.ring, self.ledger
        nonce = markers.uniform((4,), np.uint32, "xor")
        said = jnp.concatenate([nonce, message(ring, ledger)])
        commitment = blake2s(jnp.concatenate([_number(), said]))
        (commitments,) = markers.open_values([commitment], (self.everybody,), (32,))
        (messages,) = markers.open_values([said], (self.everybody,), (32,))
        sound = ledger.sound & self.kept(messages, commitments)
        sound = sound & balanced(ring, messages[:, 4:])
        self.ledger = replace(ledger, sound=sound)

    def kept(self, messages: Any, commitments: Any) -> Any:
        """Whether every party opened what it had committed to."""
        numbers = jnp.arange(self.parties, dtype=np.uint32)[:, None]
        found = blake2s(jnp.concatenate([numbers, messages], -1))
        return jnp.all(found == commitments)


def _number() -> Any:
    """This party's number, which keeps it from repeating another's commitment."""
    return lax.axis_index(PARTY).astype(np.uint32)[None]


def _like(flag: Any, x: Any) -> Any:
    return jnp.broadcast_to(flag, x.shape)


def _open(cx: _Verify, *values: Any, **params: Any) -> list[Any]:
    return cx.open(values, params)


def _before_release(rule: Any) -> Any:
    """Control flow with a release inside: what is pending here counts there."""

    def wrapped(cx: _Verify, *values: Any, **params: Any) -> list[Any]:
        if any(_releases(sub) for sub in sub_jaxprs(cx.eqn)):
            cx.flush()
        return rule(cx, *values, **params)

    return wrapped


def _releases(closed: Any) -> bool:
    jaxpr = getattr(closed, "jaxpr", closed)
    return any(
        eqn.params.get("release", False) or any(map(_releases, sub_jaxprs(eqn)))
        for eqn in jaxpr.eqns
    )


_Verify.rules = {name: _before_release(rule) for name, rule in control.RULES.items()}
_Verify.rules["open"] = _open


def verify(closed: Any, parties: int, k: int, **options: Any) -> Any:
    """The checked program: the results of `closed`, then whether all checks held."""
    ring = Extended(k)

    def checked(*xs: Any) -> list[Any]:
        cx = _Verify(ring, parties, Ledger.fresh(ring, parties))
        out = run(cx, closed, xs)
        cx.settle()
        return [*out, cx.ledger.sound]

    return retrace(closed, checked, **options)
