"""The interface that every protocol offers.

Kernels are written as what one party does. `Arith` is one party's share of a ring array,
`Bit` of an array of bits, `Word` of all bits of ring elements. Each method states its
rounds; bytes follow from the shapes of what it opens. A protocol's folder has functions
of these names (`implemented_by`). Public ring arrays are in any form
that `elements.public` takes: for k = 32 and 64 plain words of k bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from privjax.errors import ProtocolError
from privjax.protocols.shares import Arith, Bit, Word
from privjax.protocols.tuples import Bilinear, Noise


@dataclass(frozen=True)
class Protocol:
    """A secret-sharing protocol among `parties` parties; k is the size of its ring."""

    parties: int
    name: ClassVar[str]
    min_parties: ClassVar[int]
    max_parties: ClassVar[int | None]
    active: ClassVar[bool] = False  # whether openings carry MACs that must be checked
    rings: ClassVar[tuple[int, ...]] = (32, 64)  # the sizes k

    def checking_triples(self) -> "Protocol":
        """This protocol, with the dealer's triples checked by sacrifice."""
        raise ProtocolError(
            f"preprocessing='sacrifice' checks triples with MACs, and {self.name} has "
            "none: use protocol='spdz2k'."
        )

    def __post_init__(self) -> None:
        low, high = self.min_parties, self.max_parties
        if not isinstance(self.parties, int) or self.parties < low:
            raise ProtocolError(
                f"parties={self.parties!r}: {self.name} needs at least {low} parties."
            )
        if high is not None and self.parties > high:
            raise ProtocolError(
                f"parties={self.parties}: {self.name} is for at most {high} parties."
            )

    def check_ring(self, ring_bits: int) -> None:
        """Raise `ProtocolError` for a ring that this protocol does not compute in."""
        if ring_bits not in self.rings:
            sizes = " or ".join(map(str, self.rings))
            raise ProtocolError(
                f"ring_bits={ring_bits}: {self.name} computes in rings of {sizes} bits. "
                "Use protocol='semi2k' (semi-honest), or fixed_point=privjax.FixedPoint "
                f"with ring_bits={self.rings[-1]} or less."
            )

    def begin(self, ring_bits: int) -> "Protocol":
        """The protocol for one party program over Z_2^ring_bits, as it is traced."""
        return self

    # -- input and output --------------------------------------------------------------

    @staticmethod
    def share_input(x: Any, owner: int) -> Arith:
        """[x] of a ring array that party `owner` holds; 1 round."""
        raise NotImplementedError

    @staticmethod
    def share_bits(x: Any, owner: int) -> Bit:
        """<x> of a bit array (uint8 0 or 1) that party `owner` holds; 1 round."""
        raise NotImplementedError

    @staticmethod
    def public(value: Any) -> Arith:
        """[v] of a public ring array; local."""
        raise NotImplementedError

    @staticmethod
    def public_bits(value: Any) -> Bit:
        """<v> of a public bit array; local."""
        raise NotImplementedError

    @staticmethod
    def noise(draw: Noise) -> Arith:
        """Shares of a mechanism's noise that no party knows; local."""
        raise NotImplementedError

    @staticmethod
    def open_arith(xs: Sequence[Arith]) -> list[Any]:
        """A release: all parties learn the values of several [x]; 1 round."""
        raise NotImplementedError

    @staticmethod
    def open_bits(xs: Sequence[Bit]) -> list[Any]:
        """A release of several bits, as uint8 0 or 1; 1 round."""
        raise NotImplementedError

    # -- shares at rest: 32-bit words on a trailing axis -------------------------------

    @staticmethod
    def pack(x: Arith | Bit) -> Any:
        """A share as uint32[..., words]."""
        raise NotImplementedError

    @staticmethod
    def unpack_arith(words: Any, dtype: Any) -> Arith:
        """The share of a ring array of `dtype` from its words."""
        raise NotImplementedError

    @staticmethod
    def unpack_bits(words: Any) -> Bit:
        """The share of an array of bits from its words."""
        raise NotImplementedError

    @staticmethod
    def combine_arith(words: Any, dtype: Any) -> tuple[Any, Any]:
        """(value, whether the shares are sound) of all parties' words, parties first."""
        raise NotImplementedError

    @staticmethod
    def combine_bits(words: Any) -> tuple[Any, Any]:
        """(bits, whether the shares are sound) of all parties' words, parties first."""
        raise NotImplementedError

    # -- ring arithmetic ---------------------------------------------------------------

    @staticmethod
    def add(x: Arith, y: Arith) -> Arith:
        """[x + y]; local."""
        raise NotImplementedError

    @staticmethod
    def add_public(x: Arith, v: Any) -> Arith:
        """[x + v]; local."""
        raise NotImplementedError

    @staticmethod
    def mul_public(x: Arith, v: Any) -> Arith:
        """[x v] for a public ring array or a Python integer; local."""
        raise NotImplementedError

    @staticmethod
    def additive(fun: Callable[..., Any], *xs: Arith) -> Arith:
        """[fun(x, ...)] for a function that only adds and moves entries; local."""
        raise NotImplementedError

    @staticmethod
    def product_public(op: Bilinear, x: Any, y: Any) -> Arith:
        """[x * y] where one of the two is a share, the other public; local."""
        raise NotImplementedError

    @staticmethod
    def product(op: Bilinear, x: Arith, y: Arith) -> Arith:
        """[x * y] for a bilinear product; 1 round, none if both masks are open."""
        raise NotImplementedError

    @staticmethod
    def square(x: Arith) -> Arith:
        """[x^2]; 1 round, none if the mask is open."""
        raise NotImplementedError

    @staticmethod
    def truncate(x: Arith, bits: int) -> Arith:
        """[x / 2^bits], rounded up or down at random, |x| < 2^(k-2); 1 round."""
        raise NotImplementedError

    # -- bits --------------------------------------------------------------------------

    @staticmethod
    def xor(x: Bit, y: Bit) -> Bit:
        """<x XOR y>; local."""
        raise NotImplementedError

    @staticmethod
    def xor_public(x: Bit, v: Any) -> Bit:
        """<x XOR v>; local."""
        raise NotImplementedError

    @staticmethod
    def and_public(x: Bit, v: Any) -> Bit:
        """<x AND v>; local."""
        raise NotImplementedError

    @staticmethod
    def and_(x: Bit, y: Bit) -> Bit:
        """<x AND y>; 1 round."""
        raise NotImplementedError

    # -- all bits of an element --------------------------------------------------------

    @staticmethod
    def bits_at(x: Word, positions: Any) -> Bit:
        """The bits at static `positions`, on a new last axis (none for one); local."""
        raise NotImplementedError

    @staticmethod
    def xor_words(x: Word, y: Word) -> Word:
        """Bitwise XOR; local."""
        raise NotImplementedError

    @staticmethod
    def xor_all(x: Word, b: Bit) -> Word:
        """All bits of an element flipped where b is set; local."""
        raise NotImplementedError

    @staticmethod
    def shift_right(x: Word, by: int) -> Word:
        """Bit j + by in the place of bit j, zeros above; local."""
        raise NotImplementedError

    @staticmethod
    def prefix_or(x: Word) -> Word:
        """Bit j: OR of the bits j and above; log2 k rounds."""
        raise NotImplementedError

    # -- between the two ---------------------------------------------------------------

    @staticmethod
    def msb(x: Arith) -> Bit:
        """<[x < 0]>; log2 k rounds."""
        raise NotImplementedError

    @staticmethod
    def is_zero(x: Arith) -> Bit:
        """<[x = 0]>; log2 k rounds."""
        raise NotImplementedError

    @staticmethod
    def bits_of(x: Arith) -> Word:
        """All bits of x; log2 k rounds."""
        raise NotImplementedError

    @staticmethod
    def to_arith(b: Bit, dtype: Any) -> Arith:
        """[b], 0 or 1; 1 round, none if the bit's mask is open."""
        raise NotImplementedError

    @staticmethod
    def bit_times(b: Bit, x: Arith) -> Arith:
        """[b x]; 1 round, none if both masks are open."""
        raise NotImplementedError


_STEPS = tuple(n for n, v in vars(Protocol).items() if isinstance(v, staticmethod))


def implemented_by(
    *modules: Any, bind: Callable[[Callable[..., Any]], Any] = staticmethod
) -> Callable[[type], type]:
    """Class decorator: each name of the interface is the function of that name in one of
    a protocol's modules, unless the class defines it itself."""

    def decorate(cls: type) -> type:
        for name in _STEPS:
            if name not in vars(cls):
                (step,) = {getattr(m, name) for m in modules if hasattr(m, name)}
                setattr(cls, name, bind(step))
        return cls

    return decorate
