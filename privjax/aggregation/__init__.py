"""How sums over clients are formed.

`methods` holds the choices for `privjax.federated(..., aggregate=)`.
"""

from privjax.aggregation.methods import Plain, SecureSum, plain, secure_sum

__all__ = ["Plain", "SecureSum", "plain", "secure_sum"]
