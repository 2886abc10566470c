"""Loops over clients that end with more than a sum: refused with their file and line.

A loop may add to what it carries and nothing else. Lines that may be named are marked
`LEAK`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from fl_clients_axis import (
    EXAMPLES,
    N,
    Round,
    check_refused,
    gradients,
    loss,
    losses,
)
from jax import lax

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


def running_mean_that_forgets(w: Any, d: Any) -> Any:
    """What fades slowly could fade fast: only equal weights are a sum."""

    def body(c: Any, y: Any) -> Any:
        n, mean = c
        return (n + 0.5, mean + (y - mean) / (n + 1)), None  # LEAK

    return lax.scan(body, (0.0, jnp.zeros(EXAMPLES)), d["y"])[0][1]


def moving_mean(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return c + 0.5 * (y - c), None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]


def momentum_over_clients(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        m, total = c
        m = 0.9 * m + y  # LEAK
        return (m, total + m), None

    return lax.scan(body, (jnp.zeros(EXAMPLES), jnp.zeros(EXAMPLES)), d["y"])[0][1]


def replaced_where_a_mask_says_so(w: Any, d: Any) -> Any:
    mask = w[0] > jnp.linspace(-1.0, 1.0, N)

    def body(c: Any, x: Any) -> Any:
        return jnp.where(x[0], x[1], c), None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), (mask, d["y"]))[0]


def replaced_if_a_switch_says_so(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        return lax.cond(w[0] > 0, lambda: y, lambda: c), None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), d["y"])[0]


def begun_anew_by_the_fourth(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        i, y = x
        return jnp.where(i == 3, y, c + y), None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), (jnp.arange(N), d["y"]))[0]


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


def numbered(body: Any, zero: Any, d: Any) -> Any:
    """A loop over clients and their numbers."""
    return lax.scan(body, zero, (jnp.arange(N), d["y"]))[0]


def set_at_its_number(w: Any, d: Any) -> Any:
    return numbered(
        lambda c, x: (c.at[x[0]].set(x[1][0]), None),  # LEAK
        jnp.zeros(N),
        d,
    )


def added_at_its_number(w: Any, d: Any) -> Any:
    return numbered(
        lambda c, x: (c.at[x[0]].add(x[1][0]), None),  # LEAK
        jnp.zeros(N),
        d,
    )


def added_in_a_row_of_its_own(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return c + jnp.zeros(N).at[x[0]].set(x[1][0]), None  # LEAK

    return numbered(body, jnp.zeros(N), d)


def added_by_a_slice_of_its_own(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        row = lax.dynamic_update_slice(jnp.zeros(N), x[1][:1], (x[0],))  # LEAK
        return c + row, None

    return numbered(body, jnp.zeros(N), d)


def added_one_hot(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return c + jax.nn.one_hot(x[0], N) * x[1][0], None  # LEAK

    return numbered(body, jnp.zeros(N), d)


def added_if_it_is_the_third(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return c + jnp.where(x[0] == 2, x[1], 0.0), None  # LEAK

    return numbered(body, jnp.zeros(EXAMPLES), d)


def sums_of_running_sums(w: Any, d: Any) -> Any:
    """Clients come out weighed by their numbers: of two, one alone."""

    def body(c: Any, y: Any) -> Any:
        total, totals = c
        total = total + y
        return (total, totals + total), None  # LEAK

    return lax.scan(body, (jnp.zeros(EXAMPLES), jnp.zeros(EXAMPLES)), d["y"])[0]


def powers_in_a_loop(w: Any, d: Any) -> Any:
    powers = jnp.vander(jnp.arange(1.0, N + 1), N, increasing=True)

    def body(c: Any, x: Any) -> Any:
        return c + x[0] * x[1][0], None  # LEAK

    return lax.scan(body, jnp.zeros(N), (powers, d["y"]))[0]


def in_a_loop_of_its_own(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        i, y = x
        return lax.scan(lambda c, e: (c.at[i].add(e), None), c, y)[0], None  # LEAK

    return numbered(body, jnp.zeros(N), d)


def given_out_without_the_third(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return jnp.where(x[0] == 2, c, c + x[1]), None  # LEAK

    return numbered(body, jnp.zeros(EXAMPLES), d)


def turned_and_paired(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return c + x[0] * x[1], None  # LEAK

    return lax.scan(body, jnp.zeros(EXAMPLES), (d["y"], d["y"][::-1]))[0]


def all_but_the_third(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return c + jnp.where(x[0] == 2, 0.0, x[1]), None  # LEAK

    return numbered(body, jnp.zeros(EXAMPLES), d)


def times_whether_it_is_the_third(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return c + (x[0] == 2) * x[1], None  # LEAK

    return numbered(body, jnp.zeros(EXAMPLES), d)


def branch_for_the_third(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        return lax.cond(x[0] == 2, lambda: c + x[1], lambda: c), None  # LEAK

    return numbered(body, jnp.zeros(EXAMPLES), d)


def value_of_a_branch_for_the_third(w: Any, d: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        mine = lax.cond(x[0] == 2, lambda: x[1], lambda: jnp.zeros(EXAMPLES))  # LEAK
        return c + mine, None

    return numbered(body, jnp.zeros(EXAMPLES), d)


def counted_to_the_third(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        i, total = c
        return (i + 1, total + jnp.where(i == 2, y, 0.0)), None  # LEAK

    return lax.scan(body, (0, jnp.zeros(EXAMPLES)), d["y"])[0][1]


def digits_of_one_number(w: Any, d: Any) -> Any:
    """Weights so unlike that every client can be read off."""

    def body(c: Any, x: Any) -> Any:
        return c + 1e4 ** x[0] * x[1], None  # LEAK

    return numbered(body, jnp.zeros(EXAMPLES), d)


def another_client_every_round(w: Any, d: Any) -> Any:
    def body(c: Any, row: Any) -> Any:
        return c, row @ d["y"]  # LEAK

    return lax.scan(body, 0.0, jnp.eye(N))[1]


def the_one_before(w: Any, d: Any) -> Any:
    def body(c: Any, y: Any) -> Any:
        before, total = c
        return (y, total + before * y), None  # LEAK

    return lax.scan(body, (jnp.zeros(EXAMPLES), jnp.zeros(EXAMPLES)), d["y"])[0][1]


def metrics_of_every_round(w: Any, d: Any) -> Any:
    def body(w: Any, _: Any) -> Any:
        return w - jnp.mean(gradients(w, d), 0), losses(w, d) * 1.0  # LEAK

    return lax.scan(body, w, None, 2)  # LEAK


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


WRONG: list[Round] = [
    state_of_the_last,
    stacked_by_a_loop,
    sums_before_each_client,
    curves_of_running_sums,
    running_sums_in_a_loop_of_a_loop,
    faded,
    running_mean_that_forgets,
    moving_mean,
    momentum_over_clients,
    replaced_where_a_mask_says_so,
    replaced_if_a_switch_says_so,
    begun_anew_by_the_fourth,
    overwritten_in_part,
    the_last_few,
    set_in_a_loop,
    each_to_its_place,
    set_at_its_number,
    added_at_its_number,
    added_in_a_row_of_its_own,
    added_by_a_slice_of_its_own,
    added_one_hot,
    added_if_it_is_the_third,
    sums_of_running_sums,
    powers_in_a_loop,
    in_a_loop_of_its_own,
    given_out_without_the_third,
    turned_and_paired,
    all_but_the_third,
    times_whether_it_is_the_third,
    branch_for_the_third,
    value_of_a_branch_for_the_third,
    counted_to_the_third,
    digits_of_one_number,
    another_client_every_round,
    the_one_before,
    metrics_of_every_round,
    shifted_on,
    sum_that_is_bent_on_its_way,
    printed_if_a_client_says_so,
    ticks,
    one_client_after_the_other,
    largest_of_a_loop,
    mapped_out,
    by_index,
    associative,
]


@pytest.mark.parametrize("fun", WRONG)
def test_a_loop_over_clients_is_refused_with_its_line(fun: Round) -> None:
    check_refused(fun, __file__, level="round")
