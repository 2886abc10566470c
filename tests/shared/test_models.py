"""Models and optimisers, unmodified, trained on shares as in plain JAX."""

import fast
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import privjax

rng = np.random.default_rng(3)


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6)(x))
        return nn.Dense(1)(nn.tanh(nn.Dense(4)(x)))


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(2, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


class Logistic(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x)


def squared(out, y):
    return jnp.mean((out[:, 0] - y) ** 2)


def log_loss(out, y):
    return optax.sigmoid_binary_cross_entropy(out[:, 0], y).mean()


def cross_entropy(out, y):
    return optax.softmax_cross_entropy(out, y).mean()


FLAT, IMAGES = rng.normal(size=(8, 5)), rng.normal(size=(4, 6, 6, 1))
REAL, BINARY = rng.normal(size=8), rng.integers(0, 2, 8)
CLASSES = np.eye(3)[rng.integers(0, 3, 4)]

MODELS = {
    "mlp, sgd": (Mlp(), squared, optax.sgd(0.1), FLAT, REAL, 1e-5),
    "mlp, momentum": (Mlp(), squared, optax.sgd(0.1, 0.9), FLAT, REAL, 1e-4),
    # A gradient below 1e-4 has a second moment below resolution: that parameter misses
    # a step of 0.01 (it is not divided by eps).
    "mlp, adam": (Mlp(), squared, optax.adam(0.01), FLAT, REAL, 0.0105),
    "logistic regression": (Logistic(), log_loss, optax.sgd(0.5), FLAT, BINARY, 1e-4),
    "cnn, softmax": (Cnn(), cross_entropy, optax.sgd(0.1), IMAGES, CLASSES, 1e-4),
}


@pytest.mark.parametrize("name", MODELS)
def test_training_equals_plain(name):
    """Three steps in one scan inside; parameters within the bound, loss within 1 %."""
    model, loss, optimiser, x, y, bound = MODELS[name]
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    params = model.init(jax.random.key(0), x)

    def train(params, x, y):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(lambda p: loss(model.apply(p, x), y))(
                params
            )
            updates, state = optimiser.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        carry = params, optimiser.init(params)
        (params, _), losses = jax.lax.scan(step, carry, None, length=3)
        return params, losses

    shared, losses = fast.secret_shared(train)(params, x, y)
    plain, want = jax.jit(train)(params, x, y)
    np.testing.assert_allclose(losses, want, rtol=0.01, atol=1e-3)
    for got, expected in zip(*map(jax.tree.leaves, (shared, plain)), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, atol=bound)


def test_shared_state_from_call_to_call():
    """Parameters that stay shared between calls, revealed at the end."""
    w, x = np.zeros(5, np.float32), np.asarray(FLAT, np.float32)
    y = np.asarray(REAL, np.float32)

    def step(w, x, y):
        return w - 0.1 * jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(w)

    shared_step = fast.secret_shared(step, reveal=False)
    hidden, data = fast.share(w), fast.share((x, y))
    plain = w
    for _ in range(3):
        hidden, plain = shared_step(hidden, *data), step(plain, x, y)
    assert isinstance(hidden, privjax.SharedArray) and hidden.shape == (5,)
    np.testing.assert_allclose(privjax.reveal(hidden), plain, atol=2e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_arguments_are_taken_as_jax_takes_them(dtype):
    """NumPy's double width becomes JAX's single, with 64-bit types switched off."""
    a = np.arange(4, dtype=dtype).reshape(2, 2)
    out = fast.secret_shared(lambda a: a @ a)(a)
    plain = jnp.asarray(a) @ jnp.asarray(a)
    assert out.dtype == plain.dtype
    np.testing.assert_allclose(out, plain, atol=1e-2)


def test_integer_state_of_an_optimiser_is_public_and_exact():
    state = optax.adam(0.1).init(np.zeros(2, np.float32))
    fun = fast.secret_shared(lambda s: optax.adam(0.1).update(jnp.ones(2), s)[1])
    out = fun(state)
    assert out[0].count == 1 and out[0].count.dtype == jnp.int32
    entries = {e.name: e.label for e in privjax.explain(fun, state).inputs}
    assert entries["s[0].count"].startswith("public")


def test_without_jit():
    """Who debugs with `jax.disable_jit` gets results, and the same random numbers."""
    key, x = privjax.random.insecure_key(3), np.arange(3, dtype=np.float32)
    draws = jax.random.normal(key, (3,))
    with jax.disable_jit():
        np.testing.assert_array_equal(jax.random.normal(key, (3,)), draws)
        got = privjax.secret_shared(lambda x: x * x + 1, protocol="reference")(x)
    np.testing.assert_allclose(got, x * x + 1, atol=1e-4)
