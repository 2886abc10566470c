"""Random keys: `privjax.random.key()` draws 256 bits from the operating system.

The keys are ordinary JAX typed keys with a ChaCha20 generator: `jax.random.split`,
`fold_in` and the samplers of `jax.random` work on them.
"""

from privjax.prg.keys import insecure_key, key, key_from_bytes

__all__ = ["insecure_key", "key", "key_from_bytes"]
