"""The protocols by name."""

from privjax.errors import ProtocolError
from privjax.protocols.interface import Protocol
from privjax.protocols.reference import Reference
from privjax.protocols.replicated3 import Replicated3
from privjax.protocols.semi2k import Semi2k
from privjax.protocols.spdz2k import Spdz2k

PROTOCOLS: dict[str, type[Protocol]] = {
    p.name: p for p in (Semi2k, Spdz2k, Replicated3, Reference)
}
# What is chosen for who does not choose catches parties that cheat.
DEFAULT = Spdz2k.name


def protocol_for(name: str, parties: int) -> Protocol:
    """The protocol object; raises `ProtocolError` for an unknown name or party count."""
    if name not in PROTOCOLS:
        raise ProtocolError(
            f"protocol={name!r} is unknown; choose one of {sorted(PROTOCOLS)}."
        )
    return PROTOCOLS[name](parties)
