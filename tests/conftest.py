"""Set-up that has to happen before JAX is imported, and reproducible property tests.

By environment variables and not by `jax.config`, so that the processes which some tests
start inherit it; each can be overridden from outside.
"""

import gc
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

DEFAULTS = {
    "JAX_PLATFORMS": "cpu",
    # Compile time dominates the suite: keep every compiled program between runs.
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # Most programs here run once: compiling them is the work.
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}
if importlib.metadata.version("jaxlib").startswith("0.10."):  # unknown to later ones
    DEFAULTS["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)

# The same examples in every run, no data base of earlier failures, and no deadline: the
# first example pays for compilation.
settings.register_profile("privjax", derandomize=True, deadline=None, database=None)
settings.load_profile("privjax")

# Compiled programs are mapped into memory, and a process may have 65,530 mappings.
MAPPINGS = Path("/proc/self/maps")
MANY, EVERY = 12_000, 20
_finished = 0


@pytest.fixture(autouse=True)
def _forget_compiled_programs() -> Iterator[None]:
    """Drops JAX's caches before the process runs out of mappings and is killed."""
    yield
    global _finished
    _finished += 1
    if _finished % EVERY or not MAPPINGS.exists():
        return
    if MAPPINGS.read_bytes().count(b"\n") > MANY:
        import jax

        jax.clear_caches()
        gc.collect()
