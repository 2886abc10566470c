"""Rounds over a leading clients axis that leak: each is refused with its file and line.

Every program is one that people write: a debugging output that stayed, a statistic that is
no sum, a decision by one client's data. Lines that may be named are marked `LEAK`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from privjax import federated
from privjax.errors import LeakError, PrivacyError, UnsupportedError

N, EXAMPLES, FEATURES = 5, 4, 3
RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(N, EXAMPLES, FEATURES)).astype("f4"),
    "y": RNG.normal(size=(N, EXAMPLES)).astype("f4"),
    "k": RNG.integers(0, 3, (N, EXAMPLES)).astype("i4"),
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


# -- values of single clients ----------------------------------------------------------


def raw_example(w: Any, d: Any) -> Any:
    return step(w, d), d["x"][2, 0]  # LEAK


def all_data(w: Any, d: Any) -> Any:
    return {"w": step(w, d), "data": d["y"] * 1.0}  # LEAK


def loss_per_client(w: Any, d: Any) -> Any:
    each = losses(w, d)
    return step(w, d), each / N  # LEAK


def accuracy_per_client(w: Any, d: Any) -> Any:
    hits = jnp.sign(d["x"] @ w) == jnp.sign(d["y"])
    return step(w, d), jnp.mean(hits, axis=1)  # LEAK


def gradient_per_client(w: Any, d: Any) -> Any:
    return gradients(w, d) * 1.0  # LEAK


def one_client_left_out(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"], 0) - d["y"][0]  # LEAK


def leave_one_out(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"], 0) - d["y"]  # LEAK


def first_half(w: Any, d: Any) -> Any:
    return jnp.mean(d["y"][: N // 2], 0)  # LEAK


def every_other(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"][::2])  # LEAK


def last_client(w: Any, d: Any) -> Any:
    return w + d["x"][-1].mean(0)  # LEAK


def two_together(w: Any, d: Any) -> Any:
    pairs = d["y"][:4].reshape(2, 2, EXAMPLES)  # LEAK
    return jnp.sum(pairs, 1)  # LEAK


def rolled(w: Any, d: Any) -> Any:
    return jnp.sum(jnp.roll(d["y"], 1, 0) * d["y"])  # LEAK


def mirrored(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"] * d["y"][::-1])  # LEAK


def transposed(w: Any, d: Any) -> Any:
    return d["y"].T * 2.0  # LEAK


def flattened(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"].reshape(-1)[:7])  # LEAK


def bits_of_a_client(w: Any, d: Any) -> Any:
    return lax.bitcast_convert_type(d["y"], jnp.int32)  # LEAK


def convolved(w: Any, d: Any) -> Any:
    return jnp.convolve(d["y"][:, 0], jnp.ones(2), mode="valid")  # LEAK


# -- statistics that are no sums -------------------------------------------------------


def largest(w: Any, d: Any) -> Any:
    return jnp.max(losses(w, d))  # LEAK


def smallest(w: Any, d: Any) -> Any:
    return jnp.min(losses(w, d))  # LEAK


def who_is_worst(w: Any, d: Any) -> Any:
    return jnp.argmax(losses(w, d))  # LEAK


def who_is_best(w: Any, d: Any) -> Any:
    return jnp.argmin(losses(w, d))  # LEAK


def ordered(w: Any, d: Any) -> Any:
    return jnp.sort(losses(w, d))  # LEAK


def ranked(w: Any, d: Any) -> Any:
    return jnp.argsort(losses(w, d))  # LEAK


def top_two(w: Any, d: Any) -> Any:
    return lax.top_k(losses(w, d), 2)[0]  # LEAK


def median(w: Any, d: Any) -> Any:
    return jnp.median(gradients(w, d), 0)  # LEAK


def quantile(w: Any, d: Any) -> Any:
    return jnp.quantile(losses(w, d), 0.9)  # LEAK


def trimmed(w: Any, d: Any) -> Any:
    return jnp.mean(jnp.sort(gradients(w, d), 0)[1:-1], 0)  # LEAK


def product(w: Any, d: Any) -> Any:
    return jnp.prod(losses(w, d))  # LEAK


def anybody(w: Any, d: Any) -> Any:
    return jnp.any(losses(w, d) > 1.0)  # LEAK


def everybody(w: Any, d: Any) -> Any:
    return jnp.all(losses(w, d) > 1.0)  # LEAK


def log_sum_exp(w: Any, d: Any) -> Any:
    return jax.nn.logsumexp(losses(w, d))  # LEAK


def soft_weights(w: Any, d: Any) -> Any:
    weights = jax.nn.softmax(losses(w, d))  # LEAK
    return jnp.sum(weights[:, None] * gradients(w, d), 0)  # LEAK


def running_sum(w: Any, d: Any) -> Any:
    return jnp.cumsum(losses(w, d))  # LEAK


def end_of_a_running_sum(w: Any, d: Any) -> Any:
    """It is a sum; as a place of a running sum it is not seen to be one."""
    return jnp.cumsum(losses(w, d))[-1]  # LEAK


def running_maximum(w: Any, d: Any) -> Any:
    return lax.cummax(losses(w, d))[-1]  # LEAK


def running_product(w: Any, d: Any) -> Any:
    return lax.cumprod(losses(w, d))  # LEAK


def running_log_sum(w: Any, d: Any) -> Any:
    return lax.cumlogsumexp(losses(w, d))  # LEAK


def pairwise_distances(w: Any, d: Any) -> Any:
    g = gradients(w, d)
    return jnp.sum(jnp.square(g[:, None] - g[None]), -1)  # LEAK


def gram(w: Any, d: Any) -> Any:
    g = gradients(w, d)
    return g @ g.T  # LEAK


def sum_of_products_of_pairs(w: Any, d: Any) -> Any:
    """A number in the end, and of no client alone; but terms are of two clients."""
    g = gradients(w, d)
    return jnp.sum(jnp.triu(g @ g.T, 1))  # LEAK


def normalised_by_the_others(w: Any, d: Any) -> Any:
    """Batch statistics over clients: the statistics are sums, what is made of them not."""
    x = d["x"]
    mean, var = jnp.mean(x, (0, 1)), jnp.var(x, (0, 1))
    return (x - mean) / jnp.sqrt(var + 1e-5)  # LEAK


def singular_values(w: Any, d: Any) -> Any:
    return jnp.linalg.svd(gradients(w, d), compute_uv=False)  # LEAK


def spectrum(w: Any, d: Any) -> Any:
    return jnp.abs(jnp.fft.fft(losses(w, d)))  # LEAK


def histogram_by_sorting(w: Any, d: Any) -> Any:
    return jnp.unique(d["k"], size=3)  # LEAK


# -- decisions by a client's data ------------------------------------------------------


def mean_at_a_clients_place(w: Any, d: Any) -> Any:
    place = d["k"][0, 0]  # LEAK
    return jnp.mean(d["y"], 0)[place]  # LEAK


def clients_at_a_clients_place(w: Any, d: Any) -> Any:
    return lax.dynamic_index_in_dim(d["y"], d["k"][1, 1], 0)  # LEAK


def gathered(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"][jnp.array([0, 3])])  # LEAK


def taken(w: Any, d: Any) -> Any:
    return jnp.take(d["y"], jnp.int32(w[0] > 0), axis=0)  # LEAK


def branch_on_one_client(w: Any, d: Any) -> Any:
    sure = losses(w, d)[0] < 1.0  # LEAK
    return lax.cond(sure, lambda: step(w, d), lambda: w)  # LEAK


def branch_on_any_client(w: Any, d: Any) -> Any:
    return jnp.where(jnp.max(losses(w, d)) < 9.0, step(w, d), w)  # LEAK


def release_if_one_agrees(w: Any, d: Any) -> Any:
    agrees = d["k"][3, 0] > 0  # LEAK
    return jnp.where(agrees, jnp.sum(d["y"]), 0.0)  # LEAK


def trips_of_one_client(w: Any, d: Any) -> Any:
    trips = d["k"][0, 0]  # LEAK
    return lax.fori_loop(0, trips, lambda _, w: step(w, d), w)  # LEAK


def until_one_client_is_content(w: Any, d: Any) -> Any:
    content = lambda w: losses(w, d)[0] > 0.1  # noqa: E731  # LEAK
    return lax.while_loop(content, lambda w: step(w, d), w)  # LEAK


def weights_by_rank(w: Any, d: Any) -> Any:
    rank = jnp.argsort(jnp.argsort(losses(w, d)))  # LEAK
    return jnp.sum(rank[:, None] * gradients(w, d), 0)  # LEAK


def only_the_better_half(w: Any, d: Any) -> Any:
    each = losses(w, d)
    keep = each <= jnp.median(each)  # LEAK
    return jnp.sum(jnp.where(keep[:, None], gradients(w, d), 0), 0)  # LEAK


def one_shared_sort(w: Any, d: Any) -> Any:
    """Rows are dropped by comparing them with those of other clients."""
    order = jnp.argsort(d["y"].reshape(-1))[:8]  # LEAK
    return jnp.sum(d["x"].reshape(-1, FEATURES)[order], 0)  # LEAK


def switch(w: Any, d: Any) -> Any:
    which = d["k"][0, 0]  # LEAK
    doubled = lambda: 2 * w  # noqa: E731
    return lax.switch(which, [lambda: w, doubled, lambda: -w])  # LEAK


# -- sums of which the program itself leaves one term ----------------------------------


def gradient_of_one_client(w: Any, d: Any) -> Any:
    def first(w: Any) -> Any:
        each = jnp.mean(jnp.square(d["x"] @ w - d["y"]), 1)  # LEAK
        return each[0]  # LEAK

    return jax.grad(first)(w)


def jacobian_of_the_losses(w: Any, d: Any) -> Any:
    def each(w: Any) -> Any:
        return jnp.mean(jnp.square(d["x"] @ w - d["y"]), 1)  # LEAK

    return jax.jacrev(each)(w)


def pulled_back(w: Any, d: Any) -> Any:
    def each(w: Any) -> Any:
        return jnp.mean(jnp.square(d["x"] @ w - d["y"]), 1)  # LEAK

    return jax.vjp(each, w)[1](jnp.zeros(N).at[3].set(1.0))[0]


def times_the_identity(w: Any, d: Any) -> Any:
    return jnp.eye(N) @ gradients(w, d)  # LEAK


def prefix_sums_by_a_product(w: Any, d: Any) -> Any:
    return jnp.tril(jnp.ones((N, N))) @ losses(w, d)  # LEAK


def one_hot_client(w: Any, d: Any) -> Any:
    return jnp.sum(jax.nn.one_hot(2, N)[:, None] * d["y"], 0)  # LEAK


def all_others_masked(w: Any, d: Any) -> Any:
    mine = (jnp.arange(N) == 2)[:, None]
    return jnp.sum(jnp.where(mine, d["y"], 0.0), 0)  # LEAK


def only_it_left_out(w: Any, d: Any) -> Any:
    """The sum of all, less this, is one client's."""
    mine = (jnp.arange(N) == 2)[:, None]
    return jnp.sum(jnp.where(mine, 0.0, d["y"]), 0)  # LEAK


def segment_per_client(w: Any, d: Any) -> Any:
    return jax.ops.segment_sum(losses(w, d), jnp.arange(N), N)  # LEAK


# -- loops over clients ----------------------------------------------------------------


def state_of_the_last(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return y * 2.0, None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]  # LEAK


def stacked_by_a_loop(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return c + y, c + y  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[1]  # LEAK


def sums_before_each_client(w: Any, d: Any) -> Any:
    return lax.scan(lambda c, y: (c + y, c), jnp.zeros(EXAMPLES), d["y"])[1]  # LEAK


def curves_of_running_sums(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return c + y, lax.fori_loop(0, 2, lambda _, a: jnp.tanh(a), c)  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[1]


def running_sums_in_a_loop_of_a_loop(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return lax.scan(lambda a, e: (a + e, a), c, y)  # LEAK

    return lax.scan(body, 0.0, d["y"])[1]  # LEAK


def faded(w: Any, d: Any) -> Any:
    """With a fading fast enough only the last client is left."""

    def body(c: Any, y: Any) -> Any:
        return 0.001 * c + y, None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]


def running_mean(w: Any, d: Any) -> Any:
    """A mean in the end; but what fades in it could fade faster. Sum, and divide."""

    def body(c: Any, y: Any) -> Any:
        n, mean = c
        return (n + 1, mean + (y - mean) / (n + 1)), None  # LEAK

    return lax.scan(body, (0.0, jnp.zeros(EXAMPLES)), d["y"])[0][1]


def overwritten_in_part(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return jnp.where(jnp.arange(EXAMPLES) > 0, y, c), None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]


def the_last_few(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return jnp.concatenate([c[1:], y[:1]]), None  # LEAK

    return lax.scan(body, jnp.zeros(3), d["y"])[0]


def set_in_a_loop(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return c.at[0].set(y[0]), None  # LEAK

    return lax.scan(body, jnp.zeros(2), d["y"])[0]


def each_to_its_place(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        i, table = c
        return (i + 1, table.at[i].add(y[0])), None  # LEAK

    return lax.scan(body, (0, jnp.zeros(N)), d["y"])[0][1]


def shifted_on(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return jnp.roll(c, 1) + jnp.pad(y[:1], (0, N - 1)), None  # LEAK

    return lax.scan(body, jnp.zeros(N), d["y"])[0]


def sum_that_is_bent_on_its_way(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return jnp.clip(c + y, -1, 1), None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]


def printed_if_a_client_says_so(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        def show() -> Any:
            jax.debug.print("large")
            return y

        return c + lax.cond(y[0] > 0, show, lambda: y), None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]


def ticks(w: Any, d: Any) -> Any:
    def body(c: Any, k: Any) -> Any:
        def tick(i: Any, c: Any) -> Any:
            jax.debug.print("tick")
            return c + 1

        return c + lax.fori_loop(0, k[0], tick, 0), None  # LEAK

    return lax.scan(body, 0, d["k"])[0]


def one_client_after_the_other(w: Any, d: Any) -> Any:
    """A model that is handed from client to client: no sum."""

    def body(w: Any, one: Any) -> Any:
        return w - 0.1 * jax.grad(loss)(w, one), None  # LEAK

    return lax.scan(body, w, d)[0]  # LEAK


def largest_of_a_loop(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return jnp.maximum(c, y), None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]  # LEAK


def mapped_out(w: Any, d: Any) -> Any:
    return lax.map(lambda one: loss(w, one), d)  # LEAK


def by_index(w: Any, d: Any) -> Any:
    def body(i: Any, c: Any) -> Any:
        return jnp.maximum(c, d["y"][i])  # LEAK

    return lax.fori_loop(0, N, body, jnp.zeros(EXAMPLES))  # LEAK


def associative(w: Any, d: Any) -> Any:
    return lax.associative_scan(jnp.add, d["y"])  # LEAK


# -- collectives over the clients axis -------------------------------------------------


def over_clients(fun: Callable[[Any, Any], Any]) -> Round:
    def mapped(w: Any, d: Any) -> Any:
        # What is gathered of all clients the map itself hands on.
        return jax.vmap(fun, (None, 0), axis_name="clients")(w, d)  # LEAK

    return mapped


def worst_by_pmax(w: Any, one: Any) -> Any:
    return lax.pmax(loss(w, one), "clients")  # LEAK


def everybody_by_all_gather(w: Any, one: Any) -> Any:
    return lax.all_gather(loss(w, one), "clients")  # LEAK


def neighbour_by_ppermute(w: Any, one: Any) -> Any:
    ring = [(i, (i + 1) % N) for i in range(N)]
    return lax.ppermute(loss(w, one), "clients", ring)  # LEAK


def own_part_after_psum(w: Any, one: Any) -> Any:
    return lax.psum(one["y"], "clients") - one["y"]  # LEAK


def chosen_by_its_number(w: Any, one: Any) -> Any:
    mine = lax.axis_index("clients") == 2
    return lax.psum(jnp.where(mine, one["y"], 0.0), "clients")  # LEAK


def exchanged(w: Any, one: Any) -> Any:
    return lax.all_to_all(jnp.resize(one["y"], N), "clients", 0, 0)  # LEAK


# -- the host --------------------------------------------------------------------------


def debug_print(w: Any, d: Any) -> Any:
    jax.debug.print("{}", losses(w, d))  # LEAK
    return step(w, d)


def debug_callback(w: Any, d: Any) -> Any:
    jax.debug.callback(lambda x: None, d["x"][0])  # LEAK
    return step(w, d)


def pure_callback(w: Any, d: Any) -> Any:
    same = jax.ShapeDtypeStruct((N, EXAMPLES), jnp.float32)
    y = jax.pure_callback(lambda y: y, same, d["y"])  # LEAK
    return jnp.sum(y)


def io_callback(w: Any, d: Any) -> Any:
    jax.experimental.io_callback(lambda x: None, None, d["y"])  # LEAK
    return step(w, d)


def printed_in_a_clients_branch(w: Any, d: Any) -> Any:
    def one(y: Any) -> Any:
        def show() -> Any:
            jax.debug.print("{}", y)  # LEAK
            return y

        return lax.cond(w[0] > 0, show, lambda: y)

    return jnp.sum(jax.vmap(one)(d["y"]))


def printed_in_a_loop(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        jax.debug.print("{}", y)  # LEAK
        return c + y, None

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]


# -- hidden in other things ------------------------------------------------------------


@jax.custom_jvp
def identity(x: Any) -> Any:
    return x


identity.defjvp(lambda xs, ts: (xs[0], ts[0]))


def under_a_custom_rule(w: Any, d: Any) -> Any:
    return identity(losses(w, d)) * 1.0  # LEAK


def under_jit(w: Any, d: Any) -> Any:
    return jax.jit(lambda d: d["y"] * 2.0)(d)  # LEAK


def under_remat(w: Any, d: Any) -> Any:
    return jax.checkpoint(losses)(w, d) * 2.0  # LEAK


def stopped_gradient(w: Any, d: Any) -> Any:
    return lax.stop_gradient(losses(w, d)) * 1.0  # LEAK


def gradient_by_the_data(w: Any, d: Any) -> Any:
    return jax.grad(lambda x: jnp.sum(jnp.square(x @ w)))(d["x"]) * 1.0  # LEAK


def times_zero(w: Any, d: Any) -> Any:
    """NaN and infinity shine through."""
    return 0.0 * d["y"]  # LEAK


def written_into_public(w: Any, d: Any) -> Any:
    return jnp.zeros((N, EXAMPLES)).at[1].set(d["y"][1])  # LEAK


def scattered_by_a_client(w: Any, d: Any) -> Any:
    return jnp.zeros(N).at[jnp.arange(N)].set(losses(w, d))  # LEAK


def padded_mean(w: Any, d: Any) -> Any:
    more = jnp.concatenate([d["y"], jnp.zeros((1, EXAMPLES))])  # LEAK
    return more * 1.0  # LEAK


WRONG: list[Round] = [
    raw_example,
    all_data,
    loss_per_client,
    accuracy_per_client,
    gradient_per_client,
    one_client_left_out,
    leave_one_out,
    first_half,
    every_other,
    last_client,
    two_together,
    rolled,
    mirrored,
    transposed,
    flattened,
    bits_of_a_client,
    convolved,
    largest,
    smallest,
    who_is_worst,
    who_is_best,
    ordered,
    ranked,
    top_two,
    median,
    quantile,
    trimmed,
    product,
    anybody,
    everybody,
    log_sum_exp,
    soft_weights,
    running_sum,
    end_of_a_running_sum,
    running_maximum,
    running_product,
    running_log_sum,
    pairwise_distances,
    gram,
    sum_of_products_of_pairs,
    normalised_by_the_others,
    singular_values,
    spectrum,
    histogram_by_sorting,
    mean_at_a_clients_place,
    clients_at_a_clients_place,
    gathered,
    taken,
    branch_on_one_client,
    branch_on_any_client,
    release_if_one_agrees,
    trips_of_one_client,
    until_one_client_is_content,
    weights_by_rank,
    only_the_better_half,
    one_shared_sort,
    switch,
    gradient_of_one_client,
    jacobian_of_the_losses,
    pulled_back,
    times_the_identity,
    prefix_sums_by_a_product,
    one_hot_client,
    all_others_masked,
    only_it_left_out,
    segment_per_client,
    state_of_the_last,
    stacked_by_a_loop,
    sums_before_each_client,
    curves_of_running_sums,
    running_sums_in_a_loop_of_a_loop,
    faded,
    running_mean,
    overwritten_in_part,
    the_last_few,
    set_in_a_loop,
    each_to_its_place,
    shifted_on,
    sum_that_is_bent_on_its_way,
    printed_if_a_client_says_so,
    ticks,
    one_client_after_the_other,
    largest_of_a_loop,
    mapped_out,
    by_index,
    associative,
    debug_print,
    debug_callback,
    pure_callback,
    io_callback,
    printed_in_a_clients_branch,
    printed_in_a_loop,
    under_a_custom_rule,
    under_jit,
    under_remat,
    stopped_gradient,
    gradient_by_the_data,
    times_zero,
    written_into_public,
    scattered_by_a_client,
    padded_mean,
]
COLLECTIVES = [
    worst_by_pmax,
    everybody_by_all_gather,
    neighbour_by_ppermute,
    own_part_after_psum,
    chosen_by_its_number,
    exchanged,
]


# -- one client's program --------------------------------------------------------------


def client_prints(w: Any, d: Any) -> Any:
    jax.debug.print("{}", d["y"])  # LEAK
    return w


def client_prints_if(w: Any, d: Any) -> Any:
    def show() -> Any:
        jax.debug.print("yes")
        return w

    return lax.cond(d["y"][0] > 0, show, lambda: w)  # LEAK


def client_ticks(w: Any, d: Any) -> Any:
    def tick(_: Any, c: Any) -> Any:
        jax.debug.print("tick")
        return c + 1.0

    return lax.fori_loop(0, d["k"][0], tick, 0.0)  # LEAK


def client_calls_back_in_its_gradient(w: Any, d: Any) -> Any:
    def forward(w: Any) -> Any:
        return loss(w, d), w

    def backward(w: Any, g: Any) -> Any:
        jax.debug.print("{}", d["y"])  # LEAK
        return (g * w,)

    own = jax.custom_vjp(lambda w: loss(w, d))
    own.defvjp(forward, backward)
    return jax.grad(own)(w)  # LEAK


CLIENT = [
    client_prints,
    client_prints_if,
    client_ticks,
    client_calls_back_in_its_gradient,
]
TABLE = {f.__name__: f for f in WRONG} | {
    f.__name__: over_clients(f) for f in COLLECTIVES
}


def named_line(error: pytest.ExceptionInfo[PrivacyError]) -> str:
    """The line of this file that the error names."""
    assert isinstance(error.value, LeakError | UnsupportedError), error.value
    message = str(error.value)
    line = re.search(r"test_fl_wrong_programs\.py:(\d+)", message)
    assert line is not None, message
    return Path(__file__).read_text(encoding="utf-8").splitlines()[int(line[1]) - 1]


@pytest.mark.parametrize("name", TABLE)
def test_is_refused_with_its_line(name: str) -> None:
    run = federated(TABLE[name], clients="d", level="round")
    with pytest.raises(PrivacyError) as caught:
        run(PARAMS, DATA)
    assert "# LEAK" in named_line(caught), caught.value


@pytest.mark.parametrize("method", ["plain", "secure"])
@pytest.mark.parametrize("fun", CLIENT)
def test_a_clients_program_is_refused_with_its_line(fun: Round, method: str) -> None:
    with pytest.raises(LeakError) as caught:
        federated(fun, clients="d", aggregate=method)(PARAMS, DATA)
    assert "# LEAK" in named_line(caught), caught.value
