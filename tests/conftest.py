"""Set-up that has to happen before JAX is imported, and reproducible property tests.

By environment variables and not by `jax.config`, so that the processes which some tests
start inherit it; each can be overridden from outside.
"""

import os
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

DEFAULTS = {
    "JAX_PLATFORMS": "cpu",
    # Compile time dominates the suite: keep every compiled program between runs.
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)

# The same examples in every run, no data base of earlier failures, and no deadline: the
# first example pays for compilation.
settings.register_profile("privjax", derandomize=True, deadline=None, database=None)
settings.load_profile("privjax")
