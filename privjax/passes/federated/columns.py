"""Which weights a program's sums of the same values have, from its constants.

Two sums of one value of each client, f(x_1) + ... + f(x_n) with other weights, may tell one
client's: 2 f(x_1) + f(x_2) + ... and the plain sum do. So every value of clients is written
as w_k r_k, with weights w that are known and a root r; products with constants along the
clients, choices by them, casts and moved axes change w alone. Equal computations have equal
roots (value numbering). Of each root the weights of all its sums are collected, one column
for each, and `leverage.told` looks at them together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from privjax import _compat
from privjax.core.interpret import sub_jaxprs
from privjax.passes.federated.known import Value
from privjax.passes.federated.leverage import told
from privjax.passes.federated.unrolled import described
from privjax.passes.units.states import PerUnit, Sum

# Of a root with more columns only the first ones are looked at.
_MOST = 512
# Weights that are computed in float32 differ by rounding.
_RANK = 1e-6
_MOVED = frozenset(
    {
        "broadcast_in_dim",
        "convert_element_type",
        "copy",
        "copy_p",
        "expand_dims",
        "reduce_precision",
        "reshape",
        "squeeze",
        "transpose",
    }
)
# One operand's entries, or sums of them, of each client.
_ENTRIES = frozenset({"cumsum", "dynamic_slice", "reduce_sum", "rev", "slice"})
# f(w r) = p(w) f(r)
_POWERS: dict[str, Any] = {
    "abs": lambda w, _: np.abs(w),
    "square": lambda w, _: w**2,
    "integer_pow": lambda w, params: w ** float(params["y"]),
}
_PRODUCTS = ("mul", "add", "div", "shift_left", "select_n")


class Weighted(NamedTuple):
    """A value of each client: `weights` [clients] times the root of this number.

    `of`: the root that it is, or is a sum of entries of, for the columns.
    """

    root: int
    weights: np.ndarray
    of: int


class Columns:
    """The sums of a program so far."""

    def __init__(self) -> None:
        self.roots: dict[Any, int] = {}
        self.values: dict[Any, Weighted] = {}
        self.numbers: dict[Any, int] = {}
        self.columns: dict[int, list[np.ndarray]] = {}

    @np.errstate(all="ignore")
    def take(
        self, eqn: Any, ins: Sequence[Any], outs: Sequence[Any], known: Sequence[Any]
    ) -> bool:
        """Whether, with this equation, some client's value can be told.

        Args:  ins, outs: states; known: the operands' `Value`s or None.
        """
        own = [self._value(v, s) for v, s in zip(eqn.invars, ins, strict=True)]
        self._enter(eqn)
        keys = self._keys(eqn)
        for k, (var, state) in enumerate(zip(eqn.outvars, outs, strict=True)):
            number = None if keys is None else self._number((*keys, k))
            if not isinstance(state, PerUnit) or not own or _clients(own) is None:
                if number is not None:
                    self.numbers[var] = number
            else:
                found = self._product(eqn, own, known, state)
                plain = self._number(var) if number is None else number
                size = _clients(own) or 0
                found = found or self._linear(eqn, own, plain)
                self.values[var] = found or Weighted(plain, np.ones(size), plain)
        return any(self._added(*new) for new in self._sums(eqn, ins, own, known))

    def _number(self, key: Any) -> int:
        return self.roots.setdefault(key, len(self.roots))

    def _value(self, atom: Any, state: Any) -> Weighted | None:
        """An operand that is the clients'."""
        if isinstance(atom, _compat.Literal) or not isinstance(state, PerUnit):
            return None
        if atom not in self.values and (size := _size(atom, state)):
            number = self._number(atom)
            self.values[atom] = Weighted(number, np.ones(size), number)
        return self.values.get(atom)

    def _enter(self, eqn: Any) -> None:
        """What the inputs of an equation's bodies are."""
        name = eqn.primitive.name
        if name not in ("scan", "cond"):
            return
        given = eqn.invars[1:] if name == "cond" else list(eqn.invars)
        skipped: range = range(0)
        if name == "scan":
            n_consts, n_carry = _compat.scan_arity(eqn.params, len(given))
            skipped = range(n_consts, n_consts + n_carry)
        for body in sub_jaxprs(eqn):
            inner = _compat.open_jaxpr(body)[0].invars
            for k, (v, x) in enumerate(zip(inner, given, strict=False)):
                if k not in skipped and not isinstance(x, _compat.Literal):
                    if x in self.values:
                        self.values[v] = self.values[x]
                    else:
                        self.numbers[v] = self.numbers.get(x, self._number(x))

    def _keys(self, eqn: Any) -> tuple[Any, ...] | None:
        """What is equal for equations that compute the same."""
        params = [(name, described(value)) for name, value in eqn.params.items()]
        if eqn.effects or any(p is None for _, p in params):
            return None
        ins: list[Any] = []
        for v in eqn.invars:
            if isinstance(v, _compat.Literal):
                x = np.asarray(v.val)
                ins.append((x.dtype.str, x.shape, x.tobytes()))
            elif v in self.values:
                ins.append((self.values[v].root, self.values[v].weights.tobytes()))
            else:
                ins.append(self.numbers.get(v, v))
        return (eqn.primitive.name, tuple(params), tuple(ins))

    # -- products ----------------------------------------------------------------------

    def _product(
        self, eqn: Any, own: Sequence[Weighted | None], known: Any, state: PerUnit
    ) -> Weighted | None:
        """A result with the weights of its operands; None where it is a new root."""
        name, first = eqn.primitive.name, own[0]
        if name in _MOVED and first is not None:
            return first
        if name == "neg" and first is not None:
            return first._replace(weights=-first.weights)
        if name not in _PRODUCTS:
            return None
        factors = [_factor(eqn, x, state, own) for x in known]
        if name in ("mul", "add"):
            for a, b in ((0, 1), (1, 0)):
                mine, by = own[a], factors[b]
                if mine is None or by is None or own[b] is not None:
                    continue
                if name == "mul":
                    return mine._replace(weights=mine.weights * by)
                return None if by.any() else mine
        by = factors[1] if name in ("div", "shift_left") else None
        if first is not None and by is not None and own[1] is None:
            by = 1.0 / by if name == "div" else 2.0**by
            return first._replace(weights=first.weights * by)
        if name == "select_n" and own[0] is None and factors[0] is not None:
            return _chosen(factors[0], own[1:], factors[1:])
        return None

    def _linear(
        self, eqn: Any, own: Sequence[Weighted | None], plain: int
    ) -> Weighted | None:
        """What keeps the factors of its operands, or is made of some of their entries."""
        name, (first, *rest) = eqn.primitive.name, own
        there = [x for x in own if x is not None]
        if name in _ENTRIES and first is not None:
            return first._replace(root=plain)
        if name in ("add", "sub") and len(there) == 1:
            return there[0]._replace(root=plain)
        same = all((x.weights == there[0].weights).all() for x in there)
        if (
            name in ("add", "sub", "add_any", "concatenate")
            and same
            and None not in own
        ):
            return self._of_roots(eqn, own, there[0].weights)
        if name in ("mul", "dot_general"):
            return self._of_roots(eqn, own, np.prod([x.weights for x in there], 0))
        if name == "div" and first is not None:
            by = rest[0].weights if rest[0] is not None else 1.0
            return self._of_roots(eqn, own, first.weights / by)
        if name in _POWERS and first is not None:
            return self._of_roots(eqn, own, _POWERS[name](first.weights, eqn.params))
        return None

    def _of_roots(
        self, eqn: Any, own: Sequence[Weighted | None], weights: np.ndarray
    ) -> Weighted | None:
        """What an equation gives for the roots of its operands, times these weights."""
        keys = self._keys(eqn)
        if keys is None:
            return None
        ins = [k if x is None else x.root for k, x in zip(keys[-1], own, strict=True)]
        number = self._number(("of roots", *keys[:-1], *ins))
        return Weighted(number, weights, number)

    # -- sums --------------------------------------------------------------------------

    def _sums(
        self, eqn: Any, ins: Sequence[Any], own: Sequence[Weighted | None], known: Any
    ) -> list[tuple[int, np.ndarray]]:
        """(root, columns) of the sums over clients that an equation forms."""
        name, found = eqn.primitive.name, []
        for k, mine in enumerate(own):
            if mine is None:
                continue
            axis, column = ins[k].axis, mine.weights[:, None]
            if name == "reduce_sum" and axis in eqn.params["axes"]:
                found.append((mine.of, column))
            elif name == "dot_general" and known[1 - k] is None:
                dims = eqn.params["dimension_numbers"][0]
                if k == 0 and axis in dims[k] and own[1] is not None:
                    weights = mine.weights * own[1].weights
                    if (both := self._of_roots(eqn, own, weights)) is not None:
                        found.append((both.of, weights[:, None]))
            elif name == "dot_general":
                found += _contracted(eqn, k, axis, mine, known[1 - k])
            elif name == "scatter-add" and k == 2 and axis == 0:
                found += _placed(mine, known[1])
            elif name in ("add", "add_any") and axis is None:
                if any(isinstance(s, Sum) for s in ins):
                    found.append((mine.of, column))
        return found

    def _added(self, root: int, columns: np.ndarray) -> bool:
        finite = np.nan_to_num(columns.astype(np.float64))
        size = np.abs(finite).max(0)
        here = self.columns.setdefault(root, [])
        new = [
            c
            for c in (finite[:, size > 0] / size[size > 0]).T
            if not any(np.array_equal(c, old) for old in here)
        ]
        here += new
        del here[_MOST:]
        varied = len(here) > 1 or any((c != c[0]).any() for c in new)
        return bool(new) and varied and told(np.stack(here, 1)[:, None], _RANK)


def _size(atom: Any, state: PerUnit) -> int | None:
    """How many clients a value is of, by its shape or by the loop over them."""
    if state.axis is not None:
        return int(atom.aval.shape[state.axis])
    looped = [d.size for d in state.digits if d.axis is None]
    return looped[0] if len(looped) == len(state.digits) == 1 else None


def _clients(own: Sequence[Weighted | None]) -> int | None:
    return next((len(x.weights) for x in own if x is not None), None)


def _factor(
    eqn: Any, value: Value | None, state: PerUnit, own: Sequence[Weighted | None]
) -> np.ndarray | None:
    """A constant as one number per client; None where it is no such thing."""
    clients = _clients(own) or 0
    if value is None or value.array.dtype.kind not in "biuf":
        return None
    array = value.array.astype(np.float64)
    if value.stepped:
        rows = array.reshape(len(array), -1)
        by_steps = any(d.loop == value.loop for d in state.digits)
        if state.axis is not None or not by_steps or len(rows) != clients:
            return None
    elif array.size == 1:
        return np.full(clients, array.reshape(-1)[0])
    else:
        if state.axis is None or array.ndim != len(eqn.outvars[0].aval.shape):
            return None
        rows = np.moveaxis(array, state.axis, 0)
        if len(rows) == 1:
            rows = np.broadcast_to(rows, (clients, *rows.shape[1:]))
        rows = rows.reshape(len(rows), -1)
    uniform = bool(rows.shape[1]) and bool((rows == rows[:, :1]).all())
    return rows[:, 0] if uniform and len(rows) == clients else None


def _chosen(
    index: np.ndarray, cases: Sequence[Weighted | None], constants: Sequence[Any]
) -> Weighted | None:
    """Of several weights of one root, or zero, that which a constant says."""
    there = [c for c in cases if c is not None]
    if len({c.root for c in there}) != 1:
        return None
    rows = []
    for case, constant in zip(cases, constants, strict=True):
        if case is None and (constant is None or constant.any()):
            return None
        rows.append(np.zeros(len(index)) if case is None else case.weights)
    at = np.clip(index.astype(int), 0, len(rows) - 1)
    return there[0]._replace(weights=np.stack(rows)[at, np.arange(len(index))])


def _contracted(
    eqn: Any, k: int, axis: int | None, mine: Weighted, value: Value | None
) -> list[tuple[int, np.ndarray]]:
    """A product of matrices that sums over the clients alone, with a constant.

    In a loop with other constants in each step these are columns beside each other.
    """
    contract, batch = eqn.params["dimension_numbers"]
    if value is None or list(contract[k]) != [axis] or batch[k]:
        return []
    if value.array.dtype.kind not in "biuf":
        return []
    at = contract[1 - k][0] + value.stepped
    rows = np.moveaxis(value.array, at, 0).reshape(len(mine.weights), -1)
    return [(mine.of, mine.weights[:, None] * rows)]


def _placed(mine: Weighted, value: Value | None) -> list[tuple[int, np.ndarray]]:
    """What is added at places: one column for each place."""
    if value is None or value.stepped or len(value.array) != len(mine.weights):
        return []
    rows = value.array.reshape(len(value.array), -1)
    places, which = np.unique(rows, axis=0, return_inverse=True)
    hot = which.reshape(-1)[:, None] == np.arange(len(places))
    return [(mine.of, mine.weights[:, None] * hot)]
