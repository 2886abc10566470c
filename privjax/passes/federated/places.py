"""Constants of a round that pick one client by its place in the list.

`leverage` says which weights tell one client's value.

Weights that are given at run time (as arguments, a mask) are for people to agree on;
written into the program they are a leak, and often one that nobody meant: the gradient of
`losses[0]`, `jax.jacrev` of a loss per client, `jnp.eye(n) @ x`, a segment per client,
`where(i == 2, x, 0)` in a loop over clients.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from privjax import _compat
from privjax.core.labels import Labels
from privjax.passes.federated.columns import Columns
from privjax.passes.federated.known import Value, levels
from privjax.passes.federated.known import value as known_value
from privjax.passes.federated.leverage import alone, told
from privjax.passes.units.states import PerUnit, Sum

_PRODUCTS = ("mul", "div", "and")
_LOOKED_UP = ("gather", "dynamic_slice")
# One result in the shape of the operands, zero where the one that is followed is.
_ALIKE = ("mul", "neg", "convert_element_type", "copy")
_MOVED = (
    "concatenate",
    "reshape",
    "broadcast_in_dim",
    "convert_element_type",
    "squeeze",
)


class _Seen(NamedTuple):
    """An equation with what is known of its operands.

    Attributes: `clients`, operand and axis of clients' values, -1 where a loop is over
    them; `values`, what is known of each operand.
    """

    eqn: Any
    states: Sequence[Any]
    clients: Sequence[tuple[int, int]]
    values: Sequence[Value | None]

    def by_steps(self, u: int, value: Value) -> bool:
        """Whether a value's steps are the clients of operand `u`."""
        return any(d.loop == value.loop for d in self.states[u].digits)


def singled_out(closed: Any, labels: Labels) -> Any | None:
    """The first equation in which a constant picks one client, or None."""
    columns = Columns()
    for level in levels(closed, labels):
        for i, eqn in enumerate(level.jaxpr.eqns):
            values = [known_value(v, level.known) for v in eqn.invars]
            states = [_state(v, level.labels) for v in eqn.invars]
            seen = _Seen(eqn, states, _clients(states), values)
            outs = [_state(v, level.labels) for v in eqn.outvars]
            if _picks(seen, level.jaxpr) or columns.take(eqn, states, outs, values):
                return eqn
            if _decides(seen, level.labels.below.get(i, ())):
                return eqn
    return None


def _state(atom: Any, labels: Labels) -> Any:
    return None if isinstance(atom, _compat.Literal) else labels.of.get(atom)


def _clients(states: Sequence[Any]) -> list[tuple[int, int]]:
    found = []
    for k, state in enumerate(states):
        if isinstance(state, PerUnit) and (state.axis is not None or not state.axes):
            found.append((k, -1 if state.axis is None else state.axis))
    return found


def _wide(value: Value, shape: tuple[int, ...]) -> np.ndarray:
    """The array in the shape of a result, behind its steps."""
    lead = value.array.shape[: value.stepped]
    rest = value.array.shape[value.stepped :]
    inner = (1,) * (len(shape) - len(rest)) + rest
    return np.broadcast_to(value.array.reshape(lead + inner), lead + shape)


# -- one equation ----------------------------------------------------------------------


def _picks(seen: _Seen, jaxpr: Any) -> bool:
    name = seen.eqn.primitive.name
    for u, axis in seen.clients:
        for k, value in enumerate(seen.values):
            if value is None or not value.array.ndim:
                continue
            if axis < 0 and not seen.by_steps(u, value):
                continue
            if name in _PRODUCTS or name == "select_n":
                if _masks(seen, u, axis, k, value, jaxpr):
                    return True
            elif name == "dot_general":
                if any(map(told, _contracted(seen.eqn, u, axis, k, value))):
                    return True
            elif name.startswith("scatter") and (u, k) == (2, 1):
                if _one_alone_goes_there(seen.states[2], axis, value):
                    return True
            elif name in _LOOKED_UP and u == 0 and k:
                if _padded(_made(jaxpr), seen.eqn.invars[0]) and _differs(value.array):
                    return True
            elif name == "dynamic_update_slice" and u == 1 and k > 1:
                if axis < 0 and _differs(value.array):
                    return True
    return False


def _masks(seen: _Seen, u: int, axis: int, k: int, value: Value, jaxpr: Any) -> bool:
    """Products with a constant, and choices by one."""
    eqn, array = seen.eqn, _wide(value, seen.eqn.outvars[0].aval.shape)
    lead = 0 if axis < 0 else axis + value.stepped
    if eqn.primitive.name == "select_n":
        others = [isinstance(s, PerUnit) for s in seen.states[1:]]
        masks = [array == c for c, own in enumerate(others) if own]
        # Where a carry is one of the cases, `loops` looks at what becomes of it.
        if k or all(others) or any(isinstance(s, Sum) for s in seen.states):
            return False
        # Of two sums over all and over all but one the difference is one's value.
        masks += [~mask for mask in masks]
    elif eqn.primitive.name == "div" and k == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            masks = [1.0 / array]
    else:
        masks = [array]
    if eqn.primitive.name != "select_n" and _solved(seen, u, lead, masks[0], jaxpr):
        return True
    return any(alone(*_summed(eqn, mask, lead, value, jaxpr)) for mask in masks)


def _solved(seen: _Seen, u: int, lead: int, weights: np.ndarray, jaxpr: Any) -> bool:
    """Whether sums of the same values, repeated along some axes, tell one's."""
    repeated = _repeated(seen.eqn, u, jaxpr)
    if not repeated:
        return False
    off = weights.ndim - len(seen.eqn.outvars[0].aval.shape)
    joint = [a + off for a in repeated if a + off != lead]
    others = [a for a in range(weights.ndim) if a not in (lead, *joint)]
    moved = weights.transpose([*others, lead, *joint])
    rows = moved.reshape(
        -1, weights.shape[lead], 1, math.prod(moved.shape[len(others) + 1 :])
    )
    return any(map(told, rows))


def _repeated(eqn: Any, u: int, jaxpr: Any) -> list[int]:
    """The axes along which the entries of an operand are the same."""
    var, shape = eqn.invars[u], eqn.outvars[0].aval.shape
    own = tuple(var.aval.shape)
    if len(own) < len(shape):
        return list(range(len(shape))) if not own else []
    found = [a for a, n in enumerate(own) if n == 1 < shape[a]]
    for made in jaxpr.eqns:
        if var in made.outvars and made.primitive.name == "broadcast_in_dim":
            to = made.params["broadcast_dimensions"]
            before = made.invars[0].aval.shape
            kept = {a for a, n in zip(to, before, strict=True) if n == own[a]}
            found += [a for a in range(len(own)) if a not in kept and own[a] > 1]
    return found


def _summed(
    eqn: Any, mask: np.ndarray, axis: int, value: Value, jaxpr: Any
) -> tuple[np.ndarray, int]:
    """Weights of what is summed, where a sum over other axes as well follows.

    The last example of the longest client is nobody else's; what leaves is a sum over
    examples too.
    """
    var, square = eqn.outvars[0], np.abs(np.nan_to_num(mask.astype(np.complex128))) ** 2
    while var not in jaxpr.outvars:
        uses = [e for e in jaxpr.eqns if any(v is var for v in e.invars)]
        later = uses[0] if len(uses) == 1 else None
        axes: Sequence[int] = ()
        if later is not None and later.primitive.name == "reduce_sum":
            axes = later.params["axes"]
        elif later is not None and later.primitive.name == "dot_general":
            axes = later.params["dimension_numbers"][0][later.invars[0] is not var]
        elif later is not None and _alike(later, var):
            var = later.outvars[0]
            continue
        others = tuple(sorted({a + value.stepped for a in axes} - {axis}))
        if others:
            axis -= sum(a < axis for a in others)
            square = square.sum(others)
        break
    return np.sqrt(square), axis


def _alike(eqn: Any, var: Any) -> bool:
    same = eqn.outvars[0].aval.shape == var.aval.shape
    return same and eqn.primitive.name in _ALIKE


def _contracted(eqn: Any, u: int, axis: int, k: int, value: Value) -> list[np.ndarray]:
    """Weights [clients, values of each, sums] of a product of matrices."""
    contract, batch = eqn.params["dimension_numbers"]
    mine, theirs = (list(contract[u]), list(contract[k]))
    if axis < 0:
        lead, each, more = [0], [a + 1 for a in theirs], [a + 1 for a in batch[k]]
    else:
        off = int(value.stepped)
        pairs = dict(zip([*mine, *batch[u]], [*theirs, *batch[k]], strict=True))
        if axis not in pairs:
            return []
        lead = [pairs[axis] + off]
        each = [a + off for a in theirs if a + off != lead[0]]
        more = [a + off for a in batch[k] if a + off != lead[0]]
        more += [0] * off
    rest = [a for a in range(value.array.ndim) if a not in (*lead, *each, *more)]
    moved = value.array.transpose([*more, *lead, *each, *rest])
    sizes = [
        [value.array.shape[a] for a in group] for group in (more, lead, each, rest)
    ]
    shape = [int(np.prod(size, dtype=np.int64)) for size in sizes]
    return list(moved.reshape(shape))


def _one_alone_goes_there(state: Any, axis: int, value: Value) -> bool:
    """Whether a place that is written into the program gets one client's values only."""
    rows = value.array
    if axis < 0:
        owner = np.arange(len(rows))
        lead = 1
    else:
        (digit,) = [d for d in state.digits if d.axis is not None]
        rows = rows[0] if value.stepped else rows
        if digit.axis >= rows.ndim - 1:
            return False
        at = np.arange(rows.shape[digit.axis]) // digit.inner % digit.size
        owner = np.broadcast_to(
            at.reshape([-1 if a == digit.axis else 1 for a in range(rows.ndim - 1)]),
            rows.shape[:-1],
        )
        lead = rows.ndim - 1
    places = rows.reshape(int(np.prod(rows.shape[:lead])), -1)
    _, which = np.unique(places, axis=0, return_inverse=True)
    which = which.reshape(-1)
    if which.max(initial=0) == 0:
        return False
    pairs = np.unique(np.stack([which, np.asarray(owner).reshape(-1)]), axis=1)
    return bool(np.any(np.bincount(pairs[0]) == 1))


def _padded(made: Mapping[Any, Any], var: Any) -> bool:
    """Whether a client's values lie between zeros: a place to look from puts them."""
    eqn = None if isinstance(var, _compat.Literal) else made.get(var)
    if eqn is None:
        return False
    name = eqn.primitive.name
    if name == "pad":
        return any(low or high for low, high, _ in eqn.params["padding_config"])
    return name in _MOVED and any(_padded(made, v) for v in eqn.invars)


def _made(jaxpr: Any) -> dict[Any, Any]:
    """The equation that makes each variable."""
    return {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}


def _differs(array: np.ndarray) -> bool:
    return bool(np.any(array != array[:1]))


def _decides(seen: _Seen, bodies: Sequence[Labels]) -> bool:
    """Whether a constant says for which client alone a branch gives its value."""
    eqn, index = seen.eqn, seen.values[0] if seen.values else None
    if eqn.primitive.name != "cond" or index is None or not index.stepped:
        return False
    if any(isinstance(s, Sum) for s in seen.states):
        return False
    branches = [_compat.open_jaxpr(b)[0] for b in eqn.params["branches"]]
    for k in range(len(eqn.outvars)):
        own = [
            isinstance(_state(b.outvars[k], inner), PerUnit)
            for b, inner in zip(branches, bodies, strict=True)
        ]
        if any(own) and not all(own):
            mask = np.asarray(own)[np.clip(index.array.astype(int), 0, len(own) - 1)]
            if alone(mask, 0) or alone(~mask, 0):
                return True
    return False
