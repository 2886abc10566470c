"""The offline part of a semi2k program for two parties without a dealer.

`demand` runs a party's program without its inputs and openings and collects, for every
request to the dealer, this party's shares of the operands and its draws for the results
(a jittable function of the party's seed). `prepare` then makes all corrections with the
other party by oblivious transfer, all requests at the same time. The result has the
form that `runtimes.material` writes and `Online` consumes, and for equal seeds the same
numbers as the dealer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from privjax import _compat
from privjax.core.interpret import mentions, run, sub_jaxprs
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.make import Request, corrections
from privjax.preprocessing.session import Session
from privjax.protocols.party import PARTY
from privjax.runtimes.discharge import Offline, Unknown
from privjax.runtimes.pools import REQUESTS

PARTIES = 2


@dataclass(frozen=True)
class Wanted:
    """A function that the program asks for, and in how many nested scans."""

    fun: Any
    lead: int


class Demand(Offline):
    """One party's requests: what it knows of their operands, what it draws for results.

    A share of a result is not known before the protocol has run: operands may depend on
    uniform values only.
    """

    def inside(self, state: Any) -> "Demand":
        return Demand(state[0], self.parties)

    def uniform(self, shape: Any, dtype: Any, domain: str) -> Any:
        return self.draw(shape, dtype, domain)

    def dealt(self, shares: Sequence[Any], fun: Any) -> list[Any]:
        draws = [
            None if d.startswith("to:") else self.draw(v.aval.shape, v.aval.dtype, d, i)
            for i, (v, d) in enumerate(zip(self.eqn.outvars, fun.results, strict=True))
        ]
        self.material[str(self.index)] = (list(shares), draws)
        return self.held(draws)

    def held(self, draws: Sequence[Any]) -> list[Any]:
        """What the program goes on with, for results of which a party drew this."""
        return [Unknown() for _ in draws]


def demand(party: Any, index: int, seed: Any) -> Any:
    """Operand shares and draws of every request of a party program.

    Args:
      party: the closed jaxpr of a party's program.
      index: 0 or 1.
      seed: uint32[8], this party's seed for the session.

    Returns: a tree as of the dealer's corrections, with pairs (operands, draws) for the
    lists of results.
    """

    def one(own: Any) -> Any:
        cx = Demand(own, PARTIES)
        run(cx, party, [Unknown()] * len(party.in_avals))
        return cx.gathered()

    # The party's number is a position on the party axis; the other lane is not used.
    lanes = jax.vmap(one, in_axes=None, out_axes=0, axis_name=PARTY, axis_size=PARTIES)
    return jax.tree.map(lambda x: x[index], lanes(seed))


def requests(closed: Any, lead: int = 0) -> Any:
    """The functions asked for, a tree as of the dealer's corrections."""
    out: dict[str, Any] = {}
    for index, eqn in enumerate(_compat.open_jaxpr(closed)[0].eqns):
        if eqn.primitive.name == "dealt":
            out[str(index)] = Wanted(eqn.params["fun"], lead)
            continue
        inner = list(sub_jaxprs(eqn))
        if not any(mentions(sub, REQUESTS) for sub in inner):
            continue
        nested = lead + (eqn.primitive.name == "scan")
        found = [requests(sub, nested) for sub in inner]
        if any(found):
            out[str(index)] = found if eqn.primitive.name == "cond" else found[0]
    return out


def functions(party: Any) -> list[Any]:
    """All functions that a program asks for."""
    wanted = jax.tree.leaves(requests(party), is_leaf=lambda x: isinstance(x, Wanted))
    return [w.fun for w in wanted]


def matched(wanted: Any, known: Any) -> list[tuple[Wanted, Any]]:
    """Requests with what this party knows of them, in the order of the program."""
    if isinstance(wanted, Wanted):
        return [(wanted, known)]
    pairs = (
        [(wanted[k], known[k]) for k in sorted(wanted, key=int)]
        if isinstance(wanted, dict)
        else zip(wanted, known, strict=True)
    )
    return [item for pair in pairs for item in matched(*pair)]


def filled(wanted: Any, made: Any) -> Any:
    """The tree of requests with results, an iterator, in their places."""
    if isinstance(wanted, Wanted):
        return next(made)
    if isinstance(wanted, dict):
        return {k: filled(wanted[k], made) for k in sorted(wanted, key=int)}
    return [filled(branch, made) for branch in wanted]


def prepare(me: Session, party: Any, seed: Any) -> Side[Any]:
    """This party's corrections for one run of a semi2k program.

    Rounds: those of the longest request and one (17 where something is truncated).

    Args:
      party: the closed jaxpr of a party's program, the same for both.
      seed: uint32[8], the seed with which this party will run the program.

    Returns: the tree that the online program consumes; zeros where nothing is meant for
    this party.

    Raises: UnsupportedError for requests that need a dealer: noise, tuples with MACs,
      or operands that are themselves dealt.
    """
    wanted = requests(party)
    known = jax.jit(demand, static_argnums=(0, 1))(party, me.index, seed)
    pairs = matched(wanted, known)
    made = yield from corrections(
        me,
        [Request(want.fun, shares, want.lead) for want, (shares, _) in pairs],
        [draws for _, (_, draws) in pairs],
    )
    return filled(wanted, iter(made))
