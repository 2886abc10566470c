"""The offline part of a program of two parties without a dealer, whatever its protocol."""

from typing import Any

from privjax.preprocessing import checked, offline
from privjax.preprocessing.exchange import Side
from privjax.preprocessing.offline import functions
from privjax.preprocessing.session import Session
from privjax.preprocessing.structure import structure
from privjax.protocols.spdz2k.tuples import BitMacs, SumMacs


def has_macs(party: Any) -> bool:
    """Whether a program asks for values with MACs: spdz2k, not semi2k."""
    return any(isinstance(f, (SumMacs, BitMacs)) for f in functions(party))


def prepare(me: Session, party: Any, seed: Any) -> Side[Any]:
    """This party's corrections for one run of a program: `offline.prepare` for semi2k,
    `checked.prepare` (against a party that cheats) for spdz2k."""
    return (checked if has_macs(party) else offline).prepare(me, party, seed)


def ready(party: Any) -> None:
    """Find out what `prepare` has to know beforehand when it is traced."""
    if has_macs(party):
        structure(party)
