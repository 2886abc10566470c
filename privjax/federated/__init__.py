"""Federated learning: how sums over clients are formed.

`aggregation` holds the choices for `privjax.federated(..., aggregate=)`.
"""

from privjax.federated.aggregation import Plain, SecureSum, plain, secure_sum

__all__ = ["Plain", "SecureSum", "plain", "secure_sum"]
