"""Every program of the tables is accepted, and equals explicit per-example clipping."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_models import BATCH, assert_close
from programs_right import Right
from programs_right_more import PROGRAMS

from privjax.transforms.differentially_private import differentially_private

# Programs run once: most of the time would go into optimising them.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def per_example(case: Right) -> Any:
    """Gradients of the examples' losses: leading axis the examples, in float64."""

    def wide(x: Any) -> Any:
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return x.astype(jnp.float64) if floating and case.wide else x

    with jax.enable_x64(case.wide):
        params, batch = jax.tree.map(wide, (case.params, case.batch))
        found = jax.jit(jax.jacrev(case.each), compiler_options=QUICK)(params, batch)
        return jax.tree.map(lambda g: np.asarray(g, np.float64), found)


def explicit(gradients: Any, clip: float | None = None) -> tuple[Any, float]:
    """The mean of the clipped gradients, and the clip norm (by default the median)."""
    leaves = [g.reshape(BATCH, -1) for g in jax.tree.leaves(gradients)]
    norms = np.sqrt(sum(np.sum(g**2, axis=1) for g in leaves))
    clip = float(np.median(norms)) if clip is None else clip
    factors = np.minimum(1, clip / np.maximum(norms, 1e-300))
    mean = lambda g: np.tensordot(factors, g, 1) / BATCH  # noqa: E731
    return jax.tree.map(mean, gradients), clip


@pytest.mark.parametrize("name", PROGRAMS)
def test_equal_to_explicit_clipping(name: str) -> None:
    case = PROGRAMS[name]()
    wanted, clip = explicit(per_example(case))

    def step(params: Any, batch: Any) -> Any:
        return jax.grad(lambda p: jnp.mean(case.each(p, batch)))(params)

    private = differentially_private(step, clip_norm=clip, noise_multiplier=0)
    found = jax.jit(private, compiler_options=QUICK)(case.params, case.batch)
    wanted = jax.tree.map(lambda w, f: w.astype(f.dtype), wanted, found)
    assert_close(found, wanted, 2e-5)


def test_there_are_enough() -> None:
    assert len(PROGRAMS) >= 80
