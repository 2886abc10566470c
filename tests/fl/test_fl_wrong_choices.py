"""Rounds in which one client decides, or is the only one that counts: refused.

Lines that may be named are marked `LEAK`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from fl_clients_axis import (
    FEATURES,
    PARAMS,
    N,
    Round,
    check_refused,
    gradients,
    losses,
    named_line,
    step,
)
from jax import lax

from privjax import federated
from privjax.errors import LeakError

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


def place_of_its_own(w: Any, d: Any) -> Any:
    def one(i: Any, y: Any) -> Any:
        return jnp.zeros(N).at[i].set(y[0])  # LEAK

    return jax.vmap(one)(jnp.arange(N), d["y"]).sum(0)


def slice_of_its_own(w: Any, d: Any) -> Any:
    def one(i: Any, y: Any) -> Any:
        return lax.dynamic_update_slice(jnp.zeros(N), y[:1], (i,))  # LEAK

    return jax.vmap(one)(jnp.arange(N), d["y"]).sum(0)


def rolled_by_its_number(w: Any, d: Any) -> Any:
    def one(i: Any, y: Any) -> Any:
        return jnp.roll(jnp.pad(y[:1], (0, N - 1)), i)  # LEAK

    return jax.vmap(one)(jnp.arange(N), d["y"]).sum(0)


def group_of_one(w: Any, d: Any) -> Any:
    return jax.ops.segment_sum(d["y"], jnp.array([0, 1, 1, 1, 1]), 2)  # LEAK


def powers_as_weights(w: Any, d: Any) -> Any:
    """As many different sums as there are clients: solve for them."""
    powers = jnp.vander(jnp.arange(1.0, N + 1), N, increasing=True)
    return powers.T @ losses(w, d)  # LEAK


def powers_by_repeating(w: Any, d: Any) -> Any:
    powers = jnp.vander(jnp.arange(1.0, N + 1), N, increasing=True)
    return jnp.sum(powers * losses(w, d)[:, None], 0)  # LEAK


def identity_out_of_a_loop(w: Any, d: Any) -> Any:
    row = lambda c, i: (c, jnp.where(jnp.arange(N) == i, 1.0, 0.0))  # noqa: E731
    rows = lax.scan(row, 0, jnp.arange(N))[1]
    return rows @ losses(w, d)  # LEAK


def identity_that_is_checkpointed(w: Any, d: Any) -> Any:
    rows = jax.checkpoint(lambda: jnp.sin(jnp.eye(N)))()
    return rows @ losses(w, d)  # LEAK


def turned_and_multiplied(w: Any, d: Any) -> Any:
    return jnp.einsum("ne,ne->e", d["y"], d["y"][::-1])  # LEAK


def fourier_by_a_product(w: Any, d: Any) -> Any:
    k = jnp.arange(N)
    waves = jnp.exp(-2j * jnp.pi * jnp.outer(k, k) / N)
    return jnp.abs(waves @ losses(w, d).astype(jnp.complex64))  # LEAK


def with_and_without(w: Any, d: Any) -> Any:
    g = gradients(w, d)
    others = jnp.array([0.0, 1, 1, 1, 1])
    return jnp.sum(g, 0), others @ g  # LEAK


def two_masks(w: Any, d: Any) -> Any:
    y = d["y"]
    a, b = jnp.array([1.0, 1, 1, 0, 0]), jnp.array([1.0, 1, 0, 0, 0])
    return a @ y, b @ y  # LEAK


def digits_by_a_product(w: Any, d: Any) -> Any:
    return jax.vmap(lambda i, y: 1e4**i * y)(jnp.arange(N), d["y"]).sum(0)  # LEAK


def divided_by_much(w: Any, d: Any) -> Any:
    much = jnp.array([1.0, 1e6, 1e6, 1e6, 1e6])
    return jnp.sum(losses(w, d) / much)  # LEAK


def clipped_to_the_largest(w: Any, d: Any) -> Any:
    """A norm that all clients share is no client's own."""
    g = gradients(w, d)
    norms = jnp.linalg.norm(g, axis=1)
    return jnp.mean(g / jnp.max(norms), 0)  # LEAK


def over_the_count_of_one(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"], 0) / d["n"][0]  # LEAK


def over_the_count_of_each(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"], 0) / d["n"][:, None]  # LEAK


def over_the_count_of_another(w: Any, d: Any) -> Any:
    return jnp.sum(d["y"] / d["n"][::-1, None], 0)  # LEAK


def the_best_clients_model(w: Any, d: Any) -> Any:
    best = jnp.argmin(losses(w, d))  # LEAK
    return w - gradients(w, d)[best]


def worst_case_objective(w: Any, d: Any) -> Any:
    worst = lambda w: jnp.max(losses(w, d))  # noqa: E731  # LEAK
    return w - 0.1 * jax.grad(worst)(w)


WRONG: list[Round] = [
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
    place_of_its_own,
    slice_of_its_own,
    rolled_by_its_number,
    group_of_one,
    powers_as_weights,
    powers_by_repeating,
    identity_out_of_a_loop,
    identity_that_is_checkpointed,
    turned_and_multiplied,
    fourier_by_a_product,
    with_and_without,
    two_masks,
    digits_by_a_product,
    divided_by_much,
    clipped_to_the_largest,
    over_the_count_of_one,
    over_the_count_of_each,
    over_the_count_of_another,
    the_best_clients_model,
    worst_case_objective,
]


@pytest.mark.parametrize("fun", WRONG)
def test_one_clients_say_is_refused_with_its_line(fun: Round) -> None:
    check_refused(fun, __file__, level="round")


def test_one_of_very_many_is_one_too() -> None:
    clients = 700

    def one_each(w: Any, d: Any) -> Any:
        return jnp.eye(clients) @ d  # LEAK

    with pytest.raises(LeakError) as caught:
        federated(one_each, clients="d", level="round")(PARAMS, jnp.ones(clients))
    assert "# LEAK" in named_line(caught, __file__)
