"""Rounds that take clients by index, one by one in Python, or by `shard_map` by hand.

What is a sum over all clients is accepted, equals plain JAX, and can be masked; what is
not is refused at a line marked `LEAK`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fl_clients_axis import (
    DATA,
    EXAMPLES,
    FEATURES,
    PARAMS,
    N,
    Round,
    check_refused,
    gradients,
    loss,
    losses,
)
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from privjax import federated
from privjax.errors import LeakError
from privjax.prg import insecure_key

ZERO = np.zeros(EXAMPLES, "f4")


def one(d: Any, i: Any) -> Any:
    """The data of client i."""
    return jax.tree.map(lambda a: a[i], d)  # LEAK


# -- by index --------------------------------------------------------------------------


def total(d: Any) -> Any:
    """A sum by index."""
    return lax.fori_loop(0, N, lambda i, c: c + d["y"][i], ZERO)  # LEAK


def gradient_by_index(w: Any, d: Any) -> Any:
    def body(i: Any, c: Any) -> Any:
        mine = one(d, i)
        return c[0] + mine["n"] * jax.grad(loss)(w, mine), c[1] + mine["n"]

    g, n = lax.fori_loop(0, N, body, (jnp.zeros_like(w), 0.0))
    return w - 0.1 * g / n


def by_a_scan_over_numbers(w: Any, d: Any) -> Any:
    return lax.scan(lambda c, i: (c + d["y"][i], None), ZERO, jnp.arange(N))[0]


def by_other_functions(w: Any, d: Any) -> Any:
    def body(i: Any, c: Any) -> Any:
        c = c + jnp.take(d["x"], i, axis=0)[:, 0]
        return c + lax.dynamic_index_in_dim(d["y"], i, 0, False)

    return lax.fori_loop(0, N, body, ZERO)


def along_two_axes(w: Any, d: Any) -> Any:
    add = lambda i, c: c + d["x"][i, 0]  # noqa: E731
    return lax.fori_loop(0, N, add, jnp.zeros(FEATURES))


def mapped_and_summed(w: Any, d: Any) -> Any:
    return jnp.sum(lax.map(lambda i: loss(w, one(d, i)), jnp.arange(N)))


def mapped_over_numbers(w: Any, d: Any) -> Any:
    return jnp.sum(jax.vmap(lambda i: loss(w, one(d, i)))(jnp.arange(N)))


def rounds_by_index(w: Any, d: Any) -> Any:
    def body(w: Any, _: Any) -> Any:
        add = lambda i, c: c + jax.grad(loss)(w, one(d, i))  # noqa: E731
        return w - 0.1 * lax.fori_loop(0, N, add, jnp.zeros_like(w)) / N, None

    return lax.scan(body, w, None, 2)[0]


def running_mean_by_index(w: Any, d: Any) -> Any:
    step = lambda i, m: m + (d["y"][i] - m) / (i + 1)  # noqa: E731
    return lax.fori_loop(0, N, step, ZERO)


# -- in Python -------------------------------------------------------------------------


def mean_of_gradients(w: Any, d: Any) -> Any:
    return w - 0.1 * sum(jax.grad(loss)(w, one(d, i)) for i in range(N)) / N


def step_by_step(w: Any, d: Any) -> Any:
    new = w
    for i in range(N):
        new = new - 0.1 * jax.grad(loss)(w, one(d, i))
    return new


def two_rounds_in_python(w: Any, d: Any) -> Any:
    return mean_of_gradients(mean_of_gradients(w, d), d)


def rounds_in_a_scan(w: Any, d: Any) -> Any:
    return lax.scan(lambda w, _: (mean_of_gradients(w, d), None), w, None, 2)[0]


def weighted(w: Any, d: Any) -> Any:
    parts, n = jnp.zeros_like(w), 0.0
    for i in range(N):
        mine = one(d, i)
        parts, n = parts + mine["n"] * jax.grad(loss)(w, mine), n + mine["n"]
    return parts / n


def gradient_of_a_sum(w: Any, d: Any) -> Any:
    mean = lambda w: sum(loss(w, one(d, i)) for i in range(N)) / N  # noqa: E731
    return jax.value_and_grad(mean)(w)


def stacked(w: Any, d: Any) -> Any:
    return jnp.mean(jnp.stack([jax.grad(loss)(w, one(d, i)) for i in range(N)]), 0)


def listed(w: Any, d: Any) -> Any:
    return jnp.array([loss(w, one(d, i)) for i in range(N)]).mean()


def one_after_the_other(w: Any, d: Any) -> Any:
    return sum(jnp.sum((x @ w - y) ** 2) for x, y in zip(d["x"], d["y"], strict=True))


def unstacked_and_split(w: Any, d: Any) -> Any:
    return sum(jnp.unstack(d["y"])) + sum(jnp.split(d["y"], N))[0]


def running_mean(w: Any, d: Any) -> Any:
    mean = d["y"][0]
    for k in range(1, N):
        mean = mean + (d["y"][k] - mean) / (k + 1)
    return mean


def local_steps(w: Any, d: Any) -> Any:
    def local(mine: Any) -> Any:
        step = lambda _, w: w - 0.1 * jax.grad(loss)(w, mine)  # noqa: E731
        return lax.fori_loop(0, 3, step, w)

    return sum(local(one(d, i)) for i in range(N)) / N


def whole_numbers(w: Any, d: Any) -> Any:
    return sum(d["k"][i] for i in range(N))


def written_weights(w: Any, d: Any) -> Any:
    return sum(c * d["y"][i] for i, c in enumerate([1.0, 4, 2, 3, 1]))


def around_the_mean(w: Any, d: Any) -> Any:
    mean = sum(jnp.tanh(d["y"][i]) for i in range(N)) / N
    return sum((d["y"][i] - mean) ** 2 for i in range(N)) / N


def two_values_each(w: Any, d: Any) -> Any:
    found = 0.0
    for i in range(N):
        found = found + d["y"][i]
        found = found + d["x"][i][:, 0]
    return found


# -- shard_map -------------------------------------------------------------------------


OWN, ALL = PartitionSpec("clients"), PartitionSpec()


def spread(fun: Any, outs: Any, vma: bool, *args: Any) -> Any:
    """A function of each device's clients; the last argument is theirs."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("clients",))
    ins = (ALL,) * (len(args) - 1) + (OWN,)
    run = jax.shard_map(fun, mesh=mesh, in_specs=ins, out_specs=outs, check_vma=vma)
    return run(*args)  # LEAK


def spread_mean(w: Any, d: Any, vma: bool = True) -> Any:
    def part(w: Any, d: Any) -> Any:
        return w - 0.1 * lax.pmean(jnp.mean(gradients(w, d), 0), "clients")

    return spread(part, ALL, vma, w, d)


def spread_loop(w: Any, d: Any) -> Any:
    def part(w: Any, d: Any) -> Any:
        add = lambda c, mine: (c + jax.grad(loss)(w, mine), None)  # noqa: E731
        return lax.psum(lax.scan(add, jnp.zeros_like(w), d)[0], "clients")

    return spread(part, ALL, False, w, d)


def spread_gradient(w: Any, d: Any) -> Any:
    def mean(w: Any) -> Any:
        part = lambda w, d: lax.psum(jnp.sum(losses(w, d)), "clients")  # noqa: E731
        return spread(part, ALL, True, w, d) / N

    return jax.value_and_grad(mean)(w)


def spread_rows(w: Any, d: Any) -> Any:
    return jnp.mean(spread(gradients, OWN, False, w, d), 0)


def spread_unchecked(w: Any, d: Any) -> Any:
    return spread_mean(w, d, vma=False)


GROUPS: dict[str, list[Round]] = {
    "by index": [
        lambda w, d: total(d),
        gradient_by_index,
        by_a_scan_over_numbers,
        by_other_functions,
        along_two_axes,
        mapped_and_summed,
        mapped_over_numbers,
        rounds_by_index,
    ],
    "in Python": [
        mean_of_gradients,
        step_by_step,
        two_rounds_in_python,
        rounds_in_a_scan,
        weighted,
        gradient_of_a_sum,
        stacked,
        listed,
        one_after_the_other,
        unstacked_and_split,
        running_mean,
        local_steps,
        whole_numbers,
        written_weights,
        around_the_mean,
        two_values_each,
    ],
    "shard_map": [
        spread_mean,
        spread_loop,
        spread_gradient,
        spread_rows,
        spread_unchecked,
    ],
}


def together(group: str) -> Round:
    return lambda w, d: [f(w, d) for f in GROUPS[group]]


def close(got: Any, want: Any, atol: float) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("group", GROUPS)
def test_sums_are_accepted_and_the_same(group: str) -> None:
    fun = together(group)
    want = jax.jit(fun)(PARAMS, DATA)
    close(federated(fun, clients="d", level="round")(PARAMS, DATA), want, 1e-5)
    masked = federated(fun, clients="d", level="round", aggregate="secure")
    close(masked(PARAMS, DATA, key=insecure_key(0)), want, 1e-4)


def test_a_running_mean_by_index() -> None:
    found = federated(running_mean_by_index, clients="d", level="round")(PARAMS, DATA)
    np.testing.assert_allclose(found, jnp.mean(DATA["y"], 0), rtol=1e-5)


@pytest.mark.parametrize("fun", [gradient_by_index, weighted])
def test_those_who_drop_out_count_nothing(fun: Round) -> None:
    there = np.array([True, True, False, True, False])
    found = federated(fun, clients="d", level="round")(PARAMS, DATA, survivors=there)
    left = jax.tree.map(lambda x: x[there], DATA)
    g = jnp.einsum("n,nf->f", left["n"], gradients(PARAMS, left)) / left["n"].sum()
    want = g if fun is weighted else PARAMS - 0.1 * g
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


# -- leaks -----------------------------------------------------------------------------

WRONG: dict[str, Round] = {
    "one is missing": lambda w, d: sum(d["y"][i] for i in range(1, N)),  # LEAK
    "one twice": lambda w, d: sum(d["y"][i % N] for i in range(N + 1)),  # LEAK
    "one is heavy": lambda w, d: sum(  # LEAK
        (1e4 if i == 2 else 1.0) * d["y"][i]  # LEAK
        for i in range(N)
    ),
    "weights of zero": lambda w, d: sum(
        (i == 2) * d["y"][i]  # LEAK
        for i in range(N)
    ),
    "a sum and other weights": lambda w, d: (
        sum(0.5 * d["y"][i] for i in range(N)),  # LEAK
        sum((1.0 + (i == 2)) * d["y"][i] for i in range(N)),  # LEAK
    ),
    "two sums' difference": lambda w, d: (
        sum(d["y"][i] for i in range(N)) - sum(d["y"][i] for i in range(N - 1))  # LEAK
    ),
    "halves that overlap": lambda w, d: (
        sum(d["y"][i] for i in range(3)),  # LEAK
        sum(d["y"][i] for i in range(2, N)),  # LEAK
    ),
    "moments of numbers": lambda w, d: [
        sum((i + 1.0) ** p * d["y"][i] for i in range(N))  # LEAK
        for p in range(N)
    ],
    "one is treated otherwise": lambda w, d: sum(
        jnp.tanh(d["y"][i]) if i == 3 else d["y"][i]  # LEAK
        for i in range(N)
    ),
    "stacked": lambda w, d: jnp.stack([d["y"][i] for i in range(N)]),  # LEAK
    "stacked and sorted": lambda w, d: jnp.sort(  # LEAK
        jnp.stack([d["y"][i] for i in range(N)]),  # LEAK
        0,
    ),
    "products of neighbours": lambda w, d: sum(
        d["y"][i] * d["y"][(i + 1) % N]  # LEAK
        for i in range(N)
    ),
    "places of their own": lambda w, d: sum(
        jnp.zeros((N, EXAMPLES)).at[i].set(d["y"][i])  # LEAK
        for i in range(N)
    ),
    "all but one by index": lambda w, d: lax.fori_loop(
        0,
        N - 1,
        lambda i, c: c + d["y"][i],  # LEAK
        ZERO,
    ),
    "one in every step": lambda w, d: lax.fori_loop(
        0,
        N,
        lambda i, c: c + d["y"][2],  # LEAK
        ZERO,
    ),
    "chosen by a client": lambda w, d: lax.fori_loop(
        0,
        N,
        lambda i, c: c + d["y"][d["k"][i, 0]],  # LEAK
        ZERO,
    ),
    "as often as a client says": lambda w, d: lax.while_loop(
        lambda c: c[0] < d["k"][0, 0],  # LEAK
        lambda c: (c[0] + 1, c[1] + d["y"][c[0]]),
        (0, ZERO),
    )[1],
    "until a sum is large": lambda w, d: lax.while_loop(
        lambda c: jnp.sum(c[1]) < 3,  # LEAK
        lambda c: (c[0] + 1, c[1] + jnp.abs(d["y"][c[0]])),  # LEAK
        (0, ZERO),
    )[1],
    "pairs": lambda w, d: lax.fori_loop(
        0,
        N,
        lambda i, c: c + d["y"][i] * d["y"][(i + 1) % N],  # LEAK
        ZERO,
    ),
    "sums on the way": lambda w, d: lax.scan(  # LEAK
        lambda c, i: (c + d["y"][i], c),  # LEAK
        ZERO,
        jnp.arange(N),
    )[1],
    "other weights in a loop": lambda w, d: (
        total(d),
        lax.fori_loop(
            0,
            N,
            lambda i, c: c + (1.0 + (i == 2)) * d["y"][i],  # LEAK
            ZERO,
        ),
    ),
    "rows of devices": lambda w, d: spread(
        lambda w, d: d["y"] * 1.0,  # LEAK
        OWN,
        False,
        w,
        d,
    ),
    "the first of a device": lambda w, d: spread(
        lambda w, d: d["y"][0],  # LEAK
        ALL,
        False,
        w,
        d,
    ),
    "largest of devices": lambda w, d: spread(
        lambda w, d: lax.pmax(jnp.max(d["y"], 0), "clients"),  # LEAK
        ALL,
        False,
        w,
        d,
    ),
    "gathered": lambda w, d: spread(
        lambda w, d: lax.all_gather(d["y"], "clients"),  # LEAK
        ALL,
        False,
        w,
        d,
    ),
    "the last of a device": lambda w, d: spread(
        lambda w, d: lax.scan(lambda c, y: (y, None), ZERO, d["y"])[0],  # LEAK
        ALL,
        False,
        w,
        d,
    ),
}


def printed(w: Any, d: Any) -> Any:
    found = 0.0
    for i in range(N):
        found = found + d["y"][i]
        jax.debug.print("{}", found)  # LEAK
    return found


def printed_on_a_device(w: Any, d: Any) -> Any:
    def part(w: Any, d: Any) -> Any:
        jax.debug.print("{}", d["y"])  # LEAK
        return lax.psum(jnp.sum(d["y"], 0), "clients")

    return spread(part, ALL, False, w, d)


WRONG |= {"printed": printed, "printed on a device": printed_on_a_device}

# Sums of the same values with other weights, however these come about.
TOLD: dict[str, Round] = {
    "halved": lambda y, c: (jnp.sum(0.5 * y, 0), c @ y),
    "negative": lambda y, c: (jnp.sum(-y, 0), jnp.sum(c[:, None] * y, 0)),
    "divided": lambda y, c: (jnp.sum(y, 0), jnp.sum(y / c[:, None], 0)),
    "chosen": lambda y, c: (
        jnp.sum(y, 0),
        jnp.sum(jnp.where(c[:, None] > 1, 2 * y, y), 0),
    ),
    "computed twice": lambda y, c: (jnp.sum(jnp.tanh(y), 0), c @ jnp.tanh(y)),
    "other shapes": lambda y, c: (jnp.sum(y, 0), c @ y.reshape(N, 2, -1).sum(1)),
    "turned": lambda y, c: (jnp.sum(y + 0.0, 0), y.T @ c),
    "groups": lambda y, c: [
        jax.ops.segment_sum(y, jnp.array(g), 2)
        for g in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])
    ],
    "gradients": lambda y, c: [
        jax.grad(lambda w, c=c: c @ jnp.tanh(y @ w))(jnp.ones(EXAMPLES))
        for c in (c, jnp.ones(N))
    ],
    "squares": lambda y, c: (jnp.sum(y**2, 0), jnp.sum((c[:, None] * y) ** 2, 0)),
    "slices": lambda y, c: (jnp.sum(y, 0), c @ y[:, :2]),
    "offsets": lambda y, c: (jnp.sum(y, 0), c @ (y - jnp.mean(y, 0))),
    "in loops": lambda y, c: [
        lax.scan(lambda t, x: (t + x[0] * jnp.tanh(x[1]), None), ZERO, (c, y))[0]
        for c in (c, jnp.ones(N))
    ],
    "a weight that goes round": lambda y, c: lax.scan(
        lambda c, _: (jnp.roll(c, 1), c @ y), c, None, N
    )[1],
    "shifted": lambda y, c: jnp.sum(
        y.astype(jnp.int32) << 6 * jnp.arange(N)[:, None], 0
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_sum_is_refused_with_its_line(name: str) -> None:
    check_refused(WRONG[name], __file__, level="round")


@pytest.mark.parametrize("name", TOLD)
def test_two_sums_that_tell_one_are_refused(name: str) -> None:
    weights = jnp.array([1.0, 1, 2, 1, 1])

    def sums(w: Any, d: Any) -> Any:
        return TOLD[name](d["y"], weights)

    with pytest.raises(LeakError, match="can be told from what is summed"):
        federated(sums, clients="d", level="round")(PARAMS, DATA)
