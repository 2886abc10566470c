"""ChaCha20 (RFC 8439, section 2) as a JAX primitive: one equation per keystream.

The cipher is used as a pseudorandom generator in counter mode: 256-bit key, 96-bit
nonce, 32-bit block counter, 64 bytes per block, words in the RFC's order, so that any
other implementation of the RFC yields the same bits. The first word of every nonce that
privjax uses is a `Purpose`; the other two are free within a purpose (a request number,
a lane). Streams of different (key, nonce) are independent; a pair must not be used for
two things.

On a CPU many blocks are one kernel that takes a state through its twenty rounds in
registers. Elsewhere, and for few blocks, where compile time counts for more, the rounds
are a rolled loop of ten double rounds, each a kernel over all blocks.

The cipher writes one word of many blocks at a time. Who does not mind the order of words
takes them as they come (`transposed`), and saves bringing each block together.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad, batching, mlir

from privjax import _compat
from privjax._typing import Array, Shape
from privjax.errors import InputError
from privjax.prg.varying import vary_alike

Word = int | np.integer | Array
Nonce = tuple[Word, Word, Word]
BLOCK_WORDS, KEY_WORDS, NONCE_WORDS = 16, 8, 3
SEED_WORDS = KEY_WORDS + 1 + NONCE_WORDS
_WORD_TYPES = tuple(np.dtype(f"uint{n}") for n in (8, 16, 32, 64))
# Blocks per piece on a CPU. Many blocks: as one kernel, whose state stays in registers; a
# piece is a MiB, so that what it writes is still in a cache when it is put in order. Few
# blocks: a loop of double rounds over a state that stays in the first-level cache, which
# takes a third of the time to compile. Small requests are rounded up to a power of two, or
# a multiple of `_STEP`.
_MANY, _PIECE, _SMALL_PIECE, _STEP = 1024, 65536, 256, 64
# Words of the columns and of the diagonals of a block (RFC 8439, section 2.3).
_COLUMNS = tuple([i + 4 * j for j in range(4)] for i in range(4))
_DIAGONALS = tuple([(i + j) % 4 + 4 * j for j in range(4)] for i in range(4))
_CONSTANT = np.frombuffer(b"expand 32-byte k", dtype="<u4")


class Purpose(IntEnum):
    """First word of a nonce: what a keystream is for. No two uses share a number."""

    RAW = 0
    SESSION = 1
    HASH = 2
    LANE = 3
    PARTY = 4
    LOOP = 5
    CALL = 6
    REQUEST = 7
    NOISE = 8
    SPLIT = 9
    FOLD = 10
    BITS = 11
    PAIR = 12
    SELFMASK = 13
    SEED = 14
    CHECK = 15


def _rotate(x: Array, by: int) -> Array:
    return (x << np.uint32(by)) | (x >> np.uint32(32 - by))


def quarter_round(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, ...]:
    """RFC 8439, section 2.1, on uint32 arrays of one shape."""
    a = a + b
    d = _rotate(d ^ a, 16)
    c = c + d
    b = _rotate(b ^ c, 12)
    a = a + b
    d = _rotate(d ^ a, 8)
    c = c + d
    b = _rotate(b ^ c, 7)
    return a, b, c, d


def _round(state: Array, turn: int) -> Array:
    """A quarter round on each column of uint32[4, 4, blocks], then rows are turned.

    Row i moves by i * turn: with turn 1 the diagonals become columns, with turn -1 they
    are put back. The result is one concatenation, hence one fused kernel that writes
    the state once.
    """
    rows = quarter_round(state[0], state[1], state[2], state[3])
    pieces = [rows[0]]
    for i in (1, 2, 3):
        cut = i * turn % 4
        pieces += [rows[i][cut:], rows[i][:cut]]
    return jnp.concatenate(pieces).reshape(state.shape)


def _double_round(_: Any, state: Array) -> Array:
    # Without the barrier XLA merges both rounds into kernels that recompute the first.
    return _round(lax.optimization_barrier(_round(state, 1)), -1)


def _blocks(seeds: Array, first: Array | np.uint32, blocks: int) -> Array:
    """uint32[16, seeds, blocks]: block number first + i of each seed's stream."""
    start = _start(seeds, first, blocks)
    state = start.reshape(4, 4, -1)
    mixed = lax.fori_loop(np.int32(0), np.int32(10), _double_round, state)
    return mixed.reshape(start.shape) + start


def _start(seeds: Array, first: Array | np.uint32, blocks: int) -> Array:
    """The states before the rounds."""
    shape = (seeds.shape[0], blocks)
    columns = seeds.T[:, :, None]
    counter = columns[KEY_WORDS] + (first + lax.iota(np.uint32, blocks))
    return jnp.concatenate(
        [
            jnp.broadcast_to(_CONSTANT[:, None, None], (4, *shape)),
            jnp.broadcast_to(columns[:KEY_WORDS], (KEY_WORDS, *shape)),
            counter[None],
            jnp.broadcast_to(columns[KEY_WORDS + 1 :], (NONCE_WORDS, *shape)),
        ]
    )


def block_function(start: Sequence[Array]) -> tuple[Array, ...]:
    """RFC 8439, section 2.3: from the 16 words of a state to those of its block."""
    words = list(start)
    for places in (_COLUMNS, _DIAGONALS) * 10:
        for a, b, c, d in places:
            mixed = quarter_round(words[a], words[b], words[c], words[d])
            words[a], words[b], words[c], words[d] = mixed
    return tuple(w + s for w, s in zip(words, start, strict=True))


def _in_registers(words: Sequence[Array]) -> Sequence[Array]:
    """`block_function` as one kernel, which on a CPU runs on every core.

    XLA gives a fused kernel one result, and would compute a block for each of its sixteen
    words. A reduction may have sixteen results. It is over two equal things here, of which
    only the second counts; over one it would be rewritten as what it is.
    """
    twice = tuple(jnp.broadcast_to(w, (2, *w.shape)) for w in words)
    zeros = tuple(jnp.zeros_like(w, shape=()) for w in words)
    return lax.reduce(twice, zeros, lambda _, x: block_function(x), (0,))


def _many_blocks(seeds: Array, first: Array | np.uint32, blocks: int) -> Array:
    """`_blocks` with states in registers."""
    # XLA's loop over an odd number is not vectorised.
    mixed = _in_registers(list(_start(seeds, first, blocks + blocks % 2)))
    return jnp.stack([w[:, :blocks] for w in mixed])


def _in_pieces(seeds: Array, blocks: int, by_word: bool) -> Array:
    """All blocks from number 0 on, by a loop over tiles.

    uint32[seeds, blocks, 16], or uint32[seeds, 16, blocks] `by_word`. The last tile in
    each direction overlaps the one before it instead of being cut: it writes the same
    words again, and nothing needs to be padded or copied.
    """
    count = seeds.shape[0]
    order = (1, 0, 2) if by_word else (1, 2, 0)
    if count * blocks <= _SMALL_PIECE:
        # XLA compiles equal kernels once: a few sizes serve all small requests.
        rounded = min(1 << (blocks - 1).bit_length(), -(-blocks // _STEP) * _STEP)
        return _blocks(seeds, np.uint32(0), rounded)[..., :blocks].transpose(order)
    many = blocks >= _MANY
    piece, mixed = (_PIECE, _many_blocks) if many else (_SMALL_PIECE, _blocks)
    wide = min(blocks, piece)
    tall = min(count, max(1, piece // wide))
    across = -(-blocks // wide)
    down = -(-count // tall)

    def tile(step: Array, out: Array) -> Array:
        row = jnp.minimum(step // np.int32(across) * np.int32(tall), count - tall)
        at = jnp.minimum(step % np.int32(across) * np.int32(wide), blocks - wide)
        rows = lax.dynamic_slice_in_dim(seeds, row, tall)
        part = mixed(rows, at.astype(np.uint32), wide).transpose(order)
        zero = np.int32(0)
        place = (row, zero, at) if by_word else (row, at, zero)
        return lax.dynamic_update_slice(out, part, place)

    # Begun with a word of the nonce, as zeros would be one array for all keystreams, that
    # each of them had to copy first. Made of the seeds, it varies over their manual mesh
    # axes, as a loop's carry must.
    shape = (BLOCK_WORDS, blocks) if by_word else (blocks, BLOCK_WORDS)
    out = jnp.broadcast_to(seeds[:, -1:, None], (count, *shape))
    return lax.fori_loop(np.int32(0), np.int32(across * down), tile, out)


def _expand(seeds: Array, *, words: int, by_word: bool, pieces: bool) -> Array:
    """uint32[..., 12] -> uint32[..., words]."""
    lead = seeds.shape[:-1]
    blocks = -(-words // BLOCK_WORDS)
    flat = seeds.reshape(-1, SEED_WORDS)
    if pieces:
        out = _in_pieces(flat, blocks, by_word)
    else:
        order = (1, 0, 2) if by_word else (1, 2, 0)
        out = _blocks(flat, np.uint32(0), blocks).transpose(order)
    return out.reshape(-1, blocks * BLOCK_WORDS)[:, :words].reshape(*lead, words)


# -- the primitive: seeds uint32[..., 12] -> uint32[..., words] ------------------------
# A seed is what RFC 8439 puts into a state besides the constant: key, counter, nonce.
# One operand, so that whatever JAX knows about the axes over which its parts vary
# (vmap lanes, manual mesh axes) is joined before the primitive sees it.

chacha20_p = _compat.Primitive("chacha20")


def _abstract(seeds: Any, *, words: int, by_word: bool) -> Any:
    return seeds.update(shape=(*seeds.shape[:-1], words))


def _batch(args: Sequence[Any], dims: Sequence[Any], **params: Any) -> tuple[Any, int]:
    """Lanes are one more leading axis: the cipher is elementwise over blocks."""
    return chacha20_p.bind(jnp.moveaxis(args[0], dims[0], 0), **params), 0


def _jvp(primals: Sequence[Any], _: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    out = chacha20_p.bind(*primals, **params)
    return out, ad.Zero(jax.typeof(out).to_tangent_aval())


_expand_jit = jax.jit(_expand, static_argnames=("words", "by_word", "pieces"))
_whole = mlir.lower_fun(partial(_expand_jit, pieces=False), multiple_results=False)
_tiled = mlir.lower_fun(partial(_expand_jit, pieces=True), multiple_results=False)
chacha20_p.def_abstract_eval(_abstract)
chacha20_p.def_impl(_compat.compiled(chacha20_p, "words", "by_word"))
mlir.register_lowering(chacha20_p, _whole)
mlir.register_lowering(chacha20_p, _tiled, platform="cpu")
batching.primitive_batchers[chacha20_p] = _batch
ad.primitive_jvps[chacha20_p] = _jvp

# -- what the rest of the library calls ------------------------------------------------


def _word(value: Word) -> Array | np.uint32:
    if isinstance(value, int | np.integer):
        if not 0 <= value < 2**32:
            raise InputError(f"a nonce word must be in [0, 2^32), not {value}.")
        return np.uint32(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.integer):
        raise InputError(
            f"a nonce word is an integer scalar, not {value.dtype}{value.shape}."
        )
    return value.astype(np.uint32)


def keystream(key: Array, nonce: Nonce, words: int, *, counter: int = 0) -> Array:
    """`words` words of the ChaCha20 keystream of (key, nonce), from block `counter` on.

    Args:
      key: uint32[8], traced or not (map over many with `jax.vmap`).
      nonce: three words, Python integers or integer scalars; by convention the first is
        a `Purpose` (`Purpose.RAW` is for callers that bring a nonce of their own).
      words: static number of 32-bit words; 256 GiB at most per nonce.
      counter: static number of the first block.

    Returns:
      uint32[words], in the order of RFC 8439 section 2.4 (little-endian words).

    Raises:
      InputError: the key is no uint32[8], a nonce word is no integer scalar or out of
        range, or the keystream would run past the 32-bit block counter and repeat.
    """
    return _stream(key, nonce, words, counter, False)


def transposed(key: Array, nonce: Nonce, words: int, *, counter: Word = 0) -> Array:
    """`keystream`, in another order and faster: first word 0 of every block, and so on.

    The blocks are ceil(words / 16) from `counter` on, of which the last words of the last
    may be missing in the order given here. Raises: as `keystream`; a traced `counter` is
    the caller's to keep in range.
    """
    return _stream(key, nonce, words, counter, True)


def _stream(
    key: Array, nonce: Nonce, words: int, counter: Word, by_word: bool
) -> Array:
    if key.shape != (KEY_WORDS,) or key.dtype != np.uint32:
        raise InputError(f"a ChaCha20 key is uint32[8], not {key.dtype}{key.shape}.")
    blocks = -(-words // BLOCK_WORDS)
    first = counter if isinstance(counter, int) else 0
    if not (words >= 0 and first >= 0 and first + blocks <= 2**32):
        raise InputError(f"{words} words from block {counter} on: out of range.")
    last = [_word(w) for w in nonce]
    if len(last) != NONCE_WORDS:
        raise InputError(f"a ChaCha20 nonce has three words, not {len(last)}.")
    if words == 0:
        return jnp.zeros((0,), np.uint32)
    rest = jnp.stack([jnp.asarray(w) for w in (_word(counter), *last)])
    seed = jnp.concatenate([key, rest])
    return chacha20_p.bind(seed, words=words, by_word=by_word)


def blocks_at(key: Array, nonce: Nonce, numbers: Array) -> Sequence[Array]:
    """The blocks with these numbers: sixteen arrays, uint32 of the shape of `numbers`."""
    words = [jnp.asarray(w, np.uint32) for w in (*_CONSTANT, *key)]
    after = [jnp.asarray(_word(w)) for w in nonce]
    state = [jnp.broadcast_to(w, numbers.shape) for w in (*words, *after)]
    state.insert(len(words), numbers)
    return _in_registers(vary_alike(*state))


def derive(key: Array, nonce: Nonce) -> Array:
    """A child key, uint32[8]: the first half of block 0 of (key, nonce).

    Children of different nonces are independent, and tell nothing about the parent or
    about its keystreams of other nonces. Use a nonce either to derive or to draw.
    """
    return keystream(key, nonce, KEY_WORDS)


def derive_from_block(key: Array, block: Array) -> Array:
    """A child key, uint32[..., 8], named by all 128 bits of the cipher's input block.

    Args:
      key: uint32[..., 8], used for nothing else: here there is no room for a purpose.
      block: uint32[..., 4] in place of counter and nonce, with equal leading axes.
    """
    seeds = jnp.concatenate([key, block], axis=-1)
    return chacha20_p.bind(seeds, words=KEY_WORDS, by_word=False)


def bits(key: Array, nonce: Nonce, shape: Shape, dtype: Any) -> Array:
    """Uniform words of any unsigned type, by reinterpretation of the keystream.

    Args:
      key, nonce: as in `keystream`.
      shape: any static shape.
      dtype: uint8, uint16, uint32 or uint64. uint64 takes pairs of words, low word
        first, and needs the 64-bit scope (`with jax.enable_x64(True)`) to be open.

    Raises:
      InputError: another dtype, or uint64 outside of the 64-bit scope.
    """
    dtype = np.dtype(dtype)
    if dtype not in _WORD_TYPES:
        raise InputError(f"bits are drawn as uint8, 16, 32 or 64, not as {dtype}.")
    if dtype.itemsize == 8 and jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise InputError("uint64 bits need an open `with jax.enable_x64(True):`.")
    words = -(-math.prod(shape) * dtype.itemsize // 4)
    return from_words(keystream(key, nonce, words), shape, dtype)


def from_words(stream: Array, shape: Shape, dtype: Any) -> Array:
    """Reinterpret uint32 keystream words as an array of another unsigned type."""
    dtype = np.dtype(dtype)
    if dtype.itemsize == 8:
        return lax.bitcast_convert_type(stream.reshape(*shape, 2), dtype)
    if dtype.itemsize < 4:
        stream = lax.bitcast_convert_type(stream, dtype).reshape(-1)[: math.prod(shape)]
    return stream.reshape(shape)
