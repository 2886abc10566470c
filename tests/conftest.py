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
    # Compile time dominates the suite: keep what was compiled between runs.
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # Most programs here run once: compiling them is the work.
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}
if importlib.metadata.version("jaxlib").startswith("0.10."):  # unknown to later ones
    FEW_PASSES = (
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",  # the workers fill the cores
        "--xla_llvm_enable_noalias_metadata=false",
        "--xla_llvm_enable_alias_scope_metadata=false",
        "--xla_llvm_enable_invariant_load_metadata=false",
        "--xla_disable_hlo_passes=while-loop-invariant-code-motion,reshape-mover,"
        "tree_reduction_rewriter,simplify-conditional,simplify-while-loops,"
        "constant_folding",
    )
    DEFAULTS["XLA_FLAGS"] = " ".join([DEFAULTS["XLA_FLAGS"], *FEW_PASSES])
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


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage needs to look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


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
