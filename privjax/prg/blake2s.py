"""BLAKE2s (RFC 7693) on 32-bit words: the hash function of commitments and transfers.

ChaCha20 expands keys; where a function without a key is needed (a commitment, the
random oracle behind an oblivious transfer) privjax uses BLAKE2s, whose core is
ChaCha's quarter round with message words mixed in. Unkeyed, sequential mode, messages
of whole little-endian 32-bit words of a static length. Any other implementation of the
RFC gives the same digest of the same bytes.

The ten rounds are a rolled loop over the rows of the message schedule, and so are the
blocks of a longer message: the program stays small whatever the message's length.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax._typing import Array
from privjax.errors import InputError
from privjax.prg.varying import vary_alike

BLOCK_WORDS, DIGEST_WORDS = 16, 8
COMMIT_NONCE_WORDS = 4

# RFC 7693, section 2.6: the first 32 bits of the fractional parts of the square roots
# of the first eight primes.
_IV = np.array(
    [
        *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A),
        *(0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
    ],
    np.uint32,
)
# RFC 7693, section 2.7, regrouped: a row holds the words that enter first and second
# in the four column steps, then those of the four diagonal steps.
_SIGMA = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    ],
    np.int32,
)
_SCHEDULE = _SIGMA.reshape(10, 2, 4, 2).transpose(0, 1, 3, 2).reshape(10, 16)


def _rotate(x: Array, by: int) -> Array:
    """To the right, as in the RFC."""
    return (x >> np.uint32(by)) | (x << np.uint32(32 - by))


def _mix(state: Array, first: Array, second: Array, turn: int) -> Array:
    """G of RFC 7693, section 3.1, on the four columns of uint32[4, 4, ...].

    Then row i moves by i * turn, so that diagonals become columns and come back. The
    result is one concatenation, hence one fused kernel that writes the state once.
    """
    a, b, c, d = state[0], state[1], state[2], state[3]
    a = a + b + first
    d = _rotate(d ^ a, 16)
    c = c + d
    b = _rotate(b ^ c, 12)
    a = a + b + second
    d = _rotate(d ^ a, 8)
    c = c + d
    b = _rotate(b ^ c, 7)
    pieces = [a]
    for i, row in ((1, b), (2, c), (3, d)):
        cut = i * turn % 4
        pieces += [row[cut:], row[:cut]]
    return jnp.concatenate(pieces).reshape(state.shape)


def _compress(h: Array, block: Array, count: Array, last: Array) -> Array:
    """RFC 7693, section 3.2: h uint32[8, ...], block uint32[16, ...].

    `count` is the number of message bytes up to and with this block (below 2^32), and
    `last` is all ones for the last block, zero before.
    """
    lead = h.shape[1:]
    zero = jnp.zeros((), np.uint32)
    tweak = jnp.stack([zero] * 4 + [count, zero, last, zero])
    lower = (_IV ^ tweak).reshape(8, *(1 for _ in lead))
    state = jnp.concatenate([h, jnp.broadcast_to(lower, (8, *lead))])
    state = vary_alike(state.reshape(4, 4, *lead), block)[0]

    def step(state: Array, order: Array) -> tuple[Array, None]:
        # Checked indices would make the gather a scalar loop, ten times as slow.
        words = block.at[order].get(mode="promise_in_bounds")
        words = words.reshape(2, 2, 4, *lead)
        state = _mix(state, words[0, 0], words[0, 1], 1)
        # Without the barrier XLA merges both halves into kernels that repeat the first.
        state = lax.optimization_barrier(state)
        return _mix(state, words[1, 0], words[1, 1], -1), None

    state, _ = lax.scan(step, state, jnp.asarray(_SCHEDULE))
    mixed = state.reshape(2, 8, *lead)
    return h ^ mixed[0] ^ mixed[1]


def blake2s(words: Array, *, digest_words: int = DIGEST_WORDS) -> Array:
    """The unkeyed BLAKE2s digest of each row of words.

    Args:
      words: uint32[..., n], little-endian words of messages of 4 n bytes; n may be 0.
      digest_words: length of the digest, 1 to 8. A shorter digest is not a prefix of a
        longer one: the length enters the hash.

    Returns:
      uint32[..., digest_words], the digest's bytes as little-endian words.

    Raises:
      InputError: another dtype or no axis, a wrong digest length, or 4 GiB and more.
    """
    if words.dtype != np.uint32 or words.ndim == 0:
        raise InputError(
            f"BLAKE2s takes uint32[..., n], not {words.dtype}{words.shape}."
        )
    if not 1 <= digest_words <= DIGEST_WORDS:
        raise InputError(f"a BLAKE2s digest has 1 to 8 words, not {digest_words}.")
    *lead, n = words.shape
    if n >= 2**30:
        raise InputError(f"a message of {n} words is too long.")
    blocks = max(1, -(-n // BLOCK_WORDS))
    message = jnp.moveaxis(jnp.asarray(words), -1, 0)
    message = jnp.pad(
        message, [(0, blocks * BLOCK_WORDS - n), *((0, 0) for _ in lead)]
    ).reshape(blocks, BLOCK_WORDS, *lead)
    # Parameter block: digest length in bytes, no key, fanout and depth 1.
    start = _IV.copy()
    start[0] ^= np.uint32(0x01010000 | 4 * digest_words)
    h = jnp.broadcast_to(start.reshape(8, *(1 for _ in lead)), (8, *lead))
    h = vary_alike(h, message)[0]
    counts = np.minimum(np.arange(1, blocks + 1) * 4 * BLOCK_WORDS, 4 * n)
    counts = counts.astype(np.uint32)
    lasts = np.zeros(blocks, np.uint32)
    lasts[-1] = 0xFFFFFFFF
    if blocks == 1:
        h = _compress(h, message[0], jnp.asarray(counts[0]), jnp.asarray(lasts[0]))
    else:

        def absorb(h: Array, xs: tuple[Array, Array, Array]) -> tuple[Array, None]:
            return _compress(h, *xs), None

        h, _ = lax.scan(absorb, h, (message, jnp.asarray(counts), jnp.asarray(lasts)))
    return jnp.moveaxis(h[:digest_words], 0, -1)


def commit(value: Array, nonce: Array) -> Array:
    """A commitment to a row of words: the digest of nonce and value.

    Binding by collision resistance; hiding with BLAKE2s as a random oracle and a
    uniform nonce that nobody else knows and that is used once. Open it by showing both;
    the receiver recomputes and compares.

    Args:
      value: uint32[..., n], n static and known to both sides.
      nonce: uint32[..., m] with m at least 4 (128 bits) and the same leading axes.

    Returns: uint32[..., 8].  Raises: InputError for a short nonce or another dtype.
    """
    if nonce.shape[-1:] < (COMMIT_NONCE_WORDS,):
        raise InputError(f"a nonce has 4 words or more, not shape {nonce.shape}.")
    return blake2s(jnp.concatenate([nonce, value], axis=-1))
