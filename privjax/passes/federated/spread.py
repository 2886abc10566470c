"""`shard_map` written by hand over clients: the same round over one leading axis.

What each device of a mesh computes from its block of clients is what `vmap` computes from
blocks side by side, with the mesh's axes as named axes: a `psum` is a sum over them. In
that form the unit analysis follows the clients. Where a program's inputs lie on several
devices XLA divides it among them, as before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax.core import control
from privjax.core.interpret import Interpreter, mentions, run
from privjax.passes.simplify import retrace


def side_by_side(closed: Any) -> Any:
    """`closed` without `shard_map`."""
    if not mentions(closed, frozenset({"shard_map"})):
        return closed
    return retrace(closed, lambda *xs: run(_Gather(), closed, xs))


def _shard_map(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    manual = params["newly_manual_axes"]
    axes = {a: n for a, n in params["mesh"].shape.items() if a in manual}
    ins = [_names(s) for s in params["in_specs"]]
    outs = [_names(s) for s in params["out_specs"]]

    def inside(*blocks: Any) -> list[Any]:
        return run(cx, params["jaxpr"], blocks)

    mapped: Any = inside
    # The last mesh axis is the innermost map.
    for axis in reversed(axes):
        used = tuple(0 if any(axis in names for names in s) else None for s in ins)
        mapped = jax.vmap(mapped, used, axis_name=axis, axis_size=axes[axis])
    blocks = [_apart(jnp.asarray(x), s, axes) for x, s in zip(values, ins, strict=True)]
    pairs = zip(mapped(*blocks), outs, strict=True)
    return [_together(y, s, axes) for y, s in pairs]


def _names(spec: Any) -> list[tuple[str, ...]]:
    """The mesh axes of each dimension of a PartitionSpec."""
    return [(s,) if isinstance(s, str) else tuple(s or ()) for s in spec]


def _apart(x: Any, spec: Sequence[tuple[str, ...]], axes: Mapping[str, int]) -> Any:
    """[mesh axes that the spec names, in the mesh's order, ..., block]."""
    shape: list[int] = []
    places: dict[str, int] = {}
    for d, size in enumerate(x.shape):
        names = [a for a in (spec[d] if d < len(spec) else ()) if a in axes]
        for a in names:
            places[a] = len(shape)
            shape.append(axes[a])
        shape.append(size // int(np.prod([axes[a] for a in names], dtype=np.int64)))
    front = [places[a] for a in axes if a in places]
    return jnp.moveaxis(x.reshape(shape), front, range(len(front)))


def _together(y: Any, spec: Sequence[tuple[str, ...]], axes: Mapping[str, int]) -> Any:
    """The inverse; what the spec does not name is equal on all devices: the first's."""
    left: list[str] = []
    for a in axes:
        if any(a in names for names in spec):
            left.append(a)
        else:
            y = lax.index_in_dim(y, 0, len(left), keepdims=False)
    for d in reversed(range(y.ndim - len(left))):
        for a in reversed(spec[d] if d < len(spec) else ()):
            if a in axes:
                at = left.index(a)
                y = jnp.moveaxis(y, at, len(left) - 1 + d)
                left.pop(at)
                start = len(left) + d
                y = lax.collapse(y, start, start + 2)
    return y


def _sum(cx: Interpreter, *values: Any, axes: Any, **_: Any) -> Any:
    return _results(cx, [lax.psum(x, axes) for x in values])


def _same(cx: Interpreter, *values: Any, **_: Any) -> Any:
    """Where a value is said to vary over devices, or a place of it."""
    return _results(cx, list(values))


def _results(cx: Interpreter, values: list[Any]) -> Any:
    return values if cx.eqn.primitive.multiple_results else values[0]


class _Gather(Interpreter):
    tagged = False
    rules: Mapping[str, Any] = {
        **control.RULES,
        "shard_map": _shard_map,
        "psum_invariant": _sum,
        "pvary": _same,
        "reshard": _same,
    }
    markers = frozenset({"shard_map", "psum_invariant", "pvary", "reshard"})
