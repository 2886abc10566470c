"""Programs that were tried on the analysis once it was written; it had not seen them.

`WRONG` losses and steps are refused at a line of their own, `RIGHT` ones accepted. The
tables of right and wrong programs explain each; here the names have to do.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from dp_models import BATCH as B
from dp_models import apply
from jax import lax
from programs_wrong import each, good, sgd

H = B // 2

XENT = optax.softmax_cross_entropy_with_integer_labels
Program = Callable[[Any, Any], Any]
RIGHT: dict[str, Program] = {}
WRONG: dict[str, Program] = {}
# The functions in which the line is to be found.
SOURCES: dict[str, Program] = {}


def _step(loss: Program) -> Program:
    return lambda p, batch: sgd(p, jax.grad(loss)(p, batch))


def right_loss(loss: Program) -> Program:
    RIGHT[loss.__name__] = _step(loss)
    return loss


def wrong_loss(loss: Program) -> Program:
    WRONG[loss.__name__], SOURCES[loss.__name__] = _step(loss), loss
    return loss


def right_step(step: Program) -> Program:
    RIGHT[step.__name__] = step
    return step


def wrong_step(step: Program) -> Program:
    WRONG[step.__name__] = SOURCES[step.__name__] = step
    return step


def xe(h: Any, batch: Any) -> Any:
    return jnp.mean(XENT(h, batch[1]))


def cutb(batch: Any) -> Any:
    """The batch as two micro-batches."""
    return jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)


def new(p: Any, batch: Any) -> Any:
    return sgd(p, jax.grad(good)(p, batch))


# -- right losses --------------------------------------------------------------------


@right_loss
def label_smoothing(p: Any, batch: Any) -> Any:
    y = optax.smooth_labels(jax.nn.one_hot(batch[1], 3), 0.1)
    return optax.softmax_cross_entropy(apply(p, batch[0]), y).mean()


@right_loss
def class_weights(p: Any, batch: Any) -> Any:
    return jnp.mean(jnp.array([1.0, 2.0, 0.5])[batch[1]] * each(p, batch))


@right_loss
def focal(p: Any, batch: Any) -> Any:
    losses = each(p, batch)
    return jnp.mean((1 - jnp.exp(-losses)) ** 2 * losses)


@right_loss
def gradient_penalty(p: Any, batch: Any) -> Any:
    g = jax.vmap(jax.grad(lambda x: jnp.sum(jnp.tanh(apply(p, x)))))(batch[0])
    return good(p, batch) + jnp.mean((jnp.linalg.norm(g, axis=1) - 1) ** 2)


@right_loss
def gradient_penalty_by_batch_grad(p: Any, batch: Any) -> Any:
    g = jax.grad(lambda x: jnp.sum(jnp.tanh(apply(p, x))))(batch[0])
    return good(p, batch) + jnp.mean(jnp.sum(g**2, 1))


@right_loss
def l2(p: Any, batch: Any) -> Any:
    return good(p, batch) + 0.01 * optax.tree.norm(p, squared=True)


@right_loss
def entropy_reg(p: Any, batch: Any) -> Any:
    lp = jax.nn.log_softmax(apply(p, batch[0]))
    return good(p, batch) - 0.1 * jnp.mean(-jnp.sum(jnp.exp(lp) * lp, 1))


@right_loss
def huber(p: Any, batch: Any) -> Any:
    return optax.huber_loss(apply(p, batch[0]).sum(1), batch[0].sum(1)).mean()


@right_loss
def clipped_losses(p: Any, batch: Any) -> Any:
    return jnp.mean(jnp.minimum(each(p, batch), 1.0))


@right_loss
def quantile(p: Any, batch: Any) -> Any:
    e = apply(p, batch[0])[:, 0] - batch[0][:, 0]
    return jnp.mean(jnp.maximum(0.9 * e, -0.1 * e))


@right_loss
def dropout_per_step(p: Any, batch: Any) -> Any:
    m = jax.random.bernoulli(jax.random.key(0), 0.5, batch[0].shape)
    return good(p, (jnp.where(m, batch[0] * 2, 0), batch[1]))


@right_loss
def remat_custom(p: Any, batch: Any) -> Any:
    return jax.checkpoint(good, policy=jax.checkpoint_policies.dots_saveable)(p, batch)


@right_loss
def grad_scaled(p: Any, batch: Any) -> Any:
    return good(p, batch) * 1024 / 1024


@right_loss
def bf16(p: Any, batch: Any) -> Any:
    return good(
        jax.tree.map(lambda x: x.astype(jnp.bfloat16), p),
        (batch[0].astype(jnp.bfloat16), batch[1]),
    ).astype(jnp.float32)


@right_loss
def straight_through(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    q = h + lax.stop_gradient(jnp.round(h) - h)
    return jnp.mean(XENT(q, batch[1]))


@right_loss
def instance_norm(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    h = (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 1e-05)
    return jnp.mean(XENT(h, batch[1]))


@right_loss
def mixup_public(p: Any, batch: Any) -> Any:
    return good(p, (0.7 * batch[0] + 0.3 * jnp.ones(5), batch[1]))


@right_loss
def knn_to_public(p: Any, batch: Any) -> Any:
    d = jnp.sum((batch[0][:, None] - p["w"].T[None]) ** 2, -1)
    return jnp.mean(jnp.min(d, 1))


@right_loss
def vmapped_mask(p: Any, batch: Any) -> Any:
    w = (batch[0][:, 0] > 0).astype(jnp.float32)
    return jnp.sum(w * each(p, batch)) / B


@right_loss
def scan_layers(p: Any, batch: Any) -> Any:

    def f(h: Any, w: Any) -> Any:
        return (jnp.tanh(h @ w), None)

    ws = jnp.stack([p["w"] @ p["w"].T] * 2)
    h, _ = lax.scan(f, batch[0], ws)
    return good(p, (h, batch[1]))


@right_loss
def while_public(p: Any, batch: Any) -> Any:

    def body(s: Any) -> Any:
        return (s[0] + 1, jnp.tanh(s[1] @ (p["w"] @ p["w"].T)))

    h = lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h @ (p["w"] @ p["w"].T)), batch[0])
    return good(p, (h, batch[1]))


@right_loss
def seg_sum_linear(p: Any, batch: Any) -> Any:
    s = jax.ops.segment_sum(apply(p, batch[0]), batch[1], 3)
    return jnp.sum(s * jnp.arange(9.0).reshape(3, 3)) / B


@right_loss
def key_per_example(p: Any, batch: Any) -> Any:
    k = jax.vmap(jax.random.key)(batch[1])
    return good(
        p, (batch[0] + jax.vmap(lambda k: jax.random.normal(k, (5,)))(k), batch[1])
    )


@right_loss
def key_split(p: Any, batch: Any) -> Any:
    k = jax.random.split(jax.random.key(0), B)
    return good(
        p,
        (
            batch[0] * jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, (5,)))(k),
            batch[1],
        ),
    )


@right_loss
def einsum_trace(p: Any, batch: Any) -> Any:
    return jnp.einsum("bi,bi->", apply(p, batch[0]), apply(p, batch[0])) / B


@right_loss
def linear_in_sum(p: Any, batch: Any) -> Any:
    return jnp.sum(apply(p, batch[0]).sum(0) * jnp.arange(3.0)) / B


@right_loss
def axis_index_vmap(p: Any, batch: Any) -> Any:
    return jnp.mean(
        jax.vmap(
            lambda x, y: XENT(apply(p, x * (1 + lax.axis_index("i"))), y), axis_name="i"
        )(*batch)
    )


@right_loss
def nested_jit_remat(p: Any, batch: Any) -> Any:
    return jax.jit(jax.checkpoint(jax.jit(good)))(p, batch)


@right_loss
def lax_map_loss(p: Any, batch: Any) -> Any:
    return lax.map(lambda e: XENT(apply(p, e[0]), e[1]), batch).mean()


@right_loss
def lax_map_batched(p: Any, batch: Any) -> Any:
    return lax.map(lambda e: XENT(apply(p, e[0]), e[1]), batch, batch_size=2).mean()


@right_loss
def scan_sum_loss(p: Any, batch: Any) -> Any:
    return (
        lax.scan(lambda c, e: (c + XENT(apply(p, e[0]), e[1]), None), 0.0, batch)[0] / B
    )


@right_loss
def scan_decay_sum(p: Any, batch: Any) -> Any:
    return (
        lax.scan(lambda c, e: (0.9 * c + XENT(apply(p, e[0]), e[1]), None), 0.0, batch)[
            0
        ]
        / B
    )


@right_loss
def implicit_layer(p: Any, batch: Any) -> Any:
    w = p["w"].T @ p["w"] * 0.05

    def solve(x: Any) -> Any:
        return lax.fori_loop(
            0, 5, lambda i, z: jnp.tanh(z @ w + x @ p["w"]), jnp.zeros((B, 3))
        )

    return xe(solve(batch[0]), batch)


@right_loss
def linear_solve_per_example(p: Any, batch: Any) -> Any:
    A_ = jax.vmap(lambda x: jnp.outer(x[:3], x[:3]) + jnp.eye(3))(batch[0])
    return xe(jnp.linalg.solve(A_, apply(p, batch[0])[..., None])[..., 0], batch)


@right_loss
def cvar_public_threshold(p: Any, batch: Any) -> Any:
    return jnp.mean(jnp.maximum(each(p, batch) - p["b"][0], 0))


# -- wrong losses --------------------------------------------------------------------


@wrong_loss
def mask_mean(p: Any, batch: Any) -> Any:
    w = (batch[0][:, 0] > 0).astype(jnp.float32)
    return jnp.sum(w * each(p, batch)) / jnp.sum(w)


@wrong_loss
def where_mean(p: Any, batch: Any) -> Any:
    return jnp.mean(each(p, batch), where=batch[0][:, 0] > 0)


@wrong_loss
def weights_normalised(p: Any, batch: Any) -> Any:
    w = jnp.exp(batch[0][:, 0])
    return jnp.sum(each(p, batch) * w / w.sum())


@wrong_loss
def class_balanced(p: Any, batch: Any) -> Any:
    c = jnp.bincount(batch[1], length=3)
    return jnp.mean(each(p, batch) / (c[batch[1]] + 1.0))


@wrong_loss
def ohem(p: Any, batch: Any) -> Any:
    return jnp.mean(lax.top_k(each(p, batch), 2)[0])


@wrong_loss
def sorted_losses(p: Any, batch: Any) -> Any:
    return jnp.sum(jnp.sort(each(p, batch)) * jnp.arange(B))


@wrong_loss
def trimmed(p: Any, batch: Any) -> Any:
    losses = each(p, batch)
    return jnp.mean(jnp.where(losses < jnp.median(losses), losses, 0))


@wrong_loss
def max_loss(p: Any, batch: Any) -> Any:
    return jnp.max(each(p, batch))


@wrong_loss
def logsumexp_loss(p: Any, batch: Any) -> Any:
    return jax.nn.logsumexp(each(p, batch))


@wrong_loss
def loss_scaled_by_max(p: Any, batch: Any) -> Any:
    losses = each(p, batch)
    return jnp.mean(losses / lax.stop_gradient(losses.max()))


@wrong_loss
def loss_squared_mean(p: Any, batch: Any) -> Any:
    return good(p, batch) ** 2


@wrong_loss
def log_of_mean(p: Any, batch: Any) -> Any:
    return jnp.log(good(p, batch))


@wrong_loss
def flooding(p: Any, batch: Any) -> Any:
    return jnp.abs(good(p, batch) - 0.5) + 0.5


@wrong_loss
def mixup_rev_dyn(p: Any, batch: Any) -> Any:
    return good(p, (0.7 * batch[0] + 0.3 * jnp.flip(batch[0], 0), batch[1]))


@wrong_loss
def shuffled_labels(p: Any, batch: Any) -> Any:
    return good(p, (batch[0], jax.random.permutation(jax.random.key(1), batch[1])))


@wrong_loss
def simclr(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    h = h / jnp.linalg.norm(h, axis=1, keepdims=True)
    s = h @ h.T / 0.1
    s = s - 1000000000.0 * jnp.eye(B)
    return jnp.mean(XENT(s, (jnp.arange(B) + 1) % B))


@wrong_loss
def mmd(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    return jnp.mean(jnp.exp(-jnp.sum((h[:, None] - h[None]) ** 2, -1)))


@wrong_loss
def coral(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    c = (h - h.mean(0)).T @ (h - h.mean(0))
    return jnp.sum(c**2)


@wrong_loss
def diversity(p: Any, batch: Any) -> Any:
    q = jax.nn.softmax(apply(p, batch[0])).mean(0)
    return jnp.sum(q * jnp.log(q))


@wrong_loss
def stopgrad_target_mean(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    return jnp.mean((h - lax.stop_gradient(h.mean(0))) ** 2)


@wrong_loss
def cumulative(p: Any, batch: Any) -> Any:
    return jnp.sum(jnp.cumsum(each(p, batch)) ** 2)


@wrong_loss
def ranking(p: Any, batch: Any) -> Any:
    s = apply(p, batch[0])[:, 0]
    return jnp.mean(
        jax.nn.softplus(s[None] - s[:, None]) * (batch[1][:, None] > batch[1][None])
    )


@wrong_loss
def listwise(p: Any, batch: Any) -> Any:
    s = apply(p, batch[0])[:, 0]
    return -jnp.sum(jax.nn.log_softmax(s) * batch[1])


@wrong_loss
def auc(p: Any, batch: Any) -> Any:
    s = apply(p, batch[0])[:, 0]
    r = jnp.argsort(jnp.argsort(s))
    return jnp.mean(r * s)


@wrong_loss
def weight_by_rank(p: Any, batch: Any) -> Any:
    losses = each(p, batch)
    r = lax.stop_gradient(jnp.argsort(losses))
    return jnp.mean(losses * (r + 1))


@wrong_loss
def scan_carry_hidden(p: Any, batch: Any) -> Any:

    def f(h: Any, x: Any) -> Any:
        h = jnp.tanh(h + x @ p["w"])
        return (h, h)

    _, hs = lax.scan(f, jnp.zeros(3), batch[0])
    return jnp.mean(XENT(hs, batch[1]))


@wrong_loss
def assoc_scan(p: Any, batch: Any) -> Any:
    return jnp.mean(
        XENT(lax.associative_scan(jnp.add, apply(p, batch[0])) ** 2, batch[1])
    )


@wrong_loss
def batch_quantile_clip(p: Any, batch: Any) -> Any:
    q = jnp.quantile(jnp.abs(batch[0]), 0.9)
    return good(p, (jnp.clip(batch[0], -q, q), batch[1]))


@wrong_loss
def zca(p: Any, batch: Any) -> Any:
    c = batch[0].T @ batch[0] / B
    u, s, v = jnp.linalg.svd(c)
    return good(p, (batch[0] @ u, batch[1]))


@wrong_loss
def unique_count(p: Any, batch: Any) -> Any:
    return good(p, batch) * jnp.unique(batch[1], size=3).sum()


@wrong_loss
def duplicated(p: Any, batch: Any) -> Any:
    return good(p, (batch[0], batch[1])) * (1.0 * (batch[1] == batch[1][0]).all())


@wrong_loss
def while_private(p: Any, batch: Any) -> Any:
    x = lax.while_loop(lambda x: jnp.max(x) > 1, lambda x: x / 2, batch[0])
    return good(p, (lax.stop_gradient(x), batch[1]))


@wrong_loss
def reduce_custom(p: Any, batch: Any) -> Any:
    return xe(apply(p, batch[0]) * lax.reduce(batch[0], 1.0, lax.mul, (0, 1)), batch)


@wrong_loss
def cummax_batch(p: Any, batch: Any) -> Any:
    return xe(lax.cummax(apply(p, batch[0]), axis=0), batch)


@wrong_loss
def take_along_batch(p: Any, batch: Any) -> Any:
    return xe(
        jnp.take_along_axis(apply(p, batch[0]), batch[1][:, None] % B, axis=0), batch
    )


@wrong_loss
def negative_index(p: Any, batch: Any) -> Any:
    return xe(apply(p, batch[0]) - apply(p, batch[0])[-1], batch)


@wrong_loss
def roll_dyn(p: Any, batch: Any) -> Any:
    return xe(apply(p, jnp.roll(batch[0], batch[1][0], 0)), batch)


@wrong_loss
def scatter_set(p: Any, batch: Any) -> Any:
    return xe(jnp.zeros((B, 3)).at[batch[1]].set(apply(p, batch[0])), batch)


@wrong_loss
def scatter_max(p: Any, batch: Any) -> Any:
    return jnp.sum(jnp.zeros((3, 3)).at[batch[1]].max(apply(p, batch[0])))


@wrong_loss
def seg_mean(p: Any, batch: Any) -> Any:
    s = jax.ops.segment_sum(apply(p, batch[0]), batch[1], 3)
    n = jax.ops.segment_sum(jnp.ones(B), batch[1], 3)
    return jnp.sum((s / (n[:, None] + 1)) ** 2)


@wrong_loss
def seg_max(p: Any, batch: Any) -> Any:
    return jnp.sum(jax.ops.segment_max(apply(p, batch[0]), batch[1], 3))


@wrong_loss
def switch_on_first(p: Any, batch: Any) -> Any:
    return lax.switch(
        batch[1][0],
        [
            lambda: good(p, batch),
            lambda: 2 * good(p, batch),
            lambda: 3 * good(p, batch),
        ],
    )


@wrong_loss
def cond_any(p: Any, batch: Any) -> Any:
    return lax.cond(jnp.any(batch[0] > 1), lambda: good(p, batch), lambda: 0.0)


@wrong_loss
def choice_by_data(p: Any, batch: Any) -> Any:
    i = jax.random.choice(jax.random.key(0), 5, (2,), p=jax.nn.softmax(batch[0].sum(0)))
    return good(p, (batch[0] * jnp.zeros(5).at[i].set(1.0), batch[1]))


@wrong_loss
def fold_key_of_batch(p: Any, batch: Any) -> Any:
    k = jax.random.key(batch[1][0])
    return good(p, (batch[0] + jax.random.normal(k, batch[0].shape), batch[1]))


@wrong_loss
def einsum_across(p: Any, batch: Any) -> Any:
    return jnp.mean(jnp.einsum("bi,ci->bc", apply(p, batch[0]), apply(p, batch[0])))


@wrong_loss
def linear_kernel_sum(p: Any, batch: Any) -> Any:
    return jnp.sum(apply(p, batch[0]).sum(0) ** 2) / B


@wrong_loss
def kfac_like(p: Any, batch: Any) -> Any:
    return good(p, batch) * jnp.linalg.norm(batch[0].T @ batch[0])


@wrong_loss
def layer_norm_wrong_axis(p: Any, batch: Any) -> Any:
    return xe(jax.nn.standardize(apply(p, batch[0]), axis=(0, 1)), batch)


@wrong_loss
def softmax0(p: Any, batch: Any) -> Any:
    return xe(jax.nn.softmax(apply(p, batch[0]), 0), batch)


@wrong_loss
def whiten_eigh(p: Any, batch: Any) -> Any:
    w, v = jnp.linalg.eigh(batch[0].T @ batch[0])
    return xe(apply(p, batch[0] @ v), batch)


@wrong_loss
def nearest_neighbour(p: Any, batch: Any) -> Any:
    d = jnp.sum((batch[0][:, None] - batch[0][None]) ** 2, -1) + 1000000000.0 * jnp.eye(
        B
    )
    return good(p, (batch[0], batch[1][jnp.argmin(d, 1)]))


@wrong_loss
def cutmix(p: Any, batch: Any) -> Any:
    m = jnp.arange(5) < 2
    return good(p, (jnp.where(m, batch[0], batch[0][::-1]), batch[1]))


@wrong_loss
def manifold_mixup(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    return xe(0.6 * h + 0.4 * h[jnp.array([1, 0, 3, 2])], batch)


@wrong_loss
def label_prop(p: Any, batch: Any) -> Any:
    return good(
        p,
        (
            batch[0],
            jnp.broadcast_to(jnp.round(batch[1].mean()).astype(jnp.int32), (B,)),
        ),
    )


@wrong_loss
def vmap_axis_sum(p: Any, batch: Any) -> Any:
    return jnp.mean(
        jax.vmap(
            lambda x, y: XENT(apply(p, x) / (1 + lax.psum(x.sum() ** 2, "i")), y),
            axis_name="i",
        )(*batch)
    )


@wrong_loss
def all_gather_vmap(p: Any, batch: Any) -> Any:
    return jnp.mean(
        jax.vmap(
            lambda x, y: XENT(apply(p, lax.all_gather(x, "i").max(0)), y), axis_name="i"
        )(*batch)
    )


@wrong_loss
def ppermute_vmap(p: Any, batch: Any) -> Any:
    return jnp.mean(
        jax.vmap(
            lambda x, y: XENT(
                apply(p, lax.ppermute(x, "i", [(i, (i + 1) % B) for i in range(B)])), y
            ),
            axis_name="i",
        )(*batch)
    )


@wrong_loss
def scan_prod_loss(p: Any, batch: Any) -> Any:
    return lax.scan(lambda c, e: (c * XENT(apply(p, e[0]), e[1]), None), 1.0, batch)[0]


@wrong_loss
def scan_max_loss(p: Any, batch: Any) -> Any:
    return lax.scan(
        lambda c, e: (jnp.maximum(c, XENT(apply(p, e[0]), e[1])), None), 0.0, batch
    )[0]


@wrong_loss
def scan_decay(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        losses = XENT(apply(p, e[0]), e[1])
        return (0.9 * c + losses, losses * lax.stop_gradient(c))

    return lax.scan(f, 0.0, batch)[1].mean()


@wrong_loss
def ridge_head(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    w = jnp.linalg.solve(h.T @ h + jnp.eye(3), h.T @ jax.nn.one_hot(batch[1], 3))
    return xe(h @ w, batch)


@wrong_loss
def gp_loss(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    k = jnp.exp(-jnp.sum((h[:, None] - h[None]) ** 2, -1)) + jnp.eye(B)
    return jnp.linalg.slogdet(k)[1]


@wrong_loss
def dro(p: Any, batch: Any) -> Any:
    return jnp.log(jnp.mean(jnp.exp(each(p, batch))))


@wrong_loss
def variance_pen(p: Any, batch: Any) -> Any:
    return good(p, batch) + jnp.var(each(p, batch))


@wrong_loss
def cvar(p: Any, batch: Any) -> Any:
    losses = each(p, batch)
    t = lax.stop_gradient(jnp.quantile(losses, 0.8))
    return t + jnp.mean(jnp.maximum(losses - t, 0))


# -- right steps ---------------------------------------------------------------------


@right_step
def grad_accum_ema(p: Any, batch: Any) -> Any:
    return jax.tree.map(
        lambda p, g: p - 0.1 * jnp.sign(g) * jnp.abs(g) ** 0.5,
        p,
        jax.grad(good)(p, batch),
    )


@right_step
def lr_from_noised_norm(p: Any, batch: Any) -> Any:
    g = jax.grad(good)(p, batch)
    return jax.tree.map(lambda p, g: p - 0.1 * g / (1 + optax.tree.norm(g)), p, g)


@right_step
def perexample_clip_user(p: Any, batch: Any) -> Any:
    g = jax.vmap(lambda x, y: jax.grad(good)(p, (x[None], y[None])))(*batch)
    n = jax.vmap(optax.tree.norm)(g)
    f = jnp.minimum(1, 0.1 / n)
    return sgd(p, jax.tree.map(lambda g: jnp.tensordot(f, g, 1) / B, g))


@right_step
def vote_sum(p: Any, batch: Any) -> Any:
    g = jax.vmap(lambda x, y: jax.grad(good)(p, (x[None], y[None])))(*batch)
    return sgd(p, jax.tree.map(lambda g: jnp.sign(jnp.sign(g).sum(0)), g))


@right_step
def sam_per_example(p: Any, batch: Any) -> Any:

    def one(x: Any, y: Any) -> Any:
        e = (x[None], y[None])
        g = jax.grad(good)(p, e)
        n = optax.tree.norm(g) + 0.001
        return jax.grad(good)(jax.tree.map(lambda p, g: p + 0.05 * g / n, p, g), e)

    return sgd(p, jax.tree.map(lambda g: g.mean(0), jax.vmap(one)(*batch)))


@right_step
def nan_guard_per_example(p: Any, batch: Any) -> Any:
    def loss(p: Any) -> Any:
        losses = each(p, batch)
        return jnp.mean(jnp.where(jnp.isnan(losses), 0, losses))

    return sgd(p, jax.grad(loss)(p))


@right_step
def rng_public(p: Any, batch: Any) -> Any:
    return jax.tree.map(
        lambda q: q + 0.01 * jax.random.normal(jax.random.key(0), q.shape),
        new(p, batch),
    )


# -- wrong steps ---------------------------------------------------------------------


@wrong_step
def ema_batch_stat_used(p: Any, batch: Any) -> Any:
    m = 0.9 * p["b"].mean() + 0.1 * batch[0].mean()
    return new(p, (batch[0] - m, batch[1]))


@wrong_step
def user_clip_by_max_norm(p: Any, batch: Any) -> Any:
    g = jax.vmap(lambda x, y: jax.grad(good)(p, (x[None], y[None])))(*batch)
    n = jax.vmap(optax.tree.norm)(g)
    return sgd(
        p, jax.tree.map(lambda g: jnp.tensordot(1 / n.max() * jnp.ones(B), g, 1) / B, g)
    )


@wrong_step
def signsgd_median(p: Any, batch: Any) -> Any:
    g = jax.vmap(lambda x, y: jax.grad(good)(p, (x[None], y[None])))(*batch)
    return sgd(p, jax.tree.map(lambda g: jnp.median(g, 0), g))


@wrong_step
def majority_vote(p: Any, batch: Any) -> Any:
    g = jax.vmap(lambda x, y: jax.grad(good)(p, (x[None], y[None])))(*batch)
    return sgd(p, jax.tree.map(lambda g: jnp.prod(g, 0), g))


@wrong_step
def sam(p: Any, batch: Any) -> Any:
    g = jax.grad(good)(p, batch)
    n = optax.tree.norm(g)
    return sgd(
        p, jax.grad(good)(jax.tree.map(lambda p, g: p + 0.05 * g / n, p, g), batch)
    )


@wrong_step
def line_search(p: Any, batch: Any) -> Any:
    g = jax.grad(good)(p, batch)
    c = [jax.tree.map(lambda p, g, s=s: p - s * g, p, g) for s in (0.1, 1.0)]
    losses = jnp.array([good(q, batch) for q in c])
    k = jnp.argmin(losses)
    return jax.tree.map(lambda x, y: jnp.where(k == 0, x, y), *c)


@wrong_step
def hvp(p: Any, batch: Any) -> Any:
    g = jax.grad(good)(p, batch)
    return sgd(p, jax.jvp(jax.grad(lambda p: good(p, batch)), (p,), (g,))[1])


@wrong_step
def count_positive_out(p: Any, batch: Any) -> Any:
    return (new(p, batch), jnp.sum(batch[1] == 1))


@wrong_step
def shape_hidden_in_state(p: Any, batch: Any) -> Any:
    return {
        "w": p["w"] - 0.1 * jax.grad(good)(p, batch)["w"],
        "b": p["b"].at[0].set(batch[0][0, 0]),
    }


@wrong_step
def rng_from_data(p: Any, batch: Any) -> Any:
    k = jax.random.fold_in(jax.random.key(0), batch[1].sum())
    return jax.tree.map(lambda q: q + jax.random.normal(k, q.shape), new(p, batch))


@wrong_step
def max_norm_proj_by_data(p: Any, batch: Any) -> Any:
    return jax.tree.map(
        lambda q: jnp.clip(q, -jnp.abs(batch[0]).max(), jnp.abs(batch[0]).max()),
        new(p, batch),
    )


# -- slices, micro-batches, and single examples ----------------------------------------


@wrong_loss
def part_pad_mix(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0])
    z = jnp.concatenate([h[H:], jnp.zeros((H, 3))])
    return xe(h + z, batch)


@wrong_loss
def part_two_rounds(p: Any, batch: Any) -> Any:
    x = jnp.concatenate([batch[0], batch[0]])
    return xe(apply(p, x[1 : B + 1]), batch)


@wrong_loss
def part_pad_rounds(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0][:H])
    z = jnp.pad(h, ((0, H), (0, 0)))
    z2 = jnp.pad(h, ((H, 0), (0, 0)))
    return xe(z + z2, batch)


@wrong_loss
def part_single_broadcast(p: Any, batch: Any) -> Any:
    return xe(apply(p, batch[0]) * jnp.broadcast_to(batch[0][0, 0], (B, 3)), batch)


@wrong_loss
def part_single_pred(p: Any, batch: Any) -> Any:
    return xe(jnp.where(batch[0][0, 0] > 0, apply(p, batch[0]), 0), batch)


@wrong_loss
def part_single_cond(p: Any, batch: Any) -> Any:
    return lax.cond(batch[0][0, 0] > 0, lambda: good(p, batch), lambda: 0.0)


@wrong_loss
def part_single_times_sum(p: Any, batch: Any) -> Any:
    return good(p, batch) * batch[0][0, 0]


@wrong_loss
def part_single_index(p: Any, batch: Any) -> Any:
    return jnp.sum(apply(p, batch[0])[:, batch[1][0]])


@wrong_loss
def part_single_slice(p: Any, batch: Any) -> Any:
    return jnp.sum(lax.dynamic_slice_in_dim(apply(p, batch[0]), batch[1][0], 1, axis=1))


@wrong_loss
def part_single_scan_len(p: Any, batch: Any) -> Any:
    return jnp.sum(
        lax.scan(lambda c, x: (c + x * batch[0][0], None), jnp.zeros(5), batch[0])[0]
        @ p["w"]
    )


@wrong_loss
def part_single_gather(p: Any, batch: Any) -> Any:
    return jnp.sum(apply(p, batch[0])[batch[1][:2]])


@wrong_loss
def part_sum_sq(p: Any, batch: Any) -> Any:
    return jnp.sum(
        (apply(p, batch[0][:1]).sum(0) + apply(p, batch[0][1:2]).sum(0)) ** 2
    )


@wrong_loss
def part_stack(p: Any, batch: Any) -> Any:
    return jnp.max(jnp.stack([batch[0][0] @ p["w"], batch[0][1] @ p["w"]]))


@wrong_loss
def vm_partial_sq(p: Any, batch: Any) -> Any:
    return jnp.mean(jax.vmap(lambda e: good(p, e) ** 2)(cutb(batch)))


@wrong_loss
def vm_partial_max(p: Any, batch: Any) -> Any:
    return jnp.max(jax.vmap(lambda e: good(p, e))(cutb(batch)))


@wrong_loss
def vm_bn(p: Any, batch: Any) -> Any:
    return jnp.mean(
        jax.vmap(lambda e: good(p, ((e[0] - e[0].mean(0)) / (e[0].std(0) + 1), e[1])))(
            cutb(batch)
        )
    )


@wrong_loss
def vm_next_mb(p: Any, batch: Any) -> Any:
    c = cutb(batch)
    m = c[0].mean(1)
    return jnp.mean(jax.vmap(lambda e, m: good(p, (e[0] - m, e[1])))(c, m[::-1]))


@right_loss
def part_pad_fill(p: Any, batch: Any) -> Any:
    h = apply(p, batch[0][:H])
    z = jnp.pad(h, ((0, H), (0, 0)))
    z2 = jnp.pad(apply(p, batch[0][H:]) * 2, ((H, 0), (0, 0)))
    return xe(z + z2, batch)


@right_loss
def part_stack_sum(p: Any, batch: Any) -> Any:
    return jnp.sum(jnp.stack([jnp.tanh(batch[0][i] @ p["w"]) for i in range(B)])) / B


@wrong_step
def vm_mb_then_other(p: Any, batch: Any) -> Any:
    g = jax.vmap(lambda e: jax.grad(good)(p, e))(cutb(batch))
    q = jax.tree.map(lambda p, g: p - g[0], p, g)
    return sgd(q, jax.grad(good)(q, jax.tree.map(lambda x: x[H:], batch)))


@wrong_step
def vm_pick_by_data(p: Any, batch: Any) -> Any:
    g = jax.vmap(lambda e: jax.grad(good)(p, e))(cutb(batch))
    k = batch[1].sum() % 2
    return sgd(p, jax.tree.map(lambda g: g[k], g))


@wrong_step
def vm_pick_by_single(p: Any, batch: Any) -> Any:
    g = jax.vmap(lambda e: jax.grad(good)(p, e))(cutb(batch))
    k = batch[1][0] % 2
    return sgd(p, jax.tree.map(lambda g: g[k], g))


@wrong_step
def vm_largest(p: Any, batch: Any) -> Any:
    losses, g = jax.vmap(lambda e: jax.value_and_grad(good)(p, e))(cutb(batch))
    k = jnp.argmax(losses * 0 + batch[0].reshape(2, -1).max(1))
    return sgd(p, jax.tree.map(lambda g: g[k], g))


@wrong_step
def scan_two_onto(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        x, y = e
        g = jax.grad(good)(p, (x[:1], y[:1]))
        return (jax.tree.map(lambda c, g: jnp.where(x[1, 0] > 0, c + g, c), c, g), None)

    return sgd(p, lax.scan(f, jax.tree.map(jnp.zeros_like, p), cutb(batch))[0])


@wrong_step
def scan_pred_prev(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        c, prev = c
        x, y = e
        g = jax.grad(good)(p, (x[None], y[None]))
        return (
            (jax.tree.map(lambda c, g: jnp.where(prev > 0, c + g, c), c, g), x[0]),
            None,
        )

    return sgd(p, lax.scan(f, (jax.tree.map(jnp.zeros_like, p), 0.0), batch)[0][0])


@wrong_step
def scan_count_pred(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        c, n = c
        x, y = e
        g = jax.grad(good)(p, (x[None], y[None]))
        return (
            (
                jax.tree.map(lambda c, g: jnp.where(n < 2, c + g, c), c, g),
                n + (x[0] > 0),
            ),
            None,
        )

    return sgd(p, lax.scan(f, (jax.tree.map(jnp.zeros_like, p), 0), batch)[0][0])


@right_step
def vm_largest_loss_noised(p: Any, batch: Any) -> Any:
    losses, g = jax.vmap(lambda e: jax.value_and_grad(good)(p, e))(cutb(batch))
    k = jnp.argmax(losses)
    return sgd(p, jax.tree.map(lambda g: g[k], g))


@right_step
def scan_count_released(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        c, n = c
        x, y = e
        g = jax.grad(good)(p, (x[None], y[None]))
        return (
            (
                jax.tree.map(lambda c, g: jnp.where(x[0] > 0, c + g, c), c, g),
                n + jnp.where(x[0] > 0, 1.0, 0.0),
            ),
            None,
        )

    g, n = lax.scan(f, (jax.tree.map(jnp.zeros_like, p), 0.0), batch)[0]
    return jax.tree.map(lambda p, g: p - g / B * jnp.maximum(n, 0.1) / B, p, g)


@right_step
def scan_reverse_where(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        x, y = e
        g = jax.grad(good)(p, (x[None], y[None]))
        return (jax.tree.map(lambda c, g: jnp.where(x[1] > 0, c + g, c), c, g), None)

    return sgd(
        p,
        jax.tree.map(
            lambda g: g / B,
            lax.scan(f, jax.tree.map(jnp.zeros_like, p), batch, reverse=True)[0],
        ),
    )


@right_step
def scan_three_way(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        x, y = e
        g = jax.grad(good)(p, (x[None], y[None]))
        return (
            lax.switch(
                y,
                [
                    lambda c: jax.tree.map(jnp.add, c, g),
                    lambda c: c,
                    lambda c: jax.tree.map(lambda c, g: c - 2 * g, c, g),
                ],
                c,
            ),
            None,
        )

    return sgd(
        p,
        jax.tree.map(
            lambda g: g / B, lax.scan(f, jax.tree.map(jnp.zeros_like, p), batch)[0]
        ),
    )


@right_step
def nested_scan_where(p: Any, batch: Any) -> Any:

    def outer(c: Any, e: Any) -> Any:

        def f(c: Any, e: Any) -> Any:
            x, y = e
            g = jax.grad(good)(p, (x[None], y[None]))
            return (
                jax.tree.map(lambda c, g: jnp.where(x[1] > 0, c + g, c), c, g),
                None,
            )

        return (lax.scan(f, c, e)[0], None)

    return sgd(
        p,
        jax.tree.map(
            lambda g: g / B,
            lax.scan(outer, jax.tree.map(jnp.zeros_like, p), cutb(batch))[0],
        ),
    )


@right_step
def nan_skip_in_scan(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        x, y = e
        g = jax.grad(good)(p, (x[None], y[None]))
        ok = jnp.isfinite(optax.tree.norm(g))
        return (jax.tree.map(lambda c, g: jnp.where(ok, c + g, c), c, g), None)

    return sgd(
        p,
        jax.tree.map(
            lambda g: g / B, lax.scan(f, jax.tree.map(jnp.zeros_like, p), batch)[0]
        ),
    )


@right_step
def mb_scan_of_vmap_partial(p: Any, batch: Any) -> Any:

    def f(c: Any, e: Any) -> Any:
        return (
            jax.tree.map(
                lambda c, g: c + g.sum(0),
                c,
                jax.vmap(lambda x, y: jax.grad(good)(p, (x[None], y[None])))(*e),
            ),
            None,
        )

    return sgd(
        p,
        jax.tree.map(
            lambda g: g / B,
            lax.scan(f, jax.tree.map(jnp.zeros_like, p), cutb(batch))[0],
        ),
    )


@right_step
def slices_in_scan_over_layers(p: Any, batch: Any) -> Any:

    def loss(p: Any) -> Any:
        w = jnp.stack([p["w"] @ p["w"].T] * 2)

        def f(x: Any) -> Any:
            return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)[0]

        return (
            good(p, (f(batch[0][:H]), batch[1][:H]))
            + good(p, (f(batch[0][H:]), batch[1][H:]))
        ) / 2

    return sgd(p, jax.grad(loss)(p))


@right_step
def slice_only_half(p: Any, batch: Any) -> Any:
    return sgd(p, jax.grad(lambda p: good(p, jax.tree.map(lambda x: x[:H], batch)))(p))


@right_step
def cond_public_slices(p: Any, batch: Any) -> Any:
    g = lax.cond(
        p["b"][0] > 0,
        lambda: jax.grad(good)(p, jax.tree.map(lambda x: x[:H], batch)),
        lambda: jax.grad(good)(p, jax.tree.map(lambda x: x[H:], batch)),
    )
    return sgd(p, g)


@right_step
def while_accum(p: Any, batch: Any) -> Any:

    def body(s: Any) -> Any:
        return (
            s[0] + 1,
            jax.tree.map(lambda c, g: c * 0.5 + g, s[1], jax.grad(good)(p, batch)),
        )

    return sgd(
        p,
        lax.while_loop(lambda s: s[0] < 3, body, (0, jax.tree.map(jnp.zeros_like, p)))[
            1
        ],
    )


@right_step
def while_accum_slices(p: Any, batch: Any) -> Any:

    def body(s: Any) -> Any:
        return (
            s[0] + 1,
            jax.tree.map(
                lambda c, g, h: c * 0.5 + g + h,
                s[1],
                jax.grad(good)(p, jax.tree.map(lambda x: x[:3], batch)),
                jax.grad(good)(p, jax.tree.map(lambda x: x[3:], batch)),
            ),
        )

    return sgd(
        p,
        lax.while_loop(lambda s: s[0] < 3, body, (0, jax.tree.map(jnp.zeros_like, p)))[
            1
        ],
    )
