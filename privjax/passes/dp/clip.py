"""Running a plan: one backward pass, joint clipping, noise, and what follows.

Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1, with the norms
taken from the operands of the sums (see summed.py). The releases of a plan are clipped as
one vector, or in groups (see modes.py).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax._typing import Array
from privjax.passes.dp import loops as loops
from privjax.passes.dp.evaluate import Evaluator
from privjax.passes.dp.left_out import after
from privjax.passes.dp.modes import Adaptive, Flat
from privjax.passes.dp.plan import Plan, Release
from privjax.passes.dp.rounding import safe_sqnorm
from privjax.passes.dp.summed import Owners, Summed
from privjax.passes.units.states import Public, Zero

# Units in the last place by which rounding may make a norm too small: the bound is kept
# by the clipped values themselves.
_SLACK = 8

Noise = Callable[[list[Array], float, float, str], list[Array]]
"""From sums, the norm by which a unit moves them, their share of the budget, and a name
for the place, to noised sums."""


@dataclass(frozen=True)
class Settings:
    """How contributions are clipped.

    Attributes:
      bound: the norm to which each unit's contributions are clipped.
      mode: in which way (modes.py).
      clip: a traced norm in place of `bound`, for a mode that adapts it; the sums are
        scaled by bound / clip, so that one unit moves them by `bound` all the same.
      unit: a norm of 1 on the scale of the contributions.
      owners: which unit each row of the batch belongs to, where rows are not the units.
      mask: [rows], false for rows that contribute nothing.
      pieces: how many parts of the batch are worked on one after the other.
      mean: whether the program divides by the number of units of a part.
      rescale: by what to multiply the noised sums.
    """

    bound: float
    mode: Flat = field(default_factory=Flat)
    clip: Array | None = None
    unit: float = 1.0
    owners: Owners | None = None
    mask: Array | None = None
    pieces: int = 1
    mean: bool = True
    rescale: float = 1.0

    @property
    def moves(self) -> float:
        """How far one unit moves the sums that are noised."""
        return self.bound / self.pieces if self.mean else self.bound


@dataclass(frozen=True)
class Clipped:
    """The clipped sums and what clipping saw (a local diagnostic, not a release).

    `norms` is [groups, units]; `within` counts units within the bound less those beyond,
    `kept` [units] is false for units that count as none.
    """

    sums: list[Array]
    norms: Array
    within: Array
    kept: Array


def clip(
    values: Sequence[Summed], shapes: Sequence[Any], settings: Settings
) -> Clipped:
    """Clip each unit's contributions over `values` as the mode says, and add up.

    A unit whose norm is not finite contributes nothing.
    """
    s, owners, mask = settings, settings.owners, settings.mask
    if owners is not None and mask is not None:
        owners, mask = _nobodys(owners, mask), None
    values = [v.whole() for v in values]
    live = [v for v in values if v.terms]
    squares = {id(v): safe_sqnorm(v, owners) for v in live}
    total = sum(list(squares.values())[1:], next(iter(squares.values())))
    keep = jnp.isfinite(total)
    if mask is not None:
        keep = keep & mask.astype(bool)
    info = np.finfo(total.dtype)
    limit = (s.bound if s.clip is None else s.clip) * (1 - _SLACK * float(info.eps))
    sums = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    norms = []
    weights: dict[int, Array] = {}
    within: Any = jnp.zeros((), total.dtype)
    for members, share in s.mode.groups([shape.name for shape in shapes]):
        here = [squares[id(values[k])] for k in members if values[k].terms]
        if not here:
            continue
        norm = jnp.sqrt(jnp.where(keep, sum(here[1:], here[0]), 0))
        norms.append(norm)
        within = jnp.sum(jnp.where(keep, jnp.where(norm <= limit, 1.0, -1.0), 0.0))
        factors = s.mode.factors(norm, limit * share, s.unit)
        if s.clip is not None:
            factors = factors * (s.bound / s.clip)
        for k in members:
            if values[k].terms:
                weights[k] = factors
    kept = keep
    # The largest comes last, when the operands of the others are no longer held.
    for k in sorted(weights, key=lambda k: math.prod(shapes[k].shape)):
        sums[k] = values[k].weighted(weights[k], kept, owners)
        kept = after(keep, sums[k])
    return Clipped(sums, jnp.stack(norms), within, keep)


def _nobodys(owners: Owners, mask: Array) -> Owners:
    """Rows that are masked belong to nobody."""
    return replace(owners, ids=jnp.where(mask, owners.ids, owners.count))


def run(
    plan: Plan, values: Sequence[Array], settings: Settings, noise: Noise
) -> tuple[list[Any], Array | None]:
    """The outputs of a plan on flat inputs, None for those that are dropped.

    With a traced clip norm also the noised `Clipped.within`, otherwise None.

    Args:
      plan: what `make_plan` decided.
      values: the inputs.
      settings: how to clip.
      noise: from the clipped sums to noised ones.
    """
    jaxpr, consts = _compat.open_jaxpr(plan.closed)
    before, after = _phases(plan, jaxpr)
    marked = _marked(settings, noise)

    def scope(inputs: Sequence[Array], public_only: bool = False) -> Evaluator:
        ev = Evaluator(plan.analysis.labels, plan.analysis.natural, marked)
        ev.env.update(zip(jaxpr.constvars, consts, strict=True))
        ev.env.update(zip(jaxpr.invars, inputs, strict=True))
        for i, eqn in before:
            if not public_only or all(
                isinstance(ev.state(v), Public | Zero)
                for v in (*eqn.invars, *eqn.outvars)
            ):
                ev.step(i, eqn)
        return ev

    def clipped(ev: Evaluator, here: Settings) -> Clipped:
        return clip([ev.env[r.var] for r in plan.releases], plan.releases, here)

    within = None
    if not plan.releases:
        ev = scope(values)
    elif settings.pieces == 1:
        ev = scope(values)
        found = clipped(ev, settings)
        sums, within = found.sums, found.within
    else:
        ev = scope(values, public_only=True)
        sums, within = _in_pieces(plan, values, settings, scope, clipped)
    if plan.releases:
        noised, within = _noised(plan, settings, sums, within, noise)
        for r, x in zip(plan.releases, noised, strict=True):
            ev.env[r.var] = x.astype(r.dtype)
        ev.natural = {}
    for i, eqn in after:
        ev.step(i, eqn)
    gone = set(plan.dropped)
    outs = [None if i in gone else ev.read(v) for i, v in enumerate(jaxpr.outvars)]
    return outs, within


def diagnose(plan: Plan, values: Sequence[Array], settings: Settings) -> Clipped:
    """What clipping sees: not for release."""
    jaxpr, consts = _compat.open_jaxpr(plan.closed)
    ev = Evaluator(plan.analysis.labels, plan.analysis.natural)
    ev.env.update(zip(jaxpr.constvars, consts, strict=True))
    ev.env.update(zip(jaxpr.invars, values, strict=True))
    for i, eqn in _phases(plan, jaxpr)[0]:
        ev.step(i, eqn)
    return clip([ev.env[r.var] for r in plan.releases], plan.releases, settings)


def _phases(plan: Plan, jaxpr: Any) -> tuple[list[Any], list[Any]]:
    """The equations (with positions) that run before the releases, and those after."""
    wanted = _live(plan, jaxpr)
    waiting: set[Any] = {r.var for r in plan.releases}
    before, after = [], []
    for i, eqn in enumerate(jaxpr.eqns):
        if i not in wanted:
            continue
        if {v for v in eqn.invars if not isinstance(v, _compat.Literal)} & waiting:
            waiting.update(eqn.outvars)
            after.append((i, eqn))
        else:
            before.append((i, eqn))
    return before, after


def _in_pieces(
    plan: Plan, values: Sequence[Array], settings: Settings, scope: Any, clipped: Any
) -> tuple[list[Array], Array]:
    """Clipped sums of the parts of the batch, one after the other, added up."""
    k = settings.pieces
    private = plan.private
    cut = lambda x: x.reshape(k, x.shape[0] // k, *x.shape[1:])  # noqa: E731
    xs = [cut(x) if p else None for x, p in zip(values, private, strict=True)]
    mask = None if settings.mask is None else cut(settings.mask)

    def one(piece: Any) -> Any:
        parts, mask = piece
        inputs = [
            part if p else x for part, x, p in zip(parts, values, private, strict=True)
        ]
        found = clipped(scope(inputs), replace(settings, mask=mask))
        return found.sums, found.within

    first = jax.tree.map(lambda x: x[0], (xs, mask))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, first)
    )
    add = lambda total, piece: (jax.tree.map(jnp.add, total, one(piece)), None)  # noqa: E731
    (sums, within), _ = lax.scan(add, zeros, (xs, mask))
    if settings.mean:  # each part divided by its own number of units
        sums = [x / k for x in sums]
    return sums, within


def _noised(
    plan: Plan, settings: Settings, sums: list[Array], within: Any, noise: Noise
) -> tuple[list[Array], Array | None]:
    moves, mode, place = settings.moves, settings.mode, "the step"
    if settings.clip is None:
        noised, count = noise(sums, moves, plan.share, place), None
    else:
        # One vector per unit: its contributions, and which side of the norm it is on.
        assert isinstance(mode, Adaptive)
        rest, part = math.sqrt(1 - mode.share), math.sqrt(mode.share)
        values = [*(rest * x for x in sums), (part * moves * within).reshape(1)]
        *noised, count = noise(values, moves, plan.share, place)
        noised = [x * (settings.clip / (settings.bound * rest)) for x in noised]
        count = count[0] / (part * moves)
    return [x * settings.rescale for x in noised], count


def _marked(settings: Settings, noise: Noise) -> Callable[[int, Any, Summed], Array]:
    """What the marker `release` does to a sum."""

    def released(index: int, eqn: Any, value: Summed) -> Array:
        aval, p = eqn.outvars[0].aval, eqn.params
        shape = Release(eqn.outvars[0], aval.shape, aval.dtype, "", "", "")
        here = replace(settings, bound=p["bound"], mode=Flat(), clip=None)
        found = clip([value], [shape], here) if value.terms else None
        sums = [jnp.zeros(aval.shape, aval.dtype)] if found is None else found.sums
        (out,) = noise(sums, p["bound"], p["share"], f"release {index}")
        return out.astype(aval.dtype)

    return released


def _live(plan: Plan, jaxpr: Any) -> set[int]:
    """Positions of the equations that surviving outputs need, or that have effects."""
    gone = set(plan.dropped)
    needed = {
        v
        for i, v in enumerate(jaxpr.outvars)
        if i not in gone and not isinstance(v, _compat.Literal)
    }
    live = set()
    for i in reversed(range(len(jaxpr.eqns))):
        eqn = jaxpr.eqns[i]
        if eqn.effects or any(v in needed for v in eqn.outvars):
            live.add(i)
            needed |= {v for v in eqn.invars if not isinstance(v, _compat.Literal)}
    return live
