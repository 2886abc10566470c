"""Ordinary calls of JAX's public functions, for `benchmarks.sweep`.

Most functions run on one row of `ARGUMENTS`; `OWN` has a call for each of the others.
Every array is secret; sizes, axes, orders and the like are public.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from jax import lax

Call = tuple[Callable[..., Any], tuple[Any, ...]]

rng = np.random.default_rng(4)
V = rng.uniform(0.2, 0.9, 4).astype(np.float32)
U = rng.uniform(1.1, 2.0, 4).astype(np.float32)
M = (rng.uniform(0.1, 0.4, (4, 4)) + np.eye(4)).astype(np.float32)
S = (M + M.T).astype(np.float32)
T = rng.uniform(0.2, 0.9, (2, 4, 4)).astype(np.float32)
IMAGE = rng.uniform(0.2, 0.9, (1, 2, 5, 5)).astype(np.float32)
KERNEL = rng.uniform(0.2, 0.9, (3, 2, 3, 3)).astype(np.float32)
K = np.array([3, 1, 0, 2], np.int32)
B = np.array([True, False, True, True])
KEY = np.array([3, 4], np.uint32)

# Functions of types, shapes, files and devices, and what makes constants: no array goes
# in. The last line's are for use inside of a compiler.
WITHOUT_ARRAYS = frozenset(
    """array_repr array_str bool_ dtype finfo iinfo fromfile fromstring
    fromfunction frombuffer from_dlpack fromiter fromregex load loads save savez
    savez_compressed set_printoptions get_printoptions printoptions isscalar issubdtype
    iterable promote_types result_type can_cast ufunc frompyfunc einsum_path
    broadcast_shapes isdtype get_dtype jit index_exp s_ mgrid ogrid c_ r_
    eye identity tri arange zeros ones empty bartlett blackman hamming hanning
    indices tril_indices triu_indices mask_indices diag_indices iota broadcasted_iota
    create_token after_all axis_index axis_size conv_dimension_numbers padtype_to_pads
    make_mesh get_scaled_dot_general_config conv_general_shape_tuple conv_shape_tuple
    conv_transpose_shape_tuple conv_general_permutations reduce_window_shape_tuple
    bernoulli dct_matrix dft fiedler_companion hadamard helmert hilbert invhilbert
    invpascal pascal PRNGKey key key_data key_dtype key_impl clone fold_in split
    wrap_key_data ConvGeneralDilatedDimensionNumbers PrecisionLike
    shape_as_value stage psend precv pcast pbroadcast ragged_all_to_all dce_sink
    infeed outfeed""".split()
)

# Secret arguments, then public ones (given as they are).
ARGUMENTS: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = [
    ((V,), ()),
    ((U,), ()),
    ((V, U), ()),
    ((V, U, V), ()),
    ((M,), ()),
    ((M, S), ()),
    ((M, V), ()),
    ((V,), (2,)),
    ((V,), (0,)),
    ((V,), (0, 1)),
    ((V,), ((2, 2),)),
    ((V,), (jnp.float32,)),
    ((V,), (K,)),
    ((V,), (K, K)),
    ((M,), (0, 1)),
    ((M,), ((1, 0),)),
    ((M,), (1, 0, 1)),
    ((V, U), (2,)),
    ((V, U), (0,)),
    ((V, U), (0.5,)),
    ((V,), (0.5,)),
    ((V,), (0.0, 1.0)),
    ((M,), (2,)),
    ((B,), ()),
    ((B,), ((0,),)),
    ((B, V, U), ()),
    ((K,), ()),
    ((K,), ((0,),)),
    ((K, K + 1), ()),
    ((K,), (4,)),
    ((V, U, V, U), ()),
    ((T,), ()),
    ((T,), (2,)),
    ((T, T), ()),
    ((T, T, T), ()),
    ((V[:3], U[:3]), ()),
    ((IMAGE, KERNEL), ((1, 1), "SAME")),
    ((IMAGE, KERNEL), ((1, 1), [(0, 0), (0, 0)])),
]

_ROWS = np.array([[0], [2]], np.int32)
_SCATTER = lax.ScatterDimensionNumbers((), (0,), (0,))
_LAYOUT = ("NCHW", "OIHW", "NCHW")


def _scatter(fun: Callable[..., Any]) -> Call:
    return (lambda a, b: fun(a, _ROWS, b[:2], _SCATTER)), (V, U)


def _joint(fun: Callable[..., Any]) -> Call:
    return (lambda a, b: fun([a, b])), (V, U)


def _lanes(fun: Callable[..., Any], a: Any = M) -> Call:
    """A collective along the axis of a `vmap`."""
    return jax.vmap(fun, axis_name="i"), (a,)


def _halve(state: tuple[Any, Any]) -> tuple[Any, Any]:
    return state[0] + 1, state[1] * 0.5


def _eigenpairs(a: Any) -> Any:
    values, vectors = jnp.linalg.eigh(a)
    return values, jnp.abs(vectors)  # their signs are anybody's choice


def _singular(a: Any) -> Any:
    u, s, v = jnp.linalg.svd(a)
    return jnp.abs(u), s, jnp.abs(v)


def _square_root(f: Any, guess: Any) -> Any:
    """Newton's method with a fixed number of steps, element by element."""
    slope = jax.grad(lambda v: f(v).sum())
    return lax.fori_loop(0, 6, lambda _, x: x - f(x) / slope(x), guess)


NUMPY: dict[str, Call] = {
    "apply_along_axis": (lambda a: jnp.apply_along_axis(jnp.sum, 0, a), (M,)),
    "apply_over_axes": (lambda a: jnp.apply_over_axes(jnp.sum, a, [0]), (M,)),
    "argwhere": (lambda a: jnp.argwhere(a > 0.5, size=2), (V,)),
    "bincount": (lambda a: jnp.bincount(a, length=4), (K,)),
    "block": (lambda a, b: jnp.block([[a, b]]), (M, S)),
    "broadcast_arrays": (lambda a, b: jnp.broadcast_arrays(a, b), (V, M)),
    "choose": (lambda a, b: jnp.choose(K % 2, [a, b], mode="clip"), (V, U)),
    "clip": (lambda a: jnp.clip(a, 0.3, 0.7), (V,)),
    "column_stack": _joint(jnp.column_stack),
    "compress": (lambda a: jnp.compress(B, a, size=4, fill_value=0), (V,)),
    "concat": _joint(jnp.concat),
    "concatenate": _joint(jnp.concatenate),
    "delete": (lambda a: jnp.delete(a, 1), (V,)),
    "digitize": (lambda a: jnp.digitize(a, jnp.array([0.3, 0.6])), (V,)),
    "dstack": _joint(jnp.dstack),
    "einsum": (lambda a, b: jnp.einsum("ij,jk->ik", a, b), (M, S)),
    "extract": (lambda a: jnp.extract(a > 0.5, a, size=4, fill_value=0), (V,)),
    "fftfreq": (lambda a: jnp.fft.fftfreq(4, a[0]), (V,)),
    "fill_diagonal": (lambda a: jnp.fill_diagonal(a, 1.0, inplace=False), (M,)),
    "flatnonzero": (lambda a: jnp.flatnonzero(a > 0.5, size=2), (V,)),
    "numpy.full": (lambda a: jnp.full((2, 4), a), (V,)),
    "geomspace": (lambda a, b: jnp.geomspace(a[0], b[0], 4), (V, U)),
    "histogram": (lambda a: jnp.histogram(a, 3, (0, 1)), (V,)),
    "hstack": _joint(jnp.hstack),
    "insert": (lambda a: jnp.insert(a, 1, 5.0), (V,)),
    "interp": (lambda a, b: jnp.interp(a, jnp.linspace(0, 1, 4), b), (V, U)),
    "intersect1d": (lambda a, b: jnp.intersect1d(a, b, size=4), (V, U)),
    "ix_": (lambda a: a[jnp.ix_(jnp.array([0, 1]), jnp.array([1]))], (M,)),
    "kaiser": (lambda a: jnp.kaiser(4, a[0]), (V,)),
    "linspace": (lambda a, b: jnp.linspace(a, b, 4), (V, U)),
    "logspace": (lambda a, b: jnp.logspace(a, b, 4), (V, U)),
    "moveaxis": (lambda a: jnp.moveaxis(a, 0, 1), (M,)),
    "nonzero": (lambda a: jnp.nonzero(a > 0.5, size=2), (V,)),
    "numpy.pad": (lambda a: jnp.pad(a, 1), (V,)),
    "piecewise": (
        lambda a: jnp.piecewise(a, [a < 0.5, a >= 0.5], [jnp.sin, jnp.cos]),
        (V,),
    ),
    "place": (lambda a, b: jnp.place(a, a > 0.5, b, inplace=False), (V, U)),
    "polyfit": (lambda a, b: jnp.polyfit(a, b, 1), (V, U)),
    "polyval": (lambda a, b: jnp.polyval(a, b), (V, U)),
    "put": (lambda a, b: jnp.put(a, jnp.array([0, 2]), b[:2], inplace=False), (V, U)),
    "put_along_axis": (
        lambda a, b: jnp.put_along_axis(a, jnp.array([0, 2]), b[:2], 0, inplace=False),
        (V, U),
    ),
    "ravel_multi_index": (
        lambda k: jnp.ravel_multi_index((k, k), (4, 4), mode="clip"),
        (K,),
    ),
    "repeat": (lambda a: jnp.repeat(a, 2), (V,)),
    "rfftfreq": (lambda a: jnp.fft.rfftfreq(4, a[0]), (V,)),
    "rollaxis": (lambda a: jnp.rollaxis(a, 1), (M,)),
    "searchsorted": (lambda a, b: jnp.searchsorted(jnp.sort(a), b), (V, U)),
    "roots": (lambda a: jnp.roots(a, strip_zeros=False), (V,)),
    "numpy.select": (lambda a, b: jnp.select([a > b, a < b], [a, b], 0.0), (V, U)),
    "setdiff1d": (lambda a, b: jnp.setdiff1d(a, b, size=4), (V, U)),
    "setxor1d": (lambda a, b: jnp.setxor1d(a, b, size=8), (V, U)),
    "stack": _joint(jnp.stack),
    "union1d": (lambda a, b: jnp.union1d(a, b, size=8), (V, U)),
    "unique": (lambda a: jnp.unique(a, size=4), (V,)),
    "unique_all": (lambda a: jnp.unique_all(a, size=4), (V,)),
    "unique_counts": (lambda a: jnp.unique_counts(a, size=4), (V,)),
    "unique_inverse": (lambda a: jnp.unique_inverse(a, size=4), (V,)),
    "unique_values": (lambda a: jnp.unique_values(a, size=4), (V,)),
    "unpackbits": (jnp.unpackbits, (K.astype(np.uint8),)),
    "vectorize": (lambda a, b: jnp.vectorize(jnp.add)(a, b), (V, U)),
    "vstack": _joint(jnp.vstack),
    "where": (lambda a, b: jnp.where(a > 0.5, a, b), (V, U)),
    "linalg.eigh": (_eigenpairs, (S,)),
    "linalg.multi_dot": (lambda a, b: jnp.linalg.multi_dot([a, b, a]), (M, S)),
    "linalg.svd": (_singular, (M,)),
    "linalg.tensorinv": (
        lambda a: jnp.linalg.tensorinv(a.reshape(2, 2, 2, 2)),
        (M,),
    ),
}

LAX: dict[str, Call] = {
    "all_gather": _lanes(lambda x: lax.all_gather(x, "i")),
    "all_to_all": _lanes(lambda x: lax.all_to_all(x, "i", 0, 0)),
    "lax.argmax": (lambda a: lax.argmax(a, 0, np.int32), (V,)),
    "lax.argmin": (lambda a: lax.argmin(a, 0, np.int32), (V,)),
    "associative_scan": (lambda a: lax.associative_scan(lax.mul, a), (V,)),
    "betainc": (lambda a, b, x: lax.betainc(a, b, x), (U, U, V)),
    "bitcast_convert_type": (lambda a: lax.bitcast_convert_type(a, jnp.uint32), (K,)),
    "broadcast_in_dim": (lambda a: lax.broadcast_in_dim(a, (2, 4), (1,)), (V,)),
    "composite": (lambda a: lax.composite(jnp.sin, "privjax.sine")(a), (V,)),
    "cond": (lambda a: lax.cond(a[0] > 0.5, jnp.sin, jnp.cos, a), (V,)),
    "conv_general_dilated_local": (
        lambda a, k: lax.conv_general_dilated_local(a, k, (1, 1), "VALID", (3, 3)),
        (IMAGE, np.tile(KERNEL.reshape(3, 18, 1, 1), (1, 1, 3, 3))),
    ),
    "conv_general_dilated_patches": (
        lambda a: lax.conv_general_dilated_patches(a, (2, 2), (1, 1), "VALID"),
        (IMAGE,),
    ),
    "conv_transpose": (
        lambda a, k: lax.conv_transpose(
            a, k, (1, 1), "SAME", dimension_numbers=_LAYOUT
        ),
        (IMAGE, KERNEL),
    ),
    "conv_with_general_padding": (
        lambda a, k: lax.conv_with_general_padding(
            a, k, (1, 1), [(0, 0), (1, 1)], None, None
        ),
        (IMAGE, KERNEL),
    ),
    "custom_linear_solve": (
        lambda a, b: lax.custom_linear_solve(
            lambda v: a @ v, b, lambda _, v: jnp.linalg.solve(a, v)
        ),
        (M, V),
    ),
    "custom_root": (
        lambda a: lax.custom_root(
            lambda x: x * x - a, a, _square_root, lambda g, y: y / g(jnp.ones_like(y))
        ),
        (V,),
    ),
    "dot_general": (
        lambda a, b: lax.dot_general(a, b, (((1,), (0,)), ((), ()))),
        (M, S),
    ),
    "dynamic_slice": (lambda a: lax.dynamic_slice(a, (1,), (2,)), (V,)),
    "dynamic_update_index_in_dim": (
        lambda a, b: lax.dynamic_update_index_in_dim(a, b[0], 1, 0),
        (V, U),
    ),
    "dynamic_update_slice": (
        lambda a, b: lax.dynamic_update_slice(a, b[:2], (1,)),
        (V, U),
    ),
    "dynamic_update_slice_in_dim": (
        lambda a, b: lax.dynamic_update_slice_in_dim(a, b[:2], 1, 0),
        (V, U),
    ),
    "lax.fft": (lambda a, b: lax.fft(lax.complex(a, b), "FFT", (4,)), (V, U)),
    "fori_loop": (lambda a: lax.fori_loop(0, 3, lambda i, c: c * 0.5 + a, a), (V,)),
    "lax.full": (lambda a: lax.full((2, 4), a[0]), (V,)),
    "gather": (
        lambda a: lax.gather(
            a, _ROWS, lax.GatherDimensionNumbers((), (0,), (0,)), (1,)
        ),
        (V,),
    ),
    "lax.imag": (lambda a, b: lax.imag(lax.complex(a, b)), (V, U)),
    "index_take": (lambda a, k: lax.index_take(a, (k,), (0,)), (M, K)),
    "map": (lambda a: lax.map(lambda x: x * x, a), (V,)),
    "lax.pad": (lambda a: lax.pad(a, 0.0, [(1, 1, 1)]), (V,)),
    "platform_dependent": (
        lambda a: lax.platform_dependent(a, cpu=jnp.sin, default=jnp.sin),
        (V,),
    ),
    "pmax": _lanes(lambda x: lax.pmax(x, "i")),
    "pmean": _lanes(lambda x: lax.pmean(x, "i")),
    "pmin": _lanes(lambda x: lax.pmin(x, "i")),
    "lax.polygamma": (lambda x: lax.polygamma(jnp.full_like(x, 1.0), x), (U,)),
    "ppermute": _lanes(
        lambda x: lax.ppermute(x, "i", [(0, 1), (1, 2), (2, 3), (3, 0)])
    ),
    "pshuffle": _lanes(lambda x: lax.pshuffle(x, "i", [1, 2, 3, 0])),
    "psum": _lanes(lambda x: lax.psum(x, "i")),
    "psum_scatter": _lanes(lambda x: lax.psum_scatter(x, "i")),
    "pswapaxes": _lanes(lambda x: lax.pswapaxes(x, "i", 0)),
    "ragged_dot": (
        lambda a, b: lax.ragged_dot(a, b, jnp.array([1, 3], jnp.int32)),
        (M, T),
    ),
    "ragged_dot_general": (
        lambda a, b: lax.ragged_dot_general(
            a,
            b,
            jnp.array([1, 3], jnp.int32),
            lax.RaggedDotDimensionNumbers((((1,), (1,)), ((), ())), [0], [0]),
        ),
        (M, T),
    ),
    "lax.real": (lambda a, b: lax.real(lax.complex(a, b)), (V, U)),
    "reduce": (lambda a: lax.reduce(a, np.float32(0), lax.add, (0,)), (V,)),
    "reduce_precision": (lambda a: lax.reduce_precision(a, 8, 23), (V,)),
    "reduce_window": (
        lambda a: lax.reduce_window(a, -jnp.inf, lax.max, (2,), (1,), "VALID"),
        (V,),
    ),
    "rng_bit_generator": (
        lambda a: (
            a + lax.rng_bit_generator(jnp.array([1, 2, 3, 4], np.uint32), (4,))[1] % 3
        ),
        (V,),
    ),
    "rng_uniform": (lambda a, b: lax.rng_uniform(a[0], b[0], (4,)), (V, U)),
    "scan": (lambda a: lax.scan(lambda c, x: (c + x, c), a[0], a), (V,)),
    "scatter": _scatter(lax.scatter),
    "scatter_add": _scatter(lax.scatter_add),
    "scatter_apply": (
        lambda a: lax.scatter_apply(a, _ROWS, jnp.sin, _SCATTER, update_shape=(2,)),
        (V,),
    ),
    "scatter_max": _scatter(lax.scatter_max),
    "scatter_min": _scatter(lax.scatter_min),
    "scatter_mul": _scatter(lax.scatter_mul),
    "scatter_sub": _scatter(lax.scatter_sub),
    "lax.slice": (lambda a: lax.slice(a, (1,), (3,)), (V,)),
    "sort_key_val": (lambda a, b: lax.sort_key_val(a, b), (V, U)),
    "lax.squeeze": (lambda a: lax.squeeze(a[None], (0,)), (V,)),
    "switch": (lambda a: lax.switch(1, [jnp.sin, jnp.cos], a), (V,)),
    "while_loop": (lambda a: lax.while_loop(lambda s: s[0] < 3, _halve, (0, a)), (V,)),
    "with_sharding_constraint": (
        lambda a: lax.with_sharding_constraint(
            a, jax.sharding.SingleDeviceSharding(jax.devices()[0])
        ),
        (V,),
    ),
    "lax.zeta": (lambda s, q: lax.zeta(s, q), (U, V)),
}

OTHERS: dict[str, Call] = {
    "dot_product_attention": (
        lambda q: jax.nn.dot_product_attention(q[None], q[None], q[None]),
        (T,),
    ),
    "nn.logsumexp": (lambda a: jax.nn.logsumexp(a), (V,)),
    "one_hot": (lambda a: jax.nn.one_hot(a, 4), (K,)),
    "scaled_matmul": (
        lambda a, b: jax.nn.scaled_matmul(
            a, b, jnp.ones((2, 4, 1)), jnp.ones((2, 4, 1))
        ),
        (T, T),
    ),
    "scaled_dot_general": (
        lambda a, b: jax.nn.scaled_dot_general(a, b, (((2,), (2,)), ((0,), (0,)))),
        (T, T),
    ),
    "bessel_jn": (lambda a: jax.scipy.special.bessel_jn(a, v=2, n_iter=10), (U,)),
    "expn": (lambda a: jax.scipy.special.expn(2, a), (U,)),
    "hyp2f1": (lambda a, b, x: jax.scipy.special.hyp2f1(a, b, a + b, x / 2), (V, U, V)),
    "lpmn": (lambda a: jax.scipy.special.lpmn_values(2, 2, a, False), (V,)),
    "special.multigammaln": (lambda a: jax.scipy.special.multigammaln(a + 2, 2), (U,)),
    "special.polygamma": (lambda a: jax.scipy.special.polygamma(2, a), (U,)),
    "sph_harm_y": (
        lambda t, p: jax.scipy.special.sph_harm_y(
            jnp.array([2] * 4), jnp.array([1] * 4), t, p, n_max=2
        ),
        (V, U),
    ),
    "special.zeta": (lambda s, q: jax.scipy.special.zeta(s, q), (U, V)),
}

OWN: dict[str, Call] = {**NUMPY, **LAX, **OTHERS}

# JAX computes these in bfloat16.
COARSE = {"lax.scaled_dot": 2.0**-6, "nn.scaled_matmul": 2.0**-6}
