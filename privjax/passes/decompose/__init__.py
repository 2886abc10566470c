"""Write operations on secrets in terms of fewer ones, in plain JAX.

This pass knows no protocol: every rule is an ordinary JAX function that equals the
primitive (up to NaN and infinity, which fixed point does not have), so that a rule can be
checked against JAX itself. Equal sub-expressions that appear (the comparison inside relu
and inside its gradient) are merged afterwards by `simplify.cse`.
"""

from privjax.passes.decompose.engine import INDEXED, RULES, decompose

__all__ = ["INDEXED", "RULES", "decompose"]
