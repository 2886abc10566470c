"""The interpreter and control flow carry tagged values through every construct."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from privjax.core import control
from privjax.core.interpret import Interpreter, mentions, run
from privjax.core.labels import Analysis, infer
from privjax.core.trace import flatten_call
from privjax.errors import InputError, UnsupportedError


@jax.tree_util.register_pytree_node_class
class Pair:
    """A value as two arrays that add up: the smallest thing that crosses as a pytree."""

    def __init__(self, a, b):
        self.a, self.b = a, b

    def tree_flatten(self):
        return (self.a, self.b), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def both(fun):
    return lambda cx, x, **params: Pair(fun(cx, x.a), fun(cx, x.b))


def bound(cx, x):
    params = cx.eqn.primitive.get_bind_params(cx.eqn.params)
    return cx.eqn.primitive.bind(x, **params)


def add(cx, x, y):
    x, y = (v if isinstance(v, Pair) else Pair(v, jnp.zeros_like(v)) for v in (x, y))
    return Pair(x.a + y.a, x.b + y.b)


def mul(cx, x, y, *, out_dtype=None):
    if not isinstance(x, Pair):
        x, y = y, x
    if isinstance(y, Pair):
        cx.default([x, y])
    return Pair(x.a * y, x.b * y)


class Pairs(Interpreter):
    rules = control.RULES | {
        "add": add,
        "mul": mul,
        **dict.fromkeys(
            ("neg", "reduce_sum", "broadcast_in_dim", "reshape", "slice", "squeeze",
             "dynamic_slice", "transpose", "convert_element_type", "copy"),
            both(bound),
        ),
    }  # fmt: skip

    def join(self, a, b):
        return a if isinstance(a, Pair) else b

    def coerce(self, value, like):
        if isinstance(like, Pair) and not isinstance(value, Pair):
            return Pair(jnp.asarray(value), jnp.zeros_like(value))
        return value


def scan_that_becomes_a_pair(x):
    return lax.scan(
        lambda c, r: (c + r, c * 2.0), jnp.zeros(3), jnp.broadcast_to(x, (2, 3))
    )


def late_pairs(x):
    """The second carry becomes a pair one round after the first."""

    def body(c, _):
        return (c[0] + x, c[1] + c[0], c[2] + c[1]), None

    return lax.scan(body, (jnp.zeros(3), jnp.zeros(3), jnp.zeros(3)), None, length=4)[0]


def sharded(x):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    return jax.shard_map(
        lambda v: v * 2.0 + v, mesh=mesh, in_specs=spec, out_specs=spec
    )(x)


CONSTRUCTS = {
    "shard_map": sharded,
    "straight": lambda x: -(x + 1.0) * 2.0,
    "jit": lambda x: jax.jit(lambda v: v + v)(x),
    "nested jit": lambda x: jax.jit(lambda v: jax.jit(jnp.negative)(v) + 1)(x),
    "checkpoint": lambda x: jax.checkpoint(lambda v: v * 3.0)(x),
    "custom_jvp": lambda x: _custom(x),
    "custom_root": lambda x: lax.custom_root(
        lambda v: v + x, x, lambda f, v: f(v), lambda f, v: v
    ),
    "scan": lambda x: lax.scan(lambda c, _: (c * 0.5, c), x, None, length=3),
    "scan over it": lambda x: lax.scan(lambda c, r: (c + r, r), 0.0, x),
    "reverse scan": lambda x: lax.scan(lambda c, r: (c + r, c), 0.0, x, reverse=True),
    "carry that begins plain": scan_that_becomes_a_pair,
    "late carries": late_pairs,
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, v: v * 2.0 + i, x),
    "while": lambda x: lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + c[1]), (0, x)
    )[1],
    "cond": lambda x: lax.cond(jnp.array(True), lambda v: v + v, lambda v: v * 0.0, x),
    "cond of unlike": lambda x: lax.cond(
        jnp.array(False), lambda v: v, lambda v: jnp.ones(3), x
    ),
    "switch": lambda x: lax.switch(
        jnp.array(2), [lambda v: v, lambda v: -v, lambda v: v * 5.0], x
    ),
    "vmap inside": lambda x: jax.vmap(lambda v: v * 2.0 + 1)(x),
}


@jax.custom_jvp
def _custom(x):
    return x + x


_custom.defjvp(lambda p, t: (_custom(*p), t[0]))


@pytest.mark.parametrize("name", CONSTRUCTS)
@pytest.mark.parametrize("mode", ["eager", "jit", "vmap"])
def test_pairs_through(name, mode):
    fun, x = CONSTRUCTS[name], np.array([1.0, -2.0, 3.0], np.float32)
    closed = jax.make_jaxpr(lambda x: jax.tree.leaves(fun(x)))(x)

    def split(x):
        out = run(Pairs(), closed, [Pair(0.25 * x, 0.75 * x)])
        return [v.a + v.b if isinstance(v, Pair) else v for v in out]

    want = jax.tree.leaves(fun(x))
    if mode == "vmap":
        got = [v[1] for v in jax.vmap(split)(np.stack([0 * x, x]))]
    else:
        got = (jax.jit(split) if mode == "jit" else split)(x)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_denies_by_default_with_the_users_line():
    closed = jax.make_jaxpr(lambda x: jnp.sin(x))(1.0)
    with pytest.raises(UnsupportedError, match=r"`sin` \(.*test_interpret.py:\d+"):
        run(Pairs(), closed, [Pair(1.0, 2.0)])


def test_an_unknown_option_is_refused_not_ignored():
    class Strict(Pairs):
        rules = Pairs.rules | {"mul": lambda cx, x, y: x}

    closed = jax.make_jaxpr(lambda x: x * 2.0)(1.0)
    with pytest.raises(UnsupportedError, match="out_dtype"):
        run(Strict(), closed, [Pair(1.0, 2.0)])


def test_mentions_looks_into_bodies():
    closed = jax.make_jaxpr(CONSTRUCTS["late carries"])(np.ones(3, np.float32))
    assert mentions(closed, frozenset({"add"})) and not mentions(
        closed, frozenset({"sin"})
    )


class Depends(Analysis):
    """Whether a value depends on the first input."""

    def constant(self, value):
        return False

    def transfer(self, eqn, labels):
        return [any(labels)] * len(eqn.outvars)

    def join(self, a, b):
        return a or b

    def control(self, label, outs):
        return [label or o for o in outs]


LABELS = [
    (lambda x, y: (x + y, y * 2), [True, False]),
    (lambda x, y: lax.scan(lambda c, _: ((c[1], c[1] + x), None), (y, y), None,
                           length=3)[0], [True, True]),
    (lambda x, y: lax.scan(lambda c, _: ((c[1], c[2], x), c[0] * y), (y, y, y), None,
                           length=5), [True, True, True, True]),
    (lambda x, y: lax.cond(x > 0, lambda v: v, lambda v: -v, y), [True]),
    (lambda x, y: lax.cond(y > 0, lambda v: v, lambda v: -v, y), [False]),
    (lambda x, y: lax.while_loop(lambda c: c[0] < x, lambda c: (c[0] + 1, c[1] * 2),
                                 (y, y)), [True, True]),
]  # fmt: skip


@pytest.mark.parametrize("fun, want", LABELS)
def test_labels_reach_a_fixed_point(fun, want):
    closed = jax.make_jaxpr(lambda x, y: jax.tree.leaves(fun(x, y)))(1.0, 2.0)
    assert infer(Depends(), closed, [True, False])[0] == want


def test_flatten_call_names_leaves_and_keeps_static_arguments():
    import inspect

    def fun(params, name, *, scale=2.0, flag):
        return params

    call = flatten_call(
        fun, inspect.signature(fun), ({"w": 1.0, "b": np.ones(2)}, "relu"),
        {"flag": np.array(True)},
    )  # fmt: skip
    assert call.paths == ("params['b']", "params['w']", "flag")
    assert call.args == ("params", "params", "flag")
    args, kwargs = call.rebuild([1, 2, 3])
    assert args == ({"b": 1, "w": 2}, "relu") and kwargs == {"flag": 3}
    with pytest.raises(InputError, match="missing a required"):
        flatten_call(fun, inspect.signature(fun), (), {})
