"""Ordinary programs, unmodified: what users bring. Each is a function and arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

rng = np.random.default_rng(12)


def real(*shape, scale=1.0):
    return (scale * rng.normal(size=shape)).astype(np.float32)


def whole(*shape, high=5):
    return rng.integers(0, high, shape).astype(np.int32)


@dataclass(frozen=True)
class Program:
    fun: Callable[..., Any]
    args: tuple[Any, ...]
    public: tuple[str, ...] = ()
    max_steps: int | None = None


PROGRAMS: dict[str, Program] = {}


def program(*args, **options):
    def add(fun):
        PROGRAMS[fun.__name__] = Program(fun, args, **options)
        return fun

    return add


# -- networks ----------------------------------------------------------------------------


class BatchNormCnn(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(2, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


class ResNetBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.GroupNorm(num_groups=1)(nn.Conv(2, (3, 3))(x)))
        y = nn.Conv(2, (3, 3))(y)
        return nn.relu(x + y).mean((1, 2))


IMAGES = real(3, 4, 4, 1)
_norm = BatchNormCnn()
_norm_variables = _norm.init(jax.random.key(0), IMAGES, True)


@program(_norm_variables, IMAGES)
def batch_norm_train(variables, x):
    out, state = _norm.apply(variables, x, True, mutable=["batch_stats"])
    return out, state


@program(_norm_variables, IMAGES)
def batch_norm_eval(variables, x):
    return _norm.apply(variables, x, False)


_block = ResNetBlock()


@program(_block.init(jax.random.key(1), real(2, 4, 4, 2)), real(2, 4, 4, 2))
def resnet_block_gradient(variables, x):
    return jax.grad(lambda v: (_block.apply(v, x) ** 2).mean())(variables)


def _recurrent(cell):
    x = real(2, 3, 4)
    model = nn.RNN(cell)
    variables = model.init(jax.random.key(2), x)
    return (lambda v, x: model.apply(v, x)), (variables, x)


PROGRAMS["lstm"] = Program(*_recurrent(nn.LSTMCell(3)))
PROGRAMS["gru"] = Program(*_recurrent(nn.GRUCell(3)))


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return x + nn.Dense(4)(nn.gelu(nn.Dense(8)(nn.LayerNorm()(x))))


_encoder = Encoder()


@program(_encoder.init(jax.random.key(3), real(1, 3, 4)), real(1, 3, 4))
def transformer_encoder(variables, x):
    return _encoder.apply(variables, x)


class Decoder(nn.Module):
    decode: bool = False

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(6, 4)(tokens)
        mask = None if self.decode else nn.make_causal_mask(tokens)
        attend = nn.MultiHeadDotProductAttention(num_heads=1, decode=self.decode)
        x = x + attend(nn.LayerNorm()(x), mask=mask)
        return nn.Dense(6)(x)


TOKENS = np.array([[1, 4, 0, 5]], np.int32)
_decoder_params = Decoder().init(jax.random.key(4), TOKENS)["params"]


@program(_decoder_params, TOKENS)
def gpt_decoder(params, tokens):
    return jax.nn.log_softmax(Decoder().apply({"params": params}, tokens))


@program(_decoder_params, TOKENS)
def cached_decoding(params, tokens):
    model = Decoder(decode=True)
    cache = model.init(jax.random.key(4), tokens)["cache"]

    def step(cache, token):
        out, state = model.apply(
            {"params": params, "cache": cache}, token[:, None], mutable=["cache"]
        )
        return state["cache"], out[:, 0]

    return lax.scan(step, cache, tokens.T)[1]


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=False)(nn.Dense(8)(x)))


_dropped = Dropped()
_dropped_params = _dropped.init(
    {"params": jax.random.key(5), "dropout": jax.random.key(6)}, real(3, 4)
)


@program(_dropped_params, real(3, 4), np.uint32(9))
def dropout(params, x, seed):
    return _dropped.apply(params, x, rngs={"dropout": jax.random.key(seed)})


class NnxMlp(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Linear(4, 6, rngs=rngs)
        self.two = nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, x):
        return self.two(nnx.relu(self.one(x)))


_graph, _state = nnx.split(NnxMlp(nnx.Rngs(0)))


@program(nnx.to_pure_dict(_state), real(5, 4), real(5, 1))
def nnx_mlp_gradient(state, x, y):
    def loss(state):
        nested = nnx.State(_state)
        nnx.replace_by_pure_dict(nested, state)
        return jnp.mean((nnx.merge(_graph, nested)(x) - y) ** 2)

    return jax.grad(loss)(state)


# -- optimisers --------------------------------------------------------------------------

OPTIMISERS = {
    "nesterov": optax.sgd(0.1, 0.9, nesterov=True),
    "adamw": optax.adamw(0.05, weight_decay=0.01),
    "rmsprop": optax.rmsprop(0.05),
    "adagrad": optax.adagrad(0.1),
    "lion": optax.lion(0.05),
    "lamb": optax.lamb(0.05),
    "adadelta": optax.adadelta(1.0, rho=0.5),  # from sqrt(0 + 1e-6) on
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
    "scheduled": optax.sgd(optax.cosine_decay_schedule(0.2, 4)),
    "masked": optax.masked(optax.sgd(0.1), {"w": True, "b": False}),
    "multi": optax.multi_transform(
        {"fast": optax.sgd(0.2), "slow": optax.sgd(0.01)}, {"w": "fast", "b": "slow"}
    ),
}


def _trained(optimiser):
    def train(params, x, y):
        def loss(p):
            return jnp.mean((x @ p["w"] + p["b"] - y) ** 2)

        def step(carry, _):
            params, state = carry
            updates, state = optimiser.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = params, optimiser.init(params)
        return lax.scan(step, carry, None, length=2)[0][0]

    return train


for _name, _optimiser in OPTIMISERS.items():
    PROGRAMS[f"optax {_name}"] = Program(
        _trained(_optimiser),
        ({"w": real(3), "b": np.float32(0.3)}, real(6, 3), real(6)),
    )


# -- classical methods -------------------------------------------------------------------

POINTS = np.concatenate([real(4, 2, scale=0.3) + 2, real(4, 2, scale=0.3) - 2])


@program(np.array([[0.3] * 4, [1e-3, -2e-3, 0.0, 1e-3], [0.5, -1.0, 0.25, 2.0]]))
def small_terms_in_roots(x):
    """1e-6 is below the resolution of factors, and squares are not."""
    x = x - x.mean(-1, keepdims=True)
    square = jnp.mean(x * x, -1, keepdims=True)
    flat = jnp.concatenate([square + 1e-6, 4.0 * square + 1e-6]).reshape(-1)
    return x * lax.rsqrt(square + 1e-6), jnp.sqrt(flat), (flat + 1e-7) ** 0.5


@program(POINTS)
def k_means(x):
    def step(centres, _):
        distance = ((x[:, None] - centres) ** 2).sum(-1)
        member = jax.nn.one_hot(jnp.argmin(distance, 1), 2)
        return (member.T @ x) / member.sum(0)[:, None], None

    return lax.scan(step, x[jnp.array([0, 7])], None, length=2)[0]


@program(real(8, 3) * np.array([3.0, 1.0, 0.3], np.float32))
def pca_by_power_iteration(x):
    c = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)

    def step(v, _):
        w = c @ v
        return w / jnp.linalg.norm(w), None

    return lax.scan(step, jnp.ones(3) / 3**0.5, None, length=8)[0]


@program(real(6, 3) * np.array([3.0, 1.0, 0.3], np.float32))
def pca_by_svd(x):
    return jnp.abs(jnp.linalg.svd(x - x.mean(0), full_matrices=False)[2][0])


@program(real(12, 2), whole(12, high=2).astype(np.float32))
def newton_logistic_regression(x, y):
    def step(w, _):
        p = jax.nn.sigmoid(x @ w)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 0.1 * jnp.eye(2)
        return w - jnp.linalg.solve(hessian, x.T @ (p - y) + 0.1 * w), None

    return lax.scan(step, jnp.zeros(2), None, length=3)[0]


@program(real(10, 2, scale=0.5), whole(10).astype(np.float32))
def poisson_glm(x, y):
    def step(w, _):
        return w - 0.1 * jax.grad(lambda w: jnp.mean(jnp.exp(x @ w) - y * (x @ w)))(
            w
        ), (None)

    return lax.scan(step, jnp.zeros(2), None, length=3)[0]


@program(real(5, 3), np.array([0, 2, 1], np.int32), real(3), real(4))
def decision_tree(x, feature, threshold, leaf):
    """A complete tree of depth 2; its features, thresholds and leaves are secret."""
    node = jnp.zeros(len(x), jnp.int32)
    for _ in range(2):
        value = jnp.take_along_axis(x, feature[node][:, None], 1)[:, 0]
        node = 2 * node + 1 + (value > threshold[node])
    return leaf[node - 3]


@program(real(9, 2), whole(9, high=2), real(3, 2))
def naive_bayes(x, label, new):
    member = jax.nn.one_hot(label, 2)
    count = member.sum(0)[:, None] + 1
    mean = member.T @ x / count
    variance = member.T @ x**2 / count - mean**2 + 0.1
    score = -0.5 * ((new[:, None] - mean) ** 2 / variance + jnp.log(variance)).sum(-1)
    return jax.nn.softmax(score)


@program(real(6, 2), np.sign(real(6)), real(3, 2))
def kernel_svm(x, y, new):
    kernel = jnp.exp(-((x[:, None] - x) ** 2).sum(-1))

    def step(a, _):
        gradient = 1 - y * (kernel @ (a * y))
        return jnp.clip(a + 0.1 * gradient, 0, 1), None

    a = lax.scan(step, jnp.zeros(6), None, length=4)[0]
    return jnp.exp(-((new[:, None] - x) ** 2).sum(-1)) @ (a * y)


@program(real(5, 1), real(5), real(2, 1))
def gaussian_process(x, y, new):
    kernel = jnp.exp(-0.5 * ((x[:, None] - x) ** 2).sum(-1)) + 0.3 * jnp.eye(5)
    cross = jnp.exp(-0.5 * ((new[:, None] - x) ** 2).sum(-1))
    return cross @ jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(kernel), True), y)


@program(
    np.array([[0.7, 0.3], [0.4, 0.6]], np.float32),
    np.array([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]], np.float32),
    np.array([0, 2, 1, 2], np.int32),
)
def hidden_markov_forward(transition, emission, observed):
    def step(alpha, o):
        alpha = (alpha @ transition) * emission[:, o]
        return alpha / alpha.sum(), alpha.sum()

    first = jnp.array([0.6, 0.4]) * emission[:, observed[0]]
    return jnp.log(lax.scan(step, first, observed[1:])[1]).sum()


@program((rng.random((5, 5)) < 0.5).astype(np.float32) + np.eye(5, dtype=np.float32))
def page_rank(links):
    walk = links / links.sum(0)

    def step(rank, _):
        return 0.85 * walk @ rank + 0.15 / 5, None

    return lax.scan(step, jnp.full(5, 0.2), None, length=6)[0]


@program(
    np.array([3, 9, 4], np.int32),
    np.array([10, 20, 30], np.int32),
    np.array([4, 3, 7, 9], np.int32),
    np.array([1, 2, 3, 4], np.int32),
)
def equality_join(left, left_value, right, right_value):
    same = left[:, None] == right
    products = left_value[:, None] * right_value
    return jnp.where(same, products, 0).sum(), same.any(1)


@program(whole(12, high=4))
def histogram(x):
    return jnp.bincount(x, length=4), (x[:, None] == jnp.arange(4)).sum(0)


@program(real(7))
def order_statistics(x):
    return jnp.median(x), jnp.quantile(x, 0.25), jnp.sort(x)[-3:], jnp.argsort(x)


@program(np.float32(9.0), max_steps=12)
def newton_root_until_close(a):
    def go_on(state):
        x, before = state
        return jnp.abs(x - before) > 1e-3

    def step(state):
        x, _ = state
        return 0.5 * (x + a / x), x

    return lax.while_loop(go_on, step, (a, jnp.zeros_like(a)))[0]


@program(real(4), real(4))
def branches_on_secrets(x, y):
    big = lax.cond(x.sum() > 0, lambda: x * 2, lambda: y - 1)
    return big, lax.switch(
        (y[0] > 0).astype(int) + (y[1] > 0), [jnp.sin, jnp.cos, abs], x
    )


@program(real(8))
def spectrum(x):
    return jnp.abs(jnp.fft.rfft(x)) ** 2


@program(real(4, 2))
def kalman_filter(observed):
    transition, noise = jnp.array([[1.0, 0.1], [0.0, 1.0]]), 0.1 * jnp.eye(2)

    def step(state, y):
        mean, cov = state
        mean, cov = transition @ mean, transition @ cov @ transition.T + noise
        gain = cov @ jnp.linalg.inv(cov + noise)
        return (mean + gain @ (y - mean), cov - gain @ cov), mean

    return lax.scan(step, (jnp.zeros(2), jnp.eye(2)), observed)[1]


@program(real(3, 3), whole(4, high=3))
def viterbi(scores, observed):
    step_score = jax.nn.log_softmax(scores)

    def forward(best, y):
        paths = best[:, None] + step_score
        return paths.max(0) + scores[:, y], paths.argmax(0)

    best, back = lax.scan(forward, scores[:, observed[0]], observed[1:])
    last = jnp.argmax(best)
    return lax.scan(lambda s, b: (b[s], b[s]), last, back, reverse=True)[1], last


@program(real(6, 2), real(2, 2))
def gaussian_mixture_step(x, means):
    weight = jax.nn.softmax(-0.5 * ((x[:, None] - means) ** 2).sum(-1), 1)
    total = weight.sum(0)[:, None]
    new = weight.T @ x / total
    gap = x[:, None] - new
    return new, jnp.einsum("nk,nki,nkj->kij", weight, gap, gap) / total[..., None]


@program(real(4))
def random_numbers_of_keys_made_inside(x):
    keys = jax.random.split(jax.random.key(0), 3)
    kept = jax.random.bernoulli(jax.random.PRNGKey(1), 0.5, x.shape)
    return (
        jnp.where(kept, 2 * x, 0),
        jax.random.permutation(keys[0], x),
        jax.random.categorical(keys[1], x),
        x + jax.random.normal(keys[2], x.shape),
    )


@program(np.array([-1.5, 0.0, 0.25, -(2.0**-18)], np.float32), real(4))
def signs_of_bits(x, y):
    return jnp.signbit(x), jnp.copysign(y, x), jax.scipy.special.gammasgn(y)


@program(real(3, 2))
def collectives_of_lanes(x):
    def lane(v):
        return lax.psum(v, "i"), lax.pmax(v, "i"), v - lax.pmean(v, "i")

    return jax.vmap(lane, axis_name="i")(x)


@program(np.array([0.3, 1.7, 0.9], np.float32), max_steps=6)
def loops_in_lanes(x):
    """One test for every lane, on public counts and on secrets."""
    counted = jax.vmap(lambda v, n: lax.fori_loop(0, n, lambda _, c: 0.5 * c + v, 1.0))(
        x, jnp.arange(3)
    )
    doubled = jax.vmap(lambda v: lax.while_loop(lambda c: c < 2.0, lambda c: 2 * c, v))(
        x
    )
    return counted, doubled


@program(real(2, 2), real(2, 2))
def conjugates(x, y):
    return lax.conj(x), jnp.conj(lax.complex(x, y))


@program(np.array([1.0, -2.0, 0.0], np.float32))
def comparisons_with_nan(x):
    some = np.array([np.nan, 1.0, 0.0], np.float32)
    return x < jnp.nan, x >= jnp.nan, x == jnp.nan, x != jnp.nan, x <= some, x >= some


@program(real(6), whole(6))
def reductions_with_calls_in_their_bodies(x, i):
    start = np.float32(-9), np.int32(0)
    return (
        lax.reduce((x, i), start, lambda p, q: _later(*p, *q), (0,)),
        lax.reduce_window(x, np.float32(-9), _larger, (3,), (2,), "SAME"),
        x.at[i].apply(jax.nn.relu),
    )


def _later(a, i, b, j):
    return jnp.where(b > a, b, a), jnp.where(b > a, j, i)


def _larger(a, b):
    return jnp.where(a > b, a, b)


@program(np.zeros((2, 0, 0), np.float32))
def empty_matrices(a):
    return jnp.linalg.cholesky(a), jnp.linalg.solve(a, a)


@program(real(3).astype(np.float16))
def half_precision(x):
    return x + 1, jnp.maximum(x, 0), x.mean(), jnp.where(x > 0, x, -jnp.inf).max()


@program(
    np.array([9000 + 100j, -2e4 + 3e4j, 0.1 - 0.2j, -4, 3e6 + 1j], np.complex64),
    np.array([9001 - 100j, 2e4 + 30j, 3 + 4j, 1j, -1e6 + 1e6j], np.complex64),
)
def large_complex_numbers(z, w):
    return jnp.abs(z), jnp.sqrt(z), z / w
