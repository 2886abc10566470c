"""The protocol object: the interface's names bound to this folder's steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from privjax.errors import TraceError
from privjax.protocols.interface import Protocol
from privjax.protocols.spdz2k import arithmetic, boolean, comparison, conversion, io
from privjax.protocols.spdz2k.authenticated import Keys


def _with_keys(step: Callable[..., Any]) -> Any:
    def method(self: "Spdz2k", *args: Any) -> Any:
        if self.keys is None:
            raise TraceError("spdz2k computes within a program: call begin() first.")
        return step(self.keys, *args)

    method.__doc__ = step.__doc__
    return method


@dataclass(frozen=True)
class Spdz2k(Protocol):
    """Active security with abort over Z_2^k, k = 32 or 64, s = k (module docstring).

    Attributes: keys are the MAC keys of the program being traced, from `begin`; with
    `sacrifice` the dealer's triples are checked.
    """

    keys: Keys | None = None
    sacrifice: bool = False

    name = "spdz2k"
    min_parties = 2
    max_parties = None
    active = True

    def begin(self, ring_bits: int) -> "Spdz2k":
        keys = Keys.fresh(ring_bits)
        return replace(self, keys=keys.with_coin() if self.sacrifice else keys)

    def checking_triples(self) -> "Spdz2k":
        return replace(self, sacrifice=True)

    share_input = _with_keys(io.share_input)
    share_bits = _with_keys(io.share_bits)
    public = _with_keys(io.public)
    public_bits = _with_keys(io.public_bits)
    noise = _with_keys(io.noise)
    open_arith = _with_keys(io.open_arith)
    open_bits = _with_keys(io.open_bits)
    pack = _with_keys(io.pack)
    unpack_arith = _with_keys(io.unpack_arith)
    unpack_bits = _with_keys(io.unpack_bits)
    combine_arith = staticmethod(io.combine_arith)
    combine_bits = staticmethod(io.combine_bits)

    add = _with_keys(arithmetic.add)
    add_public = _with_keys(arithmetic.add_public)
    mul_public = _with_keys(arithmetic.mul_public)
    additive = _with_keys(arithmetic.additive)
    product_public = _with_keys(arithmetic.product_public)
    product = _with_keys(arithmetic.product)
    square = _with_keys(arithmetic.square)
    truncate = _with_keys(arithmetic.truncate)

    xor = _with_keys(boolean.xor)
    xor_public = _with_keys(boolean.xor_public)
    and_public = _with_keys(boolean.and_public)
    and_ = _with_keys(boolean.and_)
    bits_at = _with_keys(boolean.bits_at)
    xor_words = _with_keys(boolean.xor_words)
    xor_all = _with_keys(boolean.xor_all)
    shift_right = _with_keys(boolean.shift_right)
    prefix_or = _with_keys(boolean.prefix_or)

    msb = _with_keys(comparison.msb)
    is_zero = _with_keys(conversion.is_zero)
    bits_of = _with_keys(conversion.bits_of)
    to_arith = _with_keys(conversion.to_arith)
    bit_times = _with_keys(conversion.bit_times)
