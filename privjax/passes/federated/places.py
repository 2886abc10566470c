"""Constants of a round that pick one client by its place in the list.

A sum in which all terms but one are multiplied by zero is one client's value. Written with
numbers that are given at run time (weights, a mask) it is for people to agree on; written
into the program it is a leak, and often one that nobody meant: the gradient of `losses[0]`,
`jax.jacrev` of a loss per client, `jnp.eye(n) @ x`, a segment per client.

So what depends on no input is computed here, and where it meets clients' values it must
not be nonzero for one of them alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from privjax import _compat
from privjax.core.interpret import sub_jaxprs
from privjax.core.labels import Labels
from privjax.passes.units.states import PerUnit

# Larger constants are not looked at.
LARGEST = 1 << 16
# What is no constant although it has no inputs: draws, and places in a mesh.
_NOT = ("random", "threefry", "axis_index", "rng")
_PRODUCTS = ("mul", "div", "and", "select_n")
_SCATTERS = ("scatter-add", "scatter_add")


def singled_out(
    closed: Any, labels: Labels, known: Mapping[Any, np.ndarray] | None = None
) -> Any | None:
    """The first equation in which a constant picks one client, or None."""
    jaxpr, consts = _compat.open_jaxpr(closed)
    found = dict(known or {})
    for var, value in zip(jaxpr.constvars, consts, strict=True):
        if (array := _array(value)) is not None:
            found[var] = array
    for i, eqn in enumerate(jaxpr.eqns):
        values = [_value(v, found) for v in eqn.invars]
        states = [_state(v, labels) for v in eqn.invars]
        if _picks(eqn, values, states):
            return eqn
        if (bodies := labels.below.get(i)) is not None:
            for body, inner in zip(_bodies(eqn), bodies, strict=False):
                inside, _ = _compat.open_jaxpr(body)
                outer = _fixed(eqn, values)
                shared = {
                    v: x
                    for v, x in zip(inside.invars, outer, strict=False)
                    if x is not None
                }
                if (there := singled_out(body, inner, shared)) is not None:
                    return there
        else:
            found.update(_computed(eqn, [v for v in values if v is not None]))
    return None


def _bodies(eqn: Any) -> Sequence[Any]:
    if eqn.primitive.name == "while":
        return [eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]]
    return list(sub_jaxprs(eqn))


def _fixed(eqn: Any, values: Sequence[Any]) -> Sequence[Any]:
    """Which of a body's first inputs are the same in every step, and known."""
    match eqn.primitive.name:
        case "scan":
            return values[: _compat.scan_arity(eqn.params, len(values))[0]]
        case "cond":
            return values[1:]
        case "while":
            return []
    return values


def _computed(eqn: Any, values: Sequence[np.ndarray]) -> dict[Any, np.ndarray]:
    """The results of an equation all of whose operands are known, where small."""
    if len(values) < len(eqn.invars):
        return {}
    name = eqn.primitive.name
    sizes = [int(np.prod(v.aval.shape, dtype=np.int64)) for v in eqn.outvars]
    if eqn.effects or any(n in name for n in _NOT) or max(sizes, default=0) > LARGEST:
        return {}
    if any(v.aval.dtype.kind not in "biufc" for v in eqn.outvars):
        return {}
    with jax.ensure_compile_time_eval():
        out = eqn.primitive.bind(*values, **eqn.params)
    out = out if eqn.primitive.multiple_results else [out]
    return {v: np.asarray(x) for v, x in zip(eqn.outvars, out, strict=True)}


def _array(value: Any) -> np.ndarray | None:
    """A small constant of numbers, else None."""
    if isinstance(value, bool | int | float | complex):
        return np.asarray(value)
    if isinstance(value, _compat.Tracer) or not hasattr(value, "dtype"):
        return None
    plain = getattr(value.dtype, "kind", "V") in "biufc" and value.size <= LARGEST
    return np.asarray(value) if plain else None


def _value(atom: Any, known: Mapping[Any, np.ndarray]) -> np.ndarray | None:
    if isinstance(atom, _compat.Literal):
        return _array(atom.val)
    return known.get(atom)


def _state(atom: Any, labels: Labels) -> Any:
    return None if isinstance(atom, _compat.Literal) else labels.of.get(atom)


def _picks(eqn: Any, values: Sequence[Any], states: Sequence[Any]) -> bool:
    name = eqn.primitive.name
    pairs = [
        (u, k)
        for u, s in enumerate(states)
        if isinstance(s, PerUnit) and s.axis is not None
        for k, v in enumerate(values)
        if v is not None and v.ndim
    ]
    for u, k in pairs:
        axis, value = states[u].axis, values[k]
        if name in _PRODUCTS:
            if value.ndim != len(eqn.invars[u].aval.shape):
                continue
            if _alone(value, axis) or (name == "select_n" and _alone(value == 0, axis)):
                return True
        elif name == "dot_general":
            contract, batch = eqn.params["dimension_numbers"]
            for mine, theirs in ((contract[u], contract[k]), (batch[u], batch[k])):
                if axis in mine and _alone(value, theirs[list(mine).index(axis)]):
                    return True
        elif name in _SCATTERS and (u, k) == (2, 1):
            counts = np.unique(value.reshape(-1, value.shape[-1]), axis=0)
            if len(counts) > 1 and len(counts) == value[..., 0].size:
                return True
    return False


def _alone(value: np.ndarray, axis: int) -> bool:
    """Whether, somewhere, exactly one entry along the axis is not zero."""
    return value.shape[axis] > 1 and bool(np.any((value != 0).sum(axis) == 1))
