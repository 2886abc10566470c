"""Rounds over a leading clients axis that leak: each is refused with its file and line.

Every program is one that people write: a debugging output that stayed, a statistic that is
no sum. Lines that may be named are marked `LEAK`. Its neighbours: `test_fl_wrong_choices`
(one client decides, or is picked), `test_fl_wrong_loops`, `test_fl_wrong_effects`.
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
    losses,
    step,
)
from jax import lax

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


@pytest.mark.parametrize("fun", WRONG)
def test_what_is_no_sum_is_refused_with_its_line(fun: Round) -> None:
    check_refused(fun, __file__, level="round")
