"""Python loops over clients become maps over clients.

    total = 0.0                                  total = sum(vmap(f)(x))
    for k in range(n):                   ->
        total = total + f(x[k])

Every equation that depends on one slice x[k] alone is a value of lane k. Lanes in which
the same is done, equation by equation and with the same public values, are equal but for
their slice (superword parallelism: Larsen and Amarasinghe 2000), and run as one `vmap`. A
sum in which a lane's value has factor c_k is

    sum_k c_k f(x_k) + (what is public)

and is formed so if no lane is missing. Nothing else changes, and what is unlike others is
left to be refused: whether the weights c_k are a leak is not asked here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import (
    Interpreter,
    environment,
    mentions,
    run,
    step,
    sub_jaxprs,
)
from privjax.passes.simplify import retrace

_CUTS = frozenset({"slice", "split", "unstack"})
# Factors of a running mean differ by rounding.
_ROUNDING = 1e-5


def rolled_up(closed: Any, clients: int) -> Any:
    """`closed`, with sums over slices of axes of `clients` as sums over mapped slices."""
    if clients < 2 or not mentions(closed, _CUTS):
        return closed
    return retrace(closed, lambda *xs: run(_RollUp(clients), closed, xs))


class Form(NamedTuple):
    """A linear form: factors of lanes' values, (signature, lane), and of other atoms.

    `rest` has these by their ids.
    """

    lanes: Mapping[tuple[int, int], float]
    rest: Mapping[int, tuple[Any, float]]

    def times(self, factor: float) -> "Form":
        lanes = {at: c * factor for at, c in self.lanes.items()}
        return Form(lanes, {i: (v, c * factor) for i, (v, c) in self.rest.items()})

    def plus(self, other: "Form") -> "Form":
        lanes, rest = dict(self.lanes), dict(self.rest)
        for at, c in other.lanes.items():
            lanes[at] = lanes.get(at, 0.0) + c
        for i, (v, c) in other.rest.items():
            rest[i] = (v, c + rest[i][1] if i in rest else c)
        return Form(lanes, rest)


class Run(NamedTuple):
    """Lanes start ... stop of a signature, one after the other along an axis.

    `stacked`: along an axis of their own.
    """

    sig: int
    start: int
    stop: int
    axis: int
    stacked: bool


class _Plan:
    """What the equations of a jaxpr are, by lanes."""

    def __init__(self, jaxpr: Any, clients: int) -> None:
        self.clients = clients
        self.lanes: dict[Any, tuple[int, int]] = {}
        self.forms: dict[Any, tuple[Form, Form]] = {}
        self.runs: dict[Any, Run] = {}
        self.keys: dict[Any, int] = {}
        # Per equation: signatures that it is the first to have, each with its result.
        self.first: dict[int, list[tuple[int, int]]] = {}
        for i, eqn in enumerate(jaxpr.eqns):
            self._equation(i, eqn)
        self.needed: set[Any] = set()
        self.packs: set[int] = set()
        self._backwards(jaxpr)

    def _lane(self, atom: Any) -> tuple[int, int] | None:
        return None if isinstance(atom, _compat.Literal) else self.lanes.get(atom)

    def _equation(self, i: int, eqn: Any) -> None:
        here = {at[1] for v in eqn.invars if (at := self._lane(v)) is not None}
        others = [v for v in eqn.invars if self._lane(v) is None]
        free = not any(self._partial(v) for v in others)
        if not here and free and (cuts := self._cuts(eqn)) is not None:
            for k, (key, lane) in enumerate(cuts):
                self._name(i, eqn.outvars[k], k, key, lane)
        elif len(here) == 1 and free and not eqn.effects:
            key = self._key(eqn)
            for k, v in enumerate(eqn.outvars):
                if key is not None:
                    self._name(i, v, k, (*key, k), next(iter(here)))
        forms = self._added(eqn)
        if forms is not None:
            self.forms[eqn.outvars[0]] = forms
        if (found := self._joined(eqn)) is not None:
            self.runs[eqn.outvars[0]] = found

    def _partial(self, atom: Any) -> bool:
        """Whether a value is of some lanes, and neither of one nor of all."""
        if isinstance(atom, _compat.Literal) or atom in self.lanes:
            return False
        there = atom in self.forms or atom in self.runs
        return there and self.whole(atom) is None and self.row(atom) is None

    def _name(self, i: int, var: Any, k: int, key: Any, lane: int) -> None:
        if key not in self.keys:
            self.keys[key] = len(self.keys)
            self.first.setdefault(i, []).append((self.keys[key], k))
        self.lanes[var] = (self.keys[key], lane)

    def _cuts(self, eqn: Any) -> list[tuple[Any, int]] | None:
        """(key, lane) of each result, where an equation takes single clients."""
        name, p = eqn.primitive.name, eqn.params
        if name not in _CUTS or isinstance(eqn.invars[0], _compat.Literal):
            return None
        x, n = eqn.invars[0], self.clients
        if name == "slice":
            sizes = eqn.outvars[0].aval.shape
            for a, size in enumerate(x.aval.shape):
                if size == n and sizes[a] == 1:
                    start = list(p["start_indices"])
                    lane, start[a] = start[a], 0
                    limit, strides = list(p["limit_indices"]), p["strides"]
                    limit[a] = n
                    return [((name, x, a, *start, *limit, strides), lane)]
            return None
        axis = p["axis"]
        if len(eqn.outvars) != n or x.aval.shape[axis] != n:
            return None
        return [((name, x, axis), k) for k in range(n)]

    def _key(self, eqn: Any) -> tuple[Any, ...] | None:
        """What is equal for equations that do the same."""
        ins: list[Any] = []
        for v in eqn.invars:
            if isinstance(v, _compat.Literal):
                value = np.asarray(v.val)
                ins.append((value.dtype.str, value.shape, value.tobytes()))
            else:
                at = self.lanes.get(v)
                ins.append(v if at is None else at[0])
        params = []
        for name, value in sorted(eqn.params.items()):
            inner = described(value)
            if inner is None:
                return None
            params.append((name, inner))
        return (eqn.primitive.name, tuple(params), tuple(ins))

    # -- sums --------------------------------------------------------------------------

    def _form(self, atom: Any, expanded: int) -> Form:
        if not isinstance(atom, _compat.Literal):
            if (at := self.lanes.get(atom)) is not None and not expanded:
                return Form({at: 1.0}, {})
            if atom in self.forms:
                return self.forms[atom][expanded]
            if at is not None:
                return Form({at: 1.0}, {})
        return Form({}, {id(atom): (atom, 1.0)})

    def _added(self, eqn: Any) -> tuple[Form, Form] | None:
        """A result as a linear form: of lanes' values as they are, and all taken apart."""
        name, ins = eqn.primitive.name, eqn.invars
        concerned = [_in(v, self.lanes) or _in(v, self.forms) for v in ins]
        if not any(concerned) or not all(map(_real, eqn.outvars)):
            return None
        both = tuple(tuple(self._form(v, e) for v in ins) for e in (0, 1))
        if name in ("add", "add_any"):
            a, b = (f[0].plus(f[1]) for f in both)
        elif name == "sub":
            a, b = (f[0].plus(f[1].times(-1.0)) for f in both)
        elif name == "neg":
            a, b = (f[0].times(-1.0) for f in both)
        elif name in ("mul", "div"):
            at = 0 if concerned[0] else 1
            factor = _number(ins[1 - at])
            if factor is None or (name == "div" and (at or not factor)):
                return None
            if name == "div" and eqn.outvars[0].aval.dtype.kind != "f":
                return None
            factor = factor if name == "mul" else 1.0 / factor
            a, b = (f[at].times(factor) for f in both)
        else:
            return None
        return a, b

    def whole(self, var: Any) -> Form | None:
        """The form of a value in which no lane is missing."""
        if var in self.lanes:
            return None
        for form in self.forms.get(var, ()):
            sigs = {sig for sig, _ in form.lanes}
            lanes = range(self.clients)
            if sigs and all(form.lanes.get((s, k)) for s in sigs for k in lanes):
                return form
        return None

    def _joined(self, eqn: Any) -> Run | None:
        """Lanes of one signature, in order, as far as they are joined."""
        name, params = eqn.primitive.name, eqn.params
        if name not in ("concatenate", "stack"):
            return None
        stacks = name == "stack"
        axis, found = params["axis" if stacks else "dimension"], []
        for v in eqn.invars:
            if (at := self._lane(v)) is not None:
                found.append(Run(at[0], at[1], at[1] + 1, axis, stacks))
            elif _in(v, self.runs) and not stacks:
                found.append(self.runs[v])
            else:
                return None
        for a, b in zip(found[:-1], found[1:], strict=True):
            if a._replace(start=a.stop, stop=b.stop) != b:
                return None
        return found[0]._replace(stop=found[-1].stop) if found[0].axis == axis else None

    def row(self, var: Any) -> Run | None:
        """All lanes beside each other."""
        found = self.runs.get(var)
        if found is None or (found.start, found.stop) != (0, self.clients):
            return None
        return found

    def _backwards(self, jaxpr: Any) -> None:
        """What of all this is needed."""
        need = self.needed
        need |= {v for v in jaxpr.outvars if not isinstance(v, _compat.Literal)}
        for i in reversed(range(len(jaxpr.eqns))):
            eqn = jaxpr.eqns[i]
            made = [sig for sig, _ in self.first.get(i, ()) if sig in self.packs]
            plain = bool(eqn.effects)
            for v in eqn.outvars:
                if v not in need:
                    continue
                if (form := self.whole(v)) is not None:
                    self.packs |= {sig for sig, _ in form.lanes}
                    need |= {
                        x
                        for x, _ in form.rest.values()
                        if not isinstance(x, _compat.Literal)
                    }
                elif (row := self.row(v)) is not None:
                    self.packs.add(row.sig)
                else:
                    plain = True
            ins = [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
            if plain:
                need |= set(ins)
            if made:
                need |= {v for v in ins if v not in self.lanes}
                self.packs |= {self.lanes[v][0] for v in ins if v in self.lanes}


def _in(atom: Any, table: Mapping[Any, Any]) -> bool:
    return not isinstance(atom, _compat.Literal) and atom in table


def _real(var: Any) -> bool:
    return getattr(getattr(var.aval, "dtype", None), "kind", "V") in "fi"


def _number(atom: Any) -> float | None:
    if not isinstance(atom, _compat.Literal) or np.ndim(atom.val):
        return None
    value = np.asarray(atom.val)
    return float(value) if value.dtype.kind in "fiu" else None


def described(value: Any) -> Any:
    """A parameter as something that can be compared; None where that is not possible."""
    if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
        jaxpr, consts = _compat.open_jaxpr(value)
        return str(jaxpr), tuple(id(c) for c in consts), tuple(_literals(jaxpr))
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        found = tuple(described(x) for x in value)
        return None if None in found else found
    try:
        hash(value)
    except TypeError:
        return None
    return "", value


def _literals(jaxpr: Any) -> Iterator[bytes]:
    """All constants of a jaxpr, which its text may abridge."""
    for eqn in jaxpr.eqns:
        for v in eqn.invars:
            if isinstance(v, _compat.Literal):
                yield np.asarray(v.val).tobytes()
        for body in sub_jaxprs(eqn):
            yield from _literals(_compat.open_jaxpr(body)[0])


class _RollUp(Interpreter):
    tagged = False
    rules = control.RULES
    markers = _CUTS

    def __init__(self, clients: int) -> None:
        self.clients = clients

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        jaxpr, env, read = environment(closed, values)
        plan = _Plan(jaxpr, self.clients)
        packs: dict[int, Any] = {}
        outer = self.eqn, self.index
        for i, eqn in enumerate(jaxpr.eqns):
            self.eqn, self.index = eqn, i
            with _compat.source_of(eqn):
                made = [at for at in plan.first.get(i, ()) if at[0] in plan.packs]
                if made:
                    out = self._packed(eqn, plan, packs, read)
                    packs.update({sig: out[k] for sig, k in made})
                wanted = [v for v in eqn.outvars if v in plan.needed]
                for v in wanted:
                    if (form := plan.whole(v)) is not None:
                        env[v] = self._sum(form, packs, read, v.aval)
                    elif (row := plan.row(v)) is not None:
                        env[v] = _laid(packs[row.sig], row)
                left = [v for v in wanted if v not in env]
                if left or (eqn.effects and not wanted):
                    out = self._one(eqn, [read(v) for v in eqn.invars])
                    env.update(zip(eqn.outvars, out, strict=True))
        self.eqn, self.index = outer
        return [read(v) for v in jaxpr.outvars]

    def _one(self, eqn: Any, values: Sequence[Any]) -> list[Any]:
        if any(True for _ in sub_jaxprs(eqn)):
            return step(self, values)
        return _compat.bind(eqn, values)

    def _packed(self, eqn: Any, plan: _Plan, packs: Any, read: Any) -> list[Any]:
        """An equation for all lanes at once: results of [clients, ...]."""
        mine = [
            None if isinstance(v, _compat.Literal) else plan.lanes.get(v)
            for v in eqn.invars
        ]
        if any(mine):
            ins = [
                read(v) if at is None else packs[at[0]]
                for v, at in zip(eqn.invars, mine, strict=True)
            ]
            axes = [None if at is None else 0 for at in mine]
            return jax.vmap(lambda *xs: _compat.bind(eqn, xs), axes)(*ins)
        x, p = jnp.asarray(read(eqn.invars[0])), eqn.params
        if eqn.primitive.name != "slice":
            x = jnp.moveaxis(x, p["axis"], 0)
            out = (
                x
                if eqn.primitive.name == "unstack"
                else jnp.expand_dims(x, 1 + p["axis"])
            )
            return [out] * len(eqn.outvars)
        sizes = eqn.outvars[0].aval.shape
        (axis, *_) = [
            a for a, n in enumerate(x.shape) if n == self.clients and sizes[a] == 1
        ]
        start, limit = list(p["start_indices"]), list(p["limit_indices"])
        start[axis], limit[axis] = 0, self.clients
        if start != [0] * x.ndim or limit != list(x.shape) or p["strides"]:
            strides = list(p["strides"] or [1] * x.ndim)
            strides[axis] = 1
            x = jax.lax.slice(x, start, limit, strides)
        return [jnp.expand_dims(jnp.moveaxis(x, axis, 0), 1 + axis)]

    def _sum(self, form: Form, packs: Any, read: Any, aval: Any) -> Any:
        sigs = sorted({sig for sig, _ in form.lanes})
        rows = [[form.lanes[s, k] for k in range(self.clients)] for s in sigs]
        # Of one program it is a plain sum, times a factor.
        alike = len(sigs) == 1 and np.allclose(rows, rows[0][0], rtol=_ROUNDING, atol=0)
        scale = float(np.mean(rows)) if alike else 1.0
        total: Any = 0
        for sig, row in zip(sigs, rows, strict=True):
            x, factors = packs[sig], np.asarray(row) / scale
            if not np.allclose(factors, 1.0, rtol=_ROUNDING, atol=0):
                shape = (self.clients,) + (1,) * (x.ndim - 1)
                x = x * factors.reshape(shape).astype(aval.dtype)
            total = x if sig == sigs[0] else total + x
        out = jnp.sum(total, 0, dtype=aval.dtype)
        if scale != 1:
            out = out * np.asarray(scale, aval.dtype)
        for v, c in form.rest.values():
            x = read(v)
            out = out + (x if c == 1 else x * np.asarray(c, aval.dtype))
        return out.astype(aval.dtype)


def _laid(pack: Any, row: Run) -> Any:
    """Lanes one after the other along an axis."""
    moved = jnp.moveaxis(pack, 0, row.axis)
    return moved if row.stacked else jax.lax.collapse(moved, row.axis, row.axis + 2)
