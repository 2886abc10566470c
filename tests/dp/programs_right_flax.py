"""Flax models in which every example is alone: see `programs_right.py`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from dp_models import BATCH, labels, values
from flax import nnx
from programs_right import XENT, Right, program
from programs_right_layers import PROGRAMS

IMAGES = (values(BATCH, 6, 6, 2), labels(3))
TOKENS = labels(7, BATCH, 4)
SIGNALS = (values(BATCH, 4, 2), labels(3))
XY = (values(BATCH, 5), labels(3))


def linen(net: Any, batch: Any, wide: bool = True, **options: Any) -> Right:
    """A classifier of `batch[0]`."""
    params = net.init(jax.random.key(0), batch[0])["params"]

    def each(p: Any, batch: Any) -> Any:
        return XENT(net.apply({"params": p}, batch[0], **options), batch[1])

    return Right(params, batch, each, wide)


class ResidualBlock(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        h = nn.relu(nn.GroupNorm(2)(nn.Conv(4, (3, 3), strides=2)(x)))
        h = nn.GroupNorm(2)(nn.Conv(4, (3, 3))(h))
        return nn.relu(h + nn.Conv(4, (1, 1), strides=2)(x))


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = ResidualBlock()(nn.Conv(4, (3, 3))(x))
        return nn.Dense(3)(x.mean((1, 2)))


@program
def linen_resnet() -> Right:
    return linen(ResNet(), IMAGES)


class Pools(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.max_pool(nn.Conv(3, (3, 3))(x), (2, 2), (2, 2))
        x = nn.avg_pool(nn.ConvTranspose(2, (2, 2))(x), (2, 2), (2, 2))
        return nn.Dense(3)(nn.RMSNorm()(x.reshape(x.shape[0], -1)))


@program
def linen_pools() -> Right:
    return linen(Pools(), IMAGES)


class Transformer(nn.Module):
    """Tied embeddings, causal attention, a remat block."""

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embed = nn.Embed(7, 4)
        h = embed(tokens) + self.param("position", nn.initializers.normal(), (4, 4))
        mask = nn.make_causal_mask(tokens)
        h = h + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(h), mask=mask)
        h = h + nn.remat(nn.Dense)(4)(nn.gelu(nn.Dense(6)(nn.LayerNorm()(h))))
        return embed.attend(h)


@program
def linen_transformer() -> Right:
    net = Transformer()
    params = net.init(jax.random.key(0), TOKENS)

    def each(p: Any, tokens: Any) -> Any:
        return XENT(net.apply(p, tokens), (tokens + 1) % 7).mean(1)

    return Right(params, TOKENS, each)


class Recurrent(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(3)(nn.RNN(self.cell)(x)[:, -1])


@program
def linen_lstm() -> Right:
    return linen(Recurrent(nn.OptimizedLSTMCell(3)), SIGNALS, wide=False)


@program
def linen_gru() -> Right:
    return linen(Recurrent(nn.GRUCell(3)), SIGNALS, wide=False)


class Scanned(nn.Module):
    """Layers stacked by nn.scan."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        class Layer(nn.Module):
            @nn.compact
            def __call__(self, h: Any, _: Any) -> Any:
                return jnp.tanh(nn.Dense(5)(h)), None

        layers = nn.scan(
            Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
        )
        return nn.Dense(3)(layers()(x, None)[0])


@program
def linen_scan() -> Right:
    return linen(Scanned(), XY)


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        h = nn.Dropout(0.5, deterministic=False)(nn.relu(nn.Dense(6)(x)))
        return nn.Dense(3)(h)


@program
def linen_dropout() -> Right:
    net = Dropped()
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    params = net.init(rngs, XY[0])

    def each(p: Any, batch: Any) -> Any:
        out = net.apply(p, batch[0], rngs={"dropout": jax.random.key(2)})
        return XENT(out, batch[1])

    return Right(params, XY, each, wide=False)


class RunningNorm(nn.Module):
    """Batch norm that only uses statistics that are given: public ones."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(3)(nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x)))


@program
def linen_frozen_batch_norm() -> Right:
    net = RunningNorm()
    start = net.init(jax.random.key(0), XY[0])

    def each(p: Any, batch: Any) -> Any:
        out = net.apply({"params": p, "batch_stats": start["batch_stats"]}, batch[0])
        return XENT(out, batch[1])

    return Right(start["params"], XY, each)


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


@program
def nnx_cnn() -> Right:
    graph, state = nnx.split(NnxNet(nnx.Rngs(0)))
    return Right(state, IMAGES, lambda p, b: XENT(nnx.merge(graph, p)(b[0]), b[1]))


class NnxAttention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(7, 4, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        h = self.embed(tokens)
        h = self.norm(h + self.drop(self.attend(h)))
        return self.embed.attend(h)


@program
def nnx_attention() -> Right:
    graph, params, rest = nnx.split(NnxAttention(nnx.Rngs(0)), nnx.Param, ...)

    def each(p: Any, tokens: Any) -> Any:
        logits = nnx.merge(graph, p, rest, copy=True)(tokens)
        return XENT(logits, (tokens + 1) % 7).mean(1)

    return Right(params, TOKENS, each, wide=False)


@program
def nnx_lstm() -> Right:
    net = nnx.RNN(nnx.LSTMCell(2, 3, rngs=nnx.Rngs(0)))
    graph, params, rest = nnx.split(net, nnx.Param, ...)

    def each(p: Any, batch: Any) -> Any:
        return XENT(nnx.merge(graph, p, rest, copy=True)(batch[0])[:, -1], batch[1])

    return Right(params, SIGNALS, each, wide=False)


__all__ = ["PROGRAMS"]
