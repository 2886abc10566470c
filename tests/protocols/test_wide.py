"""Z_2^128 against Python integers: operators, sums, products, transformations."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from privjax.errors import InputError
from privjax.protocols import ring, wide
from privjax.protocols import wide_products as products
from privjax.protocols.wide import Wide

MODULUS = 2**128
EDGES = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64, 2**127, MODULUS - 1]


@pytest.fixture(autouse=True)
def _scope() -> Any:
    with jax.enable_x64(True):
        yield


def from_integers(values: Any) -> Wide:
    """Python integers, mod 2^128."""
    values = np.asarray(values, object) % MODULUS
    lo, hi = values % 2**64, values >> 64
    return Wide(*(jnp.asarray(np.asarray(v).astype(np.uint64)) for v in (lo, hi)))


def integers(x: Any) -> np.ndarray:
    """The Python integers that a Wide or a uint64 array stands for."""
    if not isinstance(x, Wide):
        return np.asarray(np.asarray(x, np.uint64).astype(object))
    assert x.lo.dtype == x.hi.dtype == np.uint64 and x.lo.shape == x.hi.shape
    return np.asarray(integers(x.lo) + integers(x.hi) * 2**64)


def check(got: Wide, expected: Any) -> None:
    expected = np.asarray(np.asarray(expected, object) % MODULUS, object)
    assert isinstance(got, Wide) and got.shape == expected.shape
    np.testing.assert_array_equal(integers(got), expected)


def draw(seed: int, shape: tuple[int, ...], kind: str = "wide") -> Any:
    """Uniform words, an eighth of them edges. kind: "wide", or "word" for uint64."""
    rng = np.random.default_rng(seed)
    planes = [rng.integers(0, 2**64, shape, np.uint64) for _ in range(2)]
    edges = [0, 1, 2**63, 2**64 - 1]
    for plane in planes:
        chosen = rng.random(shape) < 0.125
        plane[chosen] = rng.choice(np.array(edges, np.uint64), int(chosen.sum()))
    lo, hi = (jnp.asarray(v) for v in planes)
    return Wide(lo, hi) if kind == "wide" else lo


def largest(shape: tuple[int, ...], kind: str) -> Any:
    """All bits set."""
    top = jnp.full(shape, 2**64 - 1, jnp.uint64)
    return Wide(top, top) if kind == "wide" else top


# -- the type --------------------------------------------------------------------------


def test_constructors_and_properties() -> None:
    x = wide.full((2, 3), -5)
    check(x, np.full((2, 3), MODULUS - 5, object))
    assert (x.shape, x.ndim, x.size, x.bits) == ((2, 3), 2, 6, 128)
    check(wide.element(2**128 + 2**100 + 7), np.asarray(2**100 + 7))
    words = draw(1, (4,), "word")
    check(wide.from_low(words), integers(words))
    y = draw(2, (2, 6))
    check(y.reshape(3, 4), integers(y).reshape(3, 4))
    check(y.reshape((3, -1)), integers(y).reshape(3, -1))
    np.testing.assert_array_equal(integers(y.low), integers(y) % 2**64)


@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (2, 3)])
def test_stack(shape: tuple[int, ...]) -> None:
    x = draw(1, shape)
    planes = wide.stack(x)
    assert planes.shape == (2, *shape) and planes.dtype == np.uint64
    check(wide.unstack(planes), integers(x))


def test_structural_functions_by_tree_map() -> None:
    x = draw(1, (2, 3))
    check(jax.tree.map(jnp.transpose, x), integers(x).T)
    check(jax.tree.map(lambda v: v[1, ::-1], x), integers(x)[1, ::-1])


# -- elementwise -----------------------------------------------------------------------

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}
SHAPES = [((), ()), ((5,), (5,)), ((3, 1), (4,)), ((2, 3), ()), ((), (2, 3))]
KINDS = [("wide", "wide"), ("wide", "word"), ("word", "wide")]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("kinds", KINDS)
def test_operators(name: str, kinds: tuple[str, str]) -> None:
    function = OPERATORS[name]
    pairs = [
        (draw(seed, left, kinds[0]), draw(seed + 50, right, kinds[1]))
        for seed, (left, right) in enumerate(SHAPES)
    ]
    compiled = jax.jit(lambda pairs: [function(x, y) for x, y in pairs])
    for (x, y), got in zip(pairs, compiled(pairs), strict=True):
        check(got, function(integers(x), integers(y)))
        check(function(x, y), integers(got))


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_with_python_integers_and_numpy(name: str) -> None:
    function, x = OPERATORS[name], draw(3, (7,))
    for value in [*EDGES, -1, -(2**64), MODULUS + 3]:
        check(function(x, value), function(integers(x), value % MODULUS))
        check(function(value, x), function(value % MODULUS, integers(x)))
    words = np.asarray(draw(4, (7,), "word"))
    check(function(words, x), function(integers(words), integers(x)))
    check(function(words[0], x), function(int(words[0]), integers(x)))


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_on_all_pairs_of_edges(name: str) -> None:
    x = from_integers(EDGES)
    got = jax.jit(OPERATORS[name])(x.reshape(-1, 1), x)
    column = np.asarray(EDGES, object)
    check(got, OPERATORS[name](column[:, None], column))


def test_unary_operators() -> None:
    for x in (draw(1, (9,)), from_integers(EDGES)):
        check(-x, -integers(x))
        check(~x, MODULUS - 1 - integers(x))


@pytest.mark.parametrize("places", [0, 1, 31, 32, 63, 64, 65, 127])
def test_shifts(places: int) -> None:
    x = draw(1, (9,))
    check(x << places, integers(x) << places)
    check(x >> places, integers(x) >> places)


def test_multiply_of_words_is_the_full_product() -> None:
    x, y = draw(1, (50,), "word"), draw(2, (50,), "word")
    check(wide.multiply(x, y), integers(x) * integers(y))
    check(wide.multiply(2**64 - 1, 2**64 - 1), np.asarray((2**64 - 1) ** 2, object))
    # As backends other than a CPU form it.
    check(wide._by_halves(x, y), integers(x) * integers(y))
    top = np.uint64(2**64 - 1)
    check(wide._by_halves(top, top), np.asarray((2**64 - 1) ** 2, object))


elements = st.one_of(st.sampled_from(EDGES), st.integers(0, MODULUS - 1))


@given(elements, elements, elements)
def test_ring_axioms(a: int, b: int, c: int) -> None:
    x, y, z = (wide.element(v) for v in (a, b, c))
    check(x + y, np.asarray(a + b, object))
    for left, right in [
        ((x + y) + z, x + (y + z)),
        (x + y, y + x),
        ((x * y) * z, x * (y * z)),
        (x * y, y * x),
        (x * (y + z), x * y + x * z),
        (x - y, x + -y),
        (x + -x, wide.element(0)),
        (x ^ y, (x | y) - (x & y)),
        (-x, ~x + 1),
        (x << 1, x * 2),
    ]:
        check(left, integers(right))


AXES = [None, 0, 1, -1, (0, 2), (), (2, 1, 0)]


@pytest.mark.parametrize("axis", AXES)
def test_sum(axis: Any) -> None:
    for x in (draw(1, (4, 3, 5)), largest((4, 3, 5), "wide"), draw(2, (0, 3, 2))):
        expected = integers(x).sum(axis) if axis != () else integers(x)
        check(jax.jit(lambda v: wide.sum(v, axis))(x), np.asarray(expected, object))
        if axis == 0:
            check(wide.total(x), expected)


# -- matrix products -------------------------------------------------------------------


def always_by_floats(patch: pytest.MonkeyPatch) -> None:
    """No product is small enough for elementwise products."""
    patch.setattr(products, "FEW", -1)
    patch.setattr(products, "SMALL", -1)


@pytest.fixture(params=["elementwise", "floats"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "floats":
        always_by_floats(monkeypatch)
    return request.param


def matmul(x: Any, y: Any, axes: Any = None) -> Wide:
    """Compiled anew, whatever was compiled with other constants."""

    def fresh(x: Any, y: Any) -> Wide:
        return products.matmul(x, y)

    return jax.jit(fresh if axes is None else jax.vmap(fresh, axes))(x, y)


FACTORS = [("word", "word"), ("word", "wide"), ("wide", "word"), ("wide", "wide")]
# Rows, inner extent, columns: small, large, few terms, empty.
EXTENTS = [
    (1, 1, 1),
    (2, 13, 1),
    (1, 40, 3),
    (32, 13, 32),
    (40, 40, 36),
    (50, 3, 60),
    (0, 3, 2),
    (3, 0, 2),
]


@pytest.mark.parametrize("extents", EXTENTS)
@pytest.mark.usefixtures("path")
def test_matmul(extents: tuple[int, int, int]) -> None:
    """Every kind of factors, in one compilation."""
    m, k, n = extents
    lefts = {"word": draw(1, (m, k), "word"), "wide": draw(3, (m, k))}
    rights = {"word": draw(2, (k, n), "word"), "wide": draw(4, (k, n))}

    def all_kinds(lefts: Any, rights: Any) -> list[Wide]:
        return [products.matmul(lefts[a], rights[b]) for a, b in FACTORS]

    for got, (a, b) in zip(jax.jit(all_kinds)(lefts, rights), FACTORS, strict=True):
        expected = integers(lefts[a]) @ integers(rights[b])
        check(got, expected if k else np.zeros((m, n), object))


def test_moduli() -> None:
    """What the proof in the module's docstring needs of its constants."""
    first, second = products.MODULI
    assert np.gcd(first, second) == 1
    k = products.LONGEST
    for modulus in products.MODULI:
        assert modulus % 2 == 1
        assert k * (modulus // 2 + 1) ** 2 + modulus < 2**53
    # Twice the worst error of the rounded product, and roundings of H itself.
    assert 2 * (k * (k + 2) * 2**11 + 2**30) < first * second


# Around the longest exact sum, with pieces of equal and unequal length.
LENGTHS = [products.LONGEST + d for d in (-1, 0, 1)] + [3 * products.LONGEST + 5]


@pytest.mark.parametrize("k", LENGTHS)
def test_matmul_of_long_and_extreme_sums(k: int) -> None:
    """All bits set: the largest sums, and the largest error of the rounded product."""
    x, y = largest((2, k), "word"), largest((k, 1), "wide")
    check(matmul(x, y), np.full((2, 1), (2**64 - 1) * (MODULUS - 1) * k))
    check(matmul(x, y.lo), np.full((2, 1), (2**64 - 1) ** 2 * k))
    x, y = draw(1, (2, k)), draw(2, (k, 3))
    check(matmul(x, y), integers(x) @ integers(y))


@jax.jit
def by_floats(x: Any, y: Any) -> Wide:
    return products.matmul(x, y)


@given(st.data())
def test_matmul_of_structured_words(data: Any) -> None:
    """Words near the edges of every part that the algorithm splits them into."""
    near = st.builds(
        lambda a, b, c, d: a * 2**64 + b * 2**32 + c * products.MODULI[0] + d,
        *[st.integers(-2, 2)] * 4,
    )
    value = st.one_of(near, elements)
    rows = data.draw(st.lists(value, min_size=12, max_size=12))
    columns = data.draw(st.lists(value, min_size=12, max_size=12))
    x, y = from_integers(rows).reshape(3, 4), from_integers(columns).reshape(4, 3)
    with pytest.MonkeyPatch.context() as patch:
        always_by_floats(patch)
        check(by_floats(x, y), integers(x) @ integers(y))
        check(by_floats(x.lo, y), integers(x.lo) @ integers(y))


DOTS: list[tuple[tuple[int, ...], tuple[int, ...], Any, str]] = [
    ((5,), (5,), (((0,), (0,)), ((), ())), "a,a->"),
    ((4, 5), (6, 5), (((1,), (1,)), ((), ())), "ab,cb->ac"),
    ((3,), (4,), (((), ()), ((), ())), "a,b->ab"),
    ((4, 2, 5), (5, 6, 2), (((2,), (0,)), ((1,), (2,))), "abc,cdb->bad"),
    ((2, 3, 4, 5), (3, 7, 5, 2), (((3,), (2,)), ((1, 0), (0, 3))), "abcd,beda->bace"),
    ((4, 5, 6), (6, 4, 7), (((0, 2), (1, 0)), ((), ())), "abc,cad->bd"),
    ((3, 4), (3, 4), (((), ()), ((0, 1), (0, 1))), "ab,ab->ab"),
]


@pytest.mark.parametrize(("x_shape", "y_shape", "dims", "formula"), DOTS)
def test_dot_general(x_shape: Any, y_shape: Any, dims: Any, formula: str) -> None:
    x, y = draw(1, x_shape, "word"), draw(2, y_shape)
    expected = np.einsum(formula, integers(x), integers(y))
    check(jax.jit(lambda x, y: products.dot_general(x, y, dims))(x, y), expected)


LANES = [(0, None), (None, 0), (0, 0), (2, 1)]


@pytest.mark.parametrize("axes", LANES)
@pytest.mark.usefixtures("path")
def test_matmul_under_vmap(axes: Any) -> None:
    x, y = draw(1, (3, 4, 5), "word"), draw(2, (3, 5, 6))
    args = [
        jax.tree.map(lambda v, a=a: v[0] if a is None else jnp.moveaxis(v, 0, a), arg)
        for arg, a in zip((x, y), axes, strict=True)
    ]
    left, right = (
        integers(v)[:1] if a is None else integers(v)
        for v, a in zip((x, y), axes, strict=True)
    )
    expected = np.stack([left[i % len(left)] @ right[i % len(right)] for i in range(3)])
    check(matmul(*args, axes), expected)


def test_one_batched_operand_stays_one_product() -> None:
    x, y = draw(1, (3, 40, 33), "word"), draw(2, (33, 36))
    jaxpr = jax.make_jaxpr(jax.vmap(products.matmul, (0, None)))(x, y)
    names = [e.primitive.name for e in jaxpr.eqns]
    assert names.count("ring_matmul") == 2 and names.count("dot_general") == 1
    for equation in jaxpr.eqns:
        if equation.primitive.name == "ring_matmul":
            assert equation.invars[0].aval.shape == (120, 33)
        if equation.primitive.name == "dot_general":
            assert [len(d) for d in equation.params["dimension_numbers"][1]] == [1, 1]


# -- transformations -------------------------------------------------------------------


@pytest.mark.usefixtures("path")
def test_scan_carry_and_eval_shape() -> None:
    x, y = draw(1, (5, 3, 3)), draw(2, (3, 3))

    def step(carry: Wide, v: Wide) -> tuple[Wide, Wide]:
        carry = products.matmul(v, carry) + v * 3
        return carry, carry >> 7

    last, outs = jax.jit(lambda x, y: lax.scan(step, y, x))(x, y)
    expected, steps = integers(y), []
    for v in integers(x):
        expected = (v @ expected + v * 3) % MODULUS
        steps.append(expected >> 7)
    check(last, expected)
    check(outs, np.stack(steps))
    abstract = jax.eval_shape(lambda x: wide.sum(x * x, 0), x)
    assert isinstance(abstract, Wide) and abstract.shape == (3, 3)


@pytest.mark.usefixtures("path")
def test_inside_a_program_with_64_bit_types_off() -> None:
    x, y = draw(1, (2, 6, 5)), draw(2, (5, 4))

    def program(x: jax.Array, y: jax.Array) -> jax.Array:
        with jax.enable_x64(True):
            left, right = (wide.unstack(ring.from_words(v)) for v in (x, y))
            parts = lax.map(lambda v: products.matmul(v, right) * (2**100 + 3), left)
            return ring.to_words(wide.stack(wide.sum(parts, 0)))

    # Words of the planes, the stack axis first; x has a leading axis to map over.
    words = [np.asarray(ring.to_words(wide.stack(v))) for v in (x, y)]
    with jax.enable_x64(False):
        out = np.asarray(jax.jit(program)(*words))
    got = wide.unstack(ring.from_words(jnp.asarray(out)))
    check(got, (integers(x) @ integers(y)).sum(0) * (2**100 + 3))


@pytest.mark.usefixtures("path")
def test_under_shard_map() -> None:
    mesh = jax.make_mesh((1,), ("party",), (jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    x, y = draw(1, (1, 4, 5), "word"), draw(2, (5, 3))
    mapped = jax.shard_map(
        lambda x, y: jax.tree.map(lambda v: v[None], products.matmul(x[0], y)),
        mesh=mesh,
        in_specs=(spec("party"), spec()),
        out_specs=spec("party"),
    )
    check(jax.jit(mapped)(x, y), (integers(x)[0] @ integers(y))[None])


# -- convolutions ----------------------------------------------------------------------


def direct_conv(lhs: Any, rhs: Any, options: dict[str, Any]) -> np.ndarray:
    """Convolution by its definition: lhs [N, H, W, C], rhs [h, w, C / groups, O]."""
    strides, dilation = options["strides"], options["rhs_dilation"]
    groups, batches = options["groups"], options["batch_groups"]
    n, height, width, c = lhs.shape
    kh, kw, depth, features = rhs.shape
    spread, start, full = options["lhs_dilation"], [], []
    for size, step, (before, after) in zip(
        (height, width), spread, options["padding"], strict=True
    ):
        start.append(before)
        full.append((size - 1) * step + 1 + before + after)
    extents = [
        (size - (taps - 1) * dil - 1) // stride + 1
        for size, taps, dil, stride in zip(
            full, (kh, kw), dilation, strides, strict=True
        )
    ]
    out = np.zeros((n // batches, *extents, features), object)
    for b, i, j, f, p, q in np.ndindex(*out.shape, kh, kw):
        place, ok = [], True
        for at, tap, axis in ((i, p, 0), (j, q, 1)):
            position = at * strides[axis] + tap * dilation[axis] - start[axis]
            ok &= position % spread[axis] == 0
            place.append(position // spread[axis])
        if not (ok and 0 <= place[0] < height and 0 <= place[1] < width):
            continue
        group = f // (features // groups)
        example = f // (features // batches) * (n // batches) + b
        pixel = lhs[example, place[0], place[1], group * depth : (group + 1) * depth]
        out[b, i, j, f] += (pixel * rhs[p, q, :, f]).sum()
    return out


PLAIN = {
    "strides": (1, 1),
    "padding": ((0, 0), (0, 0)),
    "lhs_dilation": (1, 1),
    "rhs_dilation": (1, 1),
    "groups": 1,
    "batch_groups": 1,
}
CONVS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one channel": ((2, 5, 4, 1), (3, 3, 1, 2), {}),
    "channels": ((2, 5, 4, 3), (3, 2, 3, 2), {}),
    "strides": ((1, 7, 6, 2), (3, 2, 2, 3), {"strides": (2, 3)}),
    "padding": ((1, 4, 4, 3), (3, 3, 3, 2), {"padding": ((1, 2), (0, 1))}),
    "crop": ((1, 6, 6, 3), (3, 3, 3, 2), {"padding": ((-1, 0), (1, -2))}),
    "transposed": (
        (1, 3, 3, 3),
        (3, 3, 3, 2),
        {"lhs_dilation": (2, 3), "padding": ((2, 2), (1, 2))},
    ),
    "everything": (
        (2, 5, 4, 3),
        (2, 3, 3, 2),
        {
            "strides": (2, 1),
            "padding": ((1, 2), (2, 1)),
            "lhs_dilation": (2, 1),
            "rhs_dilation": (3, 2),
        },
    ),
    "groups": ((1, 4, 4, 6), (3, 2, 3, 4), {"groups": 2}),
    "groups of the batch": ((4, 4, 4, 3), (2, 3, 3, 4), {"batch_groups": 2}),
}


def run_conv(lhs: Any, rhs: Any, options: dict[str, Any]) -> Wide:
    return products.conv_general_dilated(
        lhs,
        rhs,
        options["strides"],
        options["padding"],
        options["lhs_dilation"],
        options["rhs_dilation"],
        ("NHWC", "HWIO", "NHWC"),
        options["groups"],
        options["batch_groups"],
    )


def convolve(case: str, kinds: tuple[str, str]) -> None:
    lhs_shape, rhs_shape, changes = CONVS[case]
    options = {**PLAIN, **changes}
    lhs, rhs = draw(1, lhs_shape, kinds[0]), draw(2, rhs_shape, kinds[1])
    got = jax.jit(lambda x, y: run_conv(x, y, options))(lhs, rhs)
    check(got, direct_conv(integers(lhs), integers(rhs), options))


@pytest.mark.parametrize("case", CONVS)
def test_convolution(case: str) -> None:
    convolve(case, ("word", "wide"))


@pytest.mark.parametrize("kinds", FACTORS)
def test_convolution_of_other_factors(kinds: tuple[str, str]) -> None:
    convolve("everything", kinds)


PIECES = [(case, 4) for case in CONVS]
PIECES += [("channels", 1), ("everything", 1), ("groups", 1), ("groups", 7)]


@pytest.mark.parametrize(("case", "longest"), PIECES)
def test_convolution_in_pieces(
    case: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels cut along every axis, as very long ones are."""
    monkeypatch.setattr(products, "LONGEST", longest)
    convolve(case, ("wide", "wide"))


def test_convolution_with_a_long_kernel() -> None:
    """A weight gradient: the kernel is as large as a batch of images."""
    k = 2 * products.LONGEST + 3
    lhs, rhs = largest((1, k + 1, 1), "wide"), largest((k, 1, 2), "word")
    got = products.conv_general_dilated(
        lhs, rhs, (1,), ((0, 0),), dimension_numbers=("NHC", "HIO", "NHC")
    )
    check(got, np.full((1, 2, 2), (MODULUS - 1) * (2**64 - 1) * k))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_convolution_under_vmap(axes: Any) -> None:
    lhs_shape, rhs_shape, changes = CONVS["everything"]
    options = {**PLAIN, **changes}
    lhs, rhs = draw(1, (2, *lhs_shape), "word"), draw(2, (2, *rhs_shape))
    args = [
        v if a == 0 else jax.tree.map(lambda p: p[0], v)
        for v, a in zip((lhs, rhs), axes, strict=True)
    ]
    got = jax.jit(jax.vmap(lambda x, y: run_conv(x, y, options), axes))(*args)
    pairs = [
        [integers(v)[i if a == 0 else 0] for v, a in zip((lhs, rhs), axes, strict=True)]
        for i in range(2)
    ]
    check(got, np.stack([direct_conv(x, y, options) for x, y in pairs]))


# -- refusals --------------------------------------------------------------------------

BAD: dict[str, Callable[[], Any]] = {
    "signed": lambda: wide.element(1) + jnp.ones(2, jnp.int64),
    "real": lambda: 0.5 * wide.element(1),
    "boolean": lambda: wide.element(1) + True,
    "narrow": lambda: wide.multiply(jnp.ones(2, jnp.uint32), wide.element(1)),
    "from low": lambda: wide.from_low(jnp.ones(2, jnp.int32)),
    "planes": lambda: wide.unstack(jnp.ones((3, 2), jnp.uint64)),
    "left shift": lambda: wide.element(1) << 128,
    "right shift": lambda: wide.element(1) >> -1,
    "factor": lambda: products.matmul(jnp.ones((2, 2)), wide.full((2, 2), 1)),
    "kernel": lambda: products.conv_general_dilated(
        wide.full((1, 3, 1), 1), jnp.ones((2, 1, 1), jnp.int64), (1,), ((0, 0),)
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses(case: str) -> None:
    with pytest.raises(InputError):
        BAD[case]()
