"""Kinds of layers, with every example alone: see `programs_right.py`."""

from typing import Any

import jax
import jax.numpy as jnp
from dp_models import BATCH, apply, labels, values
from jax import lax
from programs_right import MLP, PROGRAMS, XENT, XY, Right, program


@program
def lora() -> Right:
    """A frozen matrix and a trained one of low rank."""
    frozen = values(5, 3, seed=7)

    def each(p: Any, batch: Any) -> Any:
        x, y = batch
        return XENT(x @ frozen + (x @ p["down"]) @ p["up"], y)

    return Right({"down": values(5, 2), "up": values(2, 3)}, XY, each)


@program
def tied_embeddings() -> Right:
    def each(p: Any, tokens: Any) -> Any:
        h = jnp.tanh(p["e"][tokens[:, :-1]] @ p["w"])
        return XENT(h @ p["e"].T, tokens[:, 1:]).mean(1)

    params = {"e": values(7, 4), "w": values(4, 4)}
    return Right(params, labels(7, BATCH, 5), each)


@program
def embedding_with_many_rows() -> Right:
    def each(p: Any, tokens: Any) -> Any:
        return jnp.sum(jnp.tanh(p[tokens].sum(1)) ** 2, axis=-1)

    return Right(values(50, 3), labels(50, BATCH, 4), each)


@program
def repeated_tokens() -> Right:
    """A token that one example has several times."""

    def each(p: Any, tokens: Any) -> Any:
        return jnp.sum(jnp.sin(jnp.take(p, tokens, axis=0)), axis=(1, 2))

    return Right(values(3, 4), labels(3, BATCH, 6), each)


@program
def padded_tokens() -> Right:
    """Sequences of different lengths; each is averaged over its own length."""

    def each(p: Any, batch: Any) -> Any:
        tokens, length = batch
        mask = jnp.arange(5)[None] < length[:, None]
        out = XENT(p["e"][tokens] @ p["w"], (tokens + 1) % 7)
        return jnp.sum(out * mask, axis=1) / jnp.sum(mask, axis=1)

    params = {"e": values(7, 4), "w": values(4, 7)}
    return Right(params, (labels(7, BATCH, 5), 1 + labels(4)), each)


def norm(x: Any, axis: int = -1) -> Any:
    x = x - x.mean(axis, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x**2, axis, keepdims=True) + 1e-5)


@program
def layer_norm() -> Right:
    def each(p: Any, batch: Any) -> Any:
        h = norm(apply(p[0], batch[0])) * p[2]["s"] + p[2]["b"]
        return XENT(apply(p[1], jax.nn.gelu(h)), batch[1])

    scale = {"s": values(6), "b": values(6, seed=1)}
    return Right([*MLP, scale], XY, each)


@program
def weight_norm() -> Right:
    """The norm of the weights is public, but the gradient goes through it."""

    def each(p: Any, batch: Any) -> Any:
        w = p["v"] / jnp.linalg.norm(p["v"], axis=0) * p["g"]
        return XENT(batch[0] @ w, batch[1])

    return Right({"v": values(5, 3), "g": values(3)}, XY, each)


@program
def transformer_block() -> Right:
    def each(p: Any, x: Any) -> Any:
        h = norm(x)
        q, k, v = (jnp.einsum("btd,dhe->bhte", h, p[n]) for n in "qkv")
        s = jnp.where(jnp.tril(jnp.ones((3, 3), bool)), q @ k.mT / 2.0, -1e9)
        o = jnp.einsum("bhte,hed->btd", jax.nn.softmax(s) @ v, p["o"])
        h = x + o
        a, b = jnp.split(norm(h) @ p["in"], 2, axis=-1)
        h = h + (jax.nn.silu(a) * b) @ p["out"]
        return jnp.mean(h**2, axis=(1, 2))

    params = {n: values(4, 2, 2, seed=i) for i, n in enumerate("qkv")}
    params |= {"o": values(2, 2, 4), "in": values(4, 6), "out": values(3, 4)}
    return Right(params, values(BATCH, 3, 4), each)


@program
def rotary_attention() -> Right:
    def each(p: Any, x: Any) -> Any:
        angle = jnp.arange(3)[:, None] * jnp.array([1.0, 0.1])
        cos, sin = jnp.cos(angle), jnp.sin(angle)

        def turned(v: Any) -> Any:
            a, b = v[..., :2], v[..., 2:]
            return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

        q, k = turned(x @ p["q"]), turned(x @ p["k"])
        s = jax.nn.softmax(jnp.einsum("btd,bsd->bts", q, k))
        return jnp.sum((s @ x) ** 2, axis=(1, 2))

    return Right(
        {"q": values(4, 4), "k": values(4, 4, seed=1)}, values(BATCH, 3, 4), each
    )


@program
def built_in_attention() -> Right:
    def each(p: Any, x: Any) -> Any:
        q, k, v = (jnp.einsum("btd,dhe->bthe", x, p[n]) for n in "qkv")
        o = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return jnp.sum(o**2, axis=(1, 2, 3))

    params = {n: values(4, 2, 2, seed=i) for i, n in enumerate("qkv")}
    return Right(params, values(BATCH, 3, 4), each)


@program
def lstm() -> Right:
    """Scan over time, gates in one product."""

    def each(p: Any, batch: Any) -> Any:
        x, y = batch

        def cell(carry: Any, xt: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(xt @ p["x"] + h @ p["h"] + p["b"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        start = (jnp.zeros((BATCH, 3), x.dtype),) * 2
        _, out = lax.scan(cell, start, x.swapaxes(0, 1))
        return XENT(out[-1] @ p["o"], y)

    params = {
        "x": values(2, 12),
        "h": values(3, 12),
        "b": values(12),
        "o": values(3, 3),
    }
    return Right(params, (values(BATCH, 4, 2), labels(3)), each)


@program
def recurrence_per_example() -> Right:
    """A scan over time inside of vmap, reversed, with rematerialised steps."""

    def each(p: Any, x: Any) -> Any:
        def one(x: Any) -> Any:
            cell = jax.checkpoint(lambda h, v: (jnp.tanh(h @ p["h"] + v), h.sum()))
            h, out = lax.scan(cell, p["start"], x, reverse=True)
            return jnp.sum(h**2) + out.sum()

        return jax.vmap(one)(x)

    return Right({"h": values(3, 3), "start": values(3)}, values(BATCH, 4, 3), each)


def image(name: str, kernel: Any, **options: Any) -> None:
    """A convolution and a sum of squares."""

    def make() -> Right:
        numbers = options.pop("numbers", ("NHWC", "HWIO", "NHWC"))

        def each(p: Any, x: Any) -> Any:
            if numbers[0] == "HWCN":
                x = x.transpose(1, 2, 3, 0)
            settings = {"window_strides": (1, 1), "padding": "SAME"} | options
            h = lax.conv_general_dilated(
                x, p["k"], dimension_numbers=numbers, **settings
            )
            h = jnp.tanh(h)
            if numbers[0] == "HWCN":
                h = h.transpose(3, 0, 1, 2)
            return jnp.sum(h**2 + h, axis=(1, 2, 3))

        return Right({"k": kernel}, values(BATCH, 6, 5, 2), each)

    PROGRAMS[name] = make


image("conv", values(3, 3, 2, 3))
image("conv_strided", values(3, 2, 2, 3), window_strides=(2, 1), padding="VALID")
image("conv_dilated", values(2, 2, 2, 3), rhs_dilation=(2, 1))
image(
    "conv_transposed", values(3, 3, 2, 3), lhs_dilation=(2, 2), padding=((2, 1), (1, 2))
)
image("conv_depthwise", values(3, 3, 1, 4), feature_group_count=2)
image("conv_1x1", values(1, 1, 2, 3), padding="VALID")
image("conv_batch_last", values(2, 2, 2, 3), numbers=("HWCN", "HWIO", "HWCN"))


@program
def residual_group_norm() -> Right:
    def conv(x: Any, k: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=numbers)

    def each(p: Any, batch: Any) -> Any:
        x, y = batch
        for k in p["blocks"]:
            h = conv(x, k).reshape(BATCH, 4, 4, 2, 2)
            h = h - h.mean((1, 2, 4), keepdims=True)
            h = h / jnp.sqrt(jnp.mean(h**2, axis=(1, 2, 4), keepdims=True) + 1e-5)
            x = x + jax.nn.relu(h.reshape(x.shape))
        return XENT(x.mean((1, 2)) @ p["out"], y)

    blocks = [values(3, 3, 4, 4, seed=k, scale=0.3) for k in range(2)]
    params = {"blocks": blocks, "out": values(4, 3)}
    return Right(params, (values(BATCH, 4, 4, 4), labels(3)), each)


@program
def signal() -> Right:
    """Convolution in one dimension by FFT and directly, pooling by a window."""

    def each(p: Any, x: Any) -> Any:
        filtered = jnp.fft.irfft(jnp.fft.rfft(x) * p["f"], n=8)
        h = jnp.tanh(filtered)[:, :, None]
        h = lax.conv_general_dilated(
            h, p["k"], (1,), "SAME", dimension_numbers=("NTC", "TIO", "NTC")
        )
        h = lax.reduce_window(h, 0.0, lax.add, (1, 2, 1), (1, 2, 1), "VALID")
        return jnp.sum(h**2, axis=(1, 2))

    return Right({"f": values(5), "k": values(3, 1, 2)}, values(BATCH, 8), each)
