"""Secure sums with clients that drop out: exact, without recompiling, and still hidden."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import privjax
from privjax.aggregation import secure_sum, steps
from privjax.aggregation.agreement import SIMULATED
from privjax.errors import InputError, ProtocolError
from privjax.prg.keys import insecure_key, key_words

N, SIZE = 8, 300
METHODS = {
    "full": secure_sum(dropped=3),
    "sparse": secure_sum(neighbours=4, dropped=2, threshold=2),
    "32 bits": secure_sum(32, fractional_bits=12, dropped=0.4),
    "20 bits": secure_sum(20, fractional_bits=8, dropped=3),
}
EVERYBODY = np.ones(N, bool)
SURVIVORS = {
    "all": EVERYBODY,
    "one gone": np.arange(N) != 2,
    "two gone": ~np.isin(np.arange(N), (0, 7)),
}


def words(seed: int) -> Any:
    return key_words(insecure_key(seed))


def updates(seed: int = 0, scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=(N, SIZE))).astype("f4")


@partial(jax.jit, static_argnums=0)
def combine(method: Any, key: Any, x: Any, survivors: Any) -> Any:
    return method.combine_survivors(key, [x], survivors)[0]


def whole(method: Any, x: Any) -> np.ndarray:
    """What each client adds up, by NumPy: integers."""
    return np.rint(x.astype("f8") * 2.0 ** method.fraction(N, SIZE))


@pytest.mark.parametrize("who", SURVIVORS)
@pytest.mark.parametrize("name", METHODS)
def test_the_sum_is_that_of_the_survivors_exactly(name: str, who: str) -> None:
    method, x, there = METHODS[name], updates(), SURVIVORS[who]
    got = combine(method, words(1), jnp.asarray(x), jnp.asarray(there))
    want = whole(method, x)[there].sum(0) * 2.0 ** -method.fraction(N, SIZE)
    np.testing.assert_array_equal(got, want.astype("f4"))


def test_what_dropped_clients_have_counts_for_nothing() -> None:
    """Not even if it is no number."""
    x = updates()
    there = np.arange(N) != 2
    broken = np.where(there[:, None], x, np.nan).astype("f4")
    for method in (METHODS["full"], METHODS["sparse"]):
        a, b = (
            combine(method, words(1), jnp.asarray(v), jnp.asarray(there))
            for v in (x, broken)
        )
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["full", "sparse"])
def test_too_few_survivors(name: str) -> None:
    """NaN under a trace, with a flag that says why."""
    method = METHODS[name]
    there = np.arange(N) < 2
    got = combine(method, words(1), jnp.asarray(updates()), jnp.asarray(there))
    assert np.all(np.isnan(got))
    for who, enough in ((there, False), (EVERYBODY, True)):
        assert bool(method.recoverable(words(1), jnp.asarray(who))) == enough


# -- what the server sees ----------------------------------------------------------------


def played(method: Any, x: Any, seed: int) -> tuple[Any, np.ndarray]:
    """The clients' secrets, and what they send: uint[clients, size]."""
    with jax.enable_x64(True):
        found, rows, _ = method._rows(words(seed), [jnp.asarray(x)])
        return found, np.asarray(rows)


def prg(method: Any, which: int, keys: Any, size: int = SIZE) -> np.ndarray:
    r = method.round(N)
    with jax.enable_x64(True):
        return np.asarray(jax.vmap(lambda k: steps.mask(r, which, k, size))(keys))


def pair_masks(method: Any, found: Any, i: int, others: Any) -> np.ndarray:
    """What client i added for the neighbours in `others`: uint[size]."""
    neighbours = np.asarray(found.neighbours[i])
    keys = SIMULATED.agree(found.secrets.mask[i], found.secrets.mask[neighbours])
    masks = prg(method, steps.PAIR, keys)
    signs = np.where(neighbours > i, 1, -1).astype(masks.dtype)
    picked = np.isin(neighbours, others).astype(masks.dtype)
    return (masks * (signs * picked)[:, None]).sum(0, dtype=masks.dtype)


def uniform(words: np.ndarray) -> float:
    """The p-value of the bytes of some words being uniform."""
    counts = np.bincount(np.ascontiguousarray(words).view("u1").ravel(), minlength=256)
    return float(stats.chisquare(counts).pvalue)


@pytest.mark.parametrize("name", ["full", "sparse"])
def test_rows_stay_uniform_with_all_that_the_server_learns(name: str) -> None:
    """Of survivors it learns b, of the dropped a; and a dropped client's row comes late."""
    method, gone = METHODS[name], (0, 5)
    stayed = np.setdiff1d(np.arange(N), gone)
    found, rows = played(method, np.zeros((N, SIZE), "f4"), 3)
    own = prg(method, steps.SELF, found.secrets.seed)
    for i in range(N):
        left = rows[i] - pair_masks(method, found, i, gone)
        left = left - (own[i] if i in stayed else pair_masks(method, found, i, stayed))
        assert uniform(left) > 1e-4
        # A planted leak is caught: with both secrets nothing is left of the masks.
        both = left - (pair_masks(method, found, i, stayed) if i in stayed else own[i])
        assert np.all(both == 0) and uniform(both) < 1e-9


def test_a_row_does_not_tell_two_inputs_apart() -> None:
    """The same seed and two inputs of the client that the server is after."""
    method, x = METHODS["full"], updates()
    moved = x.copy()
    moved[4] += 1000
    rows = [played(method, v, 4)[1] for v in (x, moved)]
    for i in (4, 1):
        a, b = (r[i].view("u1").astype(int) for r in rows)
        assert stats.ks_2samp(a, b).pvalue > 1e-4
        low = [r[i].astype("f8") for r in rows]
        assert stats.ks_2samp(*low).pvalue > 1e-4
    # The test has power: the words themselves are told apart.
    clear = [whole(method, v)[4] for v in (x, moved)]
    assert stats.ks_2samp(*clear).pvalue < 1e-9


@pytest.mark.parametrize("name", ["full", "sparse"])
def test_the_server_gets_shares_of_one_secret_of_each_client(name: str) -> None:
    method = METHODS[name]
    r = method.round(N)
    found, _ = played(method, np.zeros((N, 1), "f4"), 5)
    with jax.enable_x64(True):
        shares = np.asarray(
            jax.vmap(lambda s: steps.client_shares(r, s))(found.secrets)
        )
        for who in SURVIVORS.values():
            answers = np.asarray(method.responses(found, jnp.asarray(who)))
            assert np.all(answers[~who] == 0)
            for w in range(N):
                kept = steps.SELF if who[w] else steps.PAIR
                for slot, v in enumerate(np.asarray(found.neighbours[w])):
                    if who[v]:
                        told = answers[v, r.circle.back[slot]]
                        np.testing.assert_array_equal(told, shares[w, slot, kept])
                        assert np.all(told != shares[w, slot, 1 - kept])
            secrets = np.asarray(
                steps.server_secrets(
                    r, found.neighbours, jnp.asarray(answers), jnp.asarray(who)
                )
            )
            want = np.where(who[:, None], found.secrets.seed, found.secrets.mask)
            np.testing.assert_array_equal(secrets, want)


def test_drop_outs_change_the_masks_of_a_repeated_call() -> None:
    """The same key and values with other survivors: no client gives away both secrets."""
    method, x = METHODS["full"], jnp.asarray(updates())
    with jax.enable_x64(True):
        rows = [
            np.asarray(method._rows(words(6), [x], jnp.asarray(who))[1])
            for who in SURVIVORS.values()
        ]
    for a in range(len(rows)):
        for b in range(a):
            assert np.mean(rows[a] == rows[b]) < 0.01


# -- through `federated` ---------------------------------------------------------------


def mean(data: Any) -> Any:
    return {"x": 2 * data}


@pytest.mark.parametrize("strategy", ["scan", "vmap"])
@pytest.mark.parametrize("method", ["plain", "full"])
def test_a_round_is_over_its_survivors_and_is_compiled_once(
    method: str, strategy: str
) -> None:
    traces = []

    def update(data: Any) -> Any:
        traces.append(1)
        return mean(data)

    aggregate = METHODS.get(method, method)
    f = privjax.federated(update, aggregate=aggregate, strategy=strategy)
    x, weights = updates()[:, :4], np.arange(1.0, N + 1)
    for who in SURVIVORS.values():
        got = f(jnp.asarray(x), survivors=who, weights=weights)["x"]
        want = 2 * np.average(x[who].astype("f8"), axis=0, weights=weights[who])
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert len(traces) == 1
    equal = f(jnp.asarray(x), survivors=EVERYBODY)["x"]
    np.testing.assert_allclose(equal, f(jnp.asarray(x))["x"], atol=1e-6)


@pytest.mark.parametrize("method", ["plain", "full"])
def test_a_whole_round_leaves_dropped_clients_out(method: str) -> None:
    def round_(data: Any, scale: Any) -> Any:
        return jnp.sum(jax.vmap(mean)(data)["x"], 0) * scale

    aggregate = METHODS.get(method, method)
    f = privjax.federated(round_, level="round", aggregate=aggregate)
    x, who = updates()[:, :4], SURVIVORS["two gone"]
    if method == "plain":
        got = f(jnp.asarray(x), 0.5, survivors=who)
    else:
        got = jax.jit(lambda x, s, k: f(x, 0.5, survivors=s, key=k))(
            jnp.asarray(x), jnp.asarray(who), insecure_key(0)
        )
    np.testing.assert_allclose(got, x[who].sum(0), rtol=1e-5, atol=1e-5)


def test_lanes_have_survivors_of_their_own() -> None:
    f = privjax.federated(mean, aggregate=METHODS["full"], strategy="vmap")
    x, who = updates()[:, :2], np.stack([*SURVIVORS.values()])
    keys = jax.random.split(insecure_key(0), len(who))
    run = jax.vmap(lambda s, k: f(jnp.asarray(x), survivors=s, key=k)["x"])
    want = [2 * x[w].mean(0) for w in who]
    np.testing.assert_allclose(run(jnp.asarray(who), keys), want, rtol=1e-5, atol=1e-5)


def test_an_argument_named_survivors_keeps_its_name() -> None:
    f = privjax.federated(lambda survivors, x: survivors * x, clients="x")
    got = f(3.0, jnp.arange(4.0), client_survivors=np.array([0, 1, 1, 0], bool))
    assert float(got) == 4.5


def test_gradients_pass_through_the_survivors() -> None:
    x = jnp.arange(4.0)
    for strategy in ("scan", "vmap"):
        f = privjax.federated(lambda p, data: p * data, strategy=strategy)
        who = jnp.array([True, False, True, False])
        assert (
            float(jax.grad(lambda p, f=f, who=who: f(p, x, survivors=who))(1.0)) == 1.0
        )


X = jnp.asarray(updates()[:, :2])
ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "too few": (
        lambda: privjax.federated(mean, aggregate=METHODS["full"])(
            X, survivors=np.arange(N) < 4
        ),
        ProtocolError,
        r"4 of 8 clients dropped out.*secure_sum\(dropped=3\).*nothing was unmasked",
    ),
    "none was allowed": (
        lambda: privjax.federated(mean, aggregate="secure")(
            X, survivors=np.arange(N) > 0
        ),
        ProtocolError,
        "1 of 8 clients",
    ),
    "none left": (
        lambda: privjax.federated(mean)(X, survivors=np.zeros(N, bool)),
        InputError,
        "no client is left",
    ),
    "dtype": (
        lambda: privjax.federated(mean)(X, survivors=np.ones(N)),
        InputError,
        "bool",
    ),
    "length": (
        lambda: privjax.federated(mean)(X, survivors=np.ones(3, bool)),
        InputError,
        r"survivors= has shape \(3,\)",
    ),
    "fraction": (lambda: secure_sum(dropped=1.0), InputError, "dropped=1.0"),
    "negative": (lambda: secure_sum(colluding=-1), InputError, "colluding=-1"),
    "threshold": (
        lambda: secure_sum(dropped=1, threshold=0),
        InputError,
        "threshold=0",
    ),
    "threshold alone": (lambda: secure_sum(threshold=2), InputError, "dropped="),
    "threshold too large": (
        lambda: secure_sum(neighbours=4, dropped=1, threshold=5).check(8, False),
        InputError,
        "not enough",
    ),
    "too sparse": (
        lambda: secure_sum(neighbours=2, dropped=4).check(9, False),
        InputError,
        "neighbours='auto'",
    ),
    "too many": (
        lambda: secure_sum(dropped=7).check(8, False),
        InputError,
        "two honest clients",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case: str) -> None:
    run, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        run()
