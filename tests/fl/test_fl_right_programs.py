"""Rounds over a leading clients axis that are sums: accepted, and equal to plain JAX.

The same programs, written in the many ways there are to write a sum over clients.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fl_clients_axis import (
    CLASSES,
    DATA,
    EXAMPLES,
    FEATURES,
    PARAMS,
    N,
    Round,
    gradients,
    loss,
    losses,
)
from jax import lax

from privjax import federated
from privjax.prg import insecure_key

# -- algorithms ------------------------------------------------------------------------


def fedsgd(w: Any, d: Any) -> Any:
    return w - 0.1 * jnp.mean(gradients(w, d), 0)


def gradient_of_the_mean_loss(w: Any, d: Any) -> Any:
    return jax.grad(lambda w: jnp.mean(losses(w, d)))(w)


def loss_and_gradient(w: Any, d: Any) -> Any:
    return jax.value_and_grad(lambda w: jnp.sum(losses(w, d)) / N)(w)


def fedavg_by_examples(w: Any, d: Any) -> Any:
    def local(w: Any, one: Any) -> Any:
        return lax.fori_loop(0, 3, lambda _, w: w - 0.1 * jax.grad(loss)(w, one), w)

    ends = jax.vmap(local, (None, 0))(w, d)
    return jnp.average(ends, axis=0, weights=d["n"])


def weighted_by_einsum(w: Any, d: Any) -> Any:
    return jnp.einsum("n,nf->f", d["n"], gradients(w, d)) / jnp.sum(d["n"])


def weighted_by_a_product(w: Any, d: Any) -> Any:
    return d["n"] @ gradients(w, d) / d["n"].sum()


def weights_of_the_losses(w: Any, d: Any) -> Any:
    """q-fair weights: a client's weight depends on its own data."""
    weights = losses(w, d) ** 0.5
    total = jnp.sum(weights[:, None] * gradients(w, d), 0)
    return total / jnp.sum(weights)


def clipped(w: Any, d: Any) -> Any:
    def clip(g: Any) -> Any:
        return g * jnp.minimum(1.0, 0.5 / jnp.linalg.norm(g))

    return jnp.mean(jax.vmap(clip)(gradients(w, d)), 0)


def signs(w: Any, d: Any) -> Any:
    """Majority vote: the sign of a sum of signs."""
    return jnp.sign(jnp.sum(jnp.sign(gradients(w, d)), 0))


def server_momentum(w: Any, d: Any) -> Any:
    optimiser = optax.adam(0.1)
    change, _ = optimiser.update(jnp.mean(gradients(w, d), 0), optimiser.init(w))
    return optax.apply_updates(w, change)


def two_rounds(w: Any, d: Any) -> Any:
    return fedsgd(fedsgd(w, d), d)


def rounds_in_a_scan(w: Any, d: Any) -> Any:
    return lax.scan(lambda w, _: (fedsgd(w, d), jnp.mean(losses(w, d))), w, None, 3)


def until_the_mean_is_small(w: Any, d: Any) -> Any:
    """A trip count by a mean, which has left already."""

    def going(c: Any) -> Any:
        return (jnp.mean(losses(c[1], d)) > 0.1) & (c[0] < 4)

    return lax.while_loop(going, lambda c: (c[0] + 1, fedsgd(c[1], d)), (0, w))


def step_if_it_helps(w: Any, d: Any) -> Any:
    """A decision by sums."""
    new = fedsgd(w, d)
    better = jnp.mean(losses(new, d)) < jnp.mean(losses(w, d))
    return lax.cond(better, lambda: new, lambda: w)


def own_branches(w: Any, d: Any) -> Any:
    """Each client decides by its own data what it sends."""

    def one(d: Any) -> Any:
        return lax.cond(d["y"][0] > 0, lambda: d["x"][0], lambda: -d["x"][1])

    return jnp.sum(jax.vmap(one)(d), 0)


def own_rows_are_dropped(w: Any, d: Any) -> Any:
    """Rows of a client that are out of range count nothing."""
    keep = jnp.abs(d["y"]) < 1.0
    total = jnp.sum(jnp.where(keep[..., None], d["x"], 0.0), (0, 1))
    return total / jnp.maximum(1, jnp.sum(keep))


def best_of_ones_own(w: Any, d: Any) -> Any:
    """max, sort and argmax over examples are a client's own business."""
    inside = (
        jnp.max(d["y"], 1),
        jnp.sort(d["y"], 1)[:, 1],
        jnp.argmax(d["y"], 1) * 1.0,
    )
    return [jnp.mean(v) for v in inside]


def clusters(w: Any, d: Any) -> Any:
    """IFCA: every client chooses the model that fits it best."""
    models = jnp.stack([w, -w])
    fits = jax.vmap(losses, (0, None))(models, d)
    hot = jax.nn.one_hot(jnp.argmin(fits, 0), 2)
    found = jax.vmap(gradients, (0, None))(models, d)
    return jnp.einsum("nk,knf->kf", hot, found) / jnp.maximum(1, hot.sum(0))[:, None]


def line_search(w: Any, d: Any) -> Any:
    """The best step by means, which have left."""
    g = jnp.mean(gradients(w, d), 0)
    steps = jnp.array([0.01, 0.1, 1.0])
    found = jax.vmap(lambda s: jnp.mean(losses(w - s * g, d)))(steps)
    return w - steps[jnp.argmin(found)] * g


def averaged_over_rounds(w: Any, d: Any) -> Any:
    """A running mean of what has left is nobody's business."""

    def body(c: Any, i: Any) -> Any:
        new = fedsgd(c[0], d)
        return (new, c[1] + 0.5 * (new - c[1])), None

    return lax.scan(body, (w, jnp.zeros_like(w)), jnp.arange(3))[0]


# -- statistics ------------------------------------------------------------------------


def variance(w: Any, d: Any) -> Any:
    """Two sums: the mean leaves, and the squares around it."""
    return jnp.var(d["x"], (0, 1)), jnp.std(d["y"])


def variance_by_moments(w: Any, d: Any) -> Any:
    return jnp.mean(jnp.square(d["y"])) - jnp.square(jnp.mean(d["y"]))


def covariance(w: Any, d: Any) -> Any:
    return jnp.cov(d["x"].reshape(-1, FEATURES).T)


def normal_equations(w: Any, d: Any) -> Any:
    gram = jnp.einsum("nef,neg->fg", d["x"], d["x"])
    return jnp.linalg.solve(gram, jnp.einsum("nef,ne->f", d["x"], d["y"]))


def principal_components(w: Any, d: Any) -> Any:
    gram = jnp.einsum("nef,neg->fg", d["x"], d["x"])
    return jnp.linalg.eigvalsh(gram)


def batch_statistics(w: Any, d: Any) -> Any:
    """Normalised by sums over all clients; what leaves is a sum again."""
    x = d["x"]
    mean, var = jnp.mean(x, (0, 1)), jnp.var(x, (0, 1))
    normal = (x - mean) / jnp.sqrt(var + 1e-5)
    return jnp.mean(jnp.tanh(normal @ w))


def counts(w: Any, d: Any) -> Any:
    return jnp.bincount(d["k"].reshape(-1), length=CLASSES)


def histogram(w: Any, d: Any) -> Any:
    return jnp.histogram(d["y"], bins=4, range=(-2.0, 2.0))[0]


def per_class(w: Any, d: Any) -> Any:
    """Prototypes: the mean of each class over all clients."""
    hot = jax.nn.one_hot(d["k"], CLASSES)
    total = jnp.einsum("nec,nef->cf", hot, d["x"])
    return total / jnp.maximum(1, hot.sum((0, 1)))[:, None]


def by_segments(w: Any, d: Any) -> Any:
    """Groups that are in the data, not places of clients."""
    sums = jax.vmap(lambda x, k: jax.ops.segment_sum(x, k, CLASSES))(d["x"], d["k"])
    return jnp.sum(sums, 0)


def confusion(w: Any, d: Any) -> Any:
    found = jnp.clip(jnp.round(d["x"] @ w), 0, CLASSES - 1).astype(jnp.int32)
    return jnp.sum(jax.nn.one_hot(found, 3)[..., None, :] * 1.0, (0, 1))


def log_sum_exp_by_a_sum(w: Any, d: Any) -> Any:
    """Without the maximum of all clients it is a sum."""
    return jnp.log(jnp.sum(jnp.exp(losses(w, d) - 3.0))) + 3.0


def product_by_logarithms(w: Any, d: Any) -> Any:
    return jnp.exp(jnp.sum(jnp.log(losses(w, d))))


def norm_of_everything(w: Any, d: Any) -> Any:
    return jnp.linalg.norm(d["y"])


def how_many(w: Any, d: Any) -> Any:
    return jnp.count_nonzero(d["y"] > 0), jnp.sum(losses(w, d) < 1.0)


def largest_of_a_sum(w: Any, d: Any) -> Any:
    """What has left may be sorted and picked from."""
    total = jnp.mean(d["x"], (0, 1))
    return jnp.max(total), jnp.sort(total), total[jnp.argmax(jnp.abs(total))]


def without_what_is_no_number(w: Any, d: Any) -> Any:
    return jnp.nansum(jnp.where(d["y"] > 2, jnp.nan, d["y"]), 0)


# -- ways to write a sum ---------------------------------------------------------------


def moved_axes(w: Any, d: Any) -> Any:
    return jnp.sum(jnp.moveaxis(d["x"], 0, -1), -1)


def flat_and_back(w: Any, d: Any) -> Any:
    return jnp.sum(d["x"].reshape(N * EXAMPLES, FEATURES).reshape(d["x"].shape), 0)


def in_one_reshape(w: Any, d: Any) -> Any:
    """Rows of all clients under one another, which ordinary code begins with."""
    x, y = d["x"].reshape(-1, FEATURES), d["y"].reshape(-1)
    return jax.grad(lambda w: jnp.mean(jnp.square(x @ w - y)))(w)


def by_ones(w: Any, d: Any) -> Any:
    return jnp.ones(N) @ d["y"]


def by_psum(w: Any, d: Any) -> Any:
    def one(d: Any) -> Any:
        return lax.psum(d["y"], "clients"), lax.pmean(d["x"][0], "clients")

    total, mean = jax.vmap(one, axis_name="clients", out_axes=None)(d)
    return total, mean


def under_jit_and_remat(w: Any, d: Any) -> Any:
    return jax.jit(lambda d: jnp.sum(jax.checkpoint(gradients)(w, d), 0))(d)


def of_a_tree(w: Any, d: Any) -> Any:
    return jax.tree.map(lambda x: jnp.mean(x * 1.0, 0), d)


def custom_reduction(w: Any, d: Any) -> Any:
    return jnp.add.reduce(d["y"], axis=0)


def mean_of_a_scan_per_client(w: Any, d: Any) -> Any:
    """A recurrence over each client's own examples."""

    def one(d: Any) -> Any:
        return lax.scan(lambda h, x: (jnp.tanh(h + x @ w), h), 0.0, d["x"])[1]

    return jnp.mean(jax.vmap(one)(d), 0)


def a_release_is_public(w: Any, d: Any) -> Any:
    """Public values and constants leave as they are."""
    return {"w": w, "clients": N, "sum": jnp.sum(d["n"])}


def low_precision(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"].astype(jnp.bfloat16).astype(jnp.float32), 0)


def reversed_clients(w: Any, d: Any) -> Any:
    """All of them, in another order."""
    turned = jax.tree.map(lambda x: x[::-1], d)
    return jnp.flip(d["y"], 0).sum(0), jnp.mean(gradients(w, turned), 0)


def weights_that_are_written_down(w: Any, d: Any) -> Any:
    g = gradients(w, d)
    weights = jnp.array([1.0, 4, 2, 3, 1])
    return jnp.average(g, 0, weights=weights), jnp.mean(g, 0)


def groups_that_are_written_down(w: Any, d: Any) -> Any:
    """No client is alone in its group."""
    return jax.ops.segment_sum(d["y"], jnp.array([0, 0, 1, 1, 1]), 2)


def rates_that_are_written_down(w: Any, d: Any) -> Any:
    rates = jnp.array([0.1, 0.2, 0.1, 0.2, 0.1])
    local = lambda d, r: w - r * jax.grad(loss)(w, d)  # noqa: E731
    return jax.vmap(local)(d, rates).mean(0)


def lengths_that_are_written_down(w: Any, d: Any) -> Any:
    """The last example is one client's only, and summed with those before."""
    real = jnp.arange(EXAMPLES) < jnp.array([4, 3, 2, 1, 1])[:, None]

    def masked(w: Any, x: Any, y: Any, real: Any) -> Any:
        return jnp.sum(real * jnp.square(x @ w - y)) / jnp.sum(real)

    found = jax.vmap(jax.grad(masked), (None, 0, 0, 0))(w, d["x"], d["y"], real)
    mean = jnp.sum(jnp.where(real, d["y"], 0.0)) / jnp.sum(real)
    return mean, jnp.mean(found, 0)


def own_order(w: Any, d: Any) -> Any:
    """Each client's batch is drawn by the program."""
    draws = [np.random.default_rng(i).permutation(EXAMPLES) for i in range(N)]
    batch = jnp.take_along_axis(d["y"], jnp.asarray(np.stack(draws)), 1)
    return batch[:, :2].sum(0)


# -- loops over clients ----------------------------------------------------------------


def gradients_in_a_loop(w: Any, d: Any) -> Any:
    def body(c: Any, one: Any) -> Any:
        found = {"g": jax.grad(loss)(w, one), "n": one["n"]}
        return jax.tree.map(jnp.add, c, found), None

    total, _ = lax.scan(body, {"g": jnp.zeros_like(w), "n": 0.0}, d)
    return w - 0.1 * total["g"] / total["n"]


def running_mean(w: Any, d: Any) -> Any:
    """All clients weigh the same in the end (Welford 1962)."""

    def body(c: Any, y: Any) -> Any:
        n, mean = c
        return (n + 1, mean + (y - mean) / (n + 1)), None

    return lax.scan(body, (0.0, jnp.zeros(EXAMPLES)), d["y"])[0][1]


def running_mean_by_numbers(w: Any, d: Any) -> Any:
    def body(mean: Any, x: Any) -> Any:
        i, y = x
        return mean * (i / (i + 1.0)) + y / (i + 1.0), None

    return lax.scan(body, jnp.zeros(EXAMPLES), (jnp.arange(N), d["y"]))[0]


def begun_by_the_first(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        i, y = x
        return jnp.where(i == 0, y, c + y), None

    return lax.scan(body, jnp.zeros(EXAMPLES), (jnp.arange(N), d["y"]))[0]


def who_takes_part(w: Any, d: Any) -> Any:
    """A mask that is given, by a choice and by a branch."""
    mask = w[0] > jnp.linspace(-1.0, 1.0, N)

    def chosen(c: Any, x: Any) -> Any:
        return jnp.where(x[0], c + x[1], c), None

    def branch(c: Any, x: Any) -> Any:
        return lax.cond(x[0], lambda: c + x[1], lambda: c), None

    zero = jnp.zeros(EXAMPLES)
    return [lax.scan(f, zero, (mask, d["y"]))[0] for f in (chosen, branch)]


def who_counts_itself_in(w: Any, d: Any) -> Any:
    def body(c: Any, one: Any) -> Any:
        return jnp.where(one["n"] > 1, c + one["y"], c), None

    return lax.scan(body, jnp.zeros(EXAMPLES), d)[0]


def to_one_place(w: Any, d: Any) -> Any:
    """The same place in every step: a literal one, one that is given, a slice."""
    k = (w[0] > 0).astype(int)

    def body(c: Any, y: Any) -> Any:
        return c.at[1].add(y[0]).at[k].add(y[1]).at[2:4].add(y[2:]), None

    return lax.scan(body, jnp.zeros(5), d["y"])[0]


def to_ones_own_class(w: Any, d: Any) -> Any:
    """A histogram: the place is in the client's data."""

    def body(c: Any, one: Any) -> Any:
        return c.at[one["k"]].add(one["y"]), None

    return lax.scan(body, jnp.zeros(CLASSES), d)[0]


# -- tables ----------------------------------------------------------------------------


GROUPS: dict[str, list[Round]] = {
    "algorithms": [
        fedsgd,
        gradient_of_the_mean_loss,
        loss_and_gradient,
        fedavg_by_examples,
        weighted_by_einsum,
        weighted_by_a_product,
        weights_of_the_losses,
        clipped,
        signs,
        server_momentum,
        two_rounds,
        rounds_in_a_scan,
        until_the_mean_is_small,
        step_if_it_helps,
        own_branches,
        own_rows_are_dropped,
        best_of_ones_own,
        clusters,
        line_search,
        averaged_over_rounds,
    ],
    "statistics": [
        variance,
        variance_by_moments,
        covariance,
        normal_equations,
        principal_components,
        batch_statistics,
        counts,
        histogram,
        per_class,
        by_segments,
        confusion,
        log_sum_exp_by_a_sum,
        product_by_logarithms,
        norm_of_everything,
        how_many,
        largest_of_a_sum,
        without_what_is_no_number,
    ],
    "ways to write a sum": [
        moved_axes,
        flat_and_back,
        in_one_reshape,
        by_ones,
        by_psum,
        under_jit_and_remat,
        of_a_tree,
        custom_reduction,
        mean_of_a_scan_per_client,
        a_release_is_public,
        low_precision,
        reversed_clients,
        weights_that_are_written_down,
        groups_that_are_written_down,
        rates_that_are_written_down,
        lengths_that_are_written_down,
        own_order,
    ],
    "loops over clients": [
        gradients_in_a_loop,
        running_mean,
        running_mean_by_numbers,
        begun_by_the_first,
        who_takes_part,
        who_counts_itself_in,
        to_one_place,
        to_ones_own_class,
    ],
}
MASKED: list[Round] = [
    fedavg_by_examples,
    rounds_in_a_scan,
    own_branches,
    variance,
    counts,
    per_class,
    in_one_reshape,
    by_psum,
    reversed_clients,
]


def together(programs: list[Round]) -> Round:
    """One program of all of them: what is said of one equation is said of each."""

    def programs_of_the_group(w: Any, d: Any) -> Any:
        return {f.__name__: f(w, d) for f in programs}

    return programs_of_the_group


def check(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for name, result in want.items():
        pairs = zip(jax.tree.leaves(got[name]), jax.tree.leaves(result), strict=True)
        for g, w in pairs:
            assert (g.shape, g.dtype) == (w.shape, w.dtype), name
            np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("group", GROUPS)
def test_is_accepted_and_the_same(group: str) -> None:
    fun = together(GROUPS[group])
    run = federated(fun, clients="d", level="round")
    check(run(PARAMS, DATA), jax.jit(fun)(PARAMS, DATA))


def test_masked_sums_are_the_same() -> None:
    fun = together(MASKED)
    run = federated(fun, clients="d", level="round", aggregate="secure")
    check(run(PARAMS, DATA, key=insecure_key(0)), jax.jit(fun)(PARAMS, DATA))


def test_reversed_clients_drop_out_as_who_they_are() -> None:
    def turned(d: Any) -> Any:
        return jnp.sum(d["y"][::-1], 0)

    there = jnp.array([True, True, False, True, False])
    found = federated(turned, clients="d", level="round")(DATA, survivors=there)
    np.testing.assert_allclose(found, DATA["y"][there].sum(0), rtol=2e-6)
