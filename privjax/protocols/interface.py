"""The interface that every protocol offers, and the table of protocols.

Kernels are written as what one party does. `Arith` is one party's share of a ring array,
`Bit` of an array of bits, a word array an XOR-shared bit pattern. Each method states its
rounds; bytes follow from the shapes of what it opens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from privjax.errors import ProtocolError
from privjax.protocols.shares import Arith, Bit


@dataclass(frozen=True)
class Protocol:
    """A secret-sharing protocol among `parties` parties.

    Methods (k = ring bits):

    ==================  ====================================================  ===========
    method              result                                                rounds
    ==================  ====================================================  ===========
    `share_input`       [x] of an array that one party owns                   1
    `public`            [v] of a public ring array                            0
    `open_arith`        the values of several [x]                             1
    `open_bits`         the values of several bits                            1
    `add`, `add_public`, `mul_public`                                         0
    `product(op, x, y)` [x * y], op a `tuples.Bilinear`                       1 or 0
    `square`            [x^2]                                                 1 or 0
    `truncate(x, b)`    [x / 2^b], stochastic rounding                        1
    `xor`, `xor_public`, `and_public`                                         0
    `and_`              <x AND y>                                             1
    `and_words`         bitwise AND of words with several others              1
    `prefix_or`         OR of all higher bits, per bit                        log2 k
    `msb`               <[x < 0]>                                             1 + log2 k
    `is_zero`           <[x = 0]>                                             1 + log2 k
    `bits_of`           the word <x>                                          1 + log2 k
    `to_arith`          [b] of a bit                                          1 or 0
    `bit_times`         [b x] of a bit and a ring array                       1 or 0
    ==================  ====================================================  ===========
    """

    parties: int
    name: ClassVar[str]
    min_parties: ClassVar[int]
    max_parties: ClassVar[int | None]

    share_input: ClassVar[Callable[[Any, int], Arith]]
    public: ClassVar[Callable[[Any], Arith]]
    open_arith: ClassVar[Callable[[Sequence[Arith]], list[Any]]]
    open_bits: ClassVar[Callable[[Sequence[Bit]], list[Any]]]
    add: ClassVar[Callable[[Arith, Arith], Arith]]
    add_public: ClassVar[Callable[[Arith, Any], Arith]]
    mul_public: ClassVar[Callable[[Arith, Any], Arith]]
    product: ClassVar[Callable[[Any, Arith, Arith], Arith]]
    square: ClassVar[Callable[[Arith], Arith]]
    truncate: ClassVar[Callable[[Arith, int], Arith]]
    xor: ClassVar[Callable[[Bit, Bit], Bit]]
    xor_public: ClassVar[Callable[[Bit, Any], Bit]]
    and_public: ClassVar[Callable[[Bit, Any], Bit]]
    and_: ClassVar[Callable[[Bit, Bit], Bit]]
    and_words: ClassVar[Callable[[Any, Sequence[Any], int], list[Any]]]
    prefix_or: ClassVar[Callable[[Any], Any]]
    msb: ClassVar[Callable[[Arith], Bit]]
    is_zero: ClassVar[Callable[[Arith], Bit]]
    bits_of: ClassVar[Callable[[Arith], Any]]
    to_arith: ClassVar[Callable[[Bit, Any], Arith]]
    bit_times: ClassVar[Callable[[Bit, Arith], Arith]]

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
