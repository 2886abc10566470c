"""Programs that are not differentially private, each with the line that makes it so.

Losses of (parameters, batch) in which examples interact; `programs_wrong_steps.py` has
whole steps. The offending statement is marked with `# LEAK`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from dp_models import BATCH, apply, cross_entropy, dense, labels, values
from flax import nnx
from jax import lax

PARAMS = dense(5, 3)
BATCH_XY = (values(BATCH, 5), labels(3))

LOSSES: list[Callable[..., Any]] = []


def loss(fun: Callable[..., Any]) -> Callable[..., Any]:
    LOSSES.append(fun)
    return fun


def each(p: Any, batch: Any) -> Any:
    """The loss of every example."""
    x, y = batch
    return optax.softmax_cross_entropy_with_integer_labels(apply(p, x), y)


def good(p: Any, batch: Any) -> Any:
    return jnp.mean(each(p, batch))


def sgd(p: Any, g: Any) -> Any:
    return jax.tree.map(lambda p, g: p - 0.1 * g, p, g)


# -- normalisation over the batch ---------------------------------------------------


@loss
def batch_norm(p: Any, batch: Any) -> Any:
    x, y = batch
    h = apply(p, x)
    h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)  # LEAK
    return cross_entropy(h, y)


@loss
def centred(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x - x.mean(0)), y)  # LEAK


@loss
def statistics_held_constant(p: Any, batch: Any) -> Any:
    x, y = batch
    mean = lax.stop_gradient(x.mean(0))
    return cross_entropy(apply(p, x) - mean[:3], y)  # LEAK


@loss
def scaled_by_the_largest(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x / jnp.max(jnp.abs(x))), y)  # LEAK


@loss
def scaled_to_the_range(p: Any, batch: Any) -> Any:
    x, y = batch
    low = x.min(0)  # LEAK
    return cross_entropy(apply(p, (x - low) / (x.max(0) - low)), y)


@loss
def whitened(p: Any, batch: Any) -> Any:
    x, y = batch
    factor = jnp.linalg.cholesky(x.T @ x + jnp.eye(5))
    x = jax.scipy.linalg.solve_triangular(factor, x.T, lower=True).T  # LEAK
    return cross_entropy(apply(p, x), y)


@loss
def decorrelated(p: Any, batch: Any) -> Any:
    """The loss of Barlow twins: correlations over the batch, used non-linearly."""
    x, _ = batch
    h = apply(p, x)
    c = h.T @ h / len(x)
    c = c - jnp.eye(3)  # LEAK
    return jnp.sum(c**2)


@loss
def variance_of_the_batch(p: Any, batch: Any) -> Any:
    x, _ = batch
    return jnp.sum(jnp.var(apply(p, x), axis=0))  # LEAK


@loss
def normalised_by_vmapped_mean(p: Any, batch: Any) -> Any:
    """A mean over the axis that vmap names."""
    x, y = batch

    def one(xi: Any, yi: Any) -> Any:
        h = apply(p, xi)
        h = h - lax.pmean(h, "examples")  # LEAK
        return optax.softmax_cross_entropy_with_integer_labels(h, yi)

    return jnp.mean(jax.vmap(one, axis_name="examples")(x, y))


class LinenNorm(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        h = nn.Dense(3)(x)
        return nn.BatchNorm(use_running_average=False)(h)  # LEAK


@loss
def linen_batch_norm(p: Any, batch: Any) -> Any:
    x, y = batch
    net = LinenNorm()
    start = net.init(jax.random.key(0), x[:1] * 0)
    h, _ = net.apply(start, apply(p, x) @ jnp.ones((3, 5)), mutable="batch_stats")
    return cross_entropy(h, y)


linen_batch_norm.lines = LinenNorm  # type: ignore[attr-defined]


@loss
def nnx_batch_norm(p: Any, batch: Any) -> Any:
    x, y = batch
    norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0), use_running_average=False)
    return cross_entropy(norm(apply(p, x)), y)  # LEAK


@loss
def group_norm_over_the_batch(p: Any, batch: Any) -> Any:
    """Units on the axis of features, by a transpose."""
    x, y = batch
    h = apply(p, x).T
    h = h / jnp.linalg.norm(h, axis=1, keepdims=True)  # LEAK
    return cross_entropy(h.T, y)


# -- examples compared with each other ----------------------------------------------


@loss
def in_batch_negatives(p: Any, batch: Any) -> Any:
    x, _ = batch
    h = apply(p, x)
    return cross_entropy(h @ h.T, jnp.arange(len(x)))  # LEAK


@loss
def contrastive_pairs(p: Any, batch: Any) -> Any:
    x, _ = batch
    h = apply(p, x)
    return jnp.mean((h[:, None] - h[None, :]) ** 2)  # LEAK


@loss
def triplets(p: Any, batch: Any) -> Any:
    x, _ = batch
    h = apply(p, x)
    return jnp.mean(jnp.sum((h[:2] - h[2:]) ** 2, axis=1))  # LEAK


@loss
def attention_across(p: Any, batch: Any) -> Any:
    x, y = batch
    h = apply(p, x)
    a = jax.nn.softmax(jnp.einsum("bi,ci->bc", h, h))  # LEAK
    return cross_entropy(a @ h, y)


@loss
def softmax_over_batch(p: Any, batch: Any) -> Any:
    x, _ = batch
    return jnp.sum(jax.nn.log_softmax(apply(p, x), axis=0))  # LEAK


@loss
def neighbours(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x + jnp.roll(x, 1, axis=0)), y)  # LEAK


@loss
def mixed_up(p: Any, batch: Any) -> Any:
    """Mixup: every input is blended with another example's."""
    x, y = batch
    order = jax.random.permutation(jax.random.key(0), len(x))
    return cross_entropy(apply(p, 0.7 * x + 0.3 * x[order]), y)  # LEAK


@loss
def reversed_labels(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x), y[::-1])  # LEAK


@loss
def looked_up(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x)[y], y)  # LEAK


@loss
def next_example(p: Any, batch: Any) -> Any:
    """Windows of two examples, by a mapped dynamic slice."""
    x, y = batch
    take = lambda i: lax.dynamic_slice_in_dim(x, i, 2)  # noqa: E731  # LEAK
    pairs = jax.vmap(take)(jnp.arange(len(x)))
    return cross_entropy(apply(p, pairs.sum(1)), y)


@loss
def convolved_over_the_batch(p: Any, batch: Any) -> Any:
    x, y = batch
    smooth = jax.vmap(
        lambda column: jnp.convolve(column, jnp.ones(3), mode="same"),  # LEAK
        in_axes=1,
        out_axes=1,
    )
    return cross_entropy(smooth(apply(p, x)), y)


@loss
def transformed_over_the_batch(p: Any, batch: Any) -> Any:
    x, y = batch
    h = jnp.real(jnp.fft.fft(apply(p, x), axis=0))  # LEAK
    return cross_entropy(h, y)


@loss
def reshaped_across(p: Any, batch: Any) -> Any:
    x, _ = batch
    h = apply(p, x).reshape(3, BATCH)  # LEAK
    return jnp.mean(jnp.tanh(h).sum(1) ** 2)


@loss
def groups_of_the_batch(p: Any, batch: Any) -> Any:
    """Ghost batch norm: statistics of half of the batch."""
    x, y = batch
    h = apply(p, x).reshape(2, BATCH // 2, 3)
    h = h - h.mean(1, keepdims=True)  # LEAK
    return cross_entropy(h.reshape(BATCH, 3), y)


@loss
def segments(p: Any, batch: Any) -> Any:
    """The mean of each class, from all of its examples."""
    x, y = batch
    h = apply(p, x)
    centres = jax.ops.segment_sum(h, y, num_segments=3)
    return jnp.mean((h - centres[y]) ** 2)  # LEAK


@loss
def bilinear(p: Any, batch: Any) -> Any:
    """A kernel between all pairs, written as one contraction."""
    x, y = batch
    h = apply(p, x)
    return jnp.einsum("bi,ci,b,c->", h, h, 1.0 * y, 1.0 * y)  # LEAK


# -- order, extremes, selection -----------------------------------------------------


@loss
def worst_example(p: Any, batch: Any) -> Any:
    return jnp.max(each(p, batch))  # LEAK


@loss
def sorted_losses(p: Any, batch: Any) -> Any:
    return jnp.sort(each(p, batch))[:2].mean()  # LEAK


@loss
def hardest(p: Any, batch: Any) -> Any:
    return lax.top_k(each(p, batch), 2)[0].mean()  # LEAK


@loss
def hardest_along_the_first_axis(p: Any, batch: Any) -> Any:
    x, _ = batch
    return lax.top_k(apply(p, x), 2, axis=0)[0].mean()  # LEAK


@loss
def median(p: Any, batch: Any) -> Any:
    return jnp.median(each(p, batch))  # LEAK


@loss
def outliers_dropped(p: Any, batch: Any) -> Any:
    losses = each(p, batch)
    limit = lax.stop_gradient(jnp.quantile(losses, 0.9))  # LEAK
    return jnp.mean(jnp.where(losses < limit, losses, 0.0))


@loss
def argmax_of_the_batch(p: Any, batch: Any) -> Any:
    losses = each(p, batch)
    return losses[jnp.argmax(losses)]  # LEAK


@loss
def running_total(p: Any, batch: Any) -> Any:
    return jnp.mean(jnp.tanh(jnp.cumsum(each(p, batch))))  # LEAK


@loss
def product_of_losses(p: Any, batch: Any) -> Any:
    return jnp.prod(each(p, batch))  # LEAK


@loss
def log_of_summed_exponentials(p: Any, batch: Any) -> Any:
    return jax.nn.logsumexp(each(p, batch))  # LEAK


@loss
def associative(p: Any, batch: Any) -> Any:
    return lax.associative_scan(jnp.maximum, each(p, batch)).mean()  # LEAK


@loss
def shuffled_by_data(p: Any, batch: Any) -> Any:
    x, y = batch
    return cross_entropy(apply(p, x[jnp.argsort(x[:, 0])]), y)  # LEAK


# -- non-linear functions of the whole batch's loss ---------------------------------


@loss
def root_of_the_mean(p: Any, batch: Any) -> Any:
    x, y = batch
    return jnp.sqrt(jnp.mean((apply(p, x).sum(1) - y) ** 2))  # LEAK


@loss
def masked_mean(p: Any, batch: Any) -> Any:
    mask = (batch[1] > 0).astype(jnp.float32)
    return jnp.sum(mask * each(p, batch)) / jnp.sum(mask)  # LEAK


@loss
def weighted_mean(p: Any, batch: Any) -> Any:
    weights = jax.nn.softplus(batch[0][:, 0])
    return jnp.average(each(p, batch), weights=weights)  # LEAK


@loss
def class_balanced(p: Any, batch: Any) -> Any:
    """Weights from the batch's own class counts."""
    counts = jax.nn.one_hot(batch[1], 3).sum(0)
    return jnp.mean(each(p, batch) / counts[batch[1]])  # LEAK


@loss
def clipped_mean(p: Any, batch: Any) -> Any:
    return jnp.minimum(good(p, batch), 1.0)  # LEAK


@loss
def ratio_of_sums(p: Any, batch: Any) -> Any:
    """The dice loss over the batch."""
    x, y = batch
    h = jax.nn.sigmoid(apply(p, x)[:, 0])
    return 1 - 2 * jnp.sum(h * y) / (jnp.sum(h) + jnp.sum(y) + 1.0)  # LEAK


@loss
def squared_total(p: Any, batch: Any) -> Any:
    """Second moments: every pair of examples has a term."""
    return jnp.sum(apply(p, batch[0])) ** 2  # LEAK


# -- loops and branches -------------------------------------------------------------


@loss
def recurrence_over_examples(p: Any, batch: Any) -> Any:
    x, y = batch

    def one(carry: Any, xi: Any) -> Any:
        h = jnp.tanh(apply(p, xi) + carry)  # LEAK
        return h, h

    _, h = lax.scan(one, jnp.zeros(3), x)
    return cross_entropy(h, y)


@loss
def data_dependent_branch(p: Any, batch: Any) -> Any:
    x, y = batch
    h = lax.cond(x.sum() > 0, lambda: apply(p, x), lambda: -apply(p, x))  # LEAK
    return cross_entropy(h, y)


@loss
def data_dependent_switch(p: Any, batch: Any) -> Any:
    x, y = batch
    branches = [lambda: apply(p, x), lambda: 2 * apply(p, x)]
    return cross_entropy(lax.switch(y[0], branches), y)  # LEAK


@loss
def data_dependent_trip_count(p: Any, batch: Any) -> Any:
    x, y = batch
    small = lambda v: jnp.sum(v**2) < 100  # noqa: E731  # LEAK
    x = lax.while_loop(small, lambda v: 2 * v, x)
    return cross_entropy(apply(p, x), y)


@loss
def data_dependent_number_of_steps(p: Any, batch: Any) -> Any:
    x, y = batch
    double = lambda i, v: 2 * v  # noqa: E731
    x = lax.fori_loop(0, jnp.max(y), double, x)  # LEAK
    return cross_entropy(apply(p, x), y)


@loss
def one_stream_for_all(p: Any, batch: Any) -> Any:
    """A random key made of the data of the whole batch."""
    x, y = batch
    seed = jnp.sum(y)  # LEAK
    mask = jax.random.bernoulli(jax.random.key(seed), 0.5, x.shape)
    return cross_entropy(apply(p, x * mask), y)
