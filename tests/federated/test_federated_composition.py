"""Federated with differential privacy inside, inside of secret sharing, and explained."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fast import secret_shared

from privjax.core.interpret import sub_jaxprs
from privjax.prg.keys import insecure_key
from privjax.transforms.differentially_private import differentially_private
from privjax.transforms.federated import federated
from privjax.transforms.report import explain, stages

PARAMS = {"w": jnp.array([0.5, -0.25]), "b": jnp.array(0.125)}
RNG = np.random.default_rng(0)
DATA = (
    jnp.asarray(RNG.normal(size=(3, 4, 2)), "f4"),
    jnp.asarray(RNG.normal(size=(3, 4)), "f4"),
)


def step(params: Any, data: Any) -> Any:
    def loss(p: Any) -> Any:
        return jnp.mean(jnp.square(data[0] @ p["w"] + p["b"] - data[1]))

    grads = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)


def whole_round(params: Any, data: Any) -> Any:
    outs = jax.vmap(step, (None, 0))(params, data)
    return jax.tree.map(lambda a: jnp.mean(a, axis=0), outs)


def close(got: Any, want: Any, atol: float) -> None:
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, atol=atol), got, want)


def names(jaxpr: Any) -> list[str]:
    found = []
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found.append(eqn.primitive.name)
        for sub in sub_jaxprs(eqn):
            found += names(sub)
    return found


@pytest.mark.parametrize("aggregate", ["plain", "secure"])
@pytest.mark.parametrize("strategy", ["scan", "vmap"])
def test_dp_inside_of_each_client(aggregate: str, strategy: str) -> None:
    """Example-level DP on every client, then a sum; without noise it is exact."""

    def private(noise: float, clip: float = 1.0) -> Any:
        dp = differentially_private(
            step, private="data", clip_norm=clip, noise_multiplier=noise
        )
        f = federated(dp, aggregate=aggregate, strategy=strategy)
        return jax.jit(lambda p, d, k: f(p, d, key=k))

    key = insecure_key(0)
    close(private(0.0, 1e3)(PARAMS, DATA, key), whole_round(PARAMS, DATA), 2e-6)
    f = private(1.0)
    runs = [f(PARAMS, DATA, k)["w"] for k in (key, key, insecure_key(1))]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.all(runs[0] != runs[2])
    assert {"noise", "aggregate"} <= {*names(jax.make_jaxpr(f)(PARAMS, DATA, key))}


@pytest.mark.parametrize("aggregate", ["plain", "secure"])
def test_client_level_dp_of_a_whole_round(aggregate: str) -> None:
    dp = differentially_private(
        whole_round, private="data", clip_norm=1e3, noise_multiplier=1e-7
    )
    f = federated(dp, level="round", aggregate=aggregate)
    close(f(PARAMS, DATA, key=insecure_key(0)), whole_round(PARAMS, DATA), 1e-2)


@pytest.mark.parametrize("aggregate", ["plain", "secure"])
def test_inside_of_secret_sharing(aggregate: str) -> None:
    f = secret_shared(federated(step, aggregate=aggregate, strategy="vmap"))
    close(f(PARAMS, DATA), whole_round(PARAMS, DATA), 1e-4)


def test_explain() -> None:
    report = explain(federated(step, aggregate="secure"), PARAMS, DATA)
    text = str(report)
    assert report.inputs[2].name == "data[0]"
    assert "3 clients" in report.title and "keeps its own slice" in text
    assert len(report.releases) == 2 and "masked updates" in text

    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), DATA)
    text = str(explain(federated(whole_round, level="round"), PARAMS, spec))
    assert "sees every client's update" in text and "from sums over clients" in text


def test_stages(capsys: Any) -> None:
    found = stages(federated(step, aggregate="secure"))(PARAMS, DATA)
    assert found.names == ("traced", "rewritten")
    assert "aggregate" not in names(found["traced"])
    assert "aggregate" in names(found["rewritten"])
    assert "client_update" in capsys.readouterr().out
