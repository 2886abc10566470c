"""Differential privacy: release sums over units only clipped and noised.

`prepare.py` splices calls, `rolled.py` turns loops that count through a batch into loops
over it, `plan.py` decides what is released. `terms.py` holds a sum over units as operands
(`apart.py` one over each micro-batch by itself), `summed.py` finds per-unit norms and the
clipped sum from them the cheapest way, `aggregators.py` makes them from the equations in
which units are summed. `evaluate.py` and `loops.py` run the program, `clip.py` clips in
one of the ways of `modes.py` and has noise of `mechanisms.py` added; `release.py` has the
marker with which a user asks for one more release. `options.py` and `findings.py` are the
settings and what can be said about a step.
"""

from privjax.passes.dp.mechanisms import Gaussian
from privjax.passes.dp.plan import Plan, Release, make_plan

__all__ = ["Gaussian", "Plan", "Release", "make_plan"]
