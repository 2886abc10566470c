"""Beside the noised sums nothing leaves: found by running the programs.

What a step returns must not change with the private data while the sums that it
releases are held fixed, and one unit must not move these sums by more than the bound.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_models import apply
from programs_hunted import RIGHT, SOURCES, WRONG
from programs_wrong import BATCH_XY, PARAMS, each, good, sgd
from test_dp_steps_right import STEPS

from privjax.errors import LeakError
from privjax.passes.dp.clip import run
from privjax.transforms.differentially_private import differentially_private

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
CLIP = 0.5
KINDS = {"odd": 3.0, "large": 1e3, "zero": 0.0, "none": np.nan}


def runner(step: Callable[..., Any], state: Any) -> Any:
    """From leaves to what is returned with all sums fixed, the sums, and their bounds."""
    private = differentially_private(
        step, private=1, clip_norm=CLIP, noise_multiplier=0
    )
    call = private.call((state, BATCH_XY), {})
    _, plan, units = private._plan(call, call.leaves)
    extra: dict[str, Any] = {"mask": None, "units": None, "clip_norm": None}
    settings = private._settings(units, units, extra, 1)
    bounds: list[float] = []

    def once(leaves: Any, fixed: bool) -> Any:
        seen: list[Any] = []
        bounds.clear()

        def noise(sums: list[Any], bound: float, share: float, place: str) -> Any:
            seen.append(sums)
            bounds.append(bound)
            return [jnp.full(x.shape, 0.37, x.dtype) for x in sums] if fixed else sums

        return run(plan, leaves, settings, noise)[0], seen

    def both(*leaves: Any) -> Any:
        return once(leaves, True)[0], once(leaves, False)[1]

    return jax.jit(both, compiler_options=QUICK), call.leaves, bounds


def changed(leaves: Any, kind: str, unit: Any = slice(None)) -> list[Any]:
    """The leaves with the data of a unit, or of all, replaced."""
    rng, (x, y) = np.random.default_rng(0), (np.array(v) for v in leaves[-2:])
    x[unit] = KINDS[kind] * rng.normal(size=x[unit].shape)
    y[unit] = np.roll(y, 1)[unit]
    return [*leaves[:-2], x, y]


def distance(a: Any, b: Any) -> float:
    pairs = zip(a, b, strict=True)
    return math.sqrt(
        sum(
            np.sum((np.asarray(x, float) - np.asarray(y, float)) ** 2) for x, y in pairs
        )
    )


def check(step: Callable[..., Any], state: Any) -> None:
    both, leaves, bounds = runner(step, state)
    returned, _ = both(*leaves)
    for kind in ("odd", "large", "zero"):
        for a, b in zip(returned, both(*changed(leaves, kind))[0], strict=True):
            np.testing.assert_array_equal(a, b)
    # A unit that is not a number counts as none.
    without = both(*changed(leaves, "none", 1))[1]
    for kind in ("odd", "large", "zero"):
        moved = both(*changed(leaves, kind, 1))[1]
        for a, b, bound in zip(moved, without, bounds, strict=True):
            assert distance(a, b) <= bound * (1 + 1e-4)


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs(name: str) -> None:
    check(RIGHT[name], PARAMS)


@pytest.mark.parametrize("name", [n for n in STEPS if n != "factored"])
def test_right_steps(name: str) -> None:
    check(*STEPS[name])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs(name: str) -> None:
    private = differentially_private(WRONG[name], private=1, noise_multiplier=0)
    with pytest.raises(LeakError) as error:
        private.releases(PARAMS, BATCH_XY)
    # In the program, or in what it calls.
    lines = []
    for fun in (SOURCES[name], each, good, sgd, apply):
        source, first = inspect.getsourcelines(fun)
        file = str(inspect.getsourcefile(fun)).rsplit("/", 1)[-1]
        lines += [f"{file}:{first + k}:" for k in range(len(source))]
    text = str(error.value)
    assert any(line in text for line in lines), text


def test_there_are_enough() -> None:
    assert len(RIGHT) >= 40 and len(WRONG) >= 60
