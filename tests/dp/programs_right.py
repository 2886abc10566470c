"""Losses in which every example is alone, written in many ways.

`PROGRAMS` maps a name to a function that makes a `Right`: parameters, a batch, and
`each(params, batch)`, the losses of the examples. Layers written out are in
`programs_right_layers.py`, Flax models in `programs_right_flax.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from dp_models import BATCH, apply, dense, labels, values
from jax import lax


class Right(NamedTuple):
    """`wide`: whether the program means the same in double precision."""

    params: Any
    batch: Any
    each: Callable[[Any, Any], Any]
    wide: bool = True


PROGRAMS: dict[str, Callable[[], Right]] = {}


def program(make: Callable[[], Right]) -> Callable[[], Right]:
    PROGRAMS[make.__name__] = make
    return make


XENT = optax.softmax_cross_entropy_with_integer_labels
XY = (values(BATCH, 5), labels(3))
HALF = np.uint32(2**31)
MLP = [dense(5, 6), dense(6, 3)]


def mlp(p: Any, x: Any, act: Callable[[Any], Any] = jnp.tanh) -> Any:
    return apply(p[1], act(apply(p[0], x)))


# -- where the unit axis goes -------------------------------------------------------


@program
def batch_second() -> Right:
    """Features first; the batch is every array's second axis."""

    def each(p: Any, batch: Any) -> Any:
        h = jnp.tanh(p[0]["w"].T @ batch[0].T + p[0]["b"][:, None])
        return XENT((p[1]["w"].T @ h + p[1]["b"][:, None]).T, batch[1])

    return Right(MLP, XY, each)


@program
def groups_of_the_batch() -> Right:
    """Batch split in [groups, size] and merged again."""

    def each(p: Any, batch: Any) -> Any:
        x = batch[0].reshape(2, BATCH // 2, 5)
        h = jnp.tanh(jnp.einsum("gbi,ij->gbj", x, p[0]["w"]) + p[0]["b"])
        return XENT(apply(p[1], h).reshape(BATCH, 3), batch[1])

    return Right(MLP, XY, each)


@program
def flattened_with_time() -> Right:
    def each(p: Any, x: Any) -> Any:
        flat = x.transpose(1, 0, 2).reshape(3 * BATCH, 5)
        h = mlp(p, flat).reshape(3, BATCH, 3)
        return jnp.sum(h**2, axis=(0, 2))

    return Right(MLP, values(BATCH, 3, 5), each)


@program
def vmapped_twice() -> Right:
    def each(p: Any, x: Any) -> Any:
        cell = lambda v: jnp.sum(mlp(p, v) ** 2)  # noqa: E731
        return jax.vmap(jax.vmap(cell))(x).sum(1)

    return Right(MLP, values(BATCH, 3, 5), each)


@program
def mapped_one_by_one() -> Right:
    def each(p: Any, batch: Any) -> Any:
        return lax.map(lambda xy: XENT(mlp(p, xy[0]), xy[1]), batch)

    return Right(MLP, XY, each)


@program
def mapped_in_pieces() -> Right:
    def each(p: Any, batch: Any) -> Any:
        return lax.map(lambda xy: XENT(mlp(p, xy[0]), xy[1]), batch, batch_size=2)

    return Right(MLP, XY, each)


@program
def mapped_with_a_branch() -> Right:
    """Every example takes its own branch."""

    def each(p: Any, batch: Any) -> Any:
        def one(xy: Any) -> Any:
            x, y = xy
            return lax.cond(
                x[0] > 0, lambda: XENT(mlp(p, x), y), lambda: jnp.sum(mlp(p, x) ** 2)
            )

        return lax.map(one, batch)

    return Right(MLP, XY, each)


@program
def branch_under_vmap() -> Right:
    def each(p: Any, batch: Any) -> Any:
        def one(x: Any, y: Any) -> Any:
            h = lax.cond(x[0] > 0, jnp.tanh, jnp.sin, apply(p[0], x))
            return XENT(apply(p[1], h), y)

        return jax.vmap(one)(*batch)

    return Right(MLP, XY, each)


@program
def named_axis_for_the_mean() -> Right:
    """The mean over the batch, by the axis that vmap names."""

    def each(p: Any, batch: Any) -> Any:
        return jax.vmap(lambda x, y: XENT(mlp(p, x), y), axis_name="b")(*batch)

    return Right(MLP, XY, each)


# -- derivatives --------------------------------------------------------------------


@jax.custom_vjp
def straight_through(x: Any) -> Any:
    return jnp.sign(x)


straight_through.defvjp(lambda x: (jnp.sign(x), x), lambda x, g: (g * (abs(x) < 1),))


@program
def custom_vjp() -> Right:
    def each(p: Any, batch: Any) -> Any:
        return XENT(mlp(p, batch[0], straight_through), batch[1])

    return Right(MLP, XY, each)


@jax.custom_jvp
def soft(x: Any) -> Any:
    return jnp.log1p(jnp.exp(x))


soft.defjvp(lambda x, t: (soft(*x), jax.nn.sigmoid(x[0]) * t[0]))


@program
def custom_jvp() -> Right:
    return Right(MLP, XY, lambda p, b: XENT(mlp(p, b[0], soft), b[1]))


@program
def rematerialised_layers() -> Right:
    def each(p: Any, batch: Any) -> Any:
        layer = jax.checkpoint(lambda q, h: jnp.tanh(apply(q, h)))
        return XENT(apply(p[1], jax.jit(layer)(p[0], batch[0])), batch[1])

    return Right(MLP, XY, each)


@program
def gradient_penalty() -> Right:
    """Derivatives by the input inside of the loss."""

    def each(p: Any, batch: Any) -> Any:
        def one(x: Any, y: Any) -> Any:
            slope = jax.grad(lambda x: mlp(p, x)[0])(x)
            return XENT(mlp(p, x), y) + jnp.sum(slope**2)

        return jax.vmap(one)(*batch)

    return Right(MLP, XY, each)


@program
def forward_over_reverse() -> Right:
    def each(p: Any, batch: Any) -> Any:
        x, y = batch
        out, change = jax.jvp(lambda v: mlp(p, v), (x,), (jnp.ones_like(x),))
        return XENT(out, y) + jnp.sum(change**2, axis=1)

    return Right(MLP, XY, each)


# -- inside of one example ----------------------------------------------------------


@program
def views_of_one_example() -> Right:
    """Contrast between the views of an example, not between examples."""

    def each(p: Any, x: Any) -> Any:
        h = mlp(p, x)
        s = jnp.einsum("bvi,bwi->bvw", h, h)
        return XENT(s, jnp.broadcast_to(jnp.arange(3), (BATCH, 3))).mean(1)

    return Right(MLP, values(BATCH, 3, 5), each)


@program
def two_views_in_one_batch() -> Right:
    """Both views of all examples go through the network as one batch."""

    def each(p: Any, batch: Any) -> Any:
        x, _ = batch
        h = mlp(p, jnp.concatenate([x, jnp.sin(3 * x)]))
        return jnp.sum((h[:BATCH] - h[BATCH:]) ** 2, axis=1)

    return Right(MLP, XY, each)


@program
def real_and_made_up() -> Right:
    """Examples and as many public values, told apart by the network."""
    fake = values(BATCH, 5, seed=8)

    def each(p: Any, batch: Any) -> Any:
        h = mlp(p, jnp.concatenate([batch[0], fake]))[:, 0]
        real, made = jnp.split(h, 2)
        return jax.nn.softplus(-real) + jax.nn.softplus(made)

    return Right(MLP, XY, each)


@program
def sorted_features() -> Right:
    def each(p: Any, batch: Any) -> Any:
        h = apply(p[0], batch[0])
        top = lax.top_k(h, 3)[0].sum(1) + jnp.cumsum(h, axis=1)[:, -1]
        best = jnp.max(jnp.sort(h, axis=1)[:, :2], axis=1)
        return XENT(apply(p[1], h), batch[1]) + top * best

    return Right(MLP, XY, each)


@program
def hinge() -> Right:
    def each(p: Any, batch: Any) -> Any:
        x, y = batch
        h = mlp(p, x)
        own = jnp.take_along_axis(h, y[:, None], axis=1)
        return jnp.sum(jax.nn.relu(1 + h - own), axis=1) - 1

    return Right(MLP, XY, each)


@program
def solve_per_example() -> Right:
    def each(p: Any, x: Any) -> Any:
        a = jnp.einsum("bij,bkj->bik", x, x) + 2 * jnp.eye(3)
        b = x[:, 0] @ p["w"]
        low = jnp.linalg.cholesky(a)
        return jnp.sum(jnp.linalg.solve(a, b[..., None]) ** 2, (1, 2)) + jnp.sum(
            jax.scipy.linalg.solve_triangular(low, b[..., None], lower=True), (1, 2)
        )

    return Right({"w": values(4, 3)}, values(BATCH, 3, 4), each)


@program
def dense_mixture_of_experts() -> Right:
    def each(p: Any, batch: Any) -> Any:
        x, y = batch
        gate = jax.nn.softmax(x @ p["gate"])
        gate = gate * jax.nn.one_hot(jnp.argmax(gate, 1), 2)
        out = jnp.einsum("bi,eij->bej", x, p["experts"])
        return XENT(jnp.einsum("be,bej->bj", gate, out), y)

    return Right({"gate": values(5, 2), "experts": values(2, 5, 3)}, XY, each)


@program
def weights_made_by_the_example() -> Right:
    """A hypernetwork."""

    def each(p: Any, batch: Any) -> Any:
        x, y = batch
        w = (x @ p["make"]).reshape(BATCH, 5, 3)
        return XENT(jnp.einsum("bi,bij->bj", x, w), y)

    return Right({"make": values(5, 15)}, XY, each)


@program
def graphs() -> Right:
    """Every example is a graph: its own adjacency matrix."""

    def each(p: Any, batch: Any) -> Any:
        adjacent, nodes = batch
        h = jax.nn.relu(adjacent @ nodes @ p[0])
        return jnp.sum((adjacent @ h @ p[1]) ** 2, axis=(1, 2))

    batch = (values(BATCH, 3, 3), values(BATCH, 3, 4))
    return Right([values(4, 5), values(5, 2)], batch, each)


@program
def loop_of_fixed_length() -> Right:
    def each(p: Any, batch: Any) -> Any:
        step = lambda h, _: (jnp.tanh(apply(p[0], h)), None)  # noqa: E731
        h, _ = lax.scan(step, batch[0], None, length=3)
        return jnp.sum(h * (1 + batch[1][:, None]), axis=1)

    return Right([dense(5, 5)], XY, each)


@program
def layers_in_a_scan() -> Right:
    def each(p: Any, batch: Any) -> Any:
        layer = jax.checkpoint(lambda h, q: (h + jnp.tanh(apply(q, h)), None))
        h, _ = lax.scan(layer, batch[0], p["layers"])
        return XENT(apply(p["out"], h), batch[1])

    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *[dense(5, 5)] * 3)
    return Right({"layers": stacked, "out": dense(5, 3)}, XY, each)


# -- what is public, and weights of examples ----------------------------------------


@program
def dropout_of_the_step() -> Right:
    def each(p: Any, batch: Any) -> Any:
        h = jnp.tanh(apply(p[0], batch[0]))
        keep = jax.random.bits(jax.random.key(1), h.shape, jnp.uint32) < HALF
        return XENT(apply(p[1], jnp.where(keep, 2 * h, 0)), batch[1])

    return Right(MLP, XY, each)


@program
def dropout_of_each_example() -> Right:
    def each(p: Any, batch: Any) -> Any:
        def one(key: Any, x: Any, y: Any) -> Any:
            h = jnp.tanh(apply(p[0], x))
            keep = jax.random.bits(key, h.shape, jnp.uint32) < HALF
            return XENT(apply(p[1], h * keep), y)

        return jax.vmap(one)(jax.random.split(jax.random.key(1), BATCH), *batch)

    return Right(MLP, XY, each)


@program
def noise_from_the_examples_own_number() -> Right:
    """A key folded with a private number of the same example."""

    def each(p: Any, batch: Any) -> Any:
        def one(x: Any, y: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(1), y)
            bits = jax.random.bits(key, (5,), jnp.uint32) < HALF
            return XENT(mlp(p, x * bits), y)

        return jax.vmap(one)(*batch)

    return Right(MLP, XY, each)


@program
def weighted_examples() -> Right:
    """Weights that are as private as the examples, over a fixed denominator."""

    def each(p: Any, batch: Any) -> Any:
        x, y, weight = batch
        return weight * XENT(mlp(p, x), y)

    return Right(MLP, (*XY, jnp.abs(values(BATCH, seed=9))), each)


@program
def teacher() -> Right:
    """Distillation from other parameters, and a moving average of them."""
    other = jax.tree.map(lambda v: 0.9 * v, MLP)

    def each(p: Any, batch: Any) -> Any:
        wanted = lax.stop_gradient(jax.nn.softmax(mlp(other, batch[0])))
        return optax.softmax_cross_entropy(mlp(p, batch[0]), wanted)

    return Right(MLP, XY, each)


@program
def two_losses() -> Right:
    def each(p: Any, batch: Any) -> Any:
        h = jnp.tanh(apply(p[0], batch[0]))
        back = h @ p[0]["w"].T
        return XENT(apply(p[1], h), batch[1]) + 0.1 * jnp.sum((back - batch[0]) ** 2, 1)

    return Right(MLP, XY, each)


@program
def autoencoder_with_noise() -> Right:
    """The reparametrisation trick, with noise that is public."""
    noise = values(BATCH, 2, seed=4)

    def each(p: Any, batch: Any) -> Any:
        mean, spread = jnp.split(batch[0] @ p["in"], 2, axis=1)
        z = mean + jnp.exp(0.1 * spread) * noise
        kl = jnp.sum(jnp.exp(spread) + mean**2 - 1 - spread, axis=1)
        return jnp.sum((z @ p["out"] - batch[0]) ** 2, axis=1) + 0.1 * kl

    return Right({"in": values(5, 4), "out": values(2, 5)}, XY, each)


@program
def quantised_weights() -> Right:
    def each(p: Any, batch: Any) -> Any:
        w = p["w"] + lax.stop_gradient(jnp.round(4 * p["w"]) / 4 - p["w"])
        return XENT(batch[0] @ w, batch[1])

    return Right({"w": values(5, 3)}, XY, each)


@program
def low_rank_bilinear() -> Right:
    def each(p: Any, batch: Any) -> Any:
        x, _ = batch
        return jnp.einsum("bi,ir,jr,bj->b", x, p["u"], p["v"], x)

    return Right({"u": values(5, 2), "v": values(5, 2, seed=1)}, XY, each)


@program
def only_a_bias() -> Right:
    return Right(
        values(5), values(BATCH, 5), lambda p, x: jnp.sum((x - p) ** 2, axis=1)
    )


@program
def one_scalar() -> Right:
    return Right({"a": jnp.ones(())}, values(BATCH), lambda p, x: jnp.cos(p["a"] * x))


@program
def unused_parameters() -> Right:
    """Some parameters take no part: their sum is zero."""
    each = lambda p, b: XENT(b[0] @ p["w"], b[1])  # noqa: E731
    return Right({"w": values(5, 3), "unused": values(2)}, XY, each)


@program
def constants_of_numpy() -> Right:
    table = np.arange(15.0, dtype=np.float32).reshape(5, 3) / 10
    return Right({"s": values(3)}, XY, lambda p, b: XENT((b[0] @ table) * p["s"], b[1]))
