"""Random small losses of (parameters, batch) in which every example is alone.

A program is a chain of layers drawn from `LAYERS`, each a function of a state
[batch, time, width], the examples' tokens, and parameters from a small pool, so that most
programs use some parameter several times and in several ways.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BATCH, TIME, WIDTH, WORDS = 4, 3, 4, 5

SHAPES = {
    "w": (WIDTH, WIDTH),
    "v": (WIDTH, WIDTH),
    "down": (WIDTH, 2),
    "up": (2, WIDTH),
    "b": (WIDTH,),
    "scale": (WIDTH,),
    "place": (TIME, WIDTH),
    "table": (WORDS, WIDTH),
    "taps": (2, WIDTH, WIDTH),
    "deep": (2, 1, WIDTH),
    "blocks": (2, 2, 2),
    "stack": (2, WIDTH, WIDTH),
    "a": (),
}

Layer = Callable[[Any, Any, Any], Any]
LAYERS: dict[str, Layer] = {}


class Program(NamedTuple):
    names: tuple[str, ...]
    params: dict[str, Any]
    batch: Any
    each: Callable[[Any, Any], Any]
    wrap: str


def layer(fun: Layer) -> Layer:
    LAYERS[fun.__name__] = fun
    return fun


def normal(h: Any, axis: Any = -1) -> Any:
    h = h - jnp.mean(h, axis, keepdims=True)
    return h / jnp.sqrt(jnp.mean(h**2, axis, keepdims=True) + 0.1)


@jax.custom_vjp
def halved(x: Any) -> Any:
    return jnp.tanh(x)


halved.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (0.5 * g * jnp.cos(x),))


# -- parameters in products -----------------------------------------------------------


@layer
def dense(p: Any, h: Any, t: Any) -> Any:
    return h @ p["w"]


@layer
def dense_with_bias(p: Any, h: Any, t: Any) -> Any:
    return jnp.tanh(h @ p["v"] + p["b"])


@layer
def dense_transposed(p: Any, h: Any, t: Any) -> Any:
    return h @ p["w"].T


@layer
def dense_flattened(p: Any, h: Any, t: Any) -> Any:
    return (h.reshape(-1, WIDTH) @ p["v"]).reshape(h.shape)


@layer
def dense_batch_last(p: Any, h: Any, t: Any) -> Any:
    out = jnp.einsum("ij,tib->tjb", p["w"], h.transpose(1, 2, 0))
    return jnp.sin(out).transpose(2, 0, 1)


@layer
def low_rank(p: Any, h: Any, t: Any) -> Any:
    return h + h @ p["down"] @ p["up"]


@layer
def normalised_weights(p: Any, h: Any, t: Any) -> Any:
    w = p["v"] / jnp.sqrt(jnp.sum(p["v"] ** 2, axis=0) + 1)
    return h @ (w * p["scale"])


@layer
def block_diagonal(p: Any, h: Any, t: Any) -> Any:
    parts = h.reshape(-1, TIME, 2, 2)
    return jnp.einsum("btgi,gij->btgj", parts, p["blocks"]).reshape(h.shape)


@layer
def over_time(p: Any, h: Any, t: Any) -> Any:
    return jnp.einsum("bti,tj,sj->bsi", h, p["place"], p["place"]) / 2


@layer
def bilinear(p: Any, h: Any, t: Any) -> Any:
    s = jnp.einsum("bti,ij,bsj->bts", h, p["w"], jnp.tanh(h))
    return h + jnp.tanh(s) @ h / 3


@layer
def scaled_and_shifted(p: Any, h: Any, t: Any) -> Any:
    return normal(h) * p["scale"] + p["b"]


@layer
def times_a_scalar(p: Any, h: Any, t: Any) -> Any:
    return h * jnp.tanh(p["a"]) + p["a"]


@layer
def positions(p: Any, h: Any, t: Any) -> Any:
    return h + p["place"]


# -- tables ---------------------------------------------------------------------------


@layer
def embedded(p: Any, h: Any, t: Any) -> Any:
    return h + p["table"][t]


@layer
def embedded_by_one_hot(p: Any, h: Any, t: Any) -> Any:
    return h + jax.nn.one_hot(t, WORDS, dtype=h.dtype) @ p["table"]


@layer
def scored_against_the_table(p: Any, h: Any, t: Any) -> Any:
    return jax.nn.softmax(h @ p["table"].T) @ p["table"]


@layer
def gated_by_a_word(p: Any, h: Any, t: Any) -> Any:
    return h * jax.nn.sigmoid(jnp.take(p["table"], t[:, 0], axis=0))[:, None]


# -- convolutions and windows ---------------------------------------------------------


def convolve(h: Any, kernel: Any, groups: int = 1) -> Any:
    return lax.conv_general_dilated(
        h,
        kernel,
        (1,),
        [(1, 0)],
        dimension_numbers=("NTC", "TIO", "NTC"),
        feature_group_count=groups,
    )


@layer
def convolution(p: Any, h: Any, t: Any) -> Any:
    return jnp.tanh(convolve(h, p["taps"]))


@layer
def depthwise(p: Any, h: Any, t: Any) -> Any:
    return convolve(h, p["deep"], WIDTH)


@layer
def convolution_under_vmap(p: Any, h: Any, t: Any) -> Any:
    return jax.vmap(lambda x: convolve(x[None], p["taps"])[0])(h)


@layer
def pooled(p: Any, h: Any, t: Any) -> Any:
    high = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 1), (1, 1, 1), "SAME")
    low = lax.reduce_window(h, 0.0, lax.add, (1, 1, 2), (1, 1, 1), "SAME")
    return high + 0.5 * low


# -- loops ----------------------------------------------------------------------------


@layer
def recurrent(p: Any, h: Any, t: Any) -> Any:
    cell = lambda c, x: (jnp.tanh(c @ p["w"] + x @ p["v"]),) * 2  # noqa: E731
    start = jnp.zeros_like(h[:, 0])
    return lax.scan(cell, start, h.swapaxes(0, 1))[1].swapaxes(0, 1)


@layer
def layers_in_a_scan(p: Any, h: Any, t: Any) -> Any:
    return lax.scan(lambda c, w: (c + jnp.tanh(c @ w), None), h, p["stack"])[0]


@layer
def one_by_one(p: Any, h: Any, t: Any) -> Any:
    return lax.map(lambda x: jnp.sin(x @ p["w"]) + p["b"], h)


@layer
def rematerialised(p: Any, h: Any, t: Any) -> Any:
    return jax.checkpoint(lambda w, x: jnp.tanh(x @ w))(p["v"], h)


@layer
def repeated(p: Any, h: Any, t: Any) -> Any:
    step = lambda c, _: (jnp.tanh(c @ p["w"]), None)  # noqa: E731
    return lax.scan(step, h, None, length=2)[0]


# -- without parameters ---------------------------------------------------------------

PLAIN: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "softmax": jax.nn.softmax,
    "normal": normal,
    "normal_over_time": lambda h: normal(h, (1, 2)),
    "cumulative": lambda h: jnp.cumsum(h, axis=1) / 2,
    "sorted": lambda h: jnp.sort(h, axis=2),
    "reversed": lambda h: h[:, ::-1],
    "rolled": lambda h: jnp.roll(h, 1, axis=1),
    "halved": halved,
    "maximum": lambda h: h - jnp.max(h, axis=2, keepdims=True),
    "attending": lambda h: jax.nn.softmax(h @ h.mT / 2) @ h,
    "groups_of_the_batch": lambda h: (
        jnp.sin(h.reshape(2, -1, TIME, WIDTH).transpose(1, 0, 2, 3))
        .transpose(1, 0, 2, 3)
        .reshape(h.shape)
    ),
    "branch": lambda h: jax.vmap(
        lambda x: lax.cond(x[0, 0] > 0, jnp.tanh, lambda v: 0.5 * v, x)
    )(h),
}
for _name, _fun in PLAIN.items():
    LAYERS[_name] = lambda p, h, t, _fun=_fun: _fun(h)

# -- ends of a program ----------------------------------------------------------------

HEADS: dict[str, Layer] = {
    "squares": lambda p, h, t: jnp.sum(h**2, axis=(1, 2)) / 4,
    "words": lambda p, h, t: (
        -jnp.mean(
            jnp.take_along_axis(
                jax.nn.log_softmax(h @ p["table"].T), t[..., None], axis=2
            ),
            axis=(1, 2),
        )
    ),
    "last": lambda p, h, t: jnp.sum(jnp.sin(h[:, -1] @ p["w"] + p["b"]), axis=1),
    "picked": lambda p, h, t: h.mean(1)[jnp.arange(len(h)), t[:, 0] % WIDTH],
    "weighted": lambda p, h, t: (
        jnp.mean(jnp.sin(2 * h), (1, 2)) * jnp.sum(t, 1).astype(h.dtype)
    ),
}

# How the mean over the batch and its gradient are written: see `gradient`.
WRAPS = ("plain", "plain", "jit", "remat", "summed", "accumulated", "mapped")


def draw(seed: int) -> Program:
    rng = np.random.default_rng([seed, 7])
    count = int(rng.integers(2, 6))
    names = tuple(str(n) for n in rng.choice(list(LAYERS), count))
    head = str(rng.choice(list(HEADS)))

    def each(p: Any, batch: Any) -> Any:
        h, tokens = batch
        h = h * p["scale"] + p["place"]
        for name in names:
            h = LAYERS[name](p, h, tokens)
        return HEADS[head](p, h, tokens)

    params = {
        k: np.asarray(rng.normal(size=s) * 0.7, np.float32) for k, s in SHAPES.items()
    }
    batch = (
        rng.normal(size=(BATCH, TIME, WIDTH)).astype(np.float32),
        rng.integers(0, WORDS, (BATCH, TIME)).astype(np.int32),
    )
    wrap = str(rng.choice(WRAPS))
    if wrap == "mapped" and "groups_of_the_batch" in names:
        wrap = "plain"  # one example alone has no groups
    return Program((*names, head), params, batch, each, wrap)


def gradient(program: Program) -> Callable[[Any, Any], Any]:
    """The gradient of the mean loss over the batch, as a step of two arguments."""

    def loss(p: Any, batch: Any) -> Any:
        return jnp.mean(program.each(p, batch))

    def plain(p: Any, batch: Any) -> Any:
        return jax.grad(loss)(p, batch)

    def summed(p: Any, batch: Any) -> Any:
        g = jax.grad(lambda p: jnp.sum(program.each(p, batch)))(p)
        return jax.tree.map(lambda x: x / BATCH, g)

    def accumulated(p: Any, batch: Any) -> Any:
        pieces = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
        add = lambda c, b: (jax.tree.map(jnp.add, c, plain(p, b)), None)  # noqa: E731
        total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, p), pieces)
        return jax.tree.map(lambda x: x / 2, total)

    def mapped(p: Any, batch: Any) -> Any:
        one = lambda *b: jax.grad(loss)(p, jax.tree.map(lambda x: x[None], b))  # noqa: E731
        return jax.tree.map(lambda g: g.mean(0), jax.vmap(one)(*batch))

    remat = lambda p, batch: jax.grad(jax.checkpoint(loss))(p, batch)  # noqa: E731
    ways = {"plain": plain, "summed": summed, "mapped": mapped, "remat": remat}
    ways |= {"jit": jax.jit(plain), "accumulated": accumulated}
    return ways[program.wrap]
