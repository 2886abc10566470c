"""Random programs: clipped sums are those of explicit clipping, and move as promised.

Programs run equation by equation, loops as Python loops: each runs once or twice only,
and compiling it would take longer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_programs import BATCH, Program, draw, gradient

from privjax.passes.dp import make_plan
from privjax.passes.dp.clip import Settings, run
from privjax.passes.dp.prepare import prepare

COUNT = 200
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(
        lambda x: jnp.asarray(x, dtype if x.dtype.kind == "f" else x.dtype), tree
    )


def clipped(program: Program, params: Any, batch: Any) -> Callable[..., Any]:
    """The clipped mean as a function of (bound, batch, mask): one flat vector."""
    flat, tree = jax.tree.flatten((params, batch))
    step = gradient(program)
    closed = jax.make_jaxpr(
        lambda *xs: jax.tree.leaves(step(*jax.tree.unflatten(tree, xs)))
    )(*flat)
    split = len(params)
    axes = [None] * split + [0] * (len(flat) - split)
    names = [f"result[{k}]" for k in range(split)]
    plan = make_plan(prepare(closed), axes, [True] * split, names)

    def call(bound: float, batch: Any, mask: Any = None) -> Any:
        settings = Settings(bound, mask=mask)
        inputs = [*flat[:split], *jax.tree.leaves(batch)]
        with jax.disable_jit():
            found, _ = run(plan, inputs, settings, lambda sums, *_: sums)
        return np.concatenate([np.asarray(x, np.float64).ravel() for x in found])

    return call


def explicit(program: Program, params: Any, batch: Any) -> Any:
    """[examples, numbers]: all gradients, divided by the number of examples."""
    with jax.disable_jit():
        each = jax.jacrev(program.each)(params, batch)
    flat = [np.asarray(g).reshape(BATCH, -1) for g in jax.tree.leaves(each)]
    return np.concatenate(flat, axis=1) / BATCH


@pytest.mark.parametrize("seed", range(COUNT))
def test_random_program(seed: int) -> None:
    program = draw(seed)
    dtype = np.float32 if seed % 8 == 7 else np.float64
    with jax.enable_x64(True):
        wide = cast((program.params, program.batch), np.float64)
        rows = explicit(program, *wide)
    norms = np.linalg.norm(rows, axis=1)
    bound = float(np.median(norms)) or 1.0
    wanted = np.minimum(1, bound / np.maximum(norms, 1e-300)) @ rows
    with jax.enable_x64(dtype == np.float64):
        params, (x, tokens) = cast((program.params, program.batch), dtype)
        call = clipped(program, params, (x, tokens))
        found = call(bound, (x, tokens))
        unit = seed % BATCH
        if seed % 2:
            mask = np.arange(BATCH) != unit
            moved, by = call(bound, (x, tokens), jnp.asarray(mask)), 1
        else:
            x = x.at[unit].set(-30 * x[unit - 1])
            tokens = tokens.at[unit].set(tokens[unit - 1])
            moved, by = call(bound, (x, tokens)), 2
    scale = max(np.linalg.norm(wanted), 1e-3 * bound)
    error = np.linalg.norm(found - wanted) / scale
    assert error < TOLERANCE[dtype], (program.names, program.wrap)
    # Removing a unit moves the sum by the bound at most, replacing it by twice that.
    assert np.linalg.norm(found - moved) <= by * bound * (1 + 1e-6)
