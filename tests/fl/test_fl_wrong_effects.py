"""Collectives over the clients axis and values for the host: refused.

Lines that may be named are marked `LEAK`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from fl_clients_axis import (
    DATA,
    EXAMPLES,
    PARAMS,
    N,
    Round,
    check_refused,
    loss,
    losses,
    named_line,
    step,
)
from jax import lax

from privjax import fl
from privjax.errors import UnsupportedError

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


def sums_over_clients(w: Any, d: Any) -> Any:
    """One client sees no others: there is no axis to sum over."""
    return loss(w, d) + lax.psum(d["y"].sum(), "clients")  # LEAK


WRONG: list[Round] = [
    debug_print,
    debug_callback,
    pure_callback,
    io_callback,
    printed_in_a_clients_branch,
    printed_in_a_loop,
]
COLLECTIVES: list[Round] = [
    worst_by_pmax,
    everybody_by_all_gather,
    neighbour_by_ppermute,
    own_part_after_psum,
    chosen_by_its_number,
    exchanged,
]
CLIENT: list[Round] = [
    client_prints,
    client_prints_if,
    client_ticks,
    client_calls_back_in_its_gradient,
]


@pytest.mark.parametrize("fun", WRONG)
def test_what_goes_to_the_host_is_refused_with_its_line(fun: Round) -> None:
    check_refused(fun, __file__, level="round")


@pytest.mark.parametrize("fun", COLLECTIVES)
def test_a_collective_is_refused_with_its_line(fun: Round) -> None:
    check_refused(over_clients(fun), __file__, level="round")


@pytest.mark.parametrize("method", ["plain", "secure"])
@pytest.mark.parametrize("fun", CLIENT)
def test_a_clients_program_is_refused_with_its_line(fun: Round, method: str) -> None:
    check_refused(fun, __file__, aggregate=method)


def test_a_collective_in_the_program_of_one_client() -> None:
    """It says how to have the mean that was meant."""
    algorithm = fl.fedavg(
        lambda w, d: sums_over_clients(w, d) * jnp.ones(EXAMPLES), client=optax.sgd(0.1)
    )
    with pytest.raises(UnsupportedError, match="level='round'") as caught:
        algorithm.round(algorithm.init(PARAMS), {k: DATA[k] for k in "xy"})
    assert "# LEAK" in named_line(caught, __file__)
