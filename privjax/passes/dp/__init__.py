"""Differential privacy: release sums over units only clipped and noised.

`plan.py` decides what is released, `terms.py` holds a sum over units as operands from
which per-unit norms and the clipped sum follow without materialising per-unit values
where that is cheaper, `aggregators.py` makes them from the equations in which units are
summed, `evaluate.py` and `loops.py` run the program, `clip.py` clips and adds the noise.
"""

from privjax.passes.dp.mechanisms import Gaussian
from privjax.passes.dp.plan import Plan, Release, make_plan

__all__ = ["Gaussian", "Plan", "Release", "make_plan"]
