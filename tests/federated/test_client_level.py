"""A client's update becomes a round: every way to run it against the mean in NumPy."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from federated_update import loss, make, update

from privjax.aggregation import Plain, secure_sum
from privjax.core.interpret import sub_jaxprs
from privjax.errors import (
    DifferentiationError,
)
from privjax.prg.chacha20 import Purpose, bits
from privjax.prg.keys import insecure_key
from privjax.transforms.base import Transformed
from privjax.transforms.federated import federated


def mean_by_hand(fun: Callable[..., Any], params: Any, data: Any, w: Any = None) -> Any:
    """Client by client in Python, averaged in NumPy's float64."""
    n = jax.tree.leaves(data)[0].shape[0]
    each = [fun(params, jax.tree.map(lambda a, i=i: a[i], data)) for i in range(n)]
    stacked = jax.tree.map(lambda *a: np.stack(a).astype("f8"), *each)
    return jax.tree.map(lambda a: np.average(a, axis=0, weights=w), stacked)


def close(got: Any, want: Any, atol: float = 2e-6) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-6, atol=atol)


def eqns(jaxpr: Any) -> Iterator[Any]:
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        for sub in sub_jaxprs(eqn):
            yield from eqns(sub)


# -- modes: f is called with (params, data, **options), once per lane or step ----------


def eager(f: Any, params: Any, data: Any, keys: Any) -> list[Any]:
    return [f(params, data, **({} if keys is None else {"key": keys[0]}))]


def jitted(f: Any, params: Any, data: Any, keys: Any) -> list[Any]:
    if keys is None:
        return [jax.jit(f)(params, data)]
    return [jax.jit(lambda p, d, k: f(p, d, key=k))(params, data, keys[0])]


def mapped(f: Any, params: Any, data: Any, keys: Any) -> list[Any]:
    """Two models at once."""
    both = jax.tree.map(lambda a: jnp.stack([a, a + 0.5]), params)
    if keys is None:
        out = jax.vmap(f, (0, None))(both, data)
    else:
        run = jax.vmap(lambda p, d, k: f(p, d, key=k), (0, None, 0))
        out = run(both, data, keys)
    return [jax.tree.map(lambda a, i=i: a[i], out) for i in range(2)]


def scanned(f: Any, params: Any, data: Any, keys: Any) -> list[Any]:
    """Two rounds, one after the other."""

    def body(p: Any, k: Any) -> Any:
        p = f(p, data) if k is None else f(p, data, key=k)
        return p, p

    _, out = jax.lax.scan(body, params, keys, length=2)
    return [jax.tree.map(lambda a, i=i: a[i], out) for i in range(2)]


def starts(mode: Any, params: Any, first: Any) -> list[Any]:
    """The parameters that each result of a mode began with."""
    if mode is mapped:
        return [params, jax.tree.map(lambda a: a + 0.5, params)]
    return [params, first] if mode is scanned else [params]


METHODS = {
    "plain": "plain",
    "secure": "secure",
    "secure 32": secure_sum(32, fractional_bits=24),
    "stochastic": secure_sum(rounding="stochastic", fractional_bits=30),
    "sparse": secure_sum(neighbours=2),
}
TABLE = [
    (mode, strategy, method)
    for mode in (eager, jitted, mapped, scanned)
    for strategy in ("scan", "vmap")
    for method in METHODS
    if method in ("plain", "secure") or (mode is mapped and strategy == "vmap")
]


@pytest.mark.parametrize(("mode", "strategy", "method"), TABLE)
def test_equals_the_mean_in_numpy(mode: Any, strategy: str, method: str) -> None:
    params, data = make()
    f = federated(update, strategy=strategy, aggregate=METHODS[method])
    keys = None if method == "plain" else jax.random.split(insecure_key(1), 2)
    got = mode(f, params, data, keys)
    for result, begin in zip(got, starts(mode, params, got[0]), strict=True):
        close(result, mean_by_hand(update, begin, data))
        assert jax.tree.map(lambda a: a.dtype, result) == jax.tree.map(
            lambda a: a.dtype, params
        )


@pytest.mark.parametrize("strategy", ["scan", "vmap"])
@pytest.mark.parametrize("method", ["plain", "secure"])
@pytest.mark.parametrize("weights", [[1, 2, 3, 4], [0.0, 5.0, 0.25, 0.0]])
def test_weighted_mean(strategy: str, method: str, weights: Any) -> None:
    params, data = make()
    want = mean_by_hand(update, params, data, weights)
    options = {"strategy": strategy, "aggregate": method}
    close(federated(update, **options)(params, data, weights=weights), want)
    close(federated(update, weights=weights, **options)(params, data), want)
    f = federated(update, **options)
    run = jax.jit(lambda w, k: f(params, data, weights=w, key=k))
    close(run(jnp.asarray(weights), insecure_key(2)), want)


def test_a_parameter_named_weights_keeps_its_name() -> None:
    @federated(clients=1)
    def f(weights: Any, x: Any) -> Any:
        return weights * x

    out = f(2.0, jnp.arange(4.0), client_weights=jnp.array([0.0, 0, 1, 1]))
    assert float(out) == 5.0


def test_one_sgd_step_with_equal_clients_is_the_centralised_step() -> None:
    params, data = make()

    def step(params: Any, data: Any) -> Any:
        grads = jax.grad(loss)(params, *data)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    pooled = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), data)
    close(federated(step)(params, data), step(params, pooled))


def test_optax_counts_keep_their_type_and_value() -> None:
    params, data = make()
    opt = optax.adam(1e-2)

    def local(params: Any, state: Any, data: Any) -> Any:
        def step(carry: Any, xy: Any) -> Any:
            params, state = carry
            grads = jax.grad(loss)(params, *xy)
            updates, state = opt.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        batches = jax.tree.map(lambda a: a.reshape(3, 2, *a.shape[1:]), data)
        return jax.lax.scan(step, (params, state), batches)[0]

    for strategy in ("scan", "vmap"):
        f = federated(local, strategy=strategy)
        state = opt.init(params)
        new, state = f(*f(params, state, data), data)
        assert state[0].count.dtype == jnp.int32 and int(state[0].count) == 6
        assert jax.tree.structure(new) == jax.tree.structure(params)


@pytest.mark.parametrize("strategy", ["scan", "vmap"])
def test_results_that_no_client_determines_are_returned_as_they_are(
    strategy: str,
) -> None:
    rng = jax.random.key(3)
    state = {"rng": rng, "flag": jnp.array(True), "n": jnp.int8(4), "half": 0.1}

    @federated(strategy=strategy)
    def f(state: Any, data: Any) -> Any:
        while_ = jax.lax.while_loop(
            lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] * data), (0, 1.0)
        )
        rng, _ = jax.random.split(state["rng"])
        new = {**state, "rng": rng, "n": state["n"] + jnp.int8(1)}
        return new, while_, None

    new, (count, power), nothing = f(state, jnp.array([1.0, 2.0]))
    assert nothing is None and int(count) == 5 and float(power) == 16.5
    assert (new["n"].dtype, int(new["n"]), bool(new["flag"])) == (jnp.int8, 5, True)
    assert float(new["half"]) == np.float32(0.1)
    want = jax.random.key_data(jax.random.split(rng)[0])
    np.testing.assert_array_equal(jax.random.key_data(new["rng"]), want)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("method", ["plain", "secure"])
def test_narrow_types_are_summed_in_a_wide_one(dtype: str, method: str) -> None:
    values = jnp.full((8, 2), 300.0, dtype)
    f = federated(lambda data: data, aggregate=method)
    out = f(values, weights=np.full(8, 600))
    assert out.dtype == values.dtype and np.all(np.asarray(out, "f4") == 300)


def test_float64_callers_get_float64() -> None:
    with jax.enable_x64(True):
        data = jnp.arange(6.0).reshape(3, 2) / 7
        for method in ("plain", secure_sum(fractional_bits=40)):
            out = federated(lambda data: data, aggregate=method)(data)
            assert out.dtype == jnp.float64
            np.testing.assert_allclose(out, np.mean(data, 0), atol=2e-12)


def test_which_arguments_belong_to_the_clients() -> None:
    def f(a: Any, b: Any, *, c: Any = 1.0) -> Any:
        return a * b + c

    a, b, c = jnp.arange(3.0), jnp.arange(3.0) + 1, jnp.arange(3.0) + 2
    want = np.mean(np.arange(3.0) * (np.arange(3.0) + 1)) + 3
    close(federated(f, ("a", "b", "c"))(a, b, c=c), want)
    close(federated(f, (0, "b"))(a, b, c=3.0), want)
    close(federated(clients=[0, 1])(f)(b=b, a=a, c=jnp.float32(3)), want)


def test_grad_and_jvp_through_a_plain_round() -> None:
    params, data = make()

    def objective(round_: Any, p: Any) -> Any:
        return sum(jnp.sum(jnp.square(a)) for a in jax.tree.leaves(round_(p, data)))

    def plain(p: Any, d: Any) -> Any:
        outs = jax.vmap(update, (None, 0))(p, d)
        return jax.tree.map(lambda a: jnp.mean(a, 0), outs)

    want = jax.grad(lambda p: objective(plain, p))(params)
    for strategy in ("scan", "vmap"):
        f = federated(update, strategy=strategy)
        close(jax.grad(lambda p, f=f: objective(f, p))(params), want)
        close(jax.jit(jax.grad(lambda p, f=f: objective(f, p)))(params), want)
    secure = federated(update, aggregate="secure")
    with pytest.raises(DifferentiationError):
        jax.grad(lambda p: objective(lambda *a: secure(*a, key=insecure_key(0)), p))(
            params
        )


# -- what the program looks like -------------------------------------------------------


@pytest.mark.parametrize("strategy", ["scan", "vmap"])
@pytest.mark.parametrize("method", ["plain", "secure"])
def test_the_clients_program_and_the_sums_stay_visible(
    strategy: str, method: str
) -> None:
    params, data = make()
    f = federated(update, strategy=strategy, aggregate=method)
    closed = jax.make_jaxpr(lambda p, d, k: f(p, d, key=k))(
        params, data, insecure_key(0)
    )
    found = list(eqns(closed))
    assert "client_update" in [e.params.get("name") for e in found]
    markers = [e for e in found if e.primitive.name == "aggregate"]
    assert len(markers) == 1 and len(markers[0].outvars) == 2
    assert markers[0].params["keyed"] == (method == "secure")
    loops = [e.primitive.name for e in found if e.primitive.name == "scan"]
    assert len(loops) == (strategy == "scan")


def test_a_plain_scan_never_holds_all_clients_results() -> None:
    params, data = make(clients=50)
    f = federated(update, strategy="scan")
    shapes = [
        v.aval.shape
        for e in eqns(jax.make_jaxpr(f)(params, data))
        for v in e.outvars
        if hasattr(v.aval, "shape")
    ]
    assert all(50 not in shape for shape in shapes)


def test_auto_takes_wide_steps_for_small_clients_and_loops_for_large_ones() -> None:
    for size, loops in ((4, 0), (2**18, 1)):
        closed = jax.make_jaxpr(federated(lambda data: 2 * data))(jnp.zeros((3, size)))
        assert sum(e.primitive.name == "scan" for e in eqns(closed)) == loops


def test_eager_calls_trace_once_per_structure() -> None:
    calls = []

    @federated
    def f(data: Any, mode: str = "a") -> Any:
        calls.append(mode)
        return data if mode == "a" else -data

    for _ in range(3):
        assert float(f(jnp.ones(2))) == 1 and float(f(jnp.ones(2), mode="b")) == -1
    assert sorted(calls) == ["a", "b"]


def test_threads_compile_programs_of_their_own() -> None:
    results: dict[int, Any] = {}
    gate = threading.Barrier(4)

    def work(n: int) -> None:
        def slow(data: Any) -> Any:
            gate.wait(timeout=60)  # all threads are inside of a trace at the same time
            return data * n

        results[n] = federated(slow)(jnp.arange(float(n)))

    threads = [threading.Thread(target=work, args=(n,)) for n in (2, 3, 4, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {n: float(v) for n, v in results.items()} == {
        n: n * (n - 1) / 2 for n in (2, 3, 4, 5)
    }


# -- a client's program that draws randomness itself -----------------------------------


class Noisy(Transformed):
    """Stands for DP: adds 24 random bits from the session's key to the result."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self.pop_key(kwargs)
        call = self.call(args, kwargs)
        words = self.session_key(key, call.leaves)
        drawn = bits(words, (Purpose.NOISE, 0, 0), (), "u4") >> 8
        return self.fun(*args, **kwargs) + drawn.astype(jnp.float32)


@pytest.mark.parametrize("strategy", ["scan", "vmap"])
@pytest.mark.parametrize("method", ["plain", "secure"])
def test_every_client_draws_noise_of_its_own(strategy: str, method: str) -> None:
    n = 5
    one_hot = federated(
        Noisy(lambda data: 0.0 * data), strategy=strategy, aggregate=method
    )
    # The weights pick a client: its noise is what the mean shows.
    run = jax.jit(lambda w, k: one_hot(jnp.zeros(n), weights=w, key=k))
    equal = jax.jit(jax.vmap(run, (0, None)))

    first = [float(run(w, insecure_key(0))) for w in jnp.eye(n)]
    again = [float(run(w, insecure_key(0))) for w in jnp.eye(n)]
    other = [float(run(w, insecure_key(1))) for w in jnp.eye(n)]
    lanes = [float(x) for x in equal(jnp.eye(n), insecure_key(0))]
    assert first == again
    assert len({*first, *other}) == 2 * n and len({*lanes}) == n
    assert one_hot(jnp.zeros(n)) != one_hot(jnp.zeros(n))  # fresh keys


@dataclass(frozen=True)
class Apart(Plain):
    """In place of the sum: the smallest distance between what two clients send."""

    streams: ClassVar[bool] = False

    def combine(self, key_words: Any, xs: Any) -> Any:
        return [jnp.min(jnp.diff(jnp.sort(x, axis=0), axis=0), axis=0) for x in xs]


@pytest.mark.parametrize("strategy", ["scan", "vmap"])
def test_clients_with_equal_data_in_one_round_draw_different_noise(
    strategy: str,
) -> None:
    noisy = Noisy(lambda data: 0.0 * data)
    f = federated(noisy, strategy=strategy, aggregate=Apart())
    assert float(f(jnp.zeros(5), key=insecure_key(0))) > 0


def test_nested_transformations_keep_their_own_attributes() -> None:
    outer = federated(Noisy(lambda data: data), aggregate="plain")
    assert outer.needs_key and outer.__name__ == "<lambda>"
    assert federated(lambda data: data).needs_key is False
