"""Small integer constants are followed through the arithmetic that prepares indices.

`x[jnp.arange(n), y]` reaches the gather as `concatenate(select_n(i < 0, i, i + n), y)`;
to see that the first column is the unit's own number, its value must be known.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from privjax.passes.units.states import PUBLIC, ZERO, Known, Public, State, Zero

LARGEST = 1 << 16


def state_of(value: Any) -> State:
    """The state of a literal or a closure constant."""
    if not isinstance(value, bool | int | float | complex | np.generic | np.ndarray):
        try:
            if value.size > LARGEST or not value.is_fully_addressable:
                return PUBLIC
            value = np.asarray(value)
        except Exception:  # a tracer, a key, a buffer that lives elsewhere
            return PUBLIC
    array = np.asarray(value)
    if array.dtype.kind in "bV":
        known = array.dtype.kind == "b" and array.size <= LARGEST
        return Public(known=Known(array)) if known else PUBLIC
    if not array.any():
        return ZERO
    if array.dtype.kind in "iu" and array.size <= LARGEST:
        return Public(known=Known(array))
    return PUBLIC


def fold(eqn: Any, states: Sequence[State]) -> Public | None:
    """The result of an equation on known integers, where it is one of a few."""
    rule = _FOLD.get(eqn.primitive.name)
    if rule is None:
        return None
    out = eqn.outvars[0].aval
    if out.size > LARGEST or getattr(out.dtype, "kind", "V") not in "iub":
        return None
    operands = []
    for state, var in zip(states, eqn.invars, strict=True):
        if isinstance(state, Zero):
            operands.append(np.zeros(var.aval.shape, var.aval.dtype))
        elif isinstance(state, Public) and state.known is not None:
            operands.append(state.known.value)
        else:
            return None
    value = np.asarray(rule(eqn, *operands)).astype(out.dtype)
    return Public(known=Known(np.broadcast_to(value, out.shape)))


def _iota(eqn: Any) -> np.ndarray:
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    one = [1] * len(shape)
    one[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).reshape(one), shape)


def _broadcast(eqn: Any, x: np.ndarray) -> np.ndarray:
    shape = [1] * len(eqn.params["shape"])
    for axis, size in zip(eqn.params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), eqn.params["shape"])


def _reshape(eqn: Any, x: np.ndarray) -> np.ndarray:
    return x.reshape(eqn.outvars[0].aval.shape)


_FOLD: dict[str, Callable[..., Any]] = {
    "iota": _iota,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "convert_element_type": lambda eqn, x: x,
    "lt": lambda eqn, x, y: x < y,
    "ge": lambda eqn, x, y: x >= y,
    "add": lambda eqn, x, y: x + y,
    "sub": lambda eqn, x, y: x - y,
    "mul": lambda eqn, x, y: x * y,
    "select_n": lambda eqn, which, *cases: np.choose(which.astype(int), cases),
}
