"""Exactness of ring products against numpy, properties, vmap, and a floor on speed."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from privjax.errors import InputError
from privjax.protocols import ring
from privjax.protocols.ring import Ring

DTYPES = ["uint32", "uint64"]


@pytest.fixture(autouse=True)
def _scope() -> Any:
    with jax.enable_x64(True):
        yield


def draw(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), shape, dtype=dtype)


def check(got: Any, expected: Any) -> None:
    assert got.dtype == expected.dtype and got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


def test_numpy_oracle_wraps() -> None:
    """The oracle itself, against Python integers."""
    x, y = draw(1, (3, 5), "uint64"), draw(2, (5, 4), "uint64")
    exact = (x.astype(object) @ y.astype(object)) % 2**64
    np.testing.assert_array_equal(x @ y, exact.astype(np.uint64))


# Rows, inner extent, columns: plain and fast path, K not a multiple of 16, one tile,
# several, an overlapping last tile, few rows, few columns, empty.
SHAPES = [
    (1, 1, 1),
    (1, 300, 40),
    (300, 40, 1),
    (300, 50, 2),
    (8, 13, 32),
    (40, 40, 40),
    (33, 37, 129),
    (20, 15, 200),
    (260, 16, 260),
    (257, 33, 400),
    (2, 100, 300),
    (100, 200, 5),
    (0, 3, 4),
    (3, 0, 4),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul(shape: tuple[int, int, int], dtype: str) -> None:
    m, k, n = shape
    x, y = draw(1, (m, k), dtype), draw(2, (k, n), dtype)
    check(jax.jit(ring.matmul)(x, y), x @ y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_of_extreme_values(dtype: str) -> None:
    """All bits set: any product or sum that leaves the ring would show."""
    top = np.full((48, 48), Ring(8 * np.dtype(dtype).itemsize).mask, dtype)
    check(ring.matmul(top, top), np.full((48, 48), 48, dtype))


@pytest.mark.parametrize("lead", [(2,), (3, 2)])
@pytest.mark.parametrize("inner", [(5, 6, 7), (40, 33, 36)])
def test_matmul_with_leading_axes(
    lead: tuple[int, ...], inner: tuple[int, int, int]
) -> None:
    m, k, n = inner
    x, y = draw(1, (*lead, m, k), "uint64"), draw(2, (*lead, k, n), "uint64")
    check(ring.matmul(x, y), x @ y)


AXES = [(0, None), (None, 0), (0, 0), (2, 1), (1, None), (None, 2)]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("inner", [(4, 5, 6), (40, 33, 36)])
def test_matmul_under_vmap(axes: Any, inner: tuple[int, int, int]) -> None:
    m, k, n = inner
    x, y = draw(1, (3, m, k), "uint64"), draw(2, (3, k, n), "uint64")
    moved = [
        v[0] if a is None else np.moveaxis(v, 0, a)
        for v, a in zip((x, y), axes, strict=True)
    ]
    expected = (x[0] if axes[0] is None else x) @ (y[0] if axes[1] is None else y)
    check(jax.jit(jax.vmap(ring.matmul, axes))(*moved), expected)


def test_matmul_under_nested_vmap() -> None:
    """Every way in which two mapped axes can fall on the two operands."""
    x, y = draw(1, (2, 3, 40, 33), "uint64"), draw(2, (2, 3, 33, 36), "uint64")
    for outer in ((0, 0), (0, None), (None, 0)):
        for inner in ((0, 0), (0, None), (None, 0)):
            a, b = x, y
            if outer[0] is None:
                a = a[0]
            if inner[0] is None:
                a = a[..., 0, :, :]
            if outer[1] is None:
                b = b[0]
            if inner[1] is None:
                b = b[..., 0, :, :]
            mapped = jax.vmap(jax.vmap(ring.matmul, inner), outer)
            left = a[:, None] if outer[0] == 0 and inner[0] is None else a
            right = b[:, None] if outer[1] == 0 and inner[1] is None else b
            check(mapped(a, b), left @ right)


def test_one_batched_operand_stays_one_product() -> None:
    x, y = draw(1, (3, 40, 33), "uint64"), draw(2, (33, 36), "uint64")
    jaxpr = jax.make_jaxpr(jax.vmap(ring.matmul, (0, None)))(x, y)
    (product,) = [e for e in jaxpr.eqns if e.primitive.name == "ring_matmul"]
    assert product.invars[0].aval.shape == (120, 33)


def test_matmul_in_scan_and_with_the_flag_off() -> None:
    x, y = draw(1, (3, 40, 33), "uint64"), draw(2, (33, 36), "uint64")
    _, out = lax.scan(lambda c, v: (c, ring.matmul(v, y)), 0, x)
    check(out, x @ y)

    def program(xw: jax.Array, yw: jax.Array) -> jax.Array:
        with jax.enable_x64(True):
            product = ring.matmul(ring.from_words(xw), ring.from_words(yw))
            return ring.to_words(product)

    words = [np.asarray(ring.to_words(jnp.asarray(v))) for v in (x[0], y)]
    with jax.enable_x64(False):
        out = jax.jit(program)(*words)
    check(ring.from_words(jnp.asarray(out)), x[0] @ y)


def test_matmul_under_shard_map_with_one_varying_operand() -> None:
    mesh = jax.make_mesh((1,), ("party",), (jax.sharding.AxisType.Auto,))
    x, y = draw(1, (1, 40, 33), "uint64"), draw(2, (33, 36), "uint64")

    def local(x: jax.Array, y: jax.Array) -> jax.Array:
        def step(acc: jax.Array, _: None) -> tuple[jax.Array, None]:
            swapped = ring.matmul(y.T, x[0].T).T
            return acc + ring.matmul(x[0], y) + swapped, None

        start = jnp.zeros((40, 36), jnp.uint64)
        start = lax.pcast(start, ("party",), to="varying")
        return lax.scan(step, start, None, length=2)[0][None]

    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(spec("party"), spec()), out_specs=spec("party")
    )
    check(jax.jit(mapped)(x, y), (4 * (x @ y)).astype(np.uint64))


# Shapes and dimension numbers as they appear in jaxprs of dense layers, attention and
# einsums: contraction of several axes, batch axes anywhere, none at all.
DOTS = [
    ((5,), (5,), (((0,), (0,)), ((), ()))),
    ((4, 5), (5,), (((1,), (0,)), ((), ()))),
    ((4, 5), (6, 5), (((1,), (1,)), ((), ()))),
    ((40, 33), (40, 36), (((0,), (0,)), ((), ()))),
    ((3,), (4,), (((), ()), ((), ()))),
    ((2, 4, 5), (2, 5, 6), (((2,), (1,)), ((0,), (0,)))),
    ((4, 2, 5), (5, 6, 2), (((2,), (0,)), ((1,), (2,)))),
    ((2, 3, 4, 5), (3, 7, 5, 2), (((3,), (2,)), ((1, 0), (0, 3)))),
    ((4, 5, 6), (6, 4, 7), (((0, 2), (1, 0)), ((), ()))),
    ((4, 5, 6), (3, 6, 5), (((2, 1), (1, 2)), ((), ()))),
    ((3, 4), (3, 4), (((), ()), ((0, 1), (0, 1)))),
]


@pytest.mark.parametrize(("x_shape", "y_shape", "dims"), DOTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dot_general(x_shape: Any, y_shape: Any, dims: Any, dtype: str) -> None:
    x, y = draw(1, x_shape, dtype), draw(2, y_shape, dtype)
    (cx, cy), (bx, by) = dims
    letters = iter("abcdefghijkl")
    names_y: dict[int, str] = {}
    names_x = {}
    for axis in range(x.ndim):
        names_x[axis] = next(letters)
    for ax, ay in zip((*cx, *bx), (*cy, *by), strict=True):
        names_y[ay] = names_x[ax]
    for axis in range(y.ndim):
        names_y.setdefault(axis, next(letters))
    left = "".join(names_x[d] for d in range(x.ndim))
    right = "".join(names_y[d] for d in range(y.ndim))
    out = "".join(names_x[d] for d in bx)
    out += "".join(names_x[d] for d in range(x.ndim) if d not in (*cx, *bx))
    out += "".join(names_y[d] for d in range(y.ndim) if d not in (*cy, *by))
    expected = np.einsum(f"{left},{right}->{out}", x, y, dtype=dtype)
    check(jax.jit(lambda x, y: ring.dot_general(x, y, dims))(x, y), expected)
    lanes = jnp.stack([x, x + x.dtype.type(1)])
    mapped = jax.vmap(lambda x: ring.dot_general(x, y, dims))(lanes)
    check(mapped[0], expected)


def direct_conv(
    lhs: np.ndarray,
    rhs: np.ndarray,
    strides: Any,
    padding: Any,
    lhs_dilation: Any = (1, 1),
    rhs_dilation: Any = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Convolution by its definition: lhs [N, H, W, C], rhs [h, w, C / groups, O]."""
    n, *size, c = lhs.shape
    spread = [(s - 1) * d + 1 for s, d in zip(size, lhs_dilation, strict=True)]
    dilated = np.zeros((n, *spread, c), lhs.dtype)
    dilated[:, :: lhs_dilation[0], :: lhs_dilation[1]] = lhs
    padded = np.pad(
        dilated, [(0, 0), *[(max(a, 0), max(b, 0)) for a, b in padding], (0, 0)]
    )
    for axis, (a, b) in enumerate(padding, 1):
        keep = slice(max(-a, 0), padded.shape[axis] - max(-b, 0))
        padded = padded[(slice(None),) * axis + (keep,)]
    kh, kw, per_group, features = rhs.shape
    reach = [(k - 1) * d + 1 for k, d in zip((kh, kw), rhs_dilation, strict=True)]
    out = [
        (s - r) // t + 1
        for s, r, t in zip(padded.shape[1:3], reach, strides, strict=True)
    ]
    result = np.zeros((n, *out, features), lhs.dtype)
    for i, j in np.ndindex(*out):
        for p, q in np.ndindex(kh, kw):
            pixel = padded[
                :,
                i * strides[0] + p * rhs_dilation[0],
                j * strides[1] + q * rhs_dilation[1],
            ]
            for f in range(features):
                first = f // (features // groups) * per_group
                part = pixel[:, first : first + per_group]
                result[:, i, j, f] += (part * rhs[p, q, :, f]).sum(1, dtype=lhs.dtype)
    return result


CONVS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one channel": ((2, 7, 6, 1), (3, 3, 1, 4), {}),
    "channels": ((2, 7, 6, 5), (3, 2, 5, 4), {}),
    "strides": ((2, 9, 8, 3), (3, 2, 3, 4), {"strides": (2, 3)}),
    "padding": ((1, 5, 5, 4), (3, 3, 4, 2), {"padding": ((1, 2), (0, 1))}),
    "crop": ((1, 7, 7, 4), (3, 3, 4, 2), {"padding": ((-1, 0), (1, -2))}),
    "transposed": (
        (2, 4, 3, 3),
        (3, 3, 3, 2),
        {"lhs_dilation": (2, 3), "padding": ((2, 2), (1, 2))},
    ),
    "dilated kernel": ((2, 9, 8, 3), (3, 2, 3, 2), {"rhs_dilation": (2, 3)}),
    "everything": (
        (2, 6, 5, 3),
        (2, 3, 3, 2),
        {
            "strides": (2, 1),
            "padding": ((1, 2), (2, 1)),
            "lhs_dilation": (2, 1),
            "rhs_dilation": (3, 2),
        },
    ),
    "kernel as large as the image": ((3, 6, 6, 4), (5, 5, 4, 2), {}),
    "groups": ((2, 5, 5, 8), (3, 3, 4, 6), {"groups": 2}),
    "depthwise": ((2, 5, 5, 3), (3, 3, 1, 6), {"groups": 3}),
}


def run_conv(lhs: Any, rhs: Any, options: dict[str, Any]) -> jax.Array:
    return ring.conv_general_dilated(
        lhs,
        rhs,
        options.get("strides", (1, 1)),
        options.get("padding", ((0, 0), (0, 0))),
        options.get("lhs_dilation"),
        options.get("rhs_dilation"),
        ("NHWC", "HWIO", "NHWC"),
        options.get("groups", 1),
    )


def oracle_conv(lhs: np.ndarray, rhs: np.ndarray, options: Any) -> np.ndarray:
    defaults = {"strides": (1, 1), "padding": ((0, 0), (0, 0))}
    return direct_conv(lhs, rhs, **{**defaults, **options})


@pytest.mark.parametrize("case", CONVS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_convolution(case: str, dtype: str) -> None:
    lhs_shape, rhs_shape, options = CONVS[case]
    lhs, rhs = draw(1, lhs_shape, dtype), draw(2, rhs_shape, dtype)
    expected = oracle_conv(lhs, rhs, options)
    check(jax.jit(lambda x, y: run_conv(x, y, options))(lhs, rhs), expected)


@pytest.mark.parametrize("case", ["one channel", "channels", "everything", "groups"])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_convolution_under_vmap(case: str, axes: Any) -> None:
    lhs_shape, rhs_shape, options = CONVS[case]
    lhs, rhs = draw(1, (2, *lhs_shape), "uint64"), draw(2, (2, *rhs_shape), "uint64")
    args = [v if a == 0 else v[0] for v, a in zip((lhs, rhs), axes, strict=True)]
    got = jax.jit(jax.vmap(lambda x, y: run_conv(x, y, options), axes))(*args)
    for i in range(2):
        pair = [v[i] if a == 0 else v[0] for v, a in zip((lhs, rhs), axes, strict=True)]
        check(got[i], oracle_conv(pair[0], pair[1], options))


LAYOUTS = [
    ("NCHW", "OIHW", "NCHW"),
    ("NHWC", "OHWI", "NCHW"),
    ("CHWN", "IHWO", "HWNC"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_convolution_layouts(layout: tuple[str, str, str]) -> None:
    lhs, rhs = draw(1, (2, 6, 5, 4), "uint64"), draw(2, (3, 2, 4, 3), "uint64")
    expected = oracle_conv(lhs, rhs, {})
    args = [
        v.transpose([plain.index(c) for c in spec])
        for v, plain, spec in zip((lhs, rhs), ("NHWC", "HWIO"), layout, strict=False)
    ]
    got = ring.conv_general_dilated(
        *args, (1, 1), ((0, 0), (0, 0)), dimension_numbers=layout
    )
    check(got, expected.transpose(["NHWC".index(c) for c in layout[2]]))


def test_convolution_in_one_dimension_and_batch_groups() -> None:
    lhs, rhs = draw(1, (2, 9, 4), "uint64"), draw(2, (3, 4, 5), "uint64")
    got = ring.conv_general_dilated(
        lhs, rhs, (2,), ((1, 1),), dimension_numbers=("NHC", "HIO", "NHC")
    )
    flat = direct_conv(lhs[:, :, None], rhs[:, None], (2, 1), ((1, 1), (0, 0)))
    check(got, flat[:, :, 0])
    # Groups of the batch: output feature block g sees examples of block g only.
    lhs, rhs = draw(3, (4, 5, 5, 3), "uint64"), draw(4, (2, 2, 3, 6), "uint64")
    got = ring.conv_general_dilated(
        lhs,
        rhs,
        (1, 1),
        ((0, 0), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        batch_group_count=2,
    )
    halves = [
        oracle_conv(lhs[2 * g :][:2], rhs[..., 3 * g :][..., :3], {}) for g in (0, 1)
    ]
    check(got, np.concatenate(halves, axis=-1))


matrices = st.integers(0, 2**32 - 1)


@given(matrices, st.tuples(*[st.sampled_from([1, 3, 17, 40])] * 3))
def test_associative_and_distributive(seed: int, extents: tuple[int, ...]) -> None:
    m, k, n = extents
    x, y = draw(seed, (m, k), "uint64"), draw(seed + 1, (k, n), "uint64")
    y2, z = draw(seed + 2, (k, n), "uint64"), draw(seed + 3, (n, m), "uint64")
    left = ring.matmul(ring.matmul(x, y), z)
    check(left, np.asarray(ring.matmul(x, ring.matmul(y, z))))
    both = ring.matmul(x, y + y2)
    check(both, np.asarray(ring.matmul(x, y) + ring.matmul(x, y2)))


@given(st.integers(-(2**70), 2**70), st.sampled_from([32, 64]))
def test_elements(value: int, bits: int) -> None:
    r = Ring(bits)
    assert int(r.element(value)) == value % 2**bits
    assert r.element(-1) == r.mask and r.dtype.itemsize * 8 == bits
    assert int(r.element(value).astype(r.signed)) == (
        (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    )


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (2, 3)])
def test_storage_form(bits: int, shape: tuple[int, ...]) -> None:
    r = Ring(bits)
    x = draw(5, shape, r.dtype.name)
    words = ring.to_words(jnp.asarray(x))
    assert words.dtype == np.uint32 and words.shape == (*shape, r.limbs)
    little = np.asarray(words).astype("<u4").tobytes()
    assert little == x.astype(x.dtype.newbyteorder("<")).tobytes()
    check(ring.from_words(words), x)


BAD = {
    "ring": lambda: Ring(48),
    "signed": lambda: ring.matmul(jnp.zeros((2, 2), int), jnp.zeros((2, 2), int)),
    "mixed": lambda: ring.dot_general(
        jnp.zeros(2, jnp.uint32), jnp.zeros(2, jnp.uint64), (((0,), (0,)), ((), ()))
    ),
    "inner": lambda: ring.matmul(
        jnp.zeros((2, 3), jnp.uint32), jnp.zeros((2, 3), jnp.uint32)
    ),
    "rank": lambda: ring.matmul(jnp.zeros(3, jnp.uint32), jnp.zeros(3, jnp.uint32)),
    "words": lambda: ring.from_words(jnp.zeros((2, 3), jnp.uint32)),
    "words dtype": lambda: ring.from_words(jnp.zeros((2, 2), jnp.uint64)),
}


@pytest.mark.parametrize("case", BAD)
def test_refuses(case: str) -> None:
    with pytest.raises(InputError):
        BAD[case]()


COMPILED = """
import jax
from privjax.protocols import ring

jax.config.update("jax_enable_x64", True)
ring._RANK = STEP
x = jax.ShapeDtypeStruct((256, 256), "uint64")
jax.jit(ring.matmul).lower(x, x).compile()
"""
VECTORS = re.compile(r"= mul <\d+ x i64>")


@pytest.mark.parametrize("rank, vectors", [(ring._RANK, ring._RANK), (12, 0)])
def test_fast_path_is_vectorised(tmp_path: Path, rank: int, vectors: int) -> None:
    """LLVM multiplies vectors in all 16 outer products of a step, and in none of 12.

    Compiled as users do, in a process of its own: the suite compiles for fast compiling.
    """
    said = subprocess.run(
        [sys.executable, "-c", COMPILED.replace("STEP", str(rank))],
        env=os.environ
        | {
            "XLA_FLAGS": f"--xla_dump_to={tmp_path} --xla_dump_hlo_as_text",
            "JAX_ENABLE_COMPILATION_CACHE": "0",
        },
        capture_output=True,
        text=True,
    )
    assert not said.returncode, said.stderr
    texts = [f.read_text() for f in tmp_path.glob("*.ir-with-opt.ll")]
    assert max(len(VECTORS.findall(text)) for text in texts) == vectors
