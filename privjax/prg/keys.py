"""256-bit keys: JAX typed key arrays whose implementation is ChaCha20.

`key()` is what users call. The result works with `jax.random.split`, `fold_in`,
`bits`, `normal` and the rest, under every transformation, because the generator is
registered through JAX's own `define_prng_impl`. JAX's default keys carry 64 bits of
seed at most, are usually made from a small integer, and drive a cipher (Threefry-2x32)
of 64-bit keys: good for initialising weights, too little for shares, masks, MACs or the
noise of differential privacy, where one guess of the seed removes all protection.
`key_words` refuses them.
"""

import hashlib
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

from privjax import _compat
from privjax._typing import Array
from privjax.errors import InputError, RandomKeyError
from privjax.prg.chacha20 import KEY_WORDS, Purpose, bits, derive, keystream

NAME = "privjax_chacha20"


def _seed(seed: Array) -> Array:
    """JAX's `key(seed, impl=...)`: the integer, spread out by one block."""
    words = [seed]
    if seed.dtype.itemsize == 8:
        words = [seed & np.uint32(0xFFFFFFFF), seed >> 32]
    padded = [jnp.asarray(w).astype(np.uint32) for w in words]
    padded += [jnp.zeros((), np.uint32)] * (KEY_WORDS - len(padded))
    return derive(jnp.stack(padded), (Purpose.SEED, 0, 0))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    """As many children as asked for: consecutive pieces of one keystream.

    The number of children is part of the nonce: `split(k, 2)` and `split(k, 3)` have no
    child in common.
    """
    count = int(np.prod(shape, dtype=np.int64))
    stream = keystream(key, (Purpose.SPLIT, count, 0), KEY_WORDS * count)
    return stream.reshape(*shape, KEY_WORDS)


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    dtype = np.dtype(f"uint{bit_width}")
    nonce = (Purpose.BITS, bit_width, 0)
    # JAX lowers this function after the caller's 64-bit scope may have been closed.
    with jax.enable_x64(True):
        return bits(key, nonce, shape, dtype)


def _fold_in(key: Array, data: Any) -> Array:
    return derive(key, (Purpose.FOLD, data, 0))


IMPL = define_prng_impl(
    key_shape=(KEY_WORDS,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name=NAME,
    tag="cc20",
)


def key_from_bytes(data: bytes) -> Array:
    """A key from exactly 32 secret bytes (from a key exchange, say, or a file).

    Returns: a scalar typed key array. Raises: InputError on any other length.
    """
    if len(data) != 4 * KEY_WORDS:
        raise InputError(f"a key has {4 * KEY_WORDS} bytes, not {len(data)}.")
    words = np.frombuffer(data, dtype="<u4").astype(np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl=IMPL)


def key() -> Array:
    """A fresh 256-bit key from the operating system's generator.

    Returns: a scalar typed key array for `jax.random` and for privjax. Do not print it
    or log it: JAX shows the words of a typed key.

    Raises:
      RandomKeyError: under jit, scan or another trace. The key would be drawn once, while
        tracing, and serve every later call of the compiled program.
    """
    if _compat.under_trace():
        raise RandomKeyError(
            "privjax.random.key() is called inside of a traced function: one key would "
            "be drawn while tracing and repeated by every call of the compiled program. "
            "Draw it outside and pass it as an argument."
        )
    return key_from_bytes(os.urandom(4 * KEY_WORDS))


def insecure_key(seed: int) -> Array:
    """A reproducible key, for tests and for experiments to be repeated exactly.

    Whoever can guess the seed can remove every mask and all noise made from the key:
    never for data that needs protection. `seed` is any Python integer.
    """
    label = f"privjax insecure key {int(seed)}".encode()
    return key_from_bytes(hashlib.sha256(label).digest())


def is_privjax_key(value: Any) -> bool:
    """Whether `value` is a typed key array (of any shape) made by this module."""
    dtype = getattr(value, "dtype", None)
    return (
        dtype is not None
        and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
        and jax.random.key_impl(value) == IMPL
    )


def key_words(value: Any) -> Array:
    """The words of a privjax key: uint32[..., 8] for a key array of shape [...].

    Raises:
      RandomKeyError: `value` is another kind of key, or no key at all.
    """
    if is_privjax_key(value):
        return jax.random.key_data(value)
    advice = "pass privjax.random.key(), or jax.random.split of one."
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        raise RandomKeyError(
            f"a `{jax.random.key_impl(value)}` key carries a seed of 64 bits or less, "
            f"which can be searched; {advice}"
        )
    if dtype == np.uint32 and getattr(value, "shape", None) in ((2,), (4,)):
        raise RandomKeyError(
            f"an old-style key (jax.random.PRNGKey) carries a seed of 64 bits; {advice}"
        )
    raise RandomKeyError(f"a key is needed, not {type(value).__name__}; {advice}")
