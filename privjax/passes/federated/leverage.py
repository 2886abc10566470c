"""Whether sums over clients with known weights tell one client's value.

A sum in which one client's terms have nearly all of the weight is that client's value, and
of several sums with different weights one may be able to solve for it: with weights w_k
(columns of A, a row per client) client j is told if some combination of the w_k lies, but
for a hundredth of its square, in j's row alone. With an orthonormal basis Q of A's columns
that is |Q_j|^2 > 0.99, the leverage of statistics; of a plain sum it is 1 / n.
"""

import numpy as np

# The largest leverage of a client.
_MOST = 0.99
# Of larger arrays only single columns are looked at.
_SOLVED = 1 << 18
_RANK = 1e-7


def told(weights: np.ndarray, rank: float = _RANK) -> bool:
    """Whether sums with these weights, [clients, values of each, sums], tell one's.

    Args:  rank: singular values below this part of the largest are rounding.
    """
    clients, each, sums = weights.shape
    if clients < 2:
        return False
    if each == 1 and alone(weights, 0):
        return True
    if weights.size > _SOLVED:
        return False
    flat = np.nan_to_num(weights.astype(np.complex128)).reshape(clients * each, sums)
    size = np.linalg.norm(flat, axis=0)
    flat = flat[:, size > 0] / size[size > 0]
    if not flat.size:
        return False
    u, s, _ = np.linalg.svd(flat, full_matrices=False)
    basis = u[:, s > rank * s[0]].reshape(clients, each, -1)
    return bool(np.max(np.linalg.norm(basis, 2, axis=(1, 2))) ** 2 > _MOST)


def alone(value: np.ndarray, axis: int) -> bool:
    """Whether, in some entry, one client has nearly all of the weight."""
    if value.shape[axis] < 2:
        return False
    size = np.abs(np.nan_to_num(value)).astype(np.float64)
    square = (size / (size.max(initial=0.0) or 1.0)) ** 2
    total = square.sum(axis)
    return bool(np.any((total > 0) & (square.max(axis) > _MOST * total)))
