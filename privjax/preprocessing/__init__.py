"""Preprocessing for two parties without a trusted dealer, by oblivious transfer.

From public-key cryptography to correlated randomness, one step per module:

    exchange       protocols as generators: run both sides, drive one, count
    curve, base_ot 128 base transfers each way, on X25519
    session        keys of one session, call numbers, the verdict of checks
    extension      as many transfers as wanted; correlated and random ones
    consistency    the check of an extension against a cheating chooser
    groups         bits, Z_2^32, Z_2^64, Z_2^128, Z_2^192
    products       [a * b] for any bilinear product; triples (Gilboa)
    bits           AND, bits as numbers, bits of a sum
    make, offline  all that a dealer deals to a semi2k program
    agree          commitments and coins
    authenticated  MACs and triples for SPDZ2k, with active security
    authenticated_bits  bits with MACs, and triples of them
    opening        openings with a check at last: gates, products, tests
    composed       proofs that values with MACs are made of a party's bits
    bit_tuples     comparisons and the like, on bits with MACs
    structure      what requests of an spdz2k program have to do with each other
    checked        all that a dealer deals to an spdz2k program, with active security
    program        `prepare`, whatever the protocol
    host           cutting arrays outside of traces

What a request to the dealer (`protocols.tuples`) costs here, for w-bit words, in
transfers (16 bytes each, plus the correction named):

    Product (elementwise)   2 w        corrections of w bits
    Product (m, k) x (k, n) 2 w k min(m, n), corrections of w max(m, n) bits
    Square                  w          w bits
    And                     2 per bit  1 bit per other operand
    BitToSum                1          w bits
    BitTimes                2          w bits
    BitsOf                  w + w log2 w, corrections of 1 and 2 bits
    Truncation              as BitsOf, and 3 of BitToSum
    ToOwner                 none: the other party sends its share
    Noise                   needs a dealer

For spdz2k, each party, k = 64 (bytes that travel; `privjax.secret_shared(...,
preprocessing="ot").transfer_cost` counts those of a program):

    MAC of a value          64 transfers, stretched: 1,536
    product, term           384 transfers, 5 MACs: 20,000 (a matrix product has k m n terms)
    AND                     3 b bits with MACs, bound by 24 bytes each, and 24 b, in
                            buckets of b: 7 for 2,000 ANDs, 9 for 100
    bit as a number         40 bytes and 16 to bind it, a MAC, a product
    mask taken apart        128 bits bound: 7,200; 63 ANDs
    Truncation              a mask taken apart, 3 bits as numbers, 3 MACs
    Comparison              a mask taken apart, 92 ANDs
    EdaBits                 a mask taken apart, 64 or 32 ANDs
    result that is dealt    a MAC
    once                    256 transfers, and 65 MACs

Who is trusted, and for what:

* `make`, `offline`, `products`, `bits` protect against a semi-honest party: one that
  follows the protocol and looks at everything it receives. A cheating one can spoil the
  results and, by making them fail in a way that depends on them, learn about the other
  party's shares. They belong to semi2k, which promises no more.
* `checked` and what it is made of protect against a cheating party, with abort. Parts
  with proofs: base transfers (Masny, Rindal 2019), the extension (Keller, Orsini, Scholl
  in the version of 2022; Roy 2022), MACs, combination and sacrifice (Cramer et al.
  2018), triples of bits (Katz et al. 2018). `composed` and the composition have not been
  reviewed by others. After a `MacCheckError` the setup must be thrown away, not only the
  session: each failure may have told a bit of it.
* Assumptions: Diffie-Hellman on curve25519; ChaCha20 is a pseudorandom generator;
  BLAKE2s and SHA-512 are random oracles. The parties' channel is authenticated and
  encrypted by whoever carries the messages. None of it withstands a quantum computer.
* Not protected: timing on the parties' own machines (base transfers add points with
  Python integers).
"""

from privjax.preprocessing.exchange import Cost, Side, drive, run, together
from privjax.preprocessing.make import Request, corrections, make
from privjax.preprocessing.program import prepare
from privjax.preprocessing.session import Session, Setup, cost, open_session, setup

__all__ = [
    "Cost",
    "Request",
    "Session",
    "Setup",
    "Side",
    "corrections",
    "cost",
    "drive",
    "make",
    "open_session",
    "prepare",
    "run",
    "setup",
    "together",
]
