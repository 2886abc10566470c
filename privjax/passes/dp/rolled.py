"""Loops that count through a batch become loops over the batch.

`fori_loop(0, k, lambda i, c: c + f(dynamic_slice_in_dim(x, i * b, b)), zeros)` takes the
i-th slice in step i. The unit analysis cannot follow an index; a loop whose inputs are
the slices it can. What indices a loop computes from its counter is found by computing
them, before anything else runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from privjax import _compat
from privjax.core import control
from privjax.core.interpret import Interpreter, environment, mentions, run
from privjax.passes.simplify import retrace

# Steps of a loop whose indices are computed beforehand.
_MOST = 1 << 16


def over_slices(closed: Any) -> Any:
    """`closed`, with slices that loops take one after the other as the loops' inputs."""
    if not mentions(closed, frozenset({"dynamic_slice"})):
        return closed
    return retrace(closed, lambda *xs: run(_Roll(), closed, xs))


def _scan(cx: Interpreter, *values: Any, **params: Any) -> list[Any]:
    n_consts, n_carry = _compat.scan_arity(params, len(values))
    body, _ = _compat.open_jaxpr(params["jaxpr"])
    counters = _counters(body, params, n_consts, n_carry, values)
    cuts = _cuts(body, params["length"], n_consts, counters)
    if not cuts:
        return list(control.RULES["scan"](cx, *values, **params))
    pieces = [
        _pieces(values[body.invars.index(eqn.invars[0])], axis, eqn, params["length"])
        for eqn, axis in cuts
    ]
    places = {id(eqn): k for k, (eqn, _) in enumerate(cuts)}

    def step(carry: Any, xs: Any) -> Any:
        jaxpr, env, read = environment(
            params["jaxpr"], [*values[:n_consts], *carry, *xs[0]]
        )
        for eqn in jaxpr.eqns:
            at = places.get(id(eqn))
            with _compat.source_of(eqn):
                out = (
                    _compat.bind(eqn, [read(v) for v in eqn.invars])
                    if at is None
                    else [xs[1][at]]
                )
            env.update(zip(eqn.outvars, out, strict=True))
        found = [read(v) for v in jaxpr.outvars]
        return found[:n_carry], found[n_carry:]

    carry, ys = lax.scan(
        step,
        list(values[n_consts : n_consts + n_carry]),
        (list(values[n_consts + n_carry :]), pieces),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *ys]


def _iota(cx: Interpreter, **params: Any) -> Any:
    """What a loop counts through, as numbers that are known while tracing."""
    (size, *more) = params["shape"]
    if more or size > _MOST:
        return _compat.bind(cx.eqn, [])[0]
    return np.arange(size).astype(params["dtype"])


class _Roll(Interpreter):
    tagged = False
    rules: Mapping[str, Any] = {**control.RULES, "scan": _scan, "iota": _iota}
    markers = frozenset({"scan", "iota"})


def _counters(
    body: Any, params: Any, n_consts: int, n_carry: int, values: Sequence[Any]
) -> list[tuple[Any, np.ndarray]]:
    """Variables of a loop's body whose values in all steps are known."""
    steps = np.arange(params["length"])
    found = []
    for k, v in enumerate(body.invars[n_consts:]):
        value = values[n_consts + k]
        if not jnp.issubdtype(v.aval.dtype, jnp.integer) or v.aval.shape:
            continue
        if k >= n_carry and isinstance(value, np.ndarray):
            found.append((v, value))
        counts = k < n_carry and _counts(body, v, body.outvars[k], value)
        if counts and not params["reverse"]:
            found.append((v, steps))
    return found


def _cuts(
    body: Any, length: int, n_consts: int, counters: Sequence[tuple[Any, np.ndarray]]
) -> list[tuple[Any, int]]:
    """Slices that step k takes at k times their size, and along which axis."""
    made = {v: eqn for eqn in body.eqns for v in eqn.outvars}
    found = []
    for eqn in body.eqns:
        if eqn.primitive.name != "dynamic_slice" or length > _MOST:
            continue
        array = eqn.invars[0]
        if isinstance(array, _compat.Literal) or array not in body.invars[:n_consts]:
            continue
        shape, sizes = array.aval.shape, eqn.params["slice_sizes"]
        moving = [a for a in range(len(shape)) if sizes[a] < shape[a]]
        if len(moving) != 1 or length * sizes[moving[0]] > shape[moving[0]]:
            continue
        (axis,) = moving
        for counter, steps in counters:
            starts = _computed(eqn.invars[1 + axis], counter, made, steps)
            if starts is None:
                continue
            starts = np.clip(starts, 0, shape[axis] - sizes[axis])
            if np.array_equal(starts, np.arange(length) * sizes[axis]):
                found.append((eqn, axis))
                break
    return found


def _counts(body: Any, before: Any, after: Any, start: Any) -> bool:
    """Whether a carry is the number of the step."""
    if isinstance(start, _compat.Tracer) or np.ndim(start) or np.any(start):
        return False
    made = next((eqn for eqn in body.eqns if after in eqn.outvars), None)
    if made is None or made.primitive.name != "add":
        return False
    one = [v for v in made.invars if v is not before]
    return (
        len(one) == 1
        and isinstance(one[0], _compat.Literal)
        and np.array_equal(one[0].val, 1)
    )


def _computed(
    atom: Any, counter: Any, made: Mapping[Any, Any], steps: np.ndarray
) -> np.ndarray | None:
    """An index in every step, where it follows from the counter alone."""
    needed: list[Any] = []

    def visit(v: Any) -> bool:
        if isinstance(v, _compat.Literal) or v is counter:
            return True
        eqn = made.get(v)
        if eqn is None or eqn.effects or len(eqn.outvars) > 1:
            return False
        if eqn not in needed:
            if not all(map(visit, eqn.invars)):
                return False
            needed.append(eqn)
        return True

    if not visit(atom):
        return None

    def one(i: Any) -> Any:
        env = {counter: i}
        read = lambda v: (  # noqa: E731
            jnp.asarray(v.val, getattr(v.aval, "dtype", None))
            if isinstance(v, _compat.Literal)
            else env[v]
        )
        for eqn in needed:
            (env[eqn.outvars[0]],) = _compat.bind(eqn, [read(v) for v in eqn.invars])
        return read(atom)

    with jax.ensure_compile_time_eval():
        found = jax.vmap(one)(jnp.asarray(steps, counter.aval.dtype))
        return np.asarray(found)


def _pieces(x: Any, axis: int, eqn: Any, length: int) -> Any:
    """[length, ...]: the slices of an array one after the other."""
    size = eqn.params["slice_sizes"][axis]
    with _compat.source_of(eqn):
        x = lax.slice_in_dim(jnp.asarray(x), 0, length * size, axis=axis)
        cut = (*x.shape[:axis], length, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(cut), axis, 0)
