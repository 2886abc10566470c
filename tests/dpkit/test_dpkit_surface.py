"""What `privjax.dp` offers: names, applying mechanisms, keys, the example."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privjax import dp
from privjax.dp.__main__ import main
from privjax.errors import InputError, RandomKeyError
from privjax.prg import insecure_key

KEY = insecure_key(0)
ROOT = Path(__file__).resolve().parents[2]


def test_names() -> None:
    assert [n for n in dp.__all__ if not hasattr(dp, n)] == []
    assert sorted(dp.__all__) == dp.__all__
    assert all(
        n in dp.__doc__ or n in ("Audit", "Fitted", "Report", "Sampler", "clipped_sum")
        for n in dp.__all__
    )


def test_noised_pytrees() -> None:
    mechanism = dp.RoundedGaussian.of(1.0, 1.0, 3)
    value = {"a": jnp.zeros(2), "b": jnp.float32(5)}
    first, second = (dp.noised(value, mechanism) for _ in range(2))
    assert first["a"].shape == (2,) and not np.array_equal(first["a"], second["a"])
    key = insecure_key(1)
    again = [dp.noised(value, mechanism, key=key) for _ in range(2)]
    np.testing.assert_array_equal(again[0]["a"], again[1]["a"])
    # The same key for other values: other noise.
    moved = dp.noised({**value, "b": jnp.float32(6)}, mechanism, key=key)
    assert not np.array_equal(moved["a"], again[0]["a"])


def test_chosen() -> None:
    mechanism = dp.ReportNoisyMax(epsilon=1.0)
    assert int(dp.chosen(jnp.array([0.0, 500.0]), mechanism)) == 1


def test_keys_under_jit() -> None:
    mechanism = dp.DiscreteLaplace.of(1.0, 1.0, 1)
    with pytest.raises(RandomKeyError):
        jax.jit(lambda x: dp.noised(x, mechanism))(jnp.zeros(1))
    with pytest.raises(RandomKeyError):
        jax.jit(lambda x: dp.noised(x, mechanism, key=KEY))(jnp.zeros(1))
    many = jax.jit(jax.vmap(lambda x, k: dp.noised(x, mechanism, key=k)))
    out = many(jnp.zeros((50, 1)), jax.random.split(insecure_key(0), 50))
    assert np.unique(out).size > 40


def test_pate(capsys: pytest.CaptureFixture[str]) -> None:
    module = runpy.run_path(str(ROOT / "examples" / "pate.py"))
    found = module["main"](["--epochs", "100", "--epsilon", "3"])
    assert 2.9 < found["epsilon"] <= 3
    assert found["the student"] > 0.55 and found["a teacher, on average"] > 0.65
    assert "the student" in capsys.readouterr().out


STEP = """
import jax, jax.numpy as jnp
from privjax.transforms.differentially_private import differentially_private

def audited():
    def step(w, batch):
        return w - jax.grad(lambda w: jnp.mean((batch @ w) ** 2))(w)
    return differentially_private(step, noise_multiplier=1.0), jnp.ones(3), jnp.eye(3)
"""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(STEP)
    assert main([f"{path}:audited", "--trials", "200"]) == 0
    assert "not refuted" in capsys.readouterr().out
    for target in (f"{path}:other", "nothing", "math:nothing"):
        with pytest.raises(InputError):
            main([target])
