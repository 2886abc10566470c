"""Session keys that depend on what they protect: `session(key, *values)`.

Masks, dealer's randomness and noise come from a key that the user passes. A key used
for two calls, a jitted function called again, a key closed over by a loop's body or
shared by the lanes of a `vmap` would mask two different values alike, and x + r and
y + r give away x - y. So no mask is drawn from the user's key: it is drawn from a
*session* key, a pseudorandom function of the user's key and of all values that enter
the call. Different values get unrelated masks under the same key, and equal values
under the same key get the same masks, which tells nothing but that they are equal. Such
hedging is what SIV (RFC 5297) does for nonces and RFC 6979 for signatures. It is the
second line of defence; the first is a fresh key per call.

The values are hashed by NH (UMAC, RFC 4418, section 5.2), a universal hash of one
32 x 32 -> 64 bit product per two words and pass, in a tree whose nodes have 64 words of
input, with four independent passes; its keys and the key of the pseudorandom function
come from one ChaCha20 keystream of the user's key. Shapes, types and the context are
hashed by SHA-256 while tracing and join the message.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad, batching, mlir

from privjax import _compat
from privjax._typing import Array
from privjax.errors import DifferentiationError, InputError
from privjax.prg.chacha20 import (
    KEY_WORDS,
    Purpose,
    derive,
    derive_from_block,
    keystream,
)
from privjax.prg.varying import vary_alike

# NH passes, each of them 32 bits of security, and input words per node of the tree.
_PASSES = 4
_NODE = 64
_PAIRS = _NODE // 2
# Arrays of at least as many 32-bit words are hashed where they lie, in groups of nodes
# whose words are next to each other.
_LARGE, _GROUP = 1 << 14, 64


def _words(x: Array, lanes: int) -> Array:
    """The bits of x behind its lane axes, as uint32[*lanes, words]."""
    lead = x.shape[:lanes]
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag], axis=-1)
    elif x.dtype == np.bool_:
        x = x.astype(np.uint8)
    elif jnp.issubdtype(x.dtype, jnp.integer) and jnp.iinfo(x.dtype).bits < 8:
        x = x.astype(np.int8)
    elif jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 8:
        x = x.astype(np.float32)
    x = x.reshape(*lead, math.prod(x.shape[lanes:]))
    size = x.dtype.itemsize
    if size < 4:
        per_word = 4 // size
        x = lax.bitcast_convert_type(x, np.dtype(f"uint{8 * size}"))
        x = jnp.pad(x, [(0, 0)] * lanes + [(0, -x.shape[-1] % per_word)])
        x = x.reshape(*lead, x.shape[-1] // per_word, per_word)
    x = lax.bitcast_convert_type(x, np.uint32)
    return x.reshape(*lead, math.prod(x.shape[lanes:]))


def _low(x: Array) -> Array:
    return x.astype(np.uint32)


def _high(x: Array) -> Array:
    return (x >> np.uint64(32)).astype(np.uint32)


def _nh(low: Array, high: Array, axis: int) -> Array:
    """The sum over pairs of words, to which keys were added, along `axis`: uint64."""
    products = low.astype(np.uint64) * high.astype(np.uint64)
    return jnp.sum(products, axis=axis, dtype=np.uint64)


def _nodes(low: Array, high: Array, keys: Array) -> Array:
    """NH of every node: uint32[B, passes|1, pairs, nodes] -> uint64[B, passes, nodes].

    Pairs run over the second to last axis, so that the sum over them adds whole rows.
    """
    return _nh(low + keys[:, :, 0, :, None], high + keys[:, :, 1, :, None], 2)


def _levels(words: int) -> int:
    nodes, levels = -(-words // _NODE), 1
    while nodes > 1:
        nodes, levels = -(-nodes // _PAIRS), levels + 1
    return levels


def _leaves(x: Array, keys: Array) -> Array:
    """The lowest level: [B, groups, 64 n], uint32[1 or B, ...] -> uint64[B, passes, .].

    x: of any type of four bytes. Node i of a group hashes its words i, n + i, 2 n + i
    and so on; the nodes of the first group come first.
    """
    # In two steps of a loop: XLA would otherwise recompute its operands, word by word,
    # inside of the sum that reads them. Cut up there, they need no copy.
    count, groups, half = *x.shape[:2], _PAIRS // 2
    halves = x.reshape(count, groups, 2, 2, half, -1)
    lower = jnp.moveaxis(keys.reshape(-1, _PASSES, 2, 2, half), 2, 0)

    def step(i: Array, acc: Array) -> Array:
        words = lax.dynamic_index_in_dim(halves, i, 2, keepdims=False)
        words = lax.bitcast_convert_type(words, np.uint32)[:, None]
        a, b = ((words[:, :, :, k] + lower[i][:, :, None, k, :, None]) for k in (0, 1))
        return acc + _nh(a, b, 3)

    nodes = (count, _PASSES, groups, halves.shape[-1])
    # Sums begin at a word of x and not at zero, so that their buffer is not held before x
    # is there.
    first = lax.bitcast_convert_type(x[0, 0, 0], np.uint32).astype(np.uint64)
    begun = jnp.broadcast_to(first, nodes)
    acc = lax.fori_loop(np.int32(0), np.int32(2), step, begun)
    return (acc - first).reshape(count, _PASSES, -1)


def _digest(messages: Sequence[Array], keys: Array, last: Array) -> Array:
    """The tree: [B, groups, words] each, keys of every level -> uint32[B, passes]."""
    x = jnp.concatenate([_leaves(m, keys[:, 0]) for m in messages], axis=2)
    for level in range(1, keys.shape[1]):
        x = jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % _PAIRS)))
        x = x.reshape(*x.shape[:2], _PAIRS, -1)
        x = _nodes(_low(x), _high(x), keys[:, level])
    # 64 -> 32 bits by a multilinear hash mod 2^64, of which the high half counts.
    x = x[:, :, 0]
    a, b, c = (last[:, :, i] for i in range(3))
    return _high(c + a * _low(x) + b * _high(x))


def _form(arrays: Sequence[Any], lanes: int, note: str) -> np.ndarray:
    """SHA-256 of everything static about the values: eight words of the message."""
    parts = [f"{x.dtype.name}{list(x.shape[lanes:])}" for x in arrays]
    text = "\n".join(["privjax session 2", f"{lanes}", repr(note), *parts])
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")


def _compute(key: Array, *arrays: Array, lanes: int, note: str) -> Array:
    """uint32[8] or uint32[*lanes, 8], values [*lanes, ...] -> uint32[*lanes, 8]."""
    lead = (arrays[0] if arrays else key).shape[:lanes]
    count = math.prod(lead)
    form = jnp.asarray(_form(arrays, lanes, note))
    parts, messages = [jnp.broadcast_to(form, (count, KEY_WORDS))], []
    for x in arrays:
        size = math.prod(x.shape[lanes:])
        if size >= _LARGE and x.dtype.itemsize == 4:
            whole = size - size % (_NODE * _GROUP)
            x = x.reshape(count, size)
            messages.append(x[:, :whole].reshape(count, -1, _NODE * _GROUP))
            parts.append(lax.bitcast_convert_type(x[:, whole:], np.uint32))
        else:
            words = _words(x, lanes)
            parts.append(words.reshape(count, words.shape[-1]))
    missing = -sum(p.shape[1] for p in parts) % _NODE
    parts.append(jnp.zeros((count, missing), np.uint32))
    messages.append(jnp.concatenate(parts, axis=1)[:, None])
    total = sum(math.prod(m.shape[1:]) for m in messages)
    levels = _levels(total)
    tree, last = levels * _PASSES * _NODE, 6 * _PASSES
    nonce = (Purpose.HASH, total % 2**32, 0)
    stream = jax.vmap(lambda k: keystream(k, nonce, KEY_WORDS + tree + last))(
        key.reshape(-1, KEY_WORDS)
    )
    prf, keys, ends = jnp.split(stream, (KEY_WORDS, KEY_WORDS + tree), axis=1)
    keys = keys.reshape(-1, levels, _PASSES, 2, _PAIRS)
    ends = lax.bitcast_convert_type(ends.reshape(-1, _PASSES, 3, 2), np.uint64)
    digest = _digest(messages, keys, ends)
    out = derive_from_block(jnp.broadcast_to(prf, (count, KEY_WORDS)), digest)
    if lanes:
        number = lax.iota(np.uint32, count)
        out = jax.vmap(lambda k, i: derive(k, (Purpose.LANE, i, 0)))(out, number)
    return out.reshape(*lead, KEY_WORDS)


# -- the primitive ---------------------------------------------------------------------

session_p = _compat.Primitive("session")
_compute_jit = jax.jit(_compute, static_argnames=("lanes", "note"))


def _abstract(key: Any, *arrays: Any, lanes: int, note: str) -> Any:
    lead = (arrays[0] if arrays else key).shape[:lanes]
    return key.update(shape=(*lead, KEY_WORDS))


def _lowered(*args: Array, lanes: int, note: str) -> Array:
    # Lowering may happen after the caller's 64-bit scope has been closed.
    with jax.enable_x64(True):
        return _compute_jit(*args, lanes=lanes, note=note)


def _batch(
    args: Sequence[Array], dims: Sequence[Any], *, lanes: int, note: str
) -> tuple[Array, int]:
    """One more axis of lanes in front, each lane with a key of its own.

    Values that all lanes share are hashed once, and their session joins each lane's
    values. The primitive is bound again on values with a leading axis, so that further
    `vmap`s outside of this one come back here.
    """
    moved = [
        x if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(args, dims, strict=True)
    ]
    size = next(x.shape[0] for x, d in zip(moved, dims, strict=True) if d is not None)
    key, arrays = moved[0], moved[1:]
    shared = [i for i, d in enumerate(dims[1:]) if d is None]
    own = [x for x, d in zip(arrays, dims[1:], strict=True) if d is not None]
    if shared:
        first = key if dims[0] is None else key[0]
        digest = session_p.bind(
            first, *(arrays[i] for i in shared), lanes=lanes, note=f"{note}/shared"
        )
        own.append(jnp.broadcast_to(digest, (size, *digest.shape)))
    if own:
        lead = own[0].shape[: lanes + 1]
        if dims[0] is not None:
            # Lanes of the axes inside share the key of this one's.
            inner = key.reshape(size, *[1] * (lanes + 2 - key.ndim), *key.shape[1:])
            key = jnp.broadcast_to(inner, (*lead, KEY_WORDS))
        elif key.ndim > 1:
            key = jnp.broadcast_to(key, (*lead, KEY_WORDS))
    note = f"{note}/lanes, shared {shared}"
    return session_p.bind(key, *own, lanes=lanes + 1, note=note), 0


def _jvp(*_: Any, **__: Any) -> Any:
    raise DifferentiationError(
        "a rewritten program cannot be differentiated: its result depends on its "
        "inputs through random masks as well. Put jax.grad inside the function that "
        "privjax transforms, not around the result."
    )


def hashed_rows(key: Array, x: Array) -> Array:
    """NH of every 64 neighbours on the last axis: [..., n] -> uint32[..., ceil(n/64), 8].

    The lowest level of the tree for arrays that are divided over devices: no axis but the
    last is touched. Different arrays of one shape have equal hashes with probability at
    most 2^-128 over the key, uint32[8], which is used for nothing else.
    """
    with jax.enable_x64(True):
        if x.dtype.itemsize != 4:
            x = _words(x[..., None], x.ndim).reshape(*x.shape[:-1], -1)
        x = lax.bitcast_convert_type(x, np.uint32)
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % _NODE)])
        pairs = x.reshape(*x.shape[:-1], -1, 1, 2, _PAIRS)
        keys = keystream(key, (Purpose.HASH, 0, 1), _PASSES * _NODE)
        a, b = jnp.moveaxis(pairs + keys.reshape(_PASSES, 2, _PAIRS), -2, 0)
        words = lax.bitcast_convert_type(_nh(a, b, -1), np.uint32)
        return words.reshape(*words.shape[:-2], 2 * _PASSES)


def universal_hash(key: Array, *arrays: Array) -> Array:
    """uint32[8]: a hash of arrays under a key that is drawn after they are fixed.

    Different arrays of equal shapes collide with the probability that `session` states.
    Without its treatment of `vmap`: equal lanes have equal hashes.
    """
    return _compute(key, *arrays, lanes=0, note="universal hash")


session_p.def_abstract_eval(_abstract)
session_p.def_impl(_compat.compiled(session_p, "lanes", "note"))
mlir.register_lowering(session_p, mlir.lower_fun(_lowered, multiple_results=False))
batching.primitive_batchers[session_p] = _batch
ad.primitive_jvps[session_p] = _jvp


def _as_array(value: Any) -> Array:
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.key_data(value)
    try:
        return jnp.asarray(value)
    except TypeError as error:
        raise InputError(
            f"a session is bound to arrays, not to {type(value).__name__}."
        ) from error


def session(key: Array, *values: Any, context: str = "") -> Array:
    """A key for one call, bound to the caller's key and to all values of the call.

    Guarantee. Two calls with one secret key whose values, or context, differ get equal
    sessions with probability at most (levels + 1)^4 * 2^-128 (over the key, for values
    chosen independently of it), where levels = 1 + log_32(words / 64): 2^-118 for two
    million words, 2^-116 for 2^32; different sessions are independent to anybody who
    does not have the key, as far as ChaCha20 is a pseudorandom function. Under
    `jax.vmap` each lane gets its own session, also when lanes share the key and all
    values. What is *not* separated: two calls outside of `vmap` with the same key, the
    same values and the same context get the same session. So everything that decides
    what is masked has to be among the values or in the context.

    Args:
      key: uint32[8], from `key_words`.
      values: arrays of any numeric type and shape, Python scalars, typed key arrays.
      context: static; what is done with the values (say a digest of the program), so
        that two programs on the same values do not share their masks.

    Returns:
      uint32[8].

    Raises:
      InputError: key is no uint32[8], or a value is no array.
      DifferentiationError: differentiated with respect to one of the values.
    """
    if key.shape != (KEY_WORDS,) or key.dtype != np.uint32:
        raise InputError(f"a ChaCha20 key is uint32[8], not {key.dtype}{key.shape}.")
    with jax.enable_x64(True):
        operands = vary_alike(jnp.asarray(key), *(_as_array(v) for v in values))
        return session_p.bind(*operands, lanes=0, note=context)
