"""What a protocol asks of its runtime, for elements of any size.

The markers of `core` know arrays only. A `Wide` goes through them as its two planes on a
first axis, in the domain of that form ("sum128" in the place of "sum", "xor128" of
"xor"); words pass as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from privjax._typing import Shape
from privjax.core import markers
from privjax.protocols import wide
from privjax.protocols.elements import is_wide
from privjax.protocols.wide import Wide


def uniform(shape: Shape, dtype: Any, domain: str) -> Any:
    """This party's share of a fresh uniform element; see `markers.uniform`."""
    if is_wide(dtype):
        planes = markers.uniform((2, *shape), np.uint64, _two(domain))
        return wide.unstack(planes)
    return markers.uniform(shape, dtype, domain)


def dealt(xs: Sequence[Any], fun: Any) -> list[Any]:
    """Shares of `fun.clear(*values)`; see `markers.dealt`."""
    inputs = tuple(isinstance(x, Wide) for x in xs)
    results = tuple(isinstance(y, Wide) for y in jax.eval_shape(fun.clear, *xs))
    if not any(inputs + results):
        return markers.dealt(xs, fun)
    out = markers.dealt([_planes(x) for x in xs], OnPlanes(fun, inputs, results))
    return [_element(v, two) for v, two in zip(out, results, strict=True)]


def open_values(
    xs: Sequence[Any], domains: Sequence[str], bits: Sequence[int]
) -> list[Any]:
    """All parties learn the values, in one round; see `markers.open_values`.

    `bits` are those of each element that mean anything: all of them in a `Wide`.
    """
    two = [isinstance(x, Wide) for x in xs]
    if not any(two):
        return markers.open_values(xs, domains, bits)
    opened = markers.open_values(
        [_planes(x) for x in xs],
        _domains(domains, two),
        [width // 2 if t else width for width, t in zip(bits, two, strict=True)],
    )
    return [_element(v, t) for v, t in zip(opened, two, strict=True)]


@dataclass(frozen=True)
class OnPlanes:
    """A function of the dealer's, with elements of two words as planes.

    Attributes: `inputs` and `outputs` say which values of `fun` these are.
    """

    fun: Any
    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]

    @property
    def elementwise(self) -> bool:
        return getattr(self.fun, "elementwise", False)

    @property
    def operands(self) -> tuple[str, ...]:
        return _domains(self.fun.operands, self.inputs)

    @property
    def results(self) -> tuple[str, ...]:
        return _domains(self.fun.results, self.outputs)

    def clear(self, *values: Any) -> list[Any]:
        own = [_element(v, two) for v, two in zip(values, self.inputs, strict=True)]
        return [_planes(v) for v in self.fun.clear(*own)]


def _domains(domains: Sequence[str], two: Sequence[bool]) -> tuple[str, ...]:
    return tuple(_two(d) if t else d for d, t in zip(domains, two, strict=True))


def _two(domain: str) -> str:
    """The domain of two planes; who learns a value is the same for each of them."""
    return f"{domain}128" if domain in ("sum", "xor") else domain


def _planes(x: Any) -> Any:
    return jnp.stack([x.lo, x.hi]) if isinstance(x, Wide) else x


def _element(array: Any, two: bool) -> Any:
    return Wide(array[0], array[1]) if two else array
