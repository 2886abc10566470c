"""The incomplete gamma and beta functions, and zeta, where every argument is secret.

In plain JAX, like the other tables; `shared` applies them where a parameter is no single
public number. The first two are distribution functions: a quadrature of fixed length over
[0, x], divided by the whole integral as Stirling's series gives it, so that the large
factors cancel before anything is exponentiated. Parameters are raised by one first (DLMF
8.8.5, 8.17.20, 8.17.21), so that no integrand is singular at an end.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

# Gauss and Legendre's rule on [0, 1].
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_Q, _W = (_NODES + 1) / 2, _WEIGHTS / 2

# Binet's function, log Gamma(A) - (A - 1/2) log A + A - log(2 pi) / 2, within 2e-7 for
# A >= 1: a polynomial in 1/A without a constant (least squares, DLMF 5.11.1).
_BINET = (8.33278289e-2, 7.92796616e-5, -3.17089011e-3, 8.79001970e-4, -5.35940050e-5)

# Terms of the sum before Euler and Maclaurin's formula takes over (DLMF 25.11.28).
_TERMS = 9


def igamma(a: Any, x: Any) -> Any:
    """The regularised lower incomplete gamma function, 0 < a <= 20; 0 for x <= 0.

    P(a, x) = P(A, x) + x^a e^-x / Gamma(A) with A = a + 1 and t = x q^2; beyond
    12 + 2 A it is 1.
    """
    up = a + 1
    inner = lax.min(x, 12 + 2 * up)
    log_x, log_up = lax.log(inner), lax.log(up)
    # e^-A A^A / Gamma(A), without its power of A
    scale = lax.sqrt(up * (0.5 / np.pi)) * lax.exp(-_binet(lax.div(_one(up), up)))
    height = up * (log_x - log_up) + up
    s, weights = _Q**2, 2 * _Q * _W
    nodes = [height + a * float(np.log(q)) - inner * float(q) for q in s]
    first = height - log_x - inner
    exps = lax.exp(jnp.stack([*nodes, first]))
    total = _weighted([*weights, 1.0], exps) * scale
    return jnp.where(x > 0, _unit(total), jnp.zeros_like(x))


def igammac(a: Any, x: Any) -> Any:
    """1 - igamma."""
    return 1 - igamma(a, x)


def betainc(a: Any, b: Any, x: Any) -> Any:
    """The regularised incomplete beta function, 0 < a, b <= 20; x cut off to [0, 1].

    With A = a + 1, B = b + 1 and T = x^a (1 - x)^b / B(A, B),
    I(a, b) = I(A, B) + T (b / (a + b) - x) / (a + b + 1); t = x q^2 (3 - 2 q).
    """
    inside = _unit(x)
    both = a + b
    tops = jnp.stack([a + 1, b + 1, both + 2])
    logs, binet = lax.log(tops), _binet(lax.div(_one(tops), tops))
    # 1 / B(A, B) = scale / (p^A (1 - p)^B) with p = A / (A + B)
    scale = lax.exp(
        0.5 * (logs[0] + logs[1] - logs[2]) + binet[2] - binet[0] - binet[1]
    )
    scale = scale * float(np.sqrt(0.5 / np.pi))
    height = tops[0] * (logs[2] - logs[0]) + tops[1] * (logs[2] - logs[1])
    s, weights = _Q**2 * (3 - 2 * _Q), 6 * _Q * (1 - _Q) * _W
    log_x = lax.log(inside)
    rest = lax.log(jnp.stack([1 - inside * float(q) for q in [*s, 1.0]]))
    ahead = jnp.stack([log_x + float(np.log(q)) for q in [*s, 1.0]])
    exps = lax.exp(height + a * ahead + b * rest) * scale
    integral = inside * _weighted(weights, exps[:-1])
    change = (lax.div(b, both) - inside) * lax.div(exps[-1], both + 1)
    total = _unit(integral + change)
    total = jnp.where(x > 0, total, jnp.zeros_like(x))
    return jnp.where(x < 1, total, jnp.ones_like(x))


def zeta(s: Any, q: Any) -> Any:
    """The Hurwitz zeta function for s > 1 and q > 0, by Euler and Maclaurin."""
    last = q + float(_TERMS)
    bases = jnp.stack([*(q + float(k) for k in range(_TERMS)), last])
    powers = lax.pow(bases, jnp.stack([-s] * _TERMS + [1 - s]))
    few = lax.min(s, jnp.full_like(s, 32.0))  # from there on the tail is nothing
    near, whole = lax.div(_one(last), last), lax.div(_one(s), s - 1)
    second = few * near * near * (1 / 12)
    fourth = second * (few + 1) * near * (few + 2) * near * (1 / 60)
    tail = powers[-1] * (whole + 0.5 * near + second - fourth)
    return _weighted([1.0] * _TERMS, powers[:-1]) + tail


def _binet(y: Any) -> Any:
    """Binet's function of 1 / y."""
    out = jnp.full_like(y, _BINET[-1])
    for c in reversed(_BINET[:-1]):
        out = out * y + c
    return out * y


def _one(x: Any) -> Any:
    return jnp.ones_like(x)


def _unit(x: Any) -> Any:
    """x cut off to [0, 1]."""
    return lax.max(lax.min(x, _one(x)), jnp.zeros_like(x))


def _weighted(weights: Any, values: Any) -> Any:
    """The sum over the first axis."""
    column = np.asarray(weights, np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return jnp.sum(values * column, 0)
