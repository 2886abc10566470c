"""The protocols by name."""

from privjax.errors import ProtocolError
from privjax.protocols.interface import Protocol
from privjax.protocols.semi2k import Semi2k

PROTOCOLS: dict[str, type[Protocol]] = {"semi2k": Semi2k}


def protocol_for(name: str, parties: int) -> Protocol:
    """The protocol object; raises `ProtocolError` for an unknown name or party count."""
    if name not in PROTOCOLS:
        raise ProtocolError(
            f"protocol={name!r} is unknown; choose one of {sorted(PROTOCOLS)}."
        )
    return PROTOCOLS[name](parties)
