"""The unit analysis: what each primitive makes of the axis of units.

Every claim is also checked by perturbing units: a value that is per unit changes in one
slice only, a sum changes by the sum of the changes, a public value not at all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from privjax.errors import InputError
from privjax.passes.dp.prepare import prepare
from privjax.passes.simplify import dce, inline
from privjax.passes.units import Mixed, PerUnit, Public, Sum, Zero, analyse
from privjax.prg.keys import insecure_key
from privjax.transforms.differentially_private import differentially_private

N = 6  # units


class Case(NamedTuple):
    """`fun` of one private [N, 4] value, and the expected state of its result."""

    name: str
    fun: Callable[[Any], Any]
    want: Any  # an axis, "sum", "mixed" or "public"


IMAGE = lambda x: x.reshape(N, 2, 2, 1)  # noqa: E731
KERNEL = jnp.ones((2, 2, 1, 3))
NHWC = ("NHWC", "HWIO", "NHWC")
TABLE = jnp.arange(20.0).reshape(5, 4)
INDEX = lambda x: (jnp.abs(x[:, 0]) * 2).astype(jnp.int32) % 4  # noqa: E731


def conv(x: Any, k: Any, **options: Any) -> Any:
    return lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=NHWC, **options
    )


CASES = [
    Case("elementwise", lambda x: jnp.tanh(x) * 2 + x**2, 0),
    Case("with public", lambda x: x + jnp.ones((N, 4)), 0),
    Case("comparison", lambda x: jnp.where(x > 0, x, 0.0), 0),
    Case("transpose", lambda x: x.T, 1),
    Case("against itself", lambda x: x[:, :, None] + x[:, None, :], 0),
    Case("across", lambda x: x[:, None] + x[None, :], "mixed"),
    Case(
        "transposed sum",
        lambda x: x[:, :N] + x[:, :N].T if N == 4 else x @ x.T,
        "mixed",
    ),
    Case("broadcast", lambda x: jnp.broadcast_to(x[None], (3, N, 4)), 1),
    Case("reshape away", lambda x: x.reshape(N, 2, 2), 0),
    Case("flatten", lambda x: jnp.sin(x.reshape(-1)).reshape(N, 4), 0),
    Case("split units", lambda x: jnp.sin(x.reshape(2, 3, 4)).reshape(N, 4), 0),
    Case("merge elsewhere", lambda x: x.T.reshape(2, 2, N), 2),
    Case("reshape across", lambda x: jnp.sin(x.reshape(4, N)).sum(1), "mixed"),
    Case("squeeze", lambda x: jnp.squeeze(x[:, None]), 0),
    Case("rev features", lambda x: x[:, ::-1], 0),
    Case("rev units", lambda x: x[::-1], "mixed"),
    Case("slice features", lambda x: x[:, 1:3], 0),
    Case("slice units", lambda x: x[:3], "part"),
    Case("split", lambda x: jnp.split(x, 2, axis=1)[1], 0),
    Case("pad features", lambda x: jnp.pad(x, ((0, 0), (1, 2))), 0),
    Case("pad units", lambda x: jnp.pad(x, ((1, 0), (0, 0))), "mixed"),
    Case("concatenate", lambda x: jnp.concatenate([x, x, jnp.ones((N, 1))], 1), 0),
    Case("two views", lambda x: jnp.concatenate([x, jnp.sin(x)]), 0),
    Case("one of two views", lambda x: jnp.concatenate([x, jnp.sin(x)])[N:], 0),
    Case("two views apart", lambda x: jnp.split(jnp.concatenate([x, 2 * x]), 2)[1], 0),
    Case("views summed", lambda x: jnp.sum(jnp.concatenate([x, x**2]), 0), "sum"),
    Case("views cut askew", lambda x: jnp.concatenate([x, x])[2 : N + 2], "mixed"),
    Case("first of the units", lambda x: x[jnp.arange(3)], "mixed"),
    Case("rounds looked up", lambda x: _rounds(x, x), "mixed"),
    Case("rounds from rounds", lambda x: _rounds(x, jnp.concatenate([x, x])), 0),
    Case("rounds added up", lambda x: _rounds_added(x), "sum"),
    Case("views turned", lambda x: jnp.concatenate([x, x[::-1]]), "mixed"),
    Case("views and half", lambda x: jnp.concatenate([x, jnp.ones((3, 4))]), "mixed"),
    Case("stack", lambda x: jnp.stack([x, 2 * x]), 1),
    Case("sum", lambda x: x.sum(0), "sum"),
    Case("total", lambda x: x.sum(), "sum"),
    Case("mean", lambda x: jnp.exp(x).mean(), "sum"),
    Case("sum features", lambda x: x.sum(1), 0),
    Case("sum of a part", lambda x: x.reshape(2, 3, 4).sum(1), "sum"),
    Case("every second unit", lambda x: jnp.tanh(x[1::2]), "part"),
    Case("slice of a slice", lambda x: x[1:5][::3], "part"),
    Case("slices joined", lambda x: jnp.concatenate([x[:2] * 2, x[2:]]), 0),
    Case("slices in another order", lambda x: jnp.concatenate([x[2:], x[:2]]), "mixed"),
    Case("filled up", lambda x: jnp.pad(x[2:5], ((2, 1), (0, 0))), 0),
    Case(
        "filled up by zeros between",
        lambda x: lax.pad(x[1::2], 0.0, [(1, 0, 1), (0, 0, 0)]),
        0,
    ),
    Case("filled up elsewhere", lambda x: jnp.pad(x[2:5], ((1, 2), (0, 0))), "mixed"),
    Case("halves together", lambda x: x[:3] * x[3:], "mixed"),
    Case("sums of slices", lambda x: jnp.tanh(x[:2]).sum(0) + x[2:].sum(0) * 2, "sum"),
    Case("sum of single units", lambda x: jnp.sin(x[0]) - x[5] ** 2 + x[3], "sum"),
    Case("product of single units", lambda x: x[0] * x[5], "mixed"),
    Case(
        "products of a part",
        lambda x: jnp.einsum("kbi,kbj->kij", *2 * [x.reshape(2, 3, 4)]),
        "sum",
    ),
    Case("max features", lambda x: x.max(1), 0),
    Case("max units", lambda x: x.max(0), "mixed"),
    Case("argmax", lambda x: x.argmax(1), 0),
    Case("cumsum features", lambda x: jnp.cumsum(x, 1), 0),
    Case("cumsum units", lambda x: jnp.cumsum(x, 0), "mixed"),
    Case("sort features", lambda x: jnp.sort(x, 1), 0),
    Case("sort units", lambda x: jnp.sort(x, 0), "mixed"),
    Case("top_k", lambda x: lax.top_k(x, 2)[0], 0),
    Case("softmax", lambda x: jax.nn.softmax(x), 0),
    Case("softmax units", lambda x: jax.nn.softmax(x, 0), "mixed"),
    Case("matmul", lambda x: x @ TABLE.T, 0),
    Case("matmul right", lambda x: TABLE @ x.T, 1),
    Case("contracted", lambda x: x.T @ jnp.ones((N, 3)), "sum"),
    Case("covariance", lambda x: x.T @ jnp.sin(x), "sum"),
    Case("gram", lambda x: x @ x.T, "mixed"),
    Case("batched", lambda x: jnp.einsum("bi,bj->bij", x, x), 0),
    Case("einsum", lambda x: jnp.einsum("bi,bi->", x, jnp.cos(x)), "sum"),
    Case("linear in a sum", lambda x: -2 * (TABLE @ x.sum(0)).reshape(5, 1) / 3, "sum"),
    Case("sum of sums", lambda x: x.sum(0) + jnp.sin(x).sum(0) - x.mean(0), "sum"),
    Case("released", lambda x: jnp.sin(x.sum(0)), "public"),
    Case("fed back", lambda x: x - x.mean(0), "level"),
    Case("conv", lambda x: conv(IMAGE(x), KERNEL), 0),
    Case(
        "conv kernel gradient",
        lambda x: jax.grad(lambda k: jnp.sum(conv(IMAGE(x), k) ** 2))(KERNEL),
        "sum",
    ),
    Case(
        "depthwise kernel gradient",
        lambda x: jax.grad(
            lambda k: jnp.sum(
                conv(jnp.tile(IMAGE(x), 2), k, feature_group_count=2) ** 2
            )
        )(jnp.ones((2, 2, 1, 4))),
        "sum",
    ),
    Case(
        "vmapped conv gradient",
        lambda x: jax.vmap(
            lambda x: jax.grad(lambda k: jnp.sum(conv(x[None], k) ** 2))(KERNEL)
        )(IMAGE(x)),
        0,
    ),
    Case(
        "max pool",
        lambda x: lax.reduce_window(
            IMAGE(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        ),
        0,
    ),
    Case(
        "max pool gradient",
        lambda x: jax.grad(
            lambda x: jnp.sum(
                lax.reduce_window(
                    IMAGE(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
                )
            )
        )(x),
        0,
    ),
    Case(
        "pool across",
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 1), (1, 1), "VALID"),
        "mixed",
    ),
    Case("embedding", lambda x: TABLE[INDEX(x)], 0),
    Case("take along", lambda x: jnp.take_along_axis(x, INDEX(x)[:, None], 1), 0),
    Case("arange index", lambda x: x[jnp.arange(N), INDEX(x)], 0),
    Case("one column", lambda x: x[:, 2], 0),
    Case("public columns", lambda x: x[:, jnp.array([0, 0, 3])], 0),
    Case("one unit", lambda x: jnp.exp(x[2]), "part"),
    Case("public units", lambda x: x[jnp.array([0, 0, 3])], "mixed"),
    Case("private units", lambda x: x[INDEX(x)], "mixed"),
    Case(
        "embedding gradient",
        lambda x: jax.grad(lambda t: jnp.sum(t[INDEX(x)] ** 2))(TABLE),
        "sum",
    ),
    Case(
        "arange index gradient",
        lambda x: jax.grad(lambda x: jnp.sum(x[jnp.arange(N), INDEX(x)] ** 2))(x),
        0,
    ),
    Case("histogram", lambda x: jnp.zeros(4).at[INDEX(x)].add(1.0), "sum"),
    Case("overwriting", lambda x: jnp.zeros(4).at[INDEX(x)].set(1.0), "mixed"),
    Case("dynamic slice", lambda x: lax.dynamic_slice_in_dim(x, 1, 2, 1), 0),
    Case(
        "dynamic update",
        lambda x: lax.dynamic_update_slice_in_dim(jnp.zeros((N, 6)), x, 1, 1),
        0,
    ),
    Case("cholesky", lambda x: jnp.linalg.cholesky(_positive(x)), 0),
    Case("tile features", lambda x: jnp.tile(x, (1, 3)), 0),
    Case("tile units", lambda x: jnp.tile(x, (2, 1)), "mixed"),
    Case("unstack", lambda x: jnp.unstack(x, axis=1)[2], 0),
    Case("fft", lambda x: jnp.abs(jnp.fft.fft(x)), 0),
    Case("scan over features", lambda x: lax.scan(_add, jnp.zeros(N), x.T)[0], 0),
    Case("scan outputs", lambda x: lax.scan(_add, jnp.zeros(N), x.T)[1], 1),
    Case("scan over units", lambda x: lax.scan(_add, jnp.zeros(4), x)[0], "sum"),
    Case("map over units", lambda x: lax.map(lambda r: jnp.sin(r).sum(), x), 0),
    Case(
        "recurrence over units",
        lambda x: lax.scan(lambda c, r: (jnp.tanh(c + r), None), jnp.zeros(4), x)[0],
        "mixed",
    ),
    Case(
        "last unit",
        lambda x: lax.scan(lambda c, r: (r, c), jnp.zeros(4), x)[1],
        "sum",
    ),
    Case(
        "accumulating micro-batches",
        lambda x: lax.scan(
            lambda c, r: (c + jnp.sin(r).sum(0), None), jnp.zeros(4), x.reshape(2, 3, 4)
        )[0],
        "sum",
    ),
    Case("fori loop", lambda x: lax.fori_loop(0, 3, lambda i, v: jnp.sin(v), x), 0),
    Case("while", lambda x: lax.while_loop(lambda v: v[0] < 3, _count, (0, x))[1], 0),
    Case("private trip count", lambda x: lax.while_loop(_small, _double, x), "mixed"),
    Case("public branch", lambda x: lax.cond(len(x) > 2, jnp.sin, jnp.cos, x), 0),
    Case(
        "private branch", lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x), "mixed"
    ),
    Case("remat", lambda x: jax.checkpoint(jnp.sin)(x), 0),
    Case("relu", lambda x: jax.nn.relu(x), 0),
    Case("top_k of the units", lambda x: lax.top_k(x, 2, axis=0)[0], "mixed"),
    Case("pairs of units", lambda x: jax.vmap(_pair(x))(jnp.arange(N)), "mixed"),
    Case("named sum", lambda x: _over(lax.psum)(x)[0], "sum"),
    Case("named maximum", lambda x: _over(lax.pmax)(x)[0], "mixed"),
    Case("bits", lambda x: lax.bitcast_convert_type(x, jnp.uint8), 0),
    Case(
        "joined bits",
        lambda x: lax.bitcast_convert_type(_bytes(x).T[:, :4], jnp.float32),
        "mixed",
    ),
    Case("solve", lambda x: jnp.linalg.solve(_positive(x), x[:, :, None]), 0),
    Case(
        "branch of one unit",
        lambda x: lax.map(lambda r: lax.cond(r[0] > 0, jnp.sin, jnp.cos, r), x),
        0,
    ),
    Case("loop of one unit", lambda x: lax.map(_until_large, x), 0),
    Case("integer mean", lambda x: INDEX(x).sum() // 3, "public"),
    Case("subtracted", lambda x: jnp.zeros(4).at[INDEX(x)].subtract(1.0), "sum"),
    Case("multiplied", lambda x: jnp.zeros(4).at[INDEX(x)].multiply(2.0), "mixed"),
    Case(
        "own index in micro-batches",
        lambda x: lax.map(
            lambda r: r[jnp.arange(3), INDEX(r)], x.reshape(2, 3, 4)
        ).reshape(N),
        0,
    ),
    Case("mapped", lambda x: jax.vmap(lambda r: jnp.sort(r)[0])(x), 0),
]


def _positive(x: Any) -> Any:
    return jnp.einsum("bi,bj->bij", x, x) + jnp.eye(4)


def _rounds(x: Any, table: Any) -> Any:
    """Two rounds of positions, into a table of one or two rounds."""
    return table[jnp.arange(2 * N), INDEX(jnp.concatenate([x, x]))]


def _rounds_added(x: Any) -> Any:
    double = jnp.concatenate([x, x])
    return jnp.zeros((N, 4)).at[jnp.arange(2 * N), INDEX(double)].add(double[:, 0])


def _pair(x: Any) -> Any:
    return lambda i: lax.dynamic_slice_in_dim(x, i, 2)


def _over(collective: Any) -> Any:
    return jax.vmap(lambda r: collective(r, "units"), axis_name="units")


def _bytes(x: Any) -> Any:
    return lax.bitcast_convert_type(x[:, 0], jnp.uint8)


def _until_large(row: Any) -> Any:
    return lax.while_loop(lambda v: jnp.sum(v**2) < 9, lambda v: 1.5 * v + 0.1, row)


def _add(carry: Any, row: Any) -> Any:
    return carry + row, 2 * row


def _count(v: Any) -> Any:
    return v[0] + 1, jnp.cos(v[1])


def _small(v: Any) -> Any:
    return jnp.sum(v**2) < 100


def _double(v: Any) -> Any:
    return 2 * v


def values(seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(N, 4)).astype(np.float32)


def state_of(fun: Callable[[Any], Any]) -> Any:
    closed = prepare(jax.make_jaxpr(fun)(values()))
    return analyse(closed, [0]).outs[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_state(case: Case) -> None:
    state = state_of(case.fun)
    if isinstance(case.want, int):
        assert isinstance(state, PerUnit) and state.axis == case.want
        assert state.level == 0
    elif case.want == "level":
        assert isinstance(state, PerUnit) and state.level == 1
        assert "sub" in str(state.fed) and "test_unit_rules.py" in str(state.fed)
    elif case.want == "part":
        assert isinstance(state, PerUnit) and state.part is not None
    else:
        kinds = {"sum": Sum, "mixed": Mixed, "public": Public}
        assert isinstance(state, kinds[case.want]), state
    if isinstance(state, Mixed):
        assert "test_unit_rules.py" in state.cause.line
    check(case.fun, state)


def check(fun: Callable[[Any], Any], state: Any) -> None:
    """What the state claims, by perturbing units 1 and 4."""
    fun = jax.jit(fun)
    x, y = values(0), values(1)
    one, other, both = x.copy(), x.copy(), x.copy()
    one[1], other[4] = y[1], y[4]
    both[1], both[4] = y[1], y[4]
    if isinstance(state, PerUnit) and not state.level:
        moved = np.asarray(fun(x)) != np.asarray(fun(one))
        if state.part is not None:
            numbers = state.part.numbers.tolist()
            here = [numbers.index(1)] if 1 in numbers else []
            assert not np.delete(moved, here, axis=0).any() if state.axes else not here
            return
        rounds = moved.shape[state.axis] // N  # every unit once in each
        theirs = 1 + N * np.arange(rounds)
        assert not np.delete(moved, theirs, axis=state.axis).any()
    if isinstance(state, Sum):
        a, b, c, d = (np.asarray(fun(v), np.float64) for v in (both, one, other, x))
        np.testing.assert_allclose(a - b - c + d, 0, atol=2e-5 * np.abs(a).max())


def test_no_rule_is_a_refusal_with_the_line() -> None:
    state = state_of(lambda x: lax.linalg.svd(x @ x.T, compute_uv=False))
    assert isinstance(state, Mixed)
    state = state_of(lambda x: jax.pure_callback(np.sin, x, x))
    assert isinstance(state, Mixed) and "no rule" in str(state.cause)


def test_public_programs() -> None:
    closed = dce(inline(jax.make_jaxpr(lambda x, p: (p + 1, jnp.zeros(3)))(1.0, 2.0)))
    outs = analyse(closed, [None, None]).outs
    assert isinstance(outs[0], Public) and isinstance(outs[1], Zero)


def test_units_must_agree() -> None:
    closed = jax.make_jaxpr(lambda x, y: x.sum() + y.sum())(jnp.ones(3), jnp.ones(4))
    with pytest.raises(InputError, match="3 and 4"):
        analyse(closed, [0, 0])


def test_equations_in_order() -> None:
    closed = jax.make_jaxpr(lambda x, p: jnp.sin(x * p).sum(0))(values(), np.float32(2))
    found = list(analyse(closed, [0, None]).equations())
    assert [e.primitive.name for e, _, _ in found] == ["mul", "sin", "reduce_sum"]
    assert isinstance(found[0][1][1], Public) and isinstance(found[2][2][0], Sum)


def test_noised_updates_of_clients_stay_per_client() -> None:
    """Differential privacy inside of a client's update, mapped over clients."""
    private = differentially_private(
        lambda w, batch: jax.grad(lambda w: jnp.mean((batch @ w) ** 2))(w)
    )

    def clients(w: Any, batches: Any, keys: Any) -> Any:
        each = jax.vmap(lambda b, k: private(w, b, key=k))(batches, keys)
        return each, each.mean(0)

    keys = jax.random.split(insecure_key(0), N)
    closed = jax.make_jaxpr(clients)(jnp.ones(4), jnp.ones((N, 3, 4)), keys)
    each, mean = analyse(dce(inline(closed)), [None, 0, None]).outs
    assert isinstance(each, PerUnit) and each.axis == 0
    assert isinstance(mean, Sum)
