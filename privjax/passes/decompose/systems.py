"""`custom_linear_solve`, by which jax.numpy.linalg.solve, inv and others give gradients.

Differentiation is over when passes run: what is left is its `solve` function. That of a
dense matrix reorders its right hand side by the permutation of the LU factorisation. A
secret permutation is a matrix of 0 and 1 here, found once by comparing all its entries
with all places, and exact: no general indexing, and no sort for its inverse.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from privjax.core import control
from privjax.core.interpret import Interpreter, Rule, run
from privjax.passes.taint import Tainted, TaintPass


def custom_linear_solve(
    cx: Any, *values: Any, const_lengths: Any, jaxprs: Any
) -> list[Any]:
    """A system without secrets stays as it is; else its `solve` is run."""
    if all(cx.is_plain(v) for v in values):
        return cx.plain(values)
    start = const_lengths.matvec + const_lengths.vecmat
    consts = values[start : start + const_lengths.solve]
    given = [*consts, *values[sum(const_lengths) :]]
    if isinstance(cx, TaintPass) and hasattr(cx, "apply"):
        if any(isinstance(v, Tainted) and v.array.dtype == np.int32 for v in consts):
            return cx.apply(lambda *xs: _solved(jaxprs.solve, xs), *given)
    return run(cx, jaxprs.solve, given)


def _solved(solve: Any, values: Sequence[Any]) -> list[Any]:
    """`solve` with one-hot permutations; as it is where they are used otherwise."""
    try:
        return run(_OneHot(), solve, [_one_hot(v) for v in values])
    except _Otherwise:
        return jaxpr_as_fun(solve)(*values)


class _Otherwise(Exception):
    """A permutation is used for something that needs its entries."""


@jax.tree_util.register_pytree_node_class
class _Permutation:
    """Indices [n], given by their one-hot rows [n, n]; `part` of the usual treatment of
    negative indices, or the indices themselves."""

    def __init__(self, hot: Any, part: str = "indices") -> None:
        self.hot, self.part = hot, part

    def tree_flatten(self) -> Any:
        return (self.hot,), self.part

    @classmethod
    def tree_unflatten(cls, part: str, children: Any) -> "_Permutation":
        return cls(*children, part)


def _one_hot(value: Any) -> Any:
    if value.dtype != np.int32 or value.ndim != 1:
        return value
    places = np.arange(value.shape[0], dtype=np.int32)
    return _Permutation((value[:, None] == places).astype(np.int32))


def _is(value: Any, part: str) -> bool:
    return isinstance(value, _Permutation) and value.part == part


def _negative(cx: Any, x: Any, y: Any) -> Any:
    """perm < 0."""
    return _Permutation(x.hot, "negative") if _is(x, "indices") else _other()


def _wrapped(cx: Any, x: Any, y: Any) -> Any:
    """perm + n."""
    return _Permutation(x.hot, "wrapped") if _is(x, "indices") else _other()


def _select(cx: Any, which: Any, *cases: Any) -> Any:
    """where(perm < 0, perm + n, perm)."""
    parts = "negative", "indices", "wrapped"
    if len(cases) != 2 or not all(map(_is, (which, *cases), parts)):
        _other()
    return cases[0]


def _sort(
    cx: Any, keys: Any, places: Any, *, dimension: int, is_stable: bool, num_keys: int
) -> list[Any]:
    """(0, 1, ..., the inverse) of (perm, 0, 1, ...)."""
    if not _is(keys, "indices") or isinstance(places, _Permutation) or num_keys != 1:
        _other()
    return [places, _Permutation(jnp.swapaxes(keys.hot, -1, -2))]


def _column(cx: Any, x: Any, **params: Any) -> Any:
    """Indices as `gather` takes them: a last axis of length 1."""
    column = params["shape"] == (x.hot.shape[0], 1)
    return x if column and params["broadcast_dimensions"] == (0,) else _other()


def _gather(cx: Any, x: Any, indices: Any, **params: Any) -> Any:
    """x[perm] along one axis: a product with the one-hot rows."""
    numbers = params["dimension_numbers"]
    if isinstance(x, _Permutation) or len(numbers.collapsed_slice_dims) != 1:
        _other()
    (axis,) = numbers.collapsed_slice_dims
    (out,) = set(range(x.ndim)) - set(numbers.offset_dims)
    rows = jnp.moveaxis(x, axis, 0)
    hot = indices.hot.astype(x.dtype)
    picked = lax.dot_general(hot, rows, (((1,), (0,)), ((), ())))
    return jnp.moveaxis(picked, 0, out)


def _other() -> Any:
    raise _Otherwise


class _OneHot(Interpreter):
    """Interpret the solution of a dense system with one-hot permutations."""

    rules: dict[str, Rule] = {
        **dict.fromkeys(("jit", "pjit"), control.inline),
        "lt": _negative,
        "add": _wrapped,
        "select_n": _select,
        "sort": _sort,
        "broadcast_in_dim": _column,
        "gather": _gather,
    }

    def default(self, values: Sequence[Any]) -> list[Any]:
        return _other()
