"""Small models for the tests of differential privacy, and explicit per-example clipping."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

BATCH = 4


class Model(NamedTuple):
    """`loss(params, batch)` is a mean over the examples on axis 0 of every leaf."""

    params: Any
    batch: Any
    loss: Callable[[Any, Any], Any]


def values(*shape: int, seed: int = 0, scale: float = 1.0) -> Any:
    rng = np.random.default_rng([seed, *shape])
    return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)


def labels(classes: int, *shape: int) -> Any:
    rng = np.random.default_rng([classes, *shape])
    return jnp.asarray(rng.integers(0, classes, shape or (BATCH,)), jnp.int32)


def dense(m: int, n: int) -> dict[str, Any]:
    return {"w": values(m, n, scale=m**-0.5), "b": values(n, seed=1, scale=0.1)}


def cross_entropy(logits: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def apply(layer: dict[str, Any], x: Any) -> Any:
    return x @ layer["w"] + layer["b"]


def mlp() -> Model:
    def loss(p: Any, batch: Any) -> Any:
        x, y = batch
        for layer in p[:-1]:
            x = jax.nn.relu(apply(layer, x))
        return cross_entropy(apply(p[-1], x), y)

    params = [dense(5, 6), dense(6, 4), dense(4, 3)]
    return Model(params, (values(BATCH, 5), labels(3)), loss)


def indexed_labels() -> Model:
    """The label is picked by `logits[arange, y]`; ReLU written with `where`."""

    def loss(p: Any, batch: Any) -> Any:
        x, y = batch
        h = apply(p[0], x)
        logits = apply(p[1], jnp.where(h > 0, h, 0.1 * h))
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])

    return Model([dense(5, 6), dense(6, 3)], (values(BATCH, 5), labels(3)), loss)


def regression() -> Model:
    def loss(p: Any, batch: Any) -> Any:
        return jnp.mean((apply(p, batch["x"])[:, 0] - batch["y"]) ** 2)

    batch = {"x": values(BATCH, 5), "y": values(BATCH, seed=3)}
    return Model(dense(5, 1), batch, loss)


def logistic() -> Model:
    def loss(p: Any, batch: Any) -> Any:
        x, y = batch
        logits = x @ p["w"] + p["b"]
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, y))

    params = {"w": values(5), "b": jnp.zeros(())}
    return Model(params, (values(BATCH, 5), labels(2).astype(jnp.float32)), loss)


def regularised() -> Model:
    model = mlp()

    def loss(p: Any, batch: Any) -> Any:
        return model.loss(p, batch) + 0.0 * sum(
            jnp.sum(x**2) for x in jax.tree.leaves(p)
        )

    return Model(model.params, model.batch, loss)


def cnn() -> Model:
    def conv(x: Any, k: Any, stride: int, padding: str) -> Any:
        return lax.conv_general_dilated(
            x, k, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def loss(p: Any, batch: Any) -> Any:
        x, y = batch
        h = jax.nn.relu(conv(x, p["c1"], 1, "SAME") + p["b1"])
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        h = jax.nn.relu(conv(h, p["c2"], 2, "VALID") + p["b2"])
        return cross_entropy(apply(p["d"], h.reshape(h.shape[0], -1)), y)

    params = {
        "c1": values(3, 3, 1, 2),
        "b1": jnp.zeros(2),
        "c2": values(2, 2, 2, 3),
        "b2": jnp.zeros(3),
        "d": dense(12, 3),
    }
    return Model(params, (values(BATCH, 8, 8, 1), labels(3)), loss)


def linen_cnn() -> Model:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.relu(nn.Conv(2, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = nn.avg_pool(nn.relu(nn.Conv(3, (2, 2))(x)), (2, 2), (2, 2))
            x = nn.LayerNorm()(nn.Dense(5)(x.reshape(x.shape[0], -1)))
            return nn.Dense(3)(nn.gelu(x))

    x, y = values(BATCH, 8, 8, 1), labels(3)
    net = Net()
    params = net.init(jax.random.key(0), x)
    return Model(params, (x, y), lambda p, b: cross_entropy(net.apply(p, b[0]), b[1]))


def nnx_mlp() -> Model:
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.first = nnx.Linear(5, 6, rngs=rngs)
            self.norm = nnx.LayerNorm(6, rngs=rngs)
            self.last = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(nnx.silu(self.norm(self.first(x))))

    graph, state = nnx.split(Net(nnx.Rngs(0)))

    def loss(p: Any, batch: Any) -> Any:
        return cross_entropy(nnx.merge(graph, p)(batch[0]), batch[1])

    return Model(state, (values(BATCH, 5), labels(3)), loss)


def tied_autoencoder() -> Model:
    """One matrix, used in both directions."""

    def loss(p: Any, x: Any) -> Any:
        return jnp.mean(jnp.sum((jnp.tanh(x @ p["w"]) @ p["w"].T + p["b"] - x) ** 2, 1))

    return Model({"w": values(5, 3), "b": jnp.zeros(5)}, values(BATCH, 5), loss)


def shared_layer() -> Model:
    """One layer, applied three times: contractions of one kind."""

    def loss(p: Any, batch: Any) -> Any:
        x, y = batch
        for _ in range(3):
            x = jnp.tanh(apply(p, x))
        return jnp.mean(jnp.sum(x, axis=1) * y)

    return Model(dense(4, 4), (values(BATCH, 4), values(BATCH, seed=5)), loss)


def sequence(length: int) -> Callable[[], Model]:
    """A layer at every position: norms by Gram matrices or materialised."""

    def make() -> Model:
        def loss(p: Any, batch: Any) -> Any:
            x, y = batch
            h = jax.nn.gelu(jnp.einsum("bsi,ij->bsj", x, p["w"]) + p["b"])
            return cross_entropy(apply(p["d"], h.mean(1)), y)

        params = {**dense(9, 8), "d": dense(8, 3)}
        return Model(params, (values(BATCH, length, 9), labels(3)), loss)

    return make


def flattened_sequence() -> Model:
    """Batch and sequence in one axis."""

    def loss(p: Any, x: Any) -> Any:
        batch, length, width = x.shape
        h = jnp.tanh(apply(p[0], x.reshape(batch * length, width)))
        out = apply(p[1], h).reshape(batch, length, -1)
        return jnp.mean(jnp.sum(out**2, axis=(1, 2)))

    return Model([dense(4, 5), dense(5, 2)], values(BATCH, 3, 4), loss)


def attention() -> Model:
    def loss(p: Any, batch: Any) -> Any:
        tokens, y = batch
        h = p["emb"][tokens] + p["pos"]
        q, k, v = (jnp.einsum("btd,dhe->bthe", h, p[n]) for n in "qkv")
        s = jnp.einsum("bthe,bshe->bhts", q, k) / 2.0
        s = jnp.where(jnp.tril(jnp.ones((3, 3), bool)), s, -1e9)
        o = jnp.einsum("bhts,bshe->bthe", jax.nn.softmax(s), v)
        h = h + jnp.einsum("bthe,hed->btd", o, p["o"])
        return cross_entropy(h[:, -1] @ p["emb"].T, y)

    params = {
        "emb": values(7, 4),
        "pos": values(3, 4, scale=0.1),
        "q": values(4, 2, 2),
        "k": values(4, 2, 2, seed=1),
        "v": values(4, 2, 2, seed=2),
        "o": values(2, 2, 4),
    }
    return Model(params, (labels(7, BATCH, 3), labels(7)), loss)


def recurrent() -> Model:
    def loss(p: Any, batch: Any) -> Any:
        x, y = batch

        def cell(h: Any, xt: Any) -> Any:
            h = jnp.tanh(xt @ p["wx"] + h @ p["wh"] + p["b"])
            return h, None

        h, _ = lax.scan(cell, jnp.zeros((x.shape[0], 3)), jnp.swapaxes(x, 0, 1))
        return jnp.mean((h @ p["out"] - y) ** 2)

    params = {
        "wx": values(2, 3),
        "wh": values(3, 3),
        "b": jnp.zeros(3),
        "out": values(3),
    }
    return Model(params, (values(BATCH, 5, 2), values(BATCH, seed=1)), loss)


def scanned_layers() -> Model:
    """Layers stacked along axis 0 of their parameters, run by a scan."""

    def loss(p: Any, batch: Any) -> Any:
        x, y = batch
        x, _ = lax.scan(lambda h, q: (jnp.tanh(apply(q, h)), None), x, p["layers"])
        return cross_entropy(apply(p["d"], x), y)

    layers = jax.tree.map(lambda *xs: jnp.stack(xs), *[dense(4, 4)] * 3)
    params = {"layers": layers, "d": dense(4, 3)}
    return Model(params, (values(BATCH, 4), labels(3)), loss)


def rematerialised() -> Model:
    model = mlp()
    return Model(model.params, model.batch, jax.checkpoint(model.loss))


def vmapped() -> Model:
    """The loss of one example, mapped: how many users write it."""
    model = mlp()

    def loss(p: Any, batch: Any) -> Any:
        one = lambda x, y: model.loss(p, (x[None], y[None]))  # noqa: E731
        return jnp.mean(jax.vmap(one)(*batch))

    return Model(model.params, model.batch, loss)


def half_precision() -> Model:
    """Activations in bfloat16; sums in it are short enough to be exact to a few bits."""
    model = mlp()

    def loss(p: Any, batch: Any) -> Any:
        low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), p)
        x, y = batch
        return model.loss(low, (x.astype(jnp.bfloat16), y)).astype(jnp.float32)

    return Model(model.params, model.batch, loss)


def depthwise() -> Model:
    """A grouped convolution: the general fallback."""

    def loss(p: Any, batch: Any) -> Any:
        x, y = batch
        h = lax.conv_general_dilated(
            x,
            p["c"],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )
        return jnp.mean(jnp.sum(jnp.tanh(h), axis=(1, 2, 3)) * y)

    batch = (values(BATCH, 4, 4, 2), values(BATCH, seed=1))
    return Model({"c": values(2, 2, 1, 4)}, batch, loss)


MODELS = {
    "mlp": mlp,
    "indexed_labels": indexed_labels,
    "regression": regression,
    "logistic": logistic,
    "cnn": cnn,
    "linen_cnn": linen_cnn,
    "nnx_mlp": nnx_mlp,
    "tied_autoencoder": tied_autoencoder,
    "shared_layer": shared_layer,
    "sequence_gram": sequence(2),
    "sequence_materialised": sequence(16),
    "flattened_sequence": flattened_sequence,
    "attention": attention,
    "recurrent": recurrent,
    "scanned_layers": scanned_layers,
    "rematerialised": rematerialised,
    "vmapped": vmapped,
    "depthwise": depthwise,
}


# Sums in bfloat16 agree with nothing to 1e-5, but their sensitivity is as promised.
ROUNDED = {"half_precision": half_precision}


def clipped_gradient(model: Model, clip_norm: float, batch: Any = None) -> Any:
    """The mean of clipped gradients, one example at a time: the definition."""
    batch = model.batch if batch is None else batch

    def one(example: Any) -> Any:
        alone = jax.tree.map(lambda x: x[None], example)
        return jax.grad(model.loss)(model.params, alone)

    each = jax.jit(jax.vmap(one))(batch)
    leaves = jax.tree.leaves(each)
    count = leaves[0].shape[0]
    norms = jnp.sqrt(sum(jnp.sum(x.reshape(count, -1) ** 2, axis=1) for x in leaves))
    factors = jnp.minimum(1, clip_norm / norms)
    return jax.tree.map(lambda x: jnp.tensordot(factors, x, 1) / count, each)


def middle_norm(model: Model) -> float:
    """A clip norm that clips about half of the examples."""

    def norm(example: Any) -> Any:
        alone = jax.tree.map(lambda x: x[None], example)
        return optax.tree.norm(jax.grad(model.loss)(model.params, alone))

    return float(jnp.median(jax.jit(jax.vmap(norm))(model.batch)))


def assert_close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` times the norm of what is wanted."""
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert f.shape == w.shape and f.dtype == w.dtype
        error = np.linalg.norm(np.asarray(f, np.float64) - np.asarray(w, np.float64))
        assert error <= tolerance * max(np.linalg.norm(np.asarray(w, np.float64)), 1e-3)
