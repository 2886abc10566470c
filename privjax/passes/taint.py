"""Values that depend on a secret, for passes on ordinary arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from privjax.core.interpret import Interpreter, run


@jax.tree_util.register_pytree_node_class
class Tainted:
    """An array that depends on a secret.

    `columns`: the parts that indices were put together from, where that is known.
    `real`: the real numbers whose bits these are, if they are; `part`: which bits.
    """

    columns: Any = None
    real: Any = None
    part: str | None = None

    def __init__(self, array: Any) -> None:
        self.array = array

    def tree_flatten(self) -> Any:
        return (self.array,), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> "Tainted":
        return cls(*children)


def raw(value: Any) -> Any:
    """The array, tainted or not."""
    return value.array if isinstance(value, Tainted) else value


class TaintPass(Interpreter):
    """A pass that rewrites what depends on a secret and leaves the rest alone."""

    # Results of these are public: a revealed value, and a pseudorandom session key.
    shown = frozenset({"reveal", "session"})

    def is_plain(self, value: Any) -> bool:
        return not isinstance(value, Tainted)

    def join(self, a: Any, b: Any) -> Any:
        return a if isinstance(a, Tainted) else b

    def coerce(self, value: Any, like: Any) -> Any:
        return Tainted(value) if isinstance(like, Tainted) else value

    def predicate(self, value: Any) -> Any:
        return raw(value)

    def default(self, values: Sequence[Any]) -> list[Any]:
        out = self.plain([raw(v) for v in values])
        if self.eqn.primitive.name in self.shown:
            return out
        return [Tainted(v) for v in out]

    def apply(self, fun: Callable[..., Any], *values: Any) -> list[Any]:
        """A function of arrays on values of this pass, rewritten in its turn."""
        arrays = [v for v in values if not _is_constant(v)]
        avals = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in map(raw, arrays)]

        def body(*xs: Any) -> list[Any]:
            given = iter(xs)  # constants stay constants, so that equal ones are seen
            out = fun(*(v if _is_constant(v) else next(given) for v in values))
            return list(out) if isinstance(out, (tuple, list)) else [out]

        return run(self, jax.make_jaxpr(body)(*avals), arrays)


def _is_constant(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) and np.ndim(value) == 0
