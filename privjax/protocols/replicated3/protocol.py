"""The protocol object: the interface's names bound to this folder's steps."""

from dataclasses import dataclass

from privjax.protocols.interface import Protocol
from privjax.protocols.replicated3 import arithmetic, boolean, conversion, io


@dataclass(frozen=True)
class Replicated3(Protocol):
    """Three parties, honest majority, over Z_2^32 or Z_2^64 (module docstring)."""

    name = "replicated3"
    min_parties = 3
    max_parties = 3

    share_input = staticmethod(io.share_input)
    share_bits = staticmethod(io.share_bits)
    public = staticmethod(io.public)
    public_bits = staticmethod(io.public_bits)
    noise = staticmethod(io.noise)
    open_arith = staticmethod(io.open_arith)
    open_bits = staticmethod(io.open_bits)
    pack = staticmethod(io.pack)
    unpack_arith = staticmethod(io.unpack_arith)
    unpack_bits = staticmethod(io.unpack_bits)
    combine_arith = staticmethod(io.combine_arith)
    combine_bits = staticmethod(io.combine_bits)

    add = staticmethod(arithmetic.add)
    add_public = staticmethod(arithmetic.add_public)
    mul_public = staticmethod(arithmetic.mul_public)
    additive = staticmethod(arithmetic.additive)
    product_public = staticmethod(arithmetic.product_public)
    product = staticmethod(arithmetic.product)
    square = staticmethod(arithmetic.square)
    truncate = staticmethod(arithmetic.truncate)

    xor = staticmethod(boolean.xor)
    xor_public = staticmethod(boolean.xor_public)
    and_public = staticmethod(boolean.and_public)
    and_ = staticmethod(boolean.and_)

    bits_at = staticmethod(boolean.bits_at)
    xor_words = staticmethod(boolean.xor_words)
    xor_all = staticmethod(boolean.xor_all)
    shift_right = staticmethod(boolean.shift_right)
    prefix_or = staticmethod(boolean.prefix_or)

    msb = staticmethod(conversion.msb)
    is_zero = staticmethod(conversion.is_zero)
    bits_of = staticmethod(conversion.bits_of)
    to_arith = staticmethod(conversion.to_arith)
    bit_times = staticmethod(conversion.bit_times)
