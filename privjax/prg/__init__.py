"""Randomness that a cryptographer would accept: cipher, keys, hedged sessions,
samplers.

`chacha20` is the generator, `keys` its 256-bit keys as JAX typed keys, `session`
derives masks' keys that depend on what they mask, `gaussian` draws noise on a grid.
"""

from privjax.prg.chacha20 import Purpose, bits, derive, keystream
from privjax.prg.gaussian import (
    default_granularity,
    gaussian_on_grid,
    round_to_grid,
    sensitivity_on_grid,
)
from privjax.prg.keys import (
    insecure_key,
    is_privjax_key,
    key,
    key_from_bytes,
    key_words,
)
from privjax.prg.session import session

__all__ = [
    "Purpose",
    "bits",
    "default_granularity",
    "derive",
    "gaussian_on_grid",
    "insecure_key",
    "is_privjax_key",
    "key",
    "key_from_bytes",
    "key_words",
    "keystream",
    "round_to_grid",
    "sensitivity_on_grid",
    "session",
]
