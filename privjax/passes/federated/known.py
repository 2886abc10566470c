"""What a program computes from its own constants, also step by step in its loops.

The numbers of the clients (`jnp.arange(n)`, a counter in a carry), masks and weights that
are written into a program are found here, so that `places` and `loops` can ask what they
do to clients' values. In the body of a `scan` a value has its steps on a first axis.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from privjax import _compat
from privjax.core.interpret import sub_jaxprs
from privjax.core.labels import Labels

# Larger constants are not looked at.
LARGEST = 1 << 20
# Equations that are computed step by step to see what a loop counts.
_CHAIN = 1 << 12
# What is no constant although it has no inputs: draws, and places in a mesh.
_NOT = ("random", "threefry", "axis_index", "rng")


class Value(NamedTuple):
    """A known array; [steps, ...] where it is another one in each step of `loop`."""

    array: np.ndarray
    loop: int | None = None

    @property
    def stepped(self) -> bool:
        return self.loop is not None


Values = dict[Any, Value]


class Level(NamedTuple):
    """One jaxpr of a program.

    Attributes: its `labels`; what is `known` of its variables; `loop`, the scan that it is
    the body of, or None.
    """

    jaxpr: Any
    labels: Labels
    known: Values
    loop: Any


def levels(
    closed: Any,
    labels: Labels,
    given: Mapping[Any, Value] | None = None,
    loop: Any = None,
) -> Iterator[Level]:
    """A program's jaxprs, outermost first.

    Args:  given: what its inputs are known to be; `loop`: as in `Level`.
    """
    jaxpr, consts = _compat.open_jaxpr(closed)
    found = constants(jaxpr, consts) | dict(given or {})
    inside: list[tuple[Any, Labels, Values, Any]] = []
    for i, eqn in enumerate(jaxpr.eqns):
        values = [value(v, found) for v in eqn.invars]
        found.update(computed(eqn, values))
        if (bodies := labels.below.get(i)) is None:
            continue
        around = eqn if eqn.primitive.name == "scan" else None
        for body, inner in zip(_bodies(eqn), bodies, strict=False):
            there = into(eqn, _compat.open_jaxpr(body)[0], values)
            inside.append((body, inner, there, around))
    yield Level(jaxpr, labels, found, loop)
    for level in inside:
        yield from levels(*level)


def _bodies(eqn: Any) -> Sequence[Any]:
    if eqn.primitive.name == "while":
        return [eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]]
    return list(sub_jaxprs(eqn))


def constants(jaxpr: Any, consts: Sequence[Any]) -> Values:
    """The closure constants of a jaxpr that are small arrays of numbers."""
    found = {v: _array(x) for v, x in zip(jaxpr.constvars, consts, strict=True)}
    return {v: Value(x) for v, x in found.items() if x is not None}


def value(atom: Any, known: Mapping[Any, Value]) -> Value | None:
    """What an operand is known to be."""
    if isinstance(atom, _compat.Literal):
        array = _array(atom.val)
        return None if array is None else Value(array)
    return known.get(atom)


def computed(eqn: Any, values: Sequence[Value | None]) -> Values:
    """The results of an equation all of whose operands are known, where small."""
    there = [v for v in values if v is not None]
    if len(there) < len(eqn.invars):
        return {}
    name, loops = eqn.primitive.name, {v.loop for v in there if v.stepped}
    if len(loops) > 1:
        return {}
    steps = max((len(v.array) for v in there if v.stepped), default=1)
    sizes = [int(np.prod(v.aval.shape, dtype=np.int64)) for v in eqn.outvars]
    if eqn.effects or any(n in name for n in _NOT):
        return {}
    if steps * max(sizes, default=0) > LARGEST:
        return {}
    if any(getattr(v.aval.dtype, "kind", "V") not in "biufc" for v in eqn.outvars):
        return {}

    def run(*xs: Any) -> Any:
        return _compat.bind(eqn, xs)

    if loops:
        run = jax.vmap(run, [0 if v.stepped else None for v in there])
    with jax.ensure_compile_time_eval():
        out = run(*[v.array for v in there])
    pairs = zip(eqn.outvars, out, strict=True)
    loop = next(iter(loops), None)
    return {v: Value(np.asarray(x), loop) for v, x in pairs}


def into(eqn: Any, body: Any, values: Sequence[Value | None]) -> Values:
    """What the inputs of an equation's body are known to be."""
    match eqn.primitive.name:
        case "scan":
            return _into_scan(eqn, body, values)
        case "cond":
            given = values[1:]
        case "while":
            return {}
        case _:
            given = values
    pairs = zip(body.invars, given, strict=False)
    return {v: x for v, x in pairs if x is not None}


def _into_scan(eqn: Any, body: Any, values: Sequence[Value | None]) -> Values:
    n_consts, n_carry = _compat.scan_arity(eqn.params, len(values))
    steps, found = eqn.params["length"], {}
    for var, x in zip(body.invars[:n_consts], values[:n_consts], strict=True):
        if x is not None:
            found[var] = x
    carries = slice(n_consts, n_consts + n_carry)
    for k, (var, x) in enumerate(
        zip(body.invars[carries], values[carries], strict=True)
    ):
        if x is not None and not x.stepped and steps * x.array.size <= LARGEST:
            counted = _counted(body, var, body.outvars[k], x.array, steps, found)
            if counted is not None:
                found[var] = Value(counted, id(eqn))
    rest = slice(n_consts + n_carry, None)
    for var, x in zip(body.invars[rest], values[rest], strict=True):
        if x is not None and not x.stepped:
            turned = x.array[::-1] if eqn.params["reverse"] else x.array
            found[var] = Value(turned, id(eqn))
    return found


def _counted(
    body: Any, var: Any, out: Any, start: np.ndarray, steps: int, known: Values
) -> np.ndarray | None:
    """The values of a carry that is made of itself and of what is known: it counts, say."""
    if out is var:
        return np.broadcast_to(start, (steps, *start.shape))
    made = {v: eqn for eqn in body.eqns for v in eqn.outvars}
    chain: list[Any] = []
    left = [out]
    while left:
        v = left.pop()
        if isinstance(v, _compat.Literal) or v is var or v in known:
            continue
        if v not in made or made[v].effects or len(chain) > _CHAIN:
            return None
        if any(n in made[v].primitive.name for n in _NOT):
            return None
        if made[v] not in chain:
            chain.append(made[v])
            left += made[v].invars
    if len(chain) == 1 and chain[0].primitive.name == "add" and var in chain[0].invars:
        ins = chain[0].invars
        by = value(ins[1] if ins[0] is var else ins[0], known)
        if by is not None and not by.stepped:
            count = np.arange(steps).reshape((steps,) + (1,) * start.ndim)
            return (start + count * by.array).astype(start.dtype)
    if steps * len(chain) > _CHAIN:
        return None
    order = [eqn for eqn in body.eqns if eqn in chain]
    rows = [start]
    with jax.ensure_compile_time_eval():
        for k in range(steps - 1):
            env = {var: rows[-1]}
            for eqn in order:
                ins = [env.get(v, _at(value(v, known), k)) for v in eqn.invars]
                env.update(zip(eqn.outvars, _compat.bind(eqn, ins), strict=True))
            rows.append(np.asarray(env[out]))
    return np.stack(rows)


def _at(x: Value | None, step: int) -> Any:
    return None if x is None else x.array[step] if x.stepped else x.array


def _array(x: Any) -> np.ndarray | None:
    """A small constant of numbers, else None."""
    if isinstance(x, bool | int | float | complex):
        return np.asarray(x)
    if isinstance(x, _compat.Tracer) or not hasattr(x, "dtype"):
        return None
    plain = getattr(x.dtype, "kind", "V") in "biufc" and x.size <= LARGEST
    return np.asarray(x) if plain else None
