"""Sums made of single messages: the same as all at once, in memory that does not grow."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import privjax
from privjax.aggregation import DistributedGaussian, secure_sum, spdz
from privjax.aggregation.quantised import quantised
from privjax.core.interpret import sub_jaxprs
from privjax.errors import DifferentiationError, ProtocolError
from privjax.passes.federated import sequence
from privjax.prg.chacha20 import derive
from privjax.prg.keys import insecure_key, key_words

N, SIZE = 6, 12
METHODS = {
    "secure": secure_sum(dropped=2),
    "secure, all stay": secure_sum(32, clip=99.0),
    "spdz": spdz(2),
    "quantised": quantised(16),
}
X = np.random.default_rng(0).normal(size=(N, SIZE)).astype("f4")


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "STACKED", 0)


def eqns(jaxpr: Any) -> Iterator[Any]:
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        for sub in sub_jaxprs(eqn):
            yield from eqns(sub)


def update(scale: Any, data: Any) -> Any:
    return {"x": scale * data, "s": jnp.sum(data), "n": 4}


@pytest.mark.parametrize("name", METHODS)
def test_equals_the_mean_in_numpy(name: str) -> None:
    method = METHODS[name]
    f = privjax.federated(update, aggregate=method, strategy="scan")
    there = np.ones(N, bool) if "all" in name else np.arange(N) != 3
    w = None if method.clip else np.arange(1.0, N + 1)
    got = f(2.0, jnp.asarray(X), survivors=there, weights=w)
    want = np.average(X[there], axis=0, weights=None if w is None else w[there])
    atol = 2e-3 if name == "quantised" else 1e-5
    np.testing.assert_allclose(got["x"], 2 * want, atol=atol)
    np.testing.assert_allclose(got["s"], want.sum(), atol=3 * atol)
    assert got["n"] == 4


def test_a_message_is_the_row_of_all_at_once() -> None:
    """The server would receive the same words."""
    for method in (METHODS["secure"], secure_sum(neighbours=4, dropped=1, threshold=2)):
        key = key_words(insecure_key(1))

        def each(key: Any, method: Any = method) -> Any:
            played = method.begin(key, derive(key, (0, 0, 0)), N)
            numbers = jnp.arange(N, dtype=np.uint32)
            rows = [
                method.message(played, numbers[i], [jnp.asarray(X[i])], N)[0]
                for i in range(N)
            ]
            r = method.round(N)
            words = jax.vmap(lambda i, x: method._encoded(played, i, [x])[0])(
                numbers, jnp.asarray(X)
            )
            own = jax.vmap(lambda s: method_mask(r, s))(played.secrets.seed)
            order = method.order(key, N)
            return jnp.stack(rows), method._pairwise(r, played, order, words + own)

        with jax.enable_x64(True):
            one, all_ = jax.jit(each)(key)
            np.testing.assert_array_equal(one, all_)


def method_mask(r: Any, seed: Any) -> Any:
    from_steps = privjax.aggregation.steps
    return from_steps.mask(r, from_steps.SELF, seed, SIZE)


@pytest.mark.parametrize("name", ["secure", "spdz"])
def test_no_array_holds_all_clients_parts(name: str) -> None:
    clients, size = 50, 40
    f = privjax.federated(
        lambda data: data[:3] @ jnp.ones((3, size)),
        aggregate=METHODS[name],
        strategy="scan",
    )
    x = jnp.zeros((clients, 3))
    closed = jax.make_jaxpr(lambda x, k: f(x, key=k))(x, insecure_key(0))
    sizes = [
        int(np.prod(v.aval.shape))
        for e in eqns(closed)
        for v in e.outvars
        if hasattr(v.aval, "shape") and clients in v.aval.shape and size in v.aval.shape
    ]
    assert sizes == []
    names = [e.params.get("name") for e in eqns(closed)]
    assert {"client_update", "client_message"} <= {*names}


def test_small_rounds_are_summed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "STACKED", 2**20)
    f = privjax.federated(update, aggregate="secure", strategy="scan")
    closed = jax.make_jaxpr(lambda x, k: f(1.0, x, key=k))(X, insecure_key(0))
    assert "client_message" not in [e.params.get("name") for e in eqns(closed)]
    assert "aggregate" in [e.primitive.name for e in eqns(closed)]


def test_masks_belong_to_the_values() -> None:
    """The same key on other data, or in lanes of a closed-over value: other noise."""
    noise = DistributedGaussian(1.0)
    method = secure_sum(32, clip=1.0, noise=noise)
    key = insecure_key(0)

    def lane(shift: Any, x: Any) -> Any:
        f = privjax.federated(
            lambda data: 0 * (data + shift), aggregate=method, strategy="scan"
        )
        return f(x, key=key)

    x = jnp.asarray(X[:, :4])
    run = jax.jit(lambda key, x: lane_with(key, x, method))
    one, again, other = (np.asarray(run(key, v)) for v in (x, x, x + 1))
    np.testing.assert_array_equal(one, again)
    assert np.all(one != other)
    lanes = np.asarray(jax.vmap(lane, (0, None))(jnp.arange(2.0), x))
    assert np.all(lanes[0] != lanes[1])


def lane_with(key: Any, x: Any, method: Any) -> Any:
    f = privjax.federated(lambda data: 0 * data, aggregate=method, strategy="scan")
    return f(x, key=key)


def test_refusals() -> None:
    f = privjax.federated(update, aggregate=METHODS["secure"], strategy="scan")
    with pytest.raises(ProtocolError, match="nothing was unmasked"):
        f(1.0, jnp.asarray(X), survivors=np.arange(N) < 3)
    with pytest.raises(DifferentiationError):
        jax.grad(lambda s: jnp.sum(f(s, jnp.asarray(X), key=insecure_key(0))["x"]))(1.0)
