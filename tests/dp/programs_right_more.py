"""More losses in which every example is alone: training tricks, sequences, experts."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from dp_models import BATCH, labels, values
from jax import lax
from programs_right import MLP, XENT, XY, Right, mlp, program
from programs_right_flax import PROGRAMS

NHWC = ("NHWC", "HWIO", "NHWC")
PARTS = {"z": values(5, 3), "u": values(3, 3)}
SEQUENCES = values(BATCH, 4, 5)
LENGTHS = labels(4) + 1


def stable(p: Any, batch: Any) -> Any:
    return XENT(mlp(p, batch[0]), batch[1])


# -- inputs that each example changes by itself ---------------------------------------


@program
def adversarial_examples() -> Right:
    """Projected gradient ascent on every example's own loss."""

    def each(p: Any, batch: Any) -> Any:
        x, y = batch

        def ascend(d: Any, _: Any) -> Any:
            g = jax.grad(lambda d: jnp.sum(stable(p, (x + d, y))))(d)
            length = jnp.linalg.norm(g, axis=1, keepdims=True)
            return jnp.clip(d + 0.1 * g / (0.1 + length), -0.3, 0.3), None

        d, _ = lax.scan(ascend, jnp.zeros_like(x), None, length=2)
        return stable(p, (x + lax.stop_gradient(d), y))

    return Right(MLP, XY, each)


@program
def random_crops() -> Right:
    def each(p: Any, batch: Any) -> Any:
        x, y, number = batch
        fold = lambda i: jax.random.fold_in(jax.random.key(3), i)  # noqa: E731

        def crop(x: Any, key: Any) -> Any:
            at, turn = jax.random.split(key)
            x = lax.dynamic_slice(
                x, (*jax.random.randint(at, (2,), 0, 3), 0), (4, 4, 2)
            )
            return jnp.where(jax.random.bernoulli(turn), x[:, ::-1], x)

        x = jax.vmap(crop)(x, jax.vmap(fold)(number))
        h = lax.conv_general_dilated(x, p["k"], (1, 1), "SAME", dimension_numbers=NHWC)
        return XENT(jax.nn.relu(h).mean((1, 2)) @ p["w"], y)

    params = {"k": values(3, 3, 2, 4), "w": values(4, 3)}
    batch = (values(BATCH, 6, 6, 2), labels(3), labels(99))
    return Right(params, batch, each, wide=False)


@program
def diffusion() -> Right:
    def each(p: Any, batch: Any) -> Any:
        x, t = batch
        noise = jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        kept = jnp.linspace(0.9, 0.1, 10, dtype=x.dtype)[t][:, None]
        h = jnp.sqrt(kept) * x + jnp.sqrt(1 - kept) * noise
        h = jnp.tanh(h @ p["a"] + p["t"][t]) @ p["b"]
        return jnp.mean((h - noise) ** 2, 1)

    params = {"a": values(5, 6), "b": values(6, 5), "t": values(10, 6)}
    return Right(params, (values(BATCH, 5), labels(10)), each)


# -- sequences --------------------------------------------------------------------------


@program
def packed_sequences() -> Right:
    """Attention within the segments of each row, causal."""

    def each(p: Any, batch: Any) -> Any:
        x, segment = batch
        h = x @ p["z"]
        same = segment[:, :, None] == segment[:, None]
        seen = same & jnp.tri(4, dtype=bool)
        a = jnp.where(seen, jnp.einsum("bid,bjd->bij", h, h), -1e9)
        o = jnp.einsum("bij,bjd->bid", jax.nn.softmax(a), h) @ p["u"]
        return jnp.mean(o**2, (1, 2))

    return Right(PARTS, (SEQUENCES, labels(2, BATCH, 4)), each)


@program
def mean_over_valid_tokens() -> Right:
    def each(p: Any, batch: Any) -> Any:
        x, y, length = batch
        valid = jnp.arange(4) < length[:, None]
        return jnp.sum(XENT(mlp(p, x), y) * valid, 1) / valid.sum(1)

    return Right(MLP, (SEQUENCES, labels(3, BATCH, 4), LENGTHS), each)


@program
def recurrence_with_lengths() -> Right:
    def each(p: Any, batch: Any) -> Any:
        x, length = batch

        def cell(h: Any, now: Any) -> Any:
            new = jnp.tanh(now[0] @ p["z"] + h @ p["u"])
            return jnp.where((now[1] < length)[:, None], new, h), None

        start = jnp.zeros((x.shape[0], 3), x.dtype)
        h, _ = lax.scan(cell, start, (x.swapaxes(0, 1), jnp.arange(4)))
        return jnp.sum(h**2, 1)

    return Right(PARTS, (SEQUENCES, LENGTHS), each)


@program
def both_directions() -> Right:
    def each(p: Any, x: Any) -> Any:
        def cell(h: Any, x: Any) -> Any:
            z = jax.nn.sigmoid(x @ p["z"] + h @ p["u"])
            return (1 - z) * h + z * jnp.tanh(x @ p["z"]), h

        start = jnp.zeros((x.shape[0], 3), x.dtype)
        x = x.swapaxes(0, 1)
        _, there = lax.scan(cell, start, x)
        _, back = lax.scan(cell, start, x, reverse=True)
        return jnp.sum(there * back, (0, 2))

    return Right(PARTS, SEQUENCES, each)


@program
def conditional_random_field() -> Right:
    def each(p: Any, x: Any) -> Any:
        unary = (x @ p["z"]).swapaxes(0, 1)

        def forward(a: Any, now: Any) -> Any:
            return jax.nn.logsumexp(a[:, :, None] + p["u"], 1) + now, None

        return jax.nn.logsumexp(lax.scan(forward, unary[0], unary[1:])[0], 1)

    return Right(PARTS, SEQUENCES, each)


@program
def connectionist_temporal() -> Right:
    def each(p: Any, batch: Any) -> Any:
        logits = batch[0] @ p["w"]
        none = jnp.zeros(logits.shape[:2], logits.dtype)
        return optax.ctc_loss(logits, none, batch[1], none[:, :2])

    found = (values(BATCH, 5, 5), labels(3, BATCH, 2) + 1)
    return Right({"w": values(5, 4)}, found, each)


# -- structure --------------------------------------------------------------------------


@flax.struct.dataclass
class Example:
    x: Any
    task: Any


@program
def heads_of_tasks() -> Right:
    """Every example has the head of its own task; the batch is a dataclass."""

    def each(p: Any, batch: Example) -> Any:
        h = jnp.tanh(batch.x @ p["a"])
        return jnp.sum(jnp.einsum("bi,bij->bj", h, p["heads"][batch.task]) ** 2, 1)

    params = {"a": values(5, 6), "heads": values(3, 6, 2)}
    return Right(params, Example(values(BATCH, 5), labels(3)), each)


@program
def two_best_experts() -> Right:
    def each(p: Any, x: Any) -> Any:
        weight, which = lax.top_k(jax.nn.softmax(x @ p["gate"]), 2)
        h = jnp.einsum("bd,bkde->bke", x, p["experts"][which])
        return jnp.sum((weight[..., None] * jnp.tanh(h)) ** 2, (1, 2))

    params = {"gate": values(5, 3), "experts": values(3, 5, 2)}
    return Right(params, values(BATCH, 5), each)


@program
def dilated_groups() -> Right:
    def each(p: Any, batch: Any) -> Any:
        h = lax.conv_general_dilated(
            batch[0],
            p["k"],
            (1, 1),
            "SAME",
            dimension_numbers=NHWC,
            feature_group_count=2,
            rhs_dilation=(2, 2),
        )
        return XENT(jnp.max(h, (1, 2)) @ p["w"], batch[1])

    params = {"k": values(3, 3, 2, 4), "w": values(4, 3)}
    return Right(params, (values(BATCH, 5, 5, 4), labels(3)), each)


@program
def upsampling() -> Right:
    def each(p: Any, x: Any) -> Any:
        h = lax.conv_transpose(x, p["k"], (2, 2), "SAME")
        return jnp.mean(jnp.tanh(h) ** 2, (1, 2, 3))

    return Right({"k": values(3, 3, 2, 3)}, values(BATCH, 3, 3, 2), each)


@program
def low_rank_updates_of_many_layers() -> Right:
    frozen = values(5, 5)

    def each(p: Any, x: Any) -> Any:
        layer = lambda h, w: (jnp.tanh(h @ frozen + h @ w["a"] @ w["b"]), None)  # noqa: E731
        return jnp.sum(lax.scan(layer, x, p)[0] ** 2, 1)

    return Right({"a": values(3, 5, 2), "b": values(3, 2, 5)}, values(BATCH, 5), each)


@program
def spectral_norm_of_weights() -> Right:
    """A power iteration on the parameters knows nothing of the batch."""

    def each(p: Any, batch: Any) -> Any:
        w = p["z"]

        def iterate(u: Any, _: Any) -> Any:
            v = w.T @ u
            u = w @ (v / jnp.linalg.norm(v))
            return u / jnp.linalg.norm(u), None

        u, _ = lax.scan(iterate, jnp.ones(5, w.dtype) / 5**0.5, None, length=2)
        w = w / jnp.linalg.norm(lax.stop_gradient(u) @ w)
        return XENT(jnp.tanh(batch[0] @ w) @ p["u"], batch[1])

    return Right(PARTS, XY, each)


@program
def contrast_within_examples() -> Right:
    """Views of one example are each other's negatives."""

    def each(p: Any, x: Any) -> Any:
        h = mlp(p, x)
        s = jnp.einsum("bid,bjd->bij", h, h)
        own = jnp.diagonal(s, axis1=1, axis2=2)
        return jnp.mean(jax.nn.logsumexp(s, -1) - own, 1)

    return Right(MLP, values(BATCH, 3, 5), each)


@program
def curvature_penalty() -> Right:
    def each(p: Any, x: Any) -> Any:
        one = lambda x: jnp.sum(mlp(p, x) ** 2)  # noqa: E731
        return jax.vmap(lambda x: jnp.trace(jax.hessian(one)(x)))(x)

    return Right(MLP, values(BATCH, 5), each)


@program
def public_branch() -> Right:
    def each(p: Any, batch: Any) -> Any:
        positive = (p["z"][0, 0] > 0).astype(jnp.int32)
        kinds = [jnp.tanh, jax.nn.relu, jnp.sin]
        return XENT(lax.switch(positive, kinds, batch[0] @ p["z"]) @ p["u"], batch[1])

    return Right(PARTS, XY, each)


@program
def determinants() -> Right:
    def each(p: Any, x: Any) -> Any:
        a = jnp.einsum("bij,jk,blk->bil", x, p["s"] @ p["s"].T, x)
        return jnp.linalg.slogdet(a + jnp.eye(3, dtype=a.dtype))[1]

    return Right({"s": values(5, 5)}, values(BATCH, 3, 5), each)


__all__ = ["PROGRAMS"]
