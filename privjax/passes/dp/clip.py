"""Running a plan: one backward pass, joint clipping, noise, and what follows.

Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1, with the norms
taken from the operands of the sums (see terms.py). All releases of a plan are clipped as
one vector: unit i's contributions c_i are scaled by min(1, bound / |c_i|).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from privjax import _compat
from privjax._typing import Array
from privjax.passes.dp import loops as loops
from privjax.passes.dp.evaluate import Evaluator
from privjax.passes.dp.plan import Plan
from privjax.passes.dp.terms import Summed

# Units in the last place by which rounding may make a norm too small: the bound is kept
# by the clipped values themselves.
_SLACK = 8

Noise = Callable[[list[Array]], list[Array]]


@dataclass(frozen=True)
class Clipped:
    """The clipped sums and what clipping saw (a local diagnostic, not a release)."""

    sums: list[Array]
    norms: Array
    factors: Array


def clip(values: Sequence[Summed], shapes: Sequence[Any], bound: float) -> Clipped:
    """Clip each unit's contributions jointly over `values` to norm `bound`, and add up.

    A unit whose norm is not finite contributes nothing.
    """
    squares = [v.sqnorm() for v in values if v.terms]
    total = sum(squares[1:], squares[0])
    keep = jnp.isfinite(total)
    norms = jnp.sqrt(jnp.where(keep, total, 0))
    info = np.finfo(norms.dtype)
    limit = bound * (1 - _SLACK * float(info.eps))
    factors = jnp.minimum(1, limit / jnp.maximum(norms, info.tiny))
    sums = [
        v.weighted(factors, keep) if v.terms else jnp.zeros(s.shape, s.dtype)
        for v, s in zip(values, shapes, strict=True)
    ]
    return Clipped(sums, norms, factors)


def run(plan: Plan, values: Sequence[Array], bound: float, noise: Noise) -> list[Any]:
    """The outputs of a plan on flat inputs; None for those that are dropped.

    Args:
      plan: what `make_plan` decided.
      values: the inputs.
      bound: the norm to which each unit's contributions are clipped.
      noise: from the clipped sums to noised ones.
    """
    jaxpr, consts = _compat.open_jaxpr(plan.closed)
    ev = Evaluator(plan.analysis.labels, plan.analysis.natural)
    ev.env.update(zip(jaxpr.constvars, consts, strict=True))
    ev.env.update(zip(jaxpr.invars, values, strict=True))
    released = {r.var for r in plan.releases}
    wanted = _live(plan, jaxpr)
    waiting: set[Any] = set(released)
    after = []
    for i, eqn in enumerate(jaxpr.eqns):
        if i not in wanted:
            continue
        reads = {v for v in eqn.invars if not isinstance(v, _compat.Literal)}
        if reads & waiting:
            waiting.update(eqn.outvars)
            after.append((i, eqn))
        else:
            ev.step(i, eqn)
    if plan.releases:
        sums = [ev.env[r.var] for r in plan.releases]
        clipped = clip(sums, plan.releases, bound)
        noised = noise(clipped.sums)
        for r, x in zip(plan.releases, noised, strict=True):
            ev.env[r.var] = x.astype(r.dtype)
        ev.natural = {}
    for i, eqn in after:
        ev.step(i, eqn)
    gone = set(plan.dropped)
    return [None if i in gone else ev.read(v) for i, v in enumerate(jaxpr.outvars)]


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
