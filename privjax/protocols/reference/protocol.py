"""The protocol object: the interface's names bound to this folder's steps."""

from dataclasses import dataclass

from privjax.protocols.interface import Protocol, implemented_by
from privjax.protocols.reference import arithmetic, boolean, conversion, io


@implemented_by(io, arithmetic, boolean, conversion)
@dataclass(frozen=True)
class Reference(Protocol):
    """Clear values over Z_2^32, Z_2^64 or Z_2^128 (module docstring)."""

    name = "reference"
    min_parties = 2
    max_parties = None
    rings = (32, 64, 128)
