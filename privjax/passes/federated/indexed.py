"""What loops over clients take by index, as slices along one axis.

`x[i, 0]` is one slice along two axes, and `jnp.take(x, i, axis=0)` a gather that gives NaN
out of bounds. Both are a slice along one axis, which `passes.dp.rolled` can make an input
of the loop where i counts through the clients. All rows in order, as `vmap` over numbers
looks them up, are the array itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Interpreter, mentions, run
from privjax.passes.federated.known import Values, computed, constants, value
from privjax.passes.simplify import retrace

_NAMES = frozenset({"dynamic_slice", "gather"})

# Entries of an array that is looked at for whether all of it is taken.
_MOST = 1 << 24


def one_at_a_time(closed: Any) -> Any:
    """`closed`, with slices by index along one axis each."""
    if not mentions(closed, _NAMES):
        return closed
    return retrace(closed, lambda *xs: run(_Separate(), closed, xs))


def _slice(cx: Interpreter, x: Any, *starts: Any, slice_sizes: Any) -> Any:
    x = jnp.asarray(x)
    moving = [a for a in range(x.ndim) if slice_sizes[a] < x.shape[a]]
    if len(moving) < 2:
        return _compat.bind(cx.eqn, [x, *starts])[0]
    for a in moving:
        x = lax.dynamic_slice_in_dim(x, starts[a], slice_sizes[a], a)
    return x


def _gather(cx: "_Separate", x: Any, indices: Any, **params: Any) -> Any:
    """One row along one axis, and NaN (or what is asked for) where there is none."""
    if id(cx.eqn) in cx.all_rows:
        return jnp.reshape(x, cx.eqn.outvars[0].aval.shape)
    x, at = jnp.asarray(x), jnp.asarray(indices)
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    axes = tuple(numbers.start_index_map)
    rest = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    plain = (
        at.shape == (1,)
        and len(axes) == 1
        and tuple(numbers.collapsed_slice_dims) == axes
        and not numbers.operand_batching_dims
        and tuple(numbers.offset_dims) == tuple(range(len(rest)))
        and tuple(sizes) == tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    )
    mode, modes = params["mode"], lax.GatherScatterMode
    fills = mode == modes.FILL_OR_DROP and params["fill_value"] is not None
    if not plain or not (fills or mode in (modes.CLIP, modes.PROMISE_IN_BOUNDS)):
        return _compat.bind(cx.eqn, [x, indices])[0]
    (axis,) = axes
    row = lax.dynamic_index_in_dim(x, at[0], axis, keepdims=False)
    if not fills:
        return row
    there = (at[0] >= 0) & (at[0] < x.shape[axis])
    return jnp.where(there, row, jnp.asarray(params["fill_value"], x.dtype))


def _everything(eqn: Any, known: Values) -> bool:
    """Whether a gather takes all of an array, in order."""
    shape, at = eqn.invars[0].aval.shape, value(eqn.invars[1], known)
    size = int(np.prod(shape, dtype=np.int64))
    if at is None or at.stepped or size > _MOST:
        return False
    if size != np.prod(eqn.outvars[0].aval.shape, dtype=np.int64):
        return False
    numbers = np.arange(size, dtype=np.int32)
    with jax.ensure_compile_time_eval():
        (found,) = _compat.bind(eqn, [numbers.reshape(shape), at.array])
    return np.array_equal(np.asarray(found).reshape(-1), numbers)


class _Separate(Interpreter):
    tagged = False
    rules: Mapping[str, Any] = {
        **control.RULES,
        "dynamic_slice": _slice,
        "gather": _gather,
    }
    markers = _NAMES
    all_rows: set[int] = set()  # the gathers of the jaxpr at hand that take all rows

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        outer, self.all_rows = self.all_rows, set()
        jaxpr, consts = _compat.open_jaxpr(closed)
        known = constants(jaxpr, consts)
        for eqn in jaxpr.eqns:
            known.update(computed(eqn, [value(v, known) for v in eqn.invars]))
            if eqn.primitive.name == "gather" and _everything(eqn, known):
                self.all_rows.add(id(eqn))
        out = super().body(closed, values)
        self.all_rows = outer
        return out
