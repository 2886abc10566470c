"""Functions written over the clients axis: sums leave, everything else is refused."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from privjax.aggregation import secure_sum
from privjax.core.interpret import sub_jaxprs
from privjax.errors import InputError, LeakError, RangeError, UnsupportedError
from privjax.prg.keys import insecure_key
from privjax.transforms.federated import federated

CLIENTS, EXAMPLES, FEATURES = 4, 6, 3


def make() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(CLIENTS, EXAMPLES, FEATURES))
    y = rng.normal(size=(CLIENTS, EXAMPLES))
    params = {"w": rng.normal(size=FEATURES), "b": rng.normal()}
    return jax.tree.map(lambda a: jnp.asarray(a, "f4"), (params, (x, y)))


PARAMS, DATA = make()
WEIGHTS = jnp.array([1.0, 2.0, 3.0, 4.0])


def loss(params: Any, x: Any, y: Any) -> Any:
    return jnp.mean(jnp.square(x @ params["w"] + params["b"] - y))


def update(params: Any, data: Any) -> Any:
    grads = jax.grad(loss)(params, *data)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)


# -- rounds that are accepted ----------------------------------------------------------


def fed_avg(params: Any, data: Any) -> Any:
    outs = jax.vmap(update, (None, 0))(params, data)
    return jax.tree.map(lambda a: jnp.mean(a, axis=0), outs)


def weighted_by_a_contraction(params: Any, data: Any) -> Any:
    outs = jax.vmap(update, (None, 0))(params, data)
    share = WEIGHTS / jnp.sum(WEIGHTS)
    return jax.tree.map(lambda a: jnp.tensordot(share, a, 1), outs)


def joint_gradient(params: Any, data: Any) -> Any:
    """One gradient over all clients' examples, flattened into one batch."""
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), data)
    return jax.grad(loss)(params, *flat)


def several_rounds(params: Any, data: Any) -> Any:
    def body(p: Any, _: Any) -> Any:
        outs = jax.vmap(update, (None, 0))(p, data)
        return jax.tree.map(lambda a: jnp.mean(a, axis=0), outs), None

    return jax.lax.scan(body, params, None, length=3)[0]


def until_small(params: Any, data: Any) -> Any:
    def body(carry: Any) -> Any:
        i, p = carry
        outs = jax.vmap(update, (None, 0))(p, data)
        return i + 1, jax.tree.map(lambda a: jnp.mean(a, axis=0), outs)

    return jax.lax.while_loop(lambda c: c[0] < 2, body, (0, params))


def statistics(params: Any, data: Any) -> Any:
    """Sums may be used in any way afterwards; integer counts stay exact."""
    x, y = data
    n = x.shape[0] * x.shape[1]
    mean = jnp.sum(x, (0, 1)) / n
    spread = jnp.sqrt(jnp.sum(jnp.square(x), (0, 1)) / n - jnp.square(mean))
    return {"spread": spread, "positive": jnp.sum(y > 0), "n": n, **params}


def in_branches(params: Any, data: Any) -> Any:
    total = lambda d: jnp.sum(d[0], (0, 1))  # noqa: E731
    half = lambda d: jnp.sum(d[0], (0, 1)) / 2  # noqa: E731
    return jax.lax.cond(params["b"] > 0, total, half, data)


ROUNDS = [
    fed_avg,
    weighted_by_a_contraction,
    joint_gradient,
    several_rounds,
    until_small,
    statistics,
    in_branches,
]
METHODS = {
    "plain": "plain",
    "secure": "secure",
    "32": secure_sum(32, fractional_bits=20),
}


def close(got: Any, want: Any, atol: float = 2e-6) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert jnp.asarray(g).dtype == jnp.asarray(w).dtype
        np.testing.assert_allclose(g, w, rtol=5e-6, atol=atol)


def markers(jaxpr: Any) -> Iterator[Any]:
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == "aggregate":
            yield eqn
        for sub in sub_jaxprs(eqn):
            yield from markers(sub)


@pytest.mark.parametrize(
    ("fun", "method"),
    [(f, m) for f in ROUNDS for m in METHODS if m != "32" or f is statistics],
)
def test_equals_the_plain_round(fun: Callable[..., Any], method: str) -> None:
    f = federated(fun, level="round", aggregate=METHODS[method])
    atol = 1e-4 if method == "32" else 2e-6
    want = fun(PARAMS, DATA)
    close(f(PARAMS, DATA), want, atol)
    run = jax.jit(lambda p, d, k: f(p, d, key=k))
    close(run(PARAMS, DATA, insecure_key(1)), want, atol)
    found = list(markers(jax.make_jaxpr(run)(PARAMS, DATA, insecure_key(1))))
    assert found and all(e.params["method"] == f.method for e in found)


def test_both_ways_of_writing_a_round_agree() -> None:
    close(
        federated(update)(PARAMS, DATA), federated(fed_avg, level="round")(PARAMS, DATA)
    )


@pytest.mark.parametrize("method", ["plain", "secure"])
def test_under_vmap_and_scan(method: str) -> None:
    f = federated(fed_avg, level="round", aggregate=method)
    keys = jax.random.split(insecure_key(2), 2)
    both = jax.tree.map(lambda a: jnp.stack([a, -a]), PARAMS)
    got = jax.vmap(lambda p, k: f(p, DATA, key=k))(both, keys)
    close(got, jax.vmap(lambda p: fed_avg(p, DATA))(both))
    got, _ = jax.lax.scan(lambda p, k: (f(p, DATA, key=k), None), PARAMS, keys)
    close(got, fed_avg(fed_avg(PARAMS, DATA), DATA))


def test_each_sum_of_a_loop_has_masks_of_its_own() -> None:
    """Four rounds over the same values: no masked row repeats."""
    method = Recorder()
    f = federated(looped, level="round", aggregate=method)
    rows = np.asarray(f(jnp.ones((3, 2)), key=insecure_key(0)))
    assert rows.shape == (4, 2) and len({*rows.ravel().tolist()}) == 8


def looped(data: Any) -> Any:
    def body(c: Any, _: Any) -> Any:
        return c, jnp.sum(data, 0) * 1.0

    return jax.lax.scan(body, 0.0, None, length=4)[1]


class Recorder(type(secure_sum())):  # type: ignore[misc]
    """Returns what client 0 sends in place of the sum."""

    def combine(self, key_words: Any, xs: Any) -> Any:
        with jax.enable_x64(True):
            sent = self.masked_updates(key_words, xs)[0]
            return [(sent >> 40).astype(xs[0].dtype).reshape(xs[0].shape[1:])]


def test_a_plain_sum_that_a_loop_accumulates() -> None:
    def total(data: Any) -> Any:
        add = lambda acc, x: (acc + x, None)  # noqa: E731
        return jax.lax.scan(add, jnp.zeros(data.shape[1:]), data)[0]

    def running_mean(data: Any) -> Any:
        def body(c: Any, x: Any) -> Any:
            return (c[0] + 1, c[1] + (x - c[1]) / (c[0] + 1)), None

        return jax.lax.scan(body, (0.0, jnp.zeros(data.shape[1:])), data)[0][1]

    data = DATA[0]
    close(federated(total, level="round")(data), jnp.sum(data, 0))
    key = insecure_key(0)
    secure = federated(total, level="round", aggregate="secure")(data, key=key)
    np.testing.assert_allclose(secure, jnp.sum(data, 0), atol=1e-4)
    with pytest.raises(UnsupportedError, match=r"test_round_level.py:\d+.*jax.vmap"):
        federated(running_mean, level="round", aggregate="secure")(data, key=key)


# -- rounds that leak ------------------------------------------------------------------


def raw_example(params: Any, data: Any) -> Any:
    x = data[0]
    return fed_avg(params, data), x[0, 0]  # LEAK


def returned_as_it_is(params: Any, data: Any) -> Any:
    return data


def per_client_metric(params: Any, data: Any) -> Any:
    losses = jax.vmap(loss, (None, 0, 0))(params, *data)  # (sums over examples)
    return {"params": fed_avg(params, data), "losses": losses * 2}  # LEAK


def largest(params: Any, data: Any) -> Any:
    return jnp.max(jnp.mean(data[1], axis=1))  # LEAK


def median(params: Any, data: Any) -> Any:
    return jnp.sort(data[1], axis=0)[2]  # LEAK


def difference_of_clients(params: Any, data: Any) -> Any:
    return jnp.sum(jnp.diff(data[1], axis=0))  # LEAK


def similarity(params: Any, data: Any) -> Any:
    return data[1] @ data[1].T  # LEAK


def printed(params: Any, data: Any) -> Any:
    jax.debug.print("{}", data[1][:, 0])  # LEAK
    return jnp.sum(data[1])


def last_of_a_loop(params: Any, data: Any) -> Any:
    def body(carry: Any, y: Any) -> Any:
        return y * 2.0, None  # LEAK

    return jax.lax.scan(body, jnp.zeros(EXAMPLES), data[1])[0]


def branch_on_a_client(params: Any, data: Any) -> Any:
    return jax.lax.cond(jnp.any(data[1] > 1), lambda: 1.0, lambda: 0.0)  # LEAK


LEAKS = [
    raw_example,
    per_client_metric,
    largest,
    median,
    difference_of_clients,
    similarity,
    printed,
    last_of_a_loop,
    branch_on_a_client,
]


@pytest.mark.parametrize("method", ["plain", "secure"])
@pytest.mark.parametrize("fun", LEAKS)
def test_leaks_are_refused_with_their_line(fun: Any, method: str) -> None:
    with pytest.raises(LeakError) as caught:
        federated(fun, level="round", aggregate=method)(PARAMS, DATA)
    message = str(caught.value)
    line = re.search(r"test_round_level\.py:(\d+)", message)
    assert line is not None, message
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert "# LEAK" in source[int(line[1]) - 1], message


def test_leaks_name_the_output() -> None:
    with pytest.raises(
        LeakError, match=r"output `\['losses'\]` has one value per client"
    ):
        federated(per_client_metric, level="round")(PARAMS, DATA)
    with pytest.raises(LeakError, match=r"output `\[0\]`.*an input, returned as it is"):
        federated(returned_as_it_is, level="round")(PARAMS, DATA)


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "weights": (
        lambda: federated(fed_avg, level="round")(PARAMS, DATA, weights=WEIGHTS),
        InputError,
        "no meaning at level='round'",
    ),
    "weights option": (
        lambda: federated(fed_avg, level="round", weights=WEIGHTS),
        InputError,
        "level='client'",
    ),
    "clip": (
        lambda: federated(fed_avg, level="round", aggregate=secure_sum(clip=1.0)),
        InputError,
        "clip",
    ),
    "range": (
        lambda: federated(
            lambda data: jnp.sum(data, 0), level="round", aggregate="secure"
        )(jnp.array([1.0, jnp.inf])),
        RangeError,
        "not finite",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        run()
