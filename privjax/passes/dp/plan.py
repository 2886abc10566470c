"""What a program releases about its units, and whether that is allowed.

A sum over units is released where it meets a use that is not linear, or an output. Which
value exactly is a choice: an optimiser uses g, 0.1 g and g^2, and all of them follow from
g. So releases are hoisted through operations that only rename, scale or repeat what is
released, and those that others determine are dropped.

Outputs are of two kinds. The *protected* ones (new parameters, optimiser state) must be
functions of protected sums, which are clipped jointly and noised. All others must follow
from these too, or be independent of the private data: otherwise they are refused, or
dropped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from privjax import _compat
from privjax.errors import LeakError
from privjax.passes.dp.evaluate import ISOMETRIES
from privjax.passes.units import UnitAnalysis, analyse
from privjax.passes.units.states import Mixed, PerUnit, Public, State, Sum, Zero

# Linear equations of one sum through which a release is hoisted: their result follows
# from their operand, and is no smaller.
_HOIST = ISOMETRIES | {"broadcast_in_dim", "rev"}


@dataclass(frozen=True)
class Release:
    """A sum over units that leaves, clipped and noised.

    `line` is the user's line of the operation that computed it, `used` that of the first
    use which made releasing it necessary; `name` is the output it goes into.
    """

    var: Any
    shape: tuple[int, ...]
    dtype: Any
    line: str
    used: str
    name: str

    def __str__(self) -> str:
        kind = f"{jnp.dtype(self.dtype).name}{list(self.shape)}"
        return f"{self.name}: {kind} from {self.line}" if self.name else kind


@dataclass(frozen=True)
class Plan:
    """A program, what it releases, and which outputs survive.

    Attributes:
      releases: the sums that are clipped and noised jointly.
      dropped: positions of outputs that are replaced.
      declassified: the user's reasons, with lines.
      private: per input, whether it has units.
      asked: the lines of `release` markers and their shares of the privacy budget.
    """

    closed: Any
    analysis: UnitAnalysis
    releases: tuple[Release, ...]
    dropped: tuple[int, ...]
    declassified: tuple[str, ...]
    private: tuple[bool, ...]
    asked: tuple[tuple[str, float], ...]

    @property
    def share(self) -> float:
        """What the markers leave of the budget to the joint release."""
        return 1 - sum(share for _, share in self.asked)


def make_plan(
    closed: Any,
    unit_axes: Sequence[int | None],
    protected: Sequence[bool],
    out_names: Sequence[str],
    drop: bool = False,
) -> Plan:
    """Decide what `closed` (inlined, without dead code) releases.

    Args:
      closed: the program.
      unit_axes: per input, the axis of units or None.
      protected: per output, whether the sums it needs are to be clipped and noised.
      out_names: per output, its name in messages.
      drop: drop outputs that would leak instead of refusing the program.

    Raises:
      LeakError: something that depends on private data would leave in another way.
    """
    jaxpr, _ = _compat.open_jaxpr(closed)
    defined = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    outs = [v for v, p in zip(jaxpr.outvars, protected, strict=True) if p]
    needed = _needed(outs, defined)
    wanted: dict[Any, str] = {}
    while True:
        found = analyse(closed, unit_axes, released=wanted)
        more: dict[Any, str] = {}
        for var, used in _demanded(found, outs, needed):
            var = _hoisted(var, defined, found)
            if var not in wanted:
                more.setdefault(var, used)
        if not more:
            break
        wanted |= more
    wanted = {
        v: used for v, used in wanted.items() if isinstance(found.natural[v], Sum)
    }
    lines = {v: _compat.user_line(defined[v].source_info) for v in wanted}
    places = {_turned(v, jaxpr): v for v in wanted}
    wanted = {turned: wanted[v] for turned, v in places.items()}
    final = analyse(closed, unit_axes, released=wanted, strict=True)
    if final.leaks:
        raise LeakError(f"{final.leaks[0]}. Remove it, or declassify the value first.")
    dropped = _judge(jaxpr, final, protected, out_names, drop)
    releases = []
    for var, used in wanted.items():
        natural, line, aval = final.natural[var], lines[places[var]], var.aval
        if natural.level or not isinstance(natural, Sum):
            raise LeakError(_second_round(natural))
        if not jnp.issubdtype(aval.dtype, jnp.floating):
            raise LeakError(
                f"a sum of {aval.dtype} values over units ({line}) would be released; "
                "noise is added to real floating-point sums only."
            )
        releases.append(Release(var, aval.shape, aval.dtype, line, used, ""))
    order = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.outvars}
    releases.sort(key=lambda r: order[r.var])
    releases = _named(releases, jaxpr, defined, out_names)
    plan = Plan(
        closed,
        final,
        tuple(releases),
        dropped,
        _declassified(jaxpr),
        tuple(axis is not None for axis in unit_axes),
        _asked(jaxpr, final),
    )
    if plan.share < (0 if not releases else 1e-6):
        raise LeakError(
            f"privjax.release takes {1 - plan.share:g} of the step's privacy budget: "
            f"{', '.join(f'{share:g} at {line}' for line, share in plan.asked)}."
        )
    return plan


def _asked(jaxpr: Any, found: UnitAnalysis) -> tuple[tuple[str, float], ...]:
    return tuple(
        (_compat.user_line(eqn.source_info), eqn.params["share"])
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "release"
        and isinstance(found.state(eqn.invars[0]), Sum)
    )


def _named(
    releases: Sequence[Release],
    jaxpr: Any,
    defined: dict[Any, Any],
    out_names: Sequence[str],
) -> list[Release]:
    """Each release with the first output of its shape that needs it and is not taken."""
    needs = [_needed([v], defined) for v in jaxpr.outvars]
    taken: set[int] = set()
    named = []
    for r in releases:
        uses = [k for k, n in enumerate(needs) if id(defined[r.var]) in n]
        same = [k for k in uses if jaxpr.outvars[k].aval.shape == r.shape]
        best = next((k for k in same if k not in taken), next(iter(same or uses), None))
        taken |= {best} if best is not None else set()
        named.append(replace(r, name="" if best is None else out_names[best]))
    return named


def _needed(outs: Sequence[Any], defined: dict[Any, Any]) -> set[int]:
    """The equations (by id) on which outputs depend."""
    needed: set[int] = set()
    stack = list(outs)
    while stack:
        var = stack.pop()
        if isinstance(var, _compat.Literal):
            continue
        eqn = defined.get(var)
        if eqn is not None and id(eqn) not in needed:
            needed.add(id(eqn))
            stack.extend(eqn.invars)
    return needed


def _demanded(
    found: UnitAnalysis, outs: Sequence[Any], needed: set[int]
) -> Iterator[tuple[Any, str]]:
    for d in found.demands:
        if id(d.eqn) not in needed:
            continue
        if d.eqn.primitive.name == "div" and d.var is d.eqn.invars[1]:
            raise LeakError(
                f"`div` ({d.cause.line}): it divides by a sum over units, such as how "
                "many of them count. Divide by a fixed number (the number of units, or "
                "how many are expected), or release the denominator by itself."
            )
        yield d.var, d.cause.line
    for var in outs:
        if isinstance(found.state(var), Sum):
            yield var, "the function's result"


def _hoisted(var: Any, defined: dict[Any, Any], found: UnitAnalysis) -> Any:
    """The value from which `var` follows by renaming, scaling or repeating."""
    while (eqn := defined.get(var)) is not None:
        name = eqn.primitive.name
        sums = [v for v in eqn.invars if isinstance(found.state(v), Sum)]
        if len(sums) != 1:
            return var
        others = [v for v in eqn.invars if v is not sums[0]]
        scaling = name in ("mul", "div") and _is_scalar(others[0], defined)
        if name == "div" and _is_count(others[0]):
            return var
        alone = name in ("add", "add_any") and isinstance(found.state(others[0]), Zero)
        if name not in _HOIST and not scaling and not alone:
            return var
        if sums[0].aval.dtype != var.aval.dtype and (
            not jnp.issubdtype(sums[0].aval.dtype, jnp.floating)
            or sums[0].aval.dtype.itemsize < var.aval.dtype.itemsize
        ):
            return var  # the released sum is real, and keeps the wider type
        var = sums[0]
    return var


def _turned(var: Any, jaxpr: Any) -> Any:
    """The value or, where nothing else is done with it, its transpose.

    `jax.grad` transposes a matrix's gradient at last. A sum that is finished, noised and
    used in one order needs no second buffer.
    """
    uses = [eqn for eqn in jaxpr.eqns if any(v is var for v in eqn.invars)]
    if any(v is var for v in jaxpr.outvars) or len(uses) != 1:
        return var
    return uses[0].outvars[0] if uses[0].primitive.name == "transpose" else var


def _is_scalar(atom: Any, defined: dict[Any, Any]) -> bool:
    if atom.aval.shape == ():
        return True
    eqn = None if isinstance(atom, _compat.Literal) else defined.get(atom)
    return (
        eqn is not None
        and eqn.primitive.name == "broadcast_in_dim"
        and eqn.invars[0].aval.size == 1
    )


def _is_count(atom: Any) -> bool:
    """Whether dividing by it is averaging: then the mean is what is to be clipped.

    A step that sums gradients and divides by how many there are means the same as one
    whose loss is a mean; a learning rate, on the other hand, is no part of the gradient.
    """
    if not isinstance(atom, _compat.Literal):
        return False
    value = float(atom.val)
    return value >= 2 and value == round(value)


def _judge(
    jaxpr: Any,
    found: UnitAnalysis,
    protected: Sequence[bool],
    out_names: Sequence[str],
    drop: bool,
) -> tuple[int, ...]:
    """Positions of the outputs to drop; raises if one must be refused."""
    dropped = []
    for i, var in enumerate(jaxpr.outvars):
        state = found.state(var)
        if isinstance(state, Public | Zero):
            continue
        if drop and not protected[i]:
            dropped.append(i)
            continue
        raise LeakError(_refusal(jaxpr, var, state, out_names[i], protected[i]))
    return tuple(dropped)


def _refusal(jaxpr: Any, var: Any, state: State, name: str, protected: bool) -> str:
    made = next((e for e in jaxpr.eqns if var in e.outvars), None)
    line = _compat.user_line(made.source_info) if made is not None else ""
    at = f" ({line})" if line else ""
    if isinstance(state, Mixed):
        what = f"{name}{at} depends on several units at once:\n  {state.cause}."
    elif state.level:
        what = f"{name}{at}: {_second_round(state)}"
    elif isinstance(state, PerUnit):
        what = f"{name}{at} has values of single units."
    else:
        what = f"{name}{at} is a sum over units without clipping or noise."
    if protected:
        return what + (
            "\nDifferentially private training needs every unit's gradient to depend on "
            "that unit alone."
        )
    return what + (
        "\nReturn it no more, let outputs_unreleased='drop' replace it, or accept its "
        "release with privjax.declassify(x, why=...) inside the function."
    )


def _second_round(state: State) -> str:
    fed = getattr(state, "fed", None)
    cause = f"\n  {fed}." if fed is not None else ""
    return (
        "a second release over the units would depend on the first one (as in batch "
        f"normalisation); one round of releases per call is supported.{cause}"
    )


def _declassified(jaxpr: Any) -> tuple[str, ...]:
    return tuple(
        f"{eqn.params['why']} ({_compat.user_line(eqn.source_info)})"
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "declassify"
    )
