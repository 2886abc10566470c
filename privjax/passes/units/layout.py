"""Where the digits of the unit index go when a value is reshaped.

Each axis is a product of factors, most significant first; a factor is a digit of the unit
index or free. Reshaping regroups the factors in order and may split one in two.
"""

import math
from collections.abc import Sequence

from privjax.passes.units.states import Digit

# (size, number of the digit or None): one factor of an axis
Factor = tuple[int, int | None]


def factors(shape: Sequence[int], digits: Sequence[Digit]) -> list[list[Factor]]:
    """The factors of each axis."""
    out: list[list[Factor]] = []
    for axis, size in enumerate(shape):
        here = [(d.inner, k, d) for k, d in enumerate(digits) if d.axis == axis]
        group: list[Factor] = []
        rest = size
        for inner, k, d in sorted(here, key=lambda item: (-item[0], item[1])):
            free = rest // (d.size * inner)
            if free > 1:
                group.append((free, None))
            group.append((d.size, k))
            rest = inner
        if rest > 1 or not group:
            group.append((rest, None))
        out.append(group)
    return out


def digits_of(groups: Sequence[Sequence[Factor]], digits: Sequence[Digit]) -> tuple:
    """The digits, in order of significance, that these factors describe."""
    found: list[tuple[int, Digit]] = [
        (k, d) for k, d in enumerate(digits) if d.axis is None
    ]
    for axis, group in enumerate(groups):
        inner = math.prod(size for size, _ in group)
        for size, k in group:
            inner //= max(size, 1)
            if k is not None:
                found.append((k, Digit(axis, size, inner)))
    found.sort(key=lambda item: item[0])  # stable: parts of one digit stay in order
    merged: list[Digit] = []
    for _, d in found:
        last = merged[-1] if merged else None
        if (
            last is not None
            and d.axis is not None
            and last.axis == d.axis
            and last.inner == d.size * d.inner
        ):
            merged[-1] = Digit(d.axis, last.size * d.size, d.inner)
        else:
            merged.append(d)
    return tuple(merged)


def reshape(
    shape: Sequence[int], new_shape: Sequence[int], digits: Sequence[Digit]
) -> tuple[Digit, ...] | None:
    """The digits after a reshape, or None where it cuts across units."""
    rest: list[Factor] = []
    for size, k in (f for group in factors(shape, digits) for f in group):
        if k is None and rest and rest[-1][1] is None:
            rest[-1] = (rest[-1][0] * size, None)
        elif k is not None or size != 1:
            rest.append((size, k))
    groups: list[list[Factor]] = []
    for dim in new_shape:
        group: list[Factor] = []
        need = dim
        while rest and (need > 1 or rest[0] == (1, rest[0][1])):
            size, k = rest.pop(0)
            if need % size == 0:
                group.append((size, k))
                need //= size
            elif size % need == 0:
                group.append((need, k))
                rest.insert(0, (size // need, k))
                need = 1
            else:
                return None
        groups.append(group or [(1, None)])
    if rest:
        return None
    return digits_of(groups, digits)
