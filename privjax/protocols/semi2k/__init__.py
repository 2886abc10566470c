"""semi2k: additive shares mod 2^k, Beaver triples from a dealer, n >= 2 parties.

Semi-honest adversary, dishonest majority: any n-1 parties together learn nothing but the
outputs, provided that all follow the protocol and the dealer colludes with none.
"""

from privjax.protocols.semi2k.protocol import Semi2k

__all__ = ["Semi2k"]
