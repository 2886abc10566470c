"""Every public function of jax.numpy, jax.lax, jax.nn and jax.scipy.special on secrets.

Each is called with the first of a list of ordinary arguments with which plain JAX runs it
under jit; then secret-shared with the protocol `reference` (whose numbers are those of
every protocol up to the rounding of truncation). Counted: passes, refusals with the
reason, wrong results and crashes.

    python -m benchmarks.sweep [--only NAME] [--json FILE]
"""

import argparse
import functools
import inspect
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from jax import lax

import privjax

MODULES = {
    "numpy": jnp,
    "linalg": jnp.linalg,
    "fft": jnp.fft,
    "lax": lax,
    "nn": jax.nn,
    "special": jax.scipy.special,
}

# No functions of arrays: types, constants, host and device matters, other signatures.
SKIPPED = frozenset(
    """array_repr array_str array_equal_nan bool_ dtype finfo iinfo fromfile fromstring
    fromfunction frombuffer from_dlpack fromiter fromregex load loads save savez
    savez_compressed set_printoptions get_printoptions printoptions isscalar issubdtype
    iterable promote_types result_type can_cast vectorize apply_along_axis ufunc
    apply_over_axes piecewise frompyfunc einsum_path broadcast_shapes ComplexWarning
    isdtype get_dtype jit astype_weak index_exp s_ mgrid ogrid c_ r_ eye identity tri
    arange linspace logspace geomspace zeros ones empty full bartlett blackman hamming
    hanning kaiser indices tril_indices triu_indices mask_indices diag_indices iota
    fftfreq rfftfreq create_token after_all axis_index psum pmax pmin pmean pshuffle
    all_gather all_to_all ppermute pswapaxes psum_scatter ragged_all_to_all pbroadcast
    pcast pvary axis_size psend precv reduce_scatter preduced platform_dependent
    infeed outfeed conv_dimension_numbers padtype_to_pads custom_root optimization_barrier
    custom_linear_solve stage composite rng_bit_generator rng_uniform
    with_sharding_constraint
    make_mesh shape_as_value broadcasted_iota stop_gradient_p dtypes itemsize
    broadcast_shardings get_scaled_dot_general_config scaled_dot_general scaled_matmul
    conv_general_shape_tuple conv_shape_tuple conv_transpose_shape_tuple
    conv_general_permutations dce_sink""".split()
)

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

# Secret arguments, then public ones (given as they are).
ARGUMENTS: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = [
    ((V,), ()),
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
    ((B,), ()),
    ((B, V, U), ()),
    ((K,), ()),
    ((K, K + 1), ()),
    ((K,), (4,)),
    ((V, U, V, U), ()),
    ((T,), ()),
    ((T, T), ()),
    ((T, T, T), ()),
    ((V[:3], U[:3]), ()),
    ((IMAGE, KERNEL), ((1, 1), "SAME")),
    ((IMAGE, KERNEL), ((1, 1), [(0, 0), (0, 0)])),
]

# Functions that no row above fits: their own call.
OWN: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "einsum": (lambda a, b: jnp.einsum("ij,jk->ik", a, b), (M, S)),
    "concatenate": (lambda a, b: jnp.concatenate([a, b]), (V, U)),
    "concat": (lambda a, b: jnp.concat([a, b]), (V, U)),
    "stack": (lambda a, b: jnp.stack([a, b]), (V, U)),
    "vstack": (lambda a, b: jnp.vstack([a, b]), (V, U)),
    "hstack": (lambda a, b: jnp.hstack([a, b]), (V, U)),
    "dstack": (lambda a, b: jnp.dstack([a, b]), (V, U)),
    "column_stack": (lambda a, b: jnp.column_stack([a, b]), (V, U)),
    "block": (lambda a, b: jnp.block([[a, b]]), (M, S)),
    "broadcast_arrays": (lambda a, b: jnp.broadcast_arrays(a, b), (V, M)),
    "select": (lambda a, b: jnp.select([a > b, a < b], [a, b], 0.0), (V, U)),
    "choose": (lambda a, b: jnp.choose(jnp.array([0, 1, 0, 1]), [a, b]), (V, U)),
    "ix_": (lambda a: a[jnp.ix_(jnp.array([0, 1]), jnp.array([1]))], (M,)),
    "where": (lambda a, b: jnp.where(a > 0.5, a, b), (V, U)),
    "clip": (lambda a: jnp.clip(a, 0.3, 0.7), (V,)),
    "unique": (lambda a: jnp.unique(a, size=4), (V,)),
    "unique_values": (lambda a: jnp.unique_values(a, size=4), (V,)),
    "unique_counts": (lambda a: jnp.unique_counts(a, size=4), (V,)),
    "unique_inverse": (lambda a: jnp.unique_inverse(a, size=4), (V,)),
    "unique_all": (lambda a: jnp.unique_all(a, size=4), (V,)),
    "nonzero": (lambda a: jnp.nonzero(a > 0.5, size=2), (V,)),
    "flatnonzero": (lambda a: jnp.flatnonzero(a > 0.5, size=2), (V,)),
    "argwhere": (lambda a: jnp.argwhere(a > 0.5, size=2), (V,)),
    "extract": (lambda a: jnp.extract(a > 0.5, a, size=4, fill_value=0), (V,)),
    "compress": (lambda a: jnp.compress(B, a, size=4, fill_value=0), (V,)),
    "setdiff1d": (lambda a, b: jnp.setdiff1d(a, b, size=4), (V, U)),
    "setxor1d": (lambda a, b: jnp.setxor1d(a, b, size=8), (V, U)),
    "intersect1d": (lambda a, b: jnp.intersect1d(a, b, size=4), (V, U)),
    "union1d": (lambda a, b: jnp.union1d(a, b, size=8), (V, U)),
    "repeat": (lambda a: jnp.repeat(a, 2), (V,)),
    "bincount": (lambda a: jnp.bincount(a, length=4), (K,)),
    "searchsorted": (lambda a, b: jnp.searchsorted(jnp.sort(a), b), (V, U)),
    "digitize": (lambda a: jnp.digitize(a, jnp.array([0.3, 0.6])), (V,)),
    "interp": (lambda a, b: jnp.interp(a, jnp.linspace(0, 1, 4), b), (V, U)),
    "histogram": (lambda a: jnp.histogram(a, 3, (0, 1)), (V,)),
    "put": (lambda a, b: jnp.put(a, jnp.array([0, 2]), b[:2], inplace=False), (V, U)),
    "put_along_axis": (
        lambda a, b: jnp.put_along_axis(a, jnp.array([0, 2]), b[:2], 0, inplace=False),
        (V, U),
    ),
    "place": (lambda a, b: jnp.place(a, a > 0.5, b, inplace=False), (V, U)),
    "fill_diagonal": (lambda a: jnp.fill_diagonal(a, 1.0, inplace=False), (M,)),
    "polyfit": (lambda a, b: jnp.polyfit(a, b, 1), (V, U)),
    "polyval": (lambda a, b: jnp.polyval(a, b), (V, U)),
    "dynamic_slice": (lambda a: lax.dynamic_slice(a, (1,), (2,)), (V,)),
    "scan": (lambda a: lax.scan(lambda c, x: (c + x, c), a[0], a), (V,)),
    "fori_loop": (lambda a: lax.fori_loop(0, 3, lambda i, c: c * 0.5 + a, a), (V,)),
    "cond": (lambda a: lax.cond(a[0] > 0.5, jnp.sin, jnp.cos, a), (V,)),
    "switch": (lambda a: lax.switch(1, [jnp.sin, jnp.cos], a), (V,)),
    "map": (lambda a: lax.map(lambda x: x * x, a), (V,)),
    "associative_scan": (lambda a: lax.associative_scan(lax.mul, a), (V,)),
    "while_loop": (
        lambda a: lax.while_loop(
            lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 0.5), (0, a)
        ),
        (V,),
    ),
    "reduce": (lambda a: lax.reduce(a, np.float32(0), lax.add, (0,)), (V,)),
    "reduce_window": (
        lambda a: lax.reduce_window(a, -jnp.inf, lax.max, (2,), (1,), "VALID"),
        (V,),
    ),
    "sort_key_val": (lambda a, b: lax.sort_key_val(a, b), (V, U)),
    "one_hot": (lambda a: jax.nn.one_hot(a, 4), (K,)),
    "logsumexp": (lambda a: jax.nn.logsumexp(a), (V,)),
    "dot_product_attention": (
        lambda q: jax.nn.dot_product_attention(q[None], q[None], q[None]),
        (T,),
    ),
    "multi_dot": (lambda a, b: jnp.linalg.multi_dot([a, b, a]), (M, S)),
    "slice": (lambda a: lax.slice(a, (1,), (3,)), (V,)),
    "pad": (lambda a: jnp.pad(a, 1), (V,)),
    "insert": (lambda a: jnp.insert(a, 1, 5.0), (V,)),
    "delete": (lambda a: jnp.delete(a, 1), (V,)),
    "rollaxis": (lambda a: jnp.rollaxis(a, 1), (M,)),
    "moveaxis": (lambda a: jnp.moveaxis(a, 0, 1), (M,)),
    "betainc": (lambda a, b, x: lax.betainc(a, b, x), (U, U, V)),
}


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for prefix, module in MODULES.items():
        for name in sorted(vars(module)):
            fun = getattr(module, name)
            if name.startswith("_") or name in SKIPPED or not callable(fun):
                continue
            if inspect.isclass(fun) or inspect.ismodule(fun) or name.endswith("_p"):
                continue
            yield f"{prefix}.{name}", fun


def ordinary(name: str, fun: Callable[..., Any]) -> tuple[Any, Any, Any] | None:
    """(function of secrets, secrets, plain result) of the first call that works."""
    short = name.split(".")[1]
    if short in OWN:
        call, secrets = OWN[short]
        return call, secrets, jax.jit(call)(*secrets)
    for secrets, public in ARGUMENTS:
        call = functools.partial(_call, fun, public)
        try:
            result = jax.jit(call)(*secrets)
        except Exception:  # these arguments do not fit: whatever the reason
            continue
        leaves = jax.tree.leaves(result)
        if leaves and all(np.all(np.isfinite(np.asarray(x))) for x in leaves):
            return call, secrets, result
    return None


def _call(fun: Callable[..., Any], public: Any, *secrets: Any) -> Any:
    return fun(*secrets, *public)


def outcome(call: Any, secrets: Any, want: Any) -> tuple[str, str]:
    """("pass" | "refused" | "wrong" | "crash", details)"""
    try:
        got = privjax.secret_shared(call, protocol="reference")(*secrets)
    except privjax.UnsupportedError as error:
        return "refused", str(error)
    except privjax.PrivacyError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:  # what the sweep is there to find
        return "crash", f"{type(error).__name__}: {error}"[:300]
    worst = 0.0
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = (np.asarray(v).astype(np.complex128) for v in (a, b))
        if a.shape != b.shape:
            return "wrong", f"shape {a.shape}, not {b.shape}"
        worst = max(worst, float(np.max(np.abs(a - b) / (1 + np.abs(b)), initial=0)))
    return ("pass", "") if worst < 2e-3 else ("wrong", f"off by {worst:.3g}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="functions whose name contains this")
    parser.add_argument("--json", type=Path, help="write the outcomes here")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    found: dict[str, tuple[str, str]] = {}
    for name, fun in functions():
        if options.only and options.only not in name:
            continue
        case = ordinary(name, fun)
        found[name] = ("no call", "") if case is None else outcome(*case)
        if found[name][0] != "pass":
            print(name, *found[name], flush=True)
    counts = Counter(kind for kind, _ in found.values())
    ran = sum(counts.values()) - counts["no call"]
    print(
        f"{counts['pass']} of {ran} pass ({counts['pass'] / max(ran, 1):.1%}):", counts
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
