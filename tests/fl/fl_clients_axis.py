"""Data, a model and the check of a refusal, for rounds over a leading clients axis."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privjax import federated
from privjax.errors import LeakError, PrivacyError, UnsupportedError

N, EXAMPLES, FEATURES, CLASSES = 5, 4, 3, 3
RNG = np.random.default_rng(1)
DATA = {
    "x": jnp.asarray(RNG.normal(size=(N, EXAMPLES, FEATURES)), jnp.float32),
    "y": jnp.asarray(RNG.normal(size=(N, EXAMPLES)), jnp.float32),
    "k": jnp.asarray(RNG.integers(0, CLASSES, (N, EXAMPLES)), jnp.int32),
    "n": jnp.asarray([1.0, 4, 2, 3, 1], jnp.float32),
}
PARAMS = jnp.asarray(RNG.normal(size=FEATURES), jnp.float32)
Round = Callable[[Any, Any], Any]


def loss(w: Any, d: Any) -> Any:
    return jnp.mean(jnp.square(d["x"] @ w - d["y"]))


def losses(w: Any, d: Any) -> Any:
    return jax.vmap(loss, (None, 0))(w, d)


def gradients(w: Any, d: Any) -> Any:
    return jax.vmap(jax.grad(loss), (None, 0))(w, d)


def step(w: Any, d: Any) -> Any:
    return w - 0.1 * jnp.mean(gradients(w, d), 0)


def named_line(error: pytest.ExceptionInfo[PrivacyError], file: str) -> str:
    """The line of a test's file that the error names."""
    assert isinstance(error.value, LeakError | UnsupportedError), error.value
    path = Path(file)
    line = re.search(rf"{re.escape(path.name)}:(\d+)", str(error.value))
    assert line is not None, error.value
    return path.read_text(encoding="utf-8").splitlines()[int(line[1]) - 1]


def check_refused(fun: Round, file: str, **options: Any) -> None:
    """A round is refused, and the error names a line of its file marked `LEAK`."""
    with pytest.raises(PrivacyError) as caught:
        federated(fun, clients="d", **options)(PARAMS, DATA)
    assert "# LEAK" in named_line(caught, file), caught.value
