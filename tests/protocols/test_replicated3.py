"""What is particular to replicated3: pairwise keys, neighbours' messages, no dealer."""

from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import privjax
from privjax.core import markers
from privjax.core.interpret import mentions
from privjax.passes.cost import cost
from privjax.protocols.replicated3 import Replicated3
from privjax.protocols.tuples import Bilinear

DOT = Bilinear("dot_general", (("dimension_numbers", (((1,), (0,)), ((), ()))),))
RNG = np.random.default_rng(5)


def pairwise_everywhere() -> list[Any]:
    """Requests in the program, in a loop, in calls, in a branch; one too large to pool."""

    def request(_: Any = None) -> Any:
        return jnp.stack(markers.pairwise((2,), np.uint64))

    _, looped = lax.scan(lambda c, _: (c, request()), None, None, length=3)
    called = [jax.jit(request)(jnp.uint32(i)) for i in range(2)]
    branched = lax.cond(looped.size > 0, request, request, jnp.uint32(0))
    large = jnp.stack(markers.pairwise((1 << 17,), np.uint32))
    small = jnp.stack(markers.pairwise((5,), np.uint8))
    return [looped, *called, branched, request(), large, small]


def test_neighbours_have_the_same_streams_and_no_two_requests_do() -> None:
    with jax.enable_x64(True):
        closed = harness.trace(pairwise_everywhere, 3, [])
        simulated = harness.simulate(closed, 3, [])
        real = harness.online(closed, 3, [], harness.ahead(closed, 3))
        for a, b in zip(simulated, real, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    looped, *others = (np.asarray(x) for x in simulated)
    together = [*np.moveaxis(looped, 1, 0), *others]
    words = []
    for x in together:  # [party, which, ...]
        np.testing.assert_array_equal(x[:, 1], np.roll(x[:, 0], -1, axis=0))
        if x.dtype == np.uint64:
            words.append(x[:, 0].ravel())
    drawn = np.concatenate(words)
    assert len(np.unique(drawn)) == drawn.size


@pytest.mark.parametrize("domain", ["send:1>0,2>1,0>2", "send:2>1", "send:0>1,1>0"])
def test_messages_reach_their_receivers_alone(domain: str) -> None:
    def program(x: Any) -> Any:
        mine = x + lax.axis_index("party").astype(x.dtype)
        return markers.open_values([mine], (domain,), (64,))

    x = np.array([10, 20], np.uint64)
    expected = np.zeros((3, 2), np.uint64)
    for sender, receiver in markers.links(domain, 3):
        expected[receiver] = x + np.uint64(sender)
    with jax.enable_x64(True):
        closed = harness.trace(program, 3, [x])
        np.testing.assert_array_equal(harness.simulate(closed, 3, [x])[0], expected)
        np.testing.assert_array_equal(harness.online(closed, 3, [x], {})[0], expected)


@pytest.mark.parametrize("length", [1, 7, 100])
def test_a_dot_product_of_any_length_sends_one_element_per_party(length: int) -> None:
    p = Replicated3(3)

    def program(x: Any, y: Any) -> Any:
        return jax.tree.leaves(p.product(DOT, p.public(x), p.public(y)))

    args = [np.zeros((2, length), np.uint64), np.zeros((length, 1), np.uint64)]
    with jax.enable_x64(True):
        closed = harness.trace(program, 3, args)
    assert cost(closed, 3).sent_bits == 3 * 64 * 2
    assert cost(closed, 3).rounds == 1 and cost(closed, 3).dealt_bits == 0


def test_a_bit_is_converted_once() -> None:
    p = Replicated3(3)

    def program(x: Any, b: Any) -> Any:
        share, bit = p.public(x), p.public_bits(b)
        wide = bit.rearranged(lambda v: v[None])
        products = [p.bit_times(bit, share) for _ in range(3)]
        return jax.tree.leaves([*products, p.to_arith(wide, x.dtype)])

    args = [np.zeros(1, np.uint64), np.zeros(1, np.uint8)]
    with jax.enable_x64(True):
        closed = harness.trace(program, 3, args)
    assert cost(closed, 3).sent_bits == (6 + 3 * 3) * 64


def test_shares_that_do_not_fit_together_are_refused() -> None:
    shared = privjax.share(np.arange(3.0, dtype=np.float32), 3, "replicated3")
    assert shared.data.shape == (3, 3, 4)  # two ring words per party and element
    np.testing.assert_array_equal(privjax.reveal(shared), [0, 1, 2])


class Normal:
    """A stand-in for a mechanism: every value of its noise is one of two."""

    def apply(self, seed: Any, xs: Any) -> Any:
        signs = 1 - 2 * (seed[: xs[0].shape[0]] & 1).astype(np.float32)
        return [x + signs for x in xs]


def test_noise_is_two_parties_draws() -> None:
    from_two = harness.on_shares(
        Replicated3(3),
        lambda p, x: [
            p.noise(privjax.protocols.tuples.Noise(Normal(), 8, 0, np.dtype("uint64")))
        ],
    )
    with jax.enable_x64(True):
        closed = harness.trace(from_two, 3, [np.zeros(1, np.uint64)])
        (got,) = harness.simulate(closed, 3, [np.zeros(1, np.uint64)])
        assert not mentions(closed, frozenset({"dealt"}))
    assert set(np.asarray(got)[0].astype(np.int64)) == {-2, 0, 2}


# -- through the compiler ------------------------------------------------------------------


def mlp_step(params: Any, x: Any, y: Any) -> Any:
    """One step of SGD with momentum, in a scan of two."""
    optimiser = optax.sgd(0.1, 0.9)

    def loss(params: Any) -> Any:
        hidden = jax.nn.relu(x @ params["w"] + params["b"])
        return jnp.mean((jnp.tanh(hidden) @ params["v"] - y) ** 2)

    def step(carry: Any, _: Any) -> Any:
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), loss(params)

    return lax.scan(step, (params, optimiser.init(params)), None, length=2)


def model_inputs() -> tuple[Any, ...]:
    draw = lambda *s: RNG.normal(size=s).astype(np.float32)  # noqa: E731
    return {"w": draw(5, 4), "b": draw(4), "v": draw(4)}, draw(6, 5), draw(6)


def test_a_model_trains_as_in_plain_jax() -> None:
    args = model_inputs()
    fun = privjax.secret_shared(mlp_step, parties=3, protocol="replicated3")
    got, expected = fun(*args), mlp_step(*args)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.01, atol=1e-3)
    program = fun.compiled(*args)
    assert not mentions(program.party, frozenset({"dealt"}))
    assert program.cost.dealt_bits == 0 and program.cost.sent_bits > 0


def small(x: Any, y: Any) -> Any:
    return jax.nn.relu(x * y) + jnp.exp(-jnp.abs(x))


def test_under_jit_vmap_and_scan() -> None:
    fun = privjax.secret_shared(small, parties=3, protocol="replicated3")
    x, y = RNG.normal(size=(2, 3, 2)).astype(np.float32)
    keys = jax.random.split(privjax.random.insecure_key(1), 3)
    jitted = jax.jit(lambda x, y, k: fun(x, y, key=k))
    mapped = jax.vmap(lambda x, y, k: fun(x, y, key=k))(x, y, keys)
    _, scanned = lax.scan(lambda c, a: (c, fun(*a[:2], key=a[2])), 0, (x, y, keys))
    for got in (jitted(x, y, keys[0]), mapped, scanned):
        np.testing.assert_allclose(got, small(x, y), atol=1e-3)
