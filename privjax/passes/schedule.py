"""Merge openings that do not depend on each other into one round.

The round at which a value can be known is the number of openings on the longest path to
it. Equations are put in that order, and all openings of a round become one `open` with
several operands; the bodies of loops, branches and calls are scheduled on their own.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from privjax import _compat
from privjax.core import control, markers
from privjax.core.interpret import Interpreter, environment, mentions, step, sub_jaxprs
from privjax.passes.simplify import retrace

OPEN = frozenset({"open"})


class _Schedule(Interpreter):
    tagged = False
    markers = OPEN
    rules = control.RULES

    def body(self, closed: Any, values: Sequence[Any]) -> list[Any]:
        jaxpr, env, read = environment(closed, values)
        depth = _depths(jaxpr)
        rounds = sorted({d for d in depth})
        local: dict[int, list[Any]] = {d: [] for d in rounds}
        opens: dict[int, list[Any]] = {d: [] for d in rounds}
        for eqn, d in zip(jaxpr.eqns, depth, strict=True):
            (opens if eqn.primitive.name == "open" else local)[d].append(eqn)
        outer = self.eqn
        for d in rounds:
            for release in (False, True):
                alike = [e for e in opens[d] if e.params["release"] == release]
                if alike:
                    _merge(alike, release, env, read)
            for eqn in local[d]:
                self.eqn = eqn
                with _compat.source_of(eqn):
                    out = step(self, [read(v) for v in eqn.invars])
                env.update(zip(eqn.outvars, out, strict=True))
        self.eqn = outer
        return [read(v) for v in jaxpr.outvars]


def _merge(eqns: Sequence[Any], release: bool, env: dict[Any, Any], read: Any) -> None:
    shares: list[Any] = []
    checks: list[Any] = []
    domains, bits, outs = [], [], []
    for eqn in eqns:
        some, pairs = markers.open_operands(
            [read(v) for v in eqn.invars], eqn.params["checked"]
        )
        shares += some
        checks += pairs
        domains += eqn.params["domains"]
        bits += eqn.params["bits"]
        outs += eqn.outvars
    with _compat.source_of(eqns[0]):
        opened = markers.open_values(shares, domains, bits, checks, release)
    env.update(zip(outs, opened, strict=True))


@lru_cache(maxsize=4096)
def _depths(jaxpr: Any) -> list[int]:
    """For each equation, the round after which its results are known."""
    known: dict[Any, int] = {}
    out = []
    for eqn in jaxpr.eqns:
        d = max(
            (known.get(v, 0) for v in eqn.invars if not isinstance(v, _compat.Literal)),
            default=0,
        )
        if eqn.primitive.name == "open" or any(
            mentions(sub, OPEN) for sub in sub_jaxprs(eqn)
        ):
            d += 1
        known.update(dict.fromkeys(eqn.outvars, d))
        out.append(d)
    return out


def schedule(closed: Any, **options: Any) -> Any:
    """Reorder a party program; the values it computes stay the same."""
    return retrace(closed, lambda *xs: _Schedule().body(closed, xs), **options)
