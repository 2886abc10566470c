"""What a loop over clients may do to what it carries.

In step j a carry c becomes a_j c + b_j f_j(x_j), with a_j and b_j known from the program's
own constants and f_j of client j alone. After n steps

    c_n = (a_1 ... a_n) c_0 + sum_j w_j f_j(x_j),     w_j = b_j a_(j+1) ... a_n

With a_j = 1 that is the sum that it says it is. A running mean, m + (x - m) / j, has
a_j = 1 - 1/j and b_j = 1/j, and so w_j = 1/n for all: it is accepted where all weights are
equal. A carry that is overwritten, in whole or in part, or that fades, ends as the value
of the last client, or nearly so, and is refused; so is one whose factors are not known.

Where entries of a carry are added to (`c.at[k].add(y)`), k may be the same in all steps or
the client's own, but no counter: that would give every client a place of its own.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from privjax import _compat
from privjax.core.labels import Labels
from privjax.passes.federated.known import Level, Value, Values, into, levels, value
from privjax.passes.federated.leverage import alone
from privjax.passes.units.states import PerUnit, Sum

_SAME = (
    "convert_element_type",
    "copy",
    "copy_p",
    "reduce_precision",
    "reshape",
    "squeeze",
)
# Weights of a running mean differ by rounding at most.
_ROUNDING = 1e-3


def carries_one(closed: Any, labels: Labels) -> str | None:
    """Where a loop ends with one client's value, ` (file.py:12)`; None if none does."""
    for level in levels(closed, labels):
        if level.loop is None or not _over_clients(level):
            continue
        n_consts, n_carry = _compat.scan_arity(
            level.loop.params, len(level.loop.invars)
        )
        carries = level.jaxpr.invars[n_consts : n_consts + n_carry]
        for before, after in zip(carries, level.jaxpr.outvars[:n_carry], strict=True):
            if not _sound(level, before, after):
                if after in level.jaxpr.invars:
                    line = _compat.user_line(level.loop.source_info)
                    return f" ({line})" if line else ""
                return made_by(level.jaxpr, after)
    return None


def _over_clients(level: Level) -> bool:
    return any(
        isinstance(s, PerUnit) and any(d.loop == id(level.loop) for d in s.digits)
        for s in level.labels.of.values()
    )


def _sound(level: Level, before: Any, after: Any) -> bool:
    state = None
    if not isinstance(after, _compat.Literal):
        state = level.labels.of[after]
    if isinstance(state, PerUnit):
        return all(d.loop != id(level.loop) for d in state.digits)
    if not isinstance(state, Sum):
        return True
    body = _Body(level.jaxpr, level.known, level.loop, _steady(level), _running(level))
    part = body.part(before, after)
    if part is None:
        return False
    if (part.kept == 1).all():
        # Nor one that is left out: with the sum over all it is told as well.
        return part.own is None or not (alone(part.own, 0) or alone(part.own == 0, 0))
    if part.own is None:
        return False
    rest = np.cumprod(np.append(part.kept[1:], 1.0)[::-1])[::-1]
    weights = part.own * rest
    return bool(
        np.all(weights != 0)
        and np.allclose(weights, weights[0], rtol=_ROUNDING, atol=0)
    )


def _running(level: Level) -> set[Any]:
    """The carries that are sums so far: added to another one they come out weighed."""
    loop = level.loop
    n_consts, n_carry = _compat.scan_arity(loop.params, len(loop.invars))
    carries = level.jaxpr.invars[n_consts : n_consts + n_carry]
    return {v for v in carries if isinstance(level.labels.of.get(v), Sum)}


def _steady(level: Level) -> set[Any]:
    """What does not count steps: made of the loop's constants and of one client."""
    jaxpr, loop = level.jaxpr, level.loop
    n_consts, n_carry = _compat.scan_arity(loop.params, len(loop.invars))
    found = set(jaxpr.invars[:n_consts])
    for v in jaxpr.invars[n_consts + n_carry :]:
        if isinstance(level.labels.of.get(v), PerUnit):
            found.add(v)
    return _followed(jaxpr, found)


def _followed(jaxpr: Any, steady: set[Any]) -> set[Any]:
    """These variables and all that is made of them alone."""
    found = steady | set(jaxpr.constvars)
    for eqn in jaxpr.eqns:
        if all(isinstance(v, _compat.Literal) or v in found for v in eqn.invars):
            found.update(eqn.outvars)
    return found


class Part(NamedTuple):
    """A value as kept * carry + own * (what does not depend on it), by steps.

    `own` is None where it has no one factor that is known; 0 where nothing is added.
    """

    kept: np.ndarray
    own: np.ndarray | None


class _Body:
    """The body of a loop, or of a branch in it."""

    def __init__(
        self,
        jaxpr: Any,
        known: Values,
        loop: Any,
        steady: set[Any],
        running: Collection[Any] = (),
    ) -> None:
        self.jaxpr, self.known, self.loop, self.steady = jaxpr, known, loop, steady
        self.running = running
        self.steps = loop.params["length"]

    def part(self, carry: Any, var: Any) -> Part | None:
        """What `var` is of `carry`; None where it is not of that form."""
        self.carry, self.touched = carry, {carry, *self.running}
        self.found: dict[Any, Part | None] = {}
        for eqn in self.jaxpr.eqns:
            touched = any(v in self.touched for v in _variables(eqn))
            if touched:
                self.touched.update(eqn.outvars)
            for k, out in enumerate(eqn.outvars):
                # What has bodies and no carry in it is some value of this client.
                looked = touched or eqn.primitive.name not in ("scan", "cond")
                found = self._made(eqn, k) if looked else None
                self.found[out] = (
                    self._constant(1.0) if not (touched or found) else found
                )
        return self._of(var)

    def _free(self, v: Any) -> bool:
        return isinstance(v, _compat.Literal) or v not in self.touched

    def _factor(self, v: Any) -> np.ndarray | None:
        """A known number for each step, the same in all entries."""
        found = value(v, self.known)
        if found is None or found.array.dtype.kind not in "biuf":
            return None
        if found.loop not in (None, id(self.loop)):
            return None
        lead = self.steps if found.stepped else 1
        rows = found.array.astype(np.float64).reshape(lead, -1)
        if not rows.shape[1] or (rows != rows[:, :1]).any():
            return None
        return np.broadcast_to(rows[:, 0], (self.steps,))

    def _of(self, v: Any) -> Part | None:
        if isinstance(v, _compat.Literal):
            return self._constant(float(bool(np.any(np.asarray(v.val) != 0))))
        if v is self.carry:
            return Part(np.ones(self.steps), np.zeros(self.steps))
        if v in self.found:
            return self.found[v]
        return self._constant(1.0) if self._free(v) else None

    def _constant(self, own: float) -> Part:
        return Part(np.zeros(self.steps), np.full(self.steps, own))

    def _made(self, eqn: Any, which: int) -> Part | None:
        ins, name = list(eqn.invars), eqn.primitive.name
        if name in ("add", "add_any", "sub"):
            a, b = map(self._of, ins)
            return _added(a, b, -1.0 if name == "sub" else 1.0)
        if name == "neg":
            return _times(self._of(ins[0]), np.full(self.steps, -1.0))
        if name == "mul":
            for a, b in (ins, ins[::-1]):
                if (factor := self._factor(b)) is not None:
                    return _times(self._of(a), factor)
        elif name == "div":
            factor = self._factor(ins[1])
            if factor is not None and np.all(factor != 0):
                return _times(self._of(ins[0]), 1.0 / factor)
        elif name in _SAME and eqn.params.get("dimensions", ()) is not None:
            return self._of(ins[0]) if name != "reshape" else None
        elif name in _SAME:
            return self._of(ins[0])
        elif name == "optimization_barrier":
            return self._of(ins[which])
        elif name == "select_n" and self._free(ins[0]):
            return self._chosen(ins[0], [self._of(x) for x in ins[1:]])
        elif name == "cond" and self._free(ins[0]):
            values = [value(x, self.known) for x in ins]
            return self._chosen(
                ins[0],
                [
                    self._through(b, eqn, values, ins[1:], which)
                    for b in eqn.params["branches"]
                ],
            )
        elif name in ("scatter-add", "scatter-sub"):
            return self._somewhere(ins)
        elif name == "scan":
            return self._inner(eqn, ins, which)
        return None

    def _chosen(self, index: Any, cases: Sequence[Part | None]) -> Part | None:
        there = [c for c in cases if c is not None]
        if len(there) < len(cases):
            return None
        factor = self._factor(index)
        if factor is not None:
            at = np.clip(factor.astype(int), 0, len(there) - 1), np.arange(self.steps)
            kept = np.stack([c.kept for c in there])[at]
            if any(c.own is None for c in there):
                return Part(kept, None)
            return Part(kept, np.stack([c.own for c in there])[at])  # type: ignore[misc]
        if any((c.kept != there[0].kept).any() for c in there):
            return None
        return Part(there[0].kept, None)

    def _through(
        self,
        branch: Any,
        eqn: Any,
        values: Sequence[Value | None],
        operands: Sequence[Any],
        which: int,
    ) -> Part | None:
        """One result of a branch; the carry enters at one place at most."""
        jaxpr, _ = _compat.open_jaxpr(branch)
        at = [k for k, x in enumerate(operands) if not self._free(x)]
        if len(at) > 1 or any(operands[k] is not self.carry for k in at):
            return None
        steady = {
            v
            for v, x in zip(jaxpr.invars, operands, strict=True)
            if isinstance(x, _compat.Literal) or x in self.steady
        }
        known = into(eqn, jaxpr, values)
        inside = _Body(jaxpr, known, self.loop, _followed(jaxpr, steady))
        return inside.part(jaxpr.invars[at[0]] if at else None, jaxpr.outvars[which])

    def _somewhere(self, ins: Sequence[Any]) -> Part | None:
        """Added to some entries: the same ones in all steps, or the client's own."""
        before, places, updates = ins[:3]
        still = isinstance(places, _compat.Literal) or places in self.steady
        fixed = value(places, self.known)
        still = still or (fixed is not None and not fixed.stepped)
        if not (still and self._free(places) and self._free(updates)):
            return None
        found = self._of(before)
        return None if found is None else Part(found.kept, None)

    def _inner(self, eqn: Any, ins: Sequence[Any], which: int) -> Part | None:
        """A loop inside that adds to what it is given."""
        n_consts, n_carry = _compat.scan_arity(eqn.params, len(ins))
        place = n_consts + which
        others = [x for k, x in enumerate(ins) if k != place]
        if which >= n_carry or not all(map(self._free, others)):
            return None
        jaxpr, _ = _compat.open_jaxpr(eqn.params["jaxpr"])
        pairs = zip(jaxpr.invars, ins, strict=True)
        steady = {
            v for v, x in pairs if isinstance(x, _compat.Literal) or x in self.steady
        }
        inside = _Body(jaxpr, {}, eqn, _followed(jaxpr, steady))
        found = inside.part(jaxpr.invars[place], jaxpr.outvars[which])
        if found is None or (found.kept != 1).any():
            return None
        before = self._of(ins[place])
        return None if before is None else Part(before.kept, None)


def _variables(eqn: Any) -> list[Any]:
    return [v for v in eqn.invars if not isinstance(v, _compat.Literal)]


def _times(part: Part | None, factor: np.ndarray) -> Part | None:
    if part is None:
        return None
    own = None if part.own is None else part.own * factor
    return Part(part.kept * factor, own)


def _added(a: Part | None, b: Part | None, sign: float) -> Part | None:
    if a is None or b is None:
        return None
    kept = a.kept + sign * b.kept
    if a.own is None or b.own is None:
        return Part(kept, None)
    if not a.own.any() or not b.own.any():
        return Part(kept, a.own + sign * b.own)
    same = (np.abs(a.own) == np.abs(b.own)).all()
    return Part(kept, np.abs(a.own) if same else None)


def made_by(jaxpr: Any, var: Any) -> str:
    """` (file.py:12 (function))` of the equation that computes `var`, where known."""
    for eqn in jaxpr.eqns:
        if var in eqn.outvars:
            line = _compat.user_line(eqn.source_info)
            if eqn.primitive.name == "scan":
                body, _ = _compat.open_jaxpr(eqn.params["jaxpr"])
                inner = made_by(body, body.outvars[eqn.outvars.index(var)])
                line += f"; in its body{inner}"
            return f" ({line})" if line else ""
    return " (an input, returned as it is)"
