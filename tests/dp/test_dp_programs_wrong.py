"""Every program of the tables is refused, and the message names the marked line."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import pytest
from programs_wrong import BATCH_XY, LOSSES, PARAMS, sgd
from programs_wrong_sneaky import SNEAKY
from programs_wrong_steps import STEPS

from privjax.errors import LeakError
from privjax.transforms.differentially_private import differentially_private


def marked(fun: Callable[..., Any]) -> list[str]:
    """`file.py:12:` of the marked lines, or of all lines of a function without marks."""
    where = getattr(fun, "lines", fun)
    source, first = inspect.getsourcelines(where)
    file = inspect.getsourcefile(where)
    found = [k for k, text in enumerate(source) if "# LEAK" in text]
    name = file.rsplit("/", 1)[-1] if file else ""
    return [f"{name}:{first + k}:" for k in found or range(len(source))]


def refusal(step: Callable[..., Any], **options: Any) -> str:
    private = differentially_private(step, noise_multiplier=0, **options)
    with pytest.raises(LeakError) as error:
        private.releases(PARAMS, BATCH_XY)
    return str(error.value)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_losses(loss: Callable[..., Any]) -> None:
    def step(params: Any, batch: Any) -> Any:
        return sgd(params, jax.grad(loss)(params, batch))

    text = refusal(step)
    assert any(line in text for line in marked(loss)), text
    # Dropping other outputs is no way out: these are the new parameters themselves.
    refusal(step, outputs_unreleased="drop")


@pytest.mark.parametrize("step", STEPS + SNEAKY, ids=lambda f: f.__name__)
def test_steps(step: Callable[..., Any]) -> None:
    text = refusal(step)
    assert any(line in text for line in marked(step)), text


def test_there_are_enough() -> None:
    assert len(LOSSES) + len(STEPS) + len(SNEAKY) >= 105
